"""Engines: one outcome for each patient, whoever is killed, and twenty patients through kills on both."""

from __future__ import annotations

import copy
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib import util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from cohort_work import TROUBLE, Trouble, write_patients

from brainseg.checkpoint import load
from brainseg.cohort import on_ray
from brainseg.cohort.engines import EngineName, engine
from brainseg.cohort.outcome import KILLED, Outcome, in_loop
from brainseg.cohort.patient import Examination
from brainseg.cohort.processes import processes
from brainseg.cohort.run import predict_cohort
from brainseg.types import BrainsegError

ROOT = Path(__file__).resolve().parent.parent
UNEXPECTED = "something went wrong that brainseg did not expect (ValueError)"
PATIENCE_S = 240.0


def outcomes(found: Iterator[Outcome[str]]) -> dict[str, str]:
    """What came of each patient: its result or why it failed."""
    rows = [(one.patient, one.failure or str(one.result)) for one in found]
    assert len(dict(rows)) == len(rows), "one outcome each"
    return dict(rows)


def eventually(true: Callable[[], object], what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def patients_of(names: list[str]) -> dict[str, Path]:
    return {name: Path(name) for name in names}


# --- processes ---


def test_every_patient_has_one_outcome_whoever_is_killed(tmp_path: Path) -> None:
    found = outcomes(processes(2)(Trouble(tmp_path), patients_of(TROUBLE)))
    well = {name: name for name in TROUBLE}
    assert found == well | {"bad": "it is bad", "dies always": KILLED, "unforeseen": UNEXPECTED}
    begun = {path.name: path.read_text().split() for path in tmp_path.iterdir()}
    assert {name: len(lines) for name, lines in begun.items()} == {
        name: 2 if name.startswith("dies") else 1 for name in TROUBLE
    }
    workers = {int(line) for lines in begun.values() for line in lines}
    assert os.getpid() not in workers
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()], "none is left"


def test_a_loop_gives_the_same_outcomes_in_order(tmp_path: Path) -> None:
    names = [name for name in TROUBLE if not name.startswith("dies")]
    found = outcomes(in_loop(Trouble(tmp_path), patients_of(names)))
    assert list(found.items()) == [
        (name, {"bad": "it is bad", "unforeseen": UNEXPECTED}.get(name, name)) for name in names
    ]


@pytest.mark.parametrize(
    ("start_with", "sentence"), [("refusal", "no such device"), ("death", "exit code -9")]
)
def test_workers_that_cannot_start_end_the_run(tmp_path: Path, start_with: str, sentence: str) -> None:
    with pytest.raises(BrainsegError, match=sentence):
        outcomes(processes(1)(Trouble(tmp_path, start_with), patients_of(["a", "b"])))


def test_no_process_is_started_for_nobody(tmp_path: Path) -> None:
    assert outcomes(processes(2)(Trouble(tmp_path, "death"), {})) == {}


def test_weights_arrive_as_they_left(folders: dict[str, Path]) -> None:
    for folder in folders.values():
        model = load(folder)
        sent = copy.copy(model)
        assert sent.card == model.card
        assert sent.network is not model.network
        assert not sent.network.training
        own, other = model.network.state_dict(), sent.network.state_dict()
        assert own.keys() == other.keys()
        assert all(torch.equal(own[key], other[key]) for key in own)


# --- Ray ---


def test_without_ray_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_ray, "find_spec", lambda name: None if name == "ray" else util.find_spec(name))
    with pytest.raises(BrainsegError, match=r"pip install 'brainseg-lgg\[ray\]'"):
        engine(EngineName.RAY, 2)
    assert engine(EngineName.LOCAL, 2)


def test_a_cluster_that_does_not_answer_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
        monkeypatch.setattr(on_ray, "import_module", lambda name: SimpleNamespace(is_initialized=bool))
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(BrainsegError, match=f"no Ray cluster answers at RAY_ADDRESS={address}"):
            outcomes(engine(EngineName.RAY, 2)(Trouble(tmp_path), patients_of(["a"])))


# --- twenty patients, killed on the way ---


@pytest.fixture(scope="module")
def twenty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("twenty")
    write_patients(root, 20)
    return root


