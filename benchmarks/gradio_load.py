"""Eight scripts that send a patient each to the Gradio server at the same moment.

    .venv/bin/python benchmarks/gradio_load.py [--clients 8] [--models unet ...]

Starts ``brainseg gradio``. Each client sends other slices of the synthetic sample under a name of its own,
and checks that the answer is its own: case, slice numbers, the reference mask's voxels counted here, and
masks that hold as many voxels as their figures say. Printed are the seconds each waited, the place it was
told at first, and the most memory the server held.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from gradio_client import Client, handle_file

from brainseg.models import ARCHITECTURES
from brainseg.sample import SYNTHETIC_GLIOMA

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = "SYNTHETIC_0001"
SLICES = 28
_BEFORE = re.compile(r"waiting for (another run|(\d+) other runs)")


@contextmanager
def server() -> Iterator[tuple[str, int]]:
    """The program on a free port of this machine: its address and process number."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "brainseg", "gradio", "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(900):
            try:
                with urllib.request.urlopen(f"{address}/gradio_api/info", timeout=1):
                    break
            except OSError:
                time.sleep(0.2)
        yield address, process.pid
    finally:
        process.terminate()
        process.wait(30)


def peak_bytes(pid: int) -> int | None:
    """The most memory a process has held; None where the system does not say."""
    status = Path(f"/proc/{pid}/status")
    if not status.is_file():
        return None
    match = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
    return None if match is None else int(match[1]) * 1024


def patient(folder: Path, case: str, numbers: Sequence[int]) -> tuple[Path, int]:
    """A zip of those slices of the sample, and the voxels of its reference mask."""
    voxels = 0
    path = folder / f"{case}.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for n in numbers:
            for ending in (".tif", "_mask.tif"):
                file = SYNTHETIC_GLIOMA / f"{SAMPLE}_{n}{ending}"
                archive.write(file, f"{case}/{case}_{n}{ending}")
            voxels += int(np.count_nonzero(tifffile.imread(file)))
    return path, voxels


def ask(
    address: str, folder: Path, index: int, models: Sequence[str], start: threading.Barrier
) -> dict[str, Any]:
    """Send one patient, check the answer, and say how long it took."""
    case, numbers = f"LOAD_{index:04d}", range(1 + index, SLICES + 1)
    sent, reference = patient(folder, case, numbers)
    client = Client(address, verbose=False, download_files=str(folder / case))
    start.wait()
    began = time.monotonic()
    job = client.submit(handle_file(sent), list(models), api_name="/predict")
    place, first_slice = None, None
    while not job.done():
        told = job.status().progress_data
        text = (told[0].desc or "") if told else ""
        match = _BEFORE.search(text)
        if match and place is None:
            place = int(match[2] or 1)
        if "slice" in text and first_slice is None:
            first_slice = time.monotonic() - began
        time.sleep(0.05)
    masks, figures, _, _ = job.result()
    assert figures["case_id"] == case
    assert figures["slice_numbers"] == list(numbers)
    assert figures["reference_voxels"] == reference
    assert list(figures["models"]) == list(models)
    marked = dict.fromkeys(models, 0)
    with zipfile.ZipFile(masks) as archive:
        for name in archive.namelist():
            if name.endswith(".tif"):
                assert case in name
                model = name.split("/")[0] if len(models) > 1 else models[0]
                marked[model] += int(np.count_nonzero(tifffile.imread(io.BytesIO(archive.read(name)))))
    assert marked == {name: figures["models"][name]["tumour_voxels"] for name in models}
    return {
        "seconds": round(time.monotonic() - began, 1),
        "until_at_work_s": None if first_slice is None else round(first_slice, 1),
        "told_before": place,
    }


def measure(clients: int, models: Sequence[str]) -> dict[str, Any]:
    """What each client saw, and the memory of the server before and after."""
    start = threading.Barrier(clients)
    seen: list[dict[str, Any] | str] = ["failed"] * clients
    with tempfile.TemporaryDirectory() as name, server() as (address, pid):
        idle = peak_bytes(pid)

        def one(index: int) -> None:
            seen[index] = ask(address, Path(name), index, models, start)

        threads = [threading.Thread(target=one, args=(index,)) for index in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        peak = peak_bytes(pid)
    return {
        "cores": os.cpu_count(),
        "models": list(models),
        "clients": seen,
        "right": sum(isinstance(one, dict) for one in seen),
        "idle_gb": None if idle is None else round(idle / 2**30, 2),
        "peak_gb": None if peak is None else round(peak / 2**30, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--models", nargs="+", default=list(ARCHITECTURES), choices=list(ARCHITECTURES))
    options = parser.parse_args()
    print(json.dumps(measure(options.clients, options.models), indent=2))  # noqa: T201 - a script


if __name__ == "__main__":
    main()
