"""The server around the page: uploads in memory, closed tabs freed, headers, no question abroad."""

from __future__ import annotations

import http.client
import importlib.util
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from streamlit import config

from brainseg.ui.streamlit import lifetime

ROOT = Path(__file__).resolve().parent.parent
_spec = importlib.util.spec_from_file_location("app_load", ROOT / "benchmarks" / "app_load.py")
assert _spec is not None
assert _spec.loader is not None
_app_load = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_app_load)
Tab: Any = _app_load.Tab

# Starts the app as a container does, notes every address Python connects to or asks a name server for, and
# frees closed tabs after a second.
_START = """
import sys
from brainseg.ui.streamlit import lifetime
lifetime.GRACE_S = 1.0
log = open(sys.argv[1], "a", buffering=1)
def note(event, args):
    if event == "socket.connect" or event.startswith("socket.gethost"):
        log.write(f"{args[1:]}\\n")
    elif event == "socket.getaddrinfo":
        log.write(f"{args[:1]}\\n")
sys.addaudithook(note)
from streamlit.web.cli import main
main(["run", "app.py", "--server.address", "0.0.0.0", "--server.port", sys.argv[2]])
"""


@dataclass(frozen=True)
class Running:
    address: str
    port: int
    pid: int
    connected: Path


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    connected = tmp_path_factory.mktemp("server") / "connected.txt"
    process = subprocess.Popen(
        [sys.executable, "-c", _START, str(connected), str(port)], cwd=ROOT, stdout=subprocess.DEVNULL
    )
    try:
        until(lambda: process.poll() is not None or answers(port), 120)
        assert process.poll() is None
        yield Running(f"http://localhost:{port}", port, process.pid, connected)
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture
def tab(running: Running) -> Iterator[Any]:
    tab = Tab(running.address)
    yield tab
    tab.close()


def until(condition: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.1)


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://localhost:{port}/_stcore/health", timeout=1):
            return True
    except OSError:
        return False


def upload(running: Running, session_id: str, data: bytes) -> int:
    """What the file uploader's own request does; the status of the answer."""
    head = (
        b"--edge\r\n"
        b'Content-Disposition: form-data; name="file"; filename="a.zip"\r\n'
        b"Content-Type: application/zip\r\n\r\n"
    )
    with closing(http.client.HTTPConnection("localhost", running.port, timeout=60)) as connection:
        connection.request("GET", "/_stcore/health")
        answer = connection.getresponse()
        answer.read()
        cookie = (answer.getheader("Set-Cookie") or "").split(";")[0]
        connection.request(
            "PUT",
            f"/_stcore/upload_file/{session_id}/one",
            head + data + b"\r\n--edge--\r\n",
            {
                "Content-Type": "multipart/form-data; boundary=edge",
                "Cookie": cookie,
                "X-Xsrftoken": cookie.partition("=")[2],
            },
        )
        return connection.getresponse().status


def held(running: Running) -> int:
    """Bytes of uploads the server says it holds."""
    with urllib.request.urlopen(f"{running.address}/_stcore/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    counts = [line.rsplit(" ", 1)[1] for line in lines if "UploadedFileManager" in line]
    return sum(int(float(count)) for count in counts)


def files(pid: int) -> set[str]:
    """Files of the disk a process holds open for writing, deleted ones included."""
    paths = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            path = os.readlink(entry)
            flags = (entry.parent.parent / "fdinfo" / entry.name).read_text()
        except OSError:
            continue
        writes = int(flags.split("flags:")[1].split()[0], 8) & (os.O_WRONLY | os.O_RDWR)
        if writes and path.startswith("/") and not path.startswith(("/dev/", "/memfd:")):
            paths.add(path)
    return paths


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs Linux's /proc")
def test_an_upload_of_30_mb_touches_no_file_and_is_freed_with_its_tab(running: Running) -> None:
    tab = Tab(running.address)
    before, seen, over = files(running.pid), set[str](), threading.Event()

    def look() -> None:
        while not over.is_set():
            seen.update(files(running.pid))

    looking = threading.Thread(target=look)
    looking.start()
    assert upload(running, tab.session_id, os.urandom(30 * 2**20)) == 204
    over.set()
    looking.join()
    assert seen - before == set()
    assert held(running) == 30 * 2**20
    tab.close()
    until(lambda: held(running) == 0, 20)


def test_a_patient_taken_over_is_held_once(running: Running, tab: Any) -> None:
    tab.click("Open the synthetic sample")
    assert tab.has("Run 4 models")
    assert held(running) == 0


def test_nothing_abroad_is_asked_or_reached(running: Running, tab: Any) -> None:
    tab.click("Open the synthetic sample")
    lines = running.connected.read_text().splitlines() if running.connected.exists() else []
    assert [
        line for line in lines if not any(own in line for own in ("127.0.0.1", "0.0.0.0", "localhost"))
    ] == []


@pytest.mark.parametrize("path", ["/", "/_stcore/health", "/nothing"])
def test_every_answer_forbids_frames_and_scripts_of_other_hosts(running: Running, path: str) -> None:
    with urllib.request.urlopen(running.address + path, timeout=10) as answer:
        sent = answer.headers
    assert sent["X-Frame-Options"] == "DENY"
    assert sent["X-Content-Type-Options"] == "nosniff"
    policy = dict(part.split(" ", 1) for part in sent["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert not any("http" in sources or "*" in sources for sources in policy.values())


def test_a_closed_tab_is_freed_before_streamlit_forgets_it() -> None:
    # After that time the runtime closes nothing any more, and the tab's state would stay.
    assert config.get_option("server.disconnectedSessionTTL") > lifetime.GRACE_S + 5