@pytest.fixture(scope="module")
def straight(twenty: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Records of the plainest engine, which nobody killed."""
    out = tmp_path_factory.mktemp("straight")
    predict_cohort(twenty, out, Examination([load("unet")], device="cpu"), in_loop)
    return timeless_records(out)


def timeless_records(out: Path) -> dict[str, Any]:
    """Lines by patient without what no two runs share; none twice, none half."""
    content = (out / "records.jsonl").read_bytes()
    assert content.endswith(b"\n")
    rows = [json.loads(line) for line in content.splitlines()]
    found = {row["patient"]: timeless(row) for row in rows}
    assert len(found) == len(rows)
    return found


def timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: timeless(one) for key, one in value.items() if key not in ("seconds", "time_utc")}
    return value


def lines(out: Path) -> int:
    path = out / "records.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


class Started:
    """The command in a process of its own, with a home and a folder for temporary files of its own."""

    def __init__(self, twenty: Path, out: Path, home: Path, *more: str) -> None:
        command = [sys.executable, "-m", "brainseg", "predict", str(twenty), "--cohort", "--out", str(out)]
        environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "TMPDIR": str(home),
            "HOME": str(home),
            "OMP_NUM_THREADS": "1",
        }
        environment.pop("RAY_ADDRESS", None)
        self.process = subprocess.Popen(
            [*command, "--model", "unet", "--device", "cpu", "--workers", "2", *more],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def until(self, out: Path, count: int) -> None:
        """Wait until so many patients are done."""
        eventually(lambda: lines(out) >= count or self.process.poll() is not None, f"{count} patients")
        assert self.process.poll() is None, self.process.communicate()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()
        assert self.process.returncode == -signal.SIGKILL

    def end(self) -> tuple[str, str]:
        """Both outputs, when it has ended well."""
        out, err = self.process.communicate(timeout=PATIENCE_S)
        assert self.process.returncode == 0, err
        return out, err


@pytest.fixture
def home() -> Iterator[Path]:
    # Short: names of sockets hold 107 characters.
    with tempfile.TemporaryDirectory(prefix="bs-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def family(pid: int) -> dict[int, str]:
    """Processes below that one, with their command lines."""
    found: dict[int, str] = {}
    above = [pid]
    while above:
        try:
            children = [
                int(child)
                for task in Path(f"/proc/{above.pop()}/task").iterdir()
                for child in (task / "children").read_text().split()
            ]
            found |= {
                child: Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
                for child in children
            }
        except FileNotFoundError:  # one that ended meanwhile
            continue
        above += children
    return found


def gone(pids: dict[int, str]) -> bool:
    """Whether none of them runs; a zombie whose parent has not asked for it does not."""
    for pid in pids:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z":
                return False
        except (FileNotFoundError, ProcessLookupError):
            continue
    return True


def check_whole(out: Path, straight: dict[str, Any]) -> None:
    """All patients are there, as the plainest engine found them, and nothing else."""
    found = timeless_records(out)
    assert len(found) == 20
    assert found == straight
    for record in found.values():
        assert len(list((out / record["folder"] / "masks").glob("*.tif"))) == 2
        assert (out / record["thumbnail"]).is_file()
    assert {path.name for path in out.iterdir()} == {
        *(".lock", "run.json", "records.jsonl", "summary.csv", "index.html", "patients", "thumbnails")
    }
    assert len(list((out / "patients").iterdir())) == len(list((out / "thumbnails").iterdir())) == 20
    assert (out / "index.html").read_text().count("<img ") == 20


def test_twenty_patients_survive_kills_by_processes(
    twenty: Path, straight: dict[str, Any], tmp_path: Path, home: Path
) -> None:
    out = tmp_path / "out"
    first = Started(twenty, out, home)
    first.until(out, 2)
    workers = {pid: line for pid, line in family(first.process.pid).items() if "spawn_main" in line}
    os.kill(min(workers), signal.SIGKILL)
    first.until(out, 5)
    workers |= family(first.process.pid)
    first.kill()
    eventually(lambda: gone(workers), "workers of a program that was killed end, too")
    before = lines(out)
    assert 5 <= before < 20
    printed, said = Started(twenty, out, home).end()
    assert f"20 of 20 patients done, {before} of them before" in printed
    assert said.startswith(f"patients [{before}/20]\n")
    check_whole(out, straight)
    assert list(home.iterdir()) == []


def test_twenty_patients_survive_kills_on_ray(
    twenty: Path, straight: dict[str, Any], tmp_path: Path, home: Path
) -> None:
    """A local cluster of two workers, one of them killed, then the program; and the rest by another."""
    out = tmp_path / "out"
    first = Started(twenty, out, home, "--engine", "ray")
    first.until(out, 1)
    cluster = family(first.process.pid)
    workers = {pid: line for pid, line in cluster.items() if line.startswith("ray::MapWorker")}
    assert len(workers) == 2, cluster
    os.kill(min(workers), signal.SIGKILL)
    first.until(out, 4)
    cluster |= family(first.process.pid)
    first.kill()
    eventually(lambda: gone(cluster), "the cluster of a program that was killed ends, too")
    before = lines(out)
    assert 4 <= before < 20
    # What is left of the cluster, its logs, tells of nobody.
    left = [path for path in home.rglob("*") if path.is_file()]
    assert left
    assert not [path for path in left if b"SYN_" in path.read_bytes()]
    assert not [path for path in home.rglob("*") if "SYN_" in path.name]
    assert not (home / ".ray").exists()

    second = Started(twenty, out, home, "--engine", "ray", "--json")
    second.until(out, before + 1)
    cluster = family(second.process.pid)
    printed, said = second.end()
    assert (json.loads(printed)["done"], json.loads(printed)["failures"], said) == (20, {}, "")
    eventually(lambda: gone(cluster), "the cluster ends with the program")
    check_whole(out, straight)
    assert len([path for path in home.iterdir() if path.name.startswith("brainseg-ray-")]) == 1


def test_patients_of_the_cohort_differ(straight: dict[str, Any]) -> None:
    voxels = [record["models"]["unet"]["tumour_voxels"] for record in straight.values()]
    assert np.count_nonzero(voxels) > 15
    assert len(set(voxels)) > 10
