"""How long a click takes while others have networks running.

    .venv/bin/python benchmarks/app_load.py [--running 4] [--clicks 100]

Starts the app; as many tabs as `--running` open the synthetic sample and run all four models, and again when
they are done. One more tab, whose results are there, switches "Largest region only" to and fro, and the
seconds from the click to the end of the page's answer are taken. The tabs are websocket sessions that ask as
often as a browser would; no browser draws, so that the server alone is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.proto.WidgetStates_pb2 import WidgetState
from websockets.sync.client import connect

ROOT = Path(__file__).resolve().parent.parent
_RUNNING = "Stop"
_WHOLE_PAGE = ForwardMsg.FINISHED_SUCCESSFULLY


class Tab:
    """One browser tab as the server sees it: buttons and toggles by label, and fragments' timed questions."""

    def __init__(self, address: str) -> None:
        stream = f"ws{address.removeprefix('http')}/_stcore/stream"
        self._closing = ExitStack()
        self._socket = self._closing.enter_context(
            connect(stream, subprotocols=["streamlit"], max_size=None)  # type: ignore[list-item]
        )
        self.session_id = ""
        self._ids: dict[str, list[str]] = {}
        self._toggles: dict[str, bool] = {}
        self._asks: dict[str, tuple[float, float]] = {}
        self._answered = threading.Condition()
        self._runs = 0
        self._sending = threading.Lock()
        self._open = True
        threading.Thread(target=self._receive, daemon=True).start()
        threading.Thread(target=self._ask, daemon=True).start()
        self._send_and_wait({})

    def has(self, label: str) -> bool:
        """Whether a button or toggle of that label was drawn by the last answer."""
        with self._answered:
            return label in self._ids

    def click(self, label: str) -> float:
        """Click a button; the seconds until the page has answered."""
        return self._send_and_wait({self._ids[label][0]: True})

    def toggle(self, label: str) -> float:
        """Switch the first toggle of that label; the seconds until the page has answered."""
        name = self._ids[label][0]
        self._toggles[name] = not self._toggles[name]
        return self._send_and_wait({})

    def wait_for(self, label: str, seconds: float = 300) -> None:
        """Until a button of that label is drawn."""
        end = time.monotonic() + seconds
        while not self.has(label):
            if time.monotonic() > end:
                raise TimeoutError(label)
            time.sleep(0.1)

    def close(self) -> None:
        self._open = False
        self._closing.close()

    def _message(self, clicked: dict[str, bool], fragment: str = "") -> BackMsg:
        message = BackMsg()
        run = message.rerun_script
        run.fragment_id = fragment
        run.is_auto_rerun = bool(fragment)
        for name, value in self._toggles.items():
            run.widget_states.widgets.append(WidgetState(id=name, bool_value=value))
        for name in clicked:
            run.widget_states.widgets.append(WidgetState(id=name, trigger_value=True))
        return message

    def _send_and_wait(self, clicked: dict[str, bool]) -> float:
        started = time.monotonic()
        with self._answered:
            before = self._runs
            self._send(self._message(clicked))
            if not self._answered.wait_for(lambda: self._runs > before, 60):
                raise TimeoutError("the page did not answer")
        return time.monotonic() - started

    def _send(self, message: BackMsg) -> None:
        with self._sending:
            self._socket.send(message.SerializeToString())

    def _receive(self) -> None:
        fresh: dict[str, list[str]] = {}
        asks: dict[str, tuple[float, float]] = {}
        try:
            for data in self._socket:
                message = ForwardMsg()
                message.ParseFromString(data if isinstance(data, bytes) else data.encode())
                kind = message.WhichOneof("type")
                if kind == "new_session":
                    self.session_id = message.new_session.initialize.session_id
                    fresh, asks = {}, {}
                elif kind == "auto_rerun":
                    every = message.auto_rerun.interval
                    asks[message.auto_rerun.fragment_id] = (every, time.monotonic() + every)
                elif kind == "delta" and message.delta.WhichOneof("type") == "new_element":
                    element = message.delta.new_element
                    drawn = element.WhichOneof("type")
                    if drawn in ("button", "checkbox"):
                        widget = getattr(element, drawn)
                        fresh.setdefault(widget.label, []).append(widget.id)
                        if drawn == "checkbox":
                            self._toggles.setdefault(widget.id, widget.default)
                elif (
                    kind == "script_finished" and message.script_finished == ForwardMsg.FINISHED_SUCCESSFULLY
                ):
                    with self._answered:
                        self._ids, self._asks = fresh, asks
                        self._runs += 1
                        self._answered.notify_all()
        except Exception:
            if self._open:
                raise

    def _ask(self) -> None:
        while self._open:
            time.sleep(0.02)
            now = time.monotonic()
            for fragment, (interval, due) in list(self._asks.items()):
                if now >= due:
                    self._asks[fragment] = (interval, now + interval)
                    self._send(self._message({}, fragment))


@contextmanager
def server() -> Iterator[tuple[str, int]]:
    """The app on a free port of this machine: its address and process number."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", "app.py", "--server.port", str(port)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    address = f"http://localhost:{port}"
    try:
        for _ in range(600):
            try:
                with urllib.request.urlopen(f"{address}/_stcore/health", timeout=1):
                    break
            except OSError:
                time.sleep(0.2)
        yield address, process.pid
    finally:
        process.terminate()
        process.wait(20)


def keep_running(tab: Tab, over: threading.Event) -> None:
    """Run what there is to run, and open the sample anew when nothing is left."""
    while not over.is_set():
        for label in ("Run 4 models", "Run 3 models", "Run 2 models", "Run 1 model"):
            if tab.has(label):
                tab.click(label)
        if tab.has("All results are shown"):
            tab.click("Remove")
            tab.click("Open the synthetic sample")
        time.sleep(0.3)


def measure(running: int, clicks: int) -> dict[str, Any]:
    """Seconds of each click of the one who runs nothing."""
    with server() as (address, _):
        reader = Tab(address)
        reader.click("Open the synthetic sample")
        reader.click("Run 4 models")
        reader.wait_for("All results are shown")
        alone = [reader.toggle("Largest region only") for _ in range(20)]
        over = threading.Event()
        others = [Tab(address) for _ in range(running)]
        users = [threading.Thread(target=keep_running, args=(tab, over)) for tab in others]
        for tab, user in zip(others, users, strict=True):
            tab.click("Open the synthetic sample")
            user.start()
        time.sleep(3)
        seconds, at_work = [], []
        for _ in range(clicks):
            at_work.append(sum(tab.has(_RUNNING) for tab in others))
            seconds.append(reader.toggle("Largest region only"))
            time.sleep(0.3)
        over.set()
        for user in users:
            user.join()
        for tab in (reader, *others):
            tab.close()
    return {
        "cores": os.cpu_count(),
        "running": running,
        "clicks": clicks,
        "runs_going_mean": round(float(np.mean(at_work)), 2),
        "alone_median_s": round(float(np.median(alone)), 3),
        "median_s": round(float(np.median(seconds)), 3),
        "p95_s": round(float(np.percentile(seconds, 95)), 3),
        "longest_s": round(max(seconds), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--running", type=int, default=4)
    parser.add_argument("--clicks", type=int, default=100)
    options = parser.parse_args()
    print(json.dumps(measure(options.running, options.clicks), indent=2))  # noqa: T201 - a script


if __name__ == "__main__":
    main()
