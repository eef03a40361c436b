"""The page in Gradio, running in a process of its own that notes what it writes and whom it asks."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from brainseg.sample import SYNTHETIC_GLIOMA

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = "SYNTHETIC_0001"

# Notes every file opened for writing and every address asked for; frees closed tabs after a second.
_START = """
import json, os, sys
from brainseg.ui.gradio import lifetime
lifetime.GRACE_S = 1.0
log = open(sys.argv[1], "a", buffering=1)
def note(event, args):
    if event == "open" and isinstance(args[0], (str, bytes)):
        mode, flags = args[1] or "", args[2] or 0
        if set(mode) & set("wax+") or flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            log.write(json.dumps(["write", os.fsdecode(args[0])]) + "\\n")
    elif event == "socket.connect":
        log.write(json.dumps(["ask", str(args[1])]) + "\\n")
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        log.write(json.dumps(["ask", str(args[0])]) + "\\n")
from brainseg.ui.gradio.app import launch
sys.addaudithook(note)
launch(sys.argv[3], int(sys.argv[2]))
"""


@dataclass(frozen=True)
class Running:
    """A server.

    Attributes:
        address: where it answers, without a slash at the end.
        pid: its process.
        log: what it prints.
        notes: what it did; see `noted`.
    """

    address: str
    pid: int
    log: Path
    notes: Path

    def noted(self, what: str) -> list[str]:
        """Paths it opened to ``write``, or addresses it did ``ask``."""
        lines = [json.loads(line) for line in self.notes.read_text(encoding="utf-8").splitlines()]
        return [name for kind, name in lines if kind == what]


@contextmanager
def serving(folder: Path, host: str = "127.0.0.1", **environment: str) -> Iterator[Running]:
    """A server that runs inside; `folder` holds its log."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = Running(f"http://127.0.0.1:{port}", 0, folder / "log.txt", folder / "notes.txt")
    running.notes.touch()
    command = [sys.executable, "-c", _START, str(running.notes), str(port), host]
    with running.log.open("wb") as out:
        process = subprocess.Popen(
            command, cwd=ROOT, env=os.environ | environment, stdout=out, stderr=subprocess.STDOUT
        )
    try:
        _wait_for(f"{running.address}/gradio_api/info", process, running.log)
        yield Running(running.address, process.pid, running.log, running.notes)
    finally:
        process.terminate()
        process.wait(30)


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        assert process.poll() is None, log.read_text(encoding="utf-8")
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except OSError:
            time.sleep(0.2)
    raise AssertionError("the server did not start")


def patient(case: str, numbers: Sequence[int], masks: bool = True) -> dict[str, bytes]:
    """Some slices of the sample under another name, by file name."""
    endings = (".tif", "_mask.tif") if masks else (".tif",)
    return {
        f"{case}_{n}{ending}": (SYNTHETIC_GLIOMA / f"{SAMPLE}_{n}{ending}").read_bytes()
        for n in numbers
        for ending in endings
    }


def zipped(case: str, files: dict[str, bytes]) -> bytes:
    """Files in a folder of a zip."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, data in files.items():
            archive.writestr(f"{case}/{name}", data)
    return packed.getvalue()
