"""The engine of many machines: Ray Data over the cluster of RAY_ADDRESS, or over one of this machine.

Patients are read by the workers, so every machine needs the data set at the same path; results come back to
the program that started them, which alone writes. Networks are sent along. Through Ray go numbers of
patients and no names; on the disk of a local cluster lie its logs, until the run ends.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import socket
import tempfile
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from brainseg.cohort.outcome import KILLED, TRIES, Engine, Outcome, Refusal, T, Work, attempt, silence
from brainseg.files import quiet_stderr
from brainseg.types import BrainsegError

_STORE = 512 * 2**20
"""Bytes of shared memory that a local cluster may hold results in, until they are written."""
_SYSTEM = {
    # Results that do not fit wait; they are not put on the disk.
    "automatic_object_spilling_enabled": False,
    # No process waits for other work than ours.
    "prestart_worker_first_driver": False,
}
_REACH_S = 5.0
"""How long the cluster of RAY_ADDRESS has to answer at all."""
_SHARED_MEMORY = Path("/dev/shm")


def on_ray(workers: int) -> Engine:
    """An `Engine` of that many workers on Ray.

    Raises:
        BrainsegError: if Ray Data is not installed.
    """
    if find_spec("ray") is None or find_spec("pyarrow") is None:
        raise BrainsegError("--engine ray needs Ray Data; install it with: pip install 'brainseg-lgg[ray]'")
    return partial(_over, workers)


def _over(workers: int, work: Work[T], patients: Mapping[str, Path]) -> Generator[Outcome[T]]:
    if not patients:
        return
    with _cluster(workers) as ray:
        names, paths = list(patients), list(patients.values())
        try:
            for number, message in _rows(ray, workers, work, paths):
                outcome = ray.cloudpickle.loads(message)
                if isinstance(outcome, Refusal):
                    raise BrainsegError(outcome.reason)
                yield Outcome(names[number], outcome.result, outcome.failure)
        except ray.exceptions.RayError as error:
            raise BrainsegError(
                f"Ray ended the run ({type(error).__name__}); see that every machine of the cluster has this "
                "version of brainseg, and start again to go on"
            ) from error


def _rows(ray: Any, workers: int, work: Work[T], paths: list[Path]) -> Iterator[tuple[int, bytes]]:
    total = ray.cluster_resources()
    threads = max(1, int(min(total.get("CPU", 1), torch.get_num_threads())) // workers)
    data = ray.data
    context = data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    tries = ray.remote(_Tries).options(num_cpus=0, max_restarts=-1, max_task_retries=-1).remote()
    numbers = data.from_items([{"number": n} for n in range(len(paths))], override_num_blocks=len(paths))
    outcomes = numbers.map(
        _Worker,
        # One patient at a time, so that a death is the fault of one patient alone.
        compute=data.ActorPoolStrategy(size=min(workers, len(paths)), max_tasks_in_flight_per_actor=1),
        fn_constructor_args=(ray.put((work, paths)), tries, threads),
        num_gpus=1 if total.get("GPU") else 0,
    )
    for batch in outcomes.iter_batches(batch_size=None, prefetch_batches=0, batch_format="pyarrow"):
        for row in batch.to_pylist():
            yield row["number"], row["outcome"]


class _Tries:
    """Counts how often each patient was begun; no worker could, as those that die forget."""

    def __init__(self) -> None:
        self._begun: Counter[int] = Counter()

    def begin(self, number: int) -> int:
        self._begun[number] += 1
        return self._begun[number]


class _Worker:
    """What runs in each of Ray's workers."""

    def __init__(self, sent: Any, tries: Any, threads: int) -> None:
        silence()
        torch.set_num_threads(threads)
        self._ray: Any = import_module("ray")
        self._tries = tries
        work, self._paths = self._ray.get(sent)
        self._run: Callable[[Path], object] | None = None
        self._refusal = Refusal("")
        try:
            self._run = work.start()
        except BrainsegError as error:
            self._refusal = Refusal(str(error))

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        number = int(row["number"])
        outcome: object = self._refusal
        if self._run is not None:
            # Ray gives a patient whose worker died to another one, again and again.
            if self._ray.get(self._tries.begin.remote(number)) > TRIES:
                outcome = Outcome("", None, KILLED)
            else:
                outcome = attempt(self._run, "", self._paths[number])
        # Bytes: of a row that is no column of Arrow's, Ray Data writes the beginning into its log.
        return {"number": number, "outcome": self._ray.cloudpickle.dumps(outcome)}


def _reach(address: str) -> None:
    """Ray itself asks for minutes where nobody answers.

    Raises:
        OSError: if nobody does.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), _REACH_S).close()


@contextmanager
def _cluster(workers: int) -> Iterator[Any]:
    """Ray, joined to a cluster: the one that is there, that of RAY_ADDRESS, or one made for this run."""
    # Before Ray is imported: it would tell its makers about this machine.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    address = os.environ.get("RAY_ADDRESS", "").removeprefix("local")
    if not address and "RAY_AUTH_MODE" not in os.environ:
        # It listens on every network of this machine. A secret of its own would be left in the home folder.
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    with quiet_stderr():  # of that level it tells, too
        ray: Any = import_module("ray")
        import_module("ray.data")
    # What Ray has to say of workers that die goes to standard output, where figures go, and cannot be
    # turned off otherwise.
    import_module("ray._private.worker")._worker_logs_enabled = False  # type: ignore[attr-defined]
    if ray.is_initialized():
        yield ray
        return
    quiet = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if address:
        try:
            _reach(address)
            with quiet_stderr():
                ray.init(address=address, **quiet)
        except (OSError, RuntimeError, ValueError) as error:
            raise BrainsegError(
                f"no Ray cluster answers at RAY_ADDRESS={address} ({type(error).__name__}); start it, or "
                "unset RAY_ADDRESS to use this machine alone"
            ) from error
        try:
            yield ray
        finally:
            ray.shutdown()
        return
    if _SHARED_MEMORY.is_dir() and shutil.disk_usage(_SHARED_MEMORY).free < _STORE:
        # Ray would keep results on the disk instead, where nobody asked for them.
        raise BrainsegError(
            f"Ray needs {_STORE // 2**20} MB in {_SHARED_MEMORY}; make it larger (docker run --shm-size=1g), "
            "or use --engine local"
        )
    with tempfile.TemporaryDirectory(prefix="brainseg-ray-", ignore_cleanup_errors=True) as folder:
        with quiet_stderr():
            ray.init(
                address="local",
                num_cpus=max(workers, torch.get_num_threads()) + 1,
                object_store_memory=_STORE,
                include_dashboard=False,
                _temp_dir=folder,
                # Results that do not fit wait; they are not put on the disk. And no process waits for other
                # work than ours.
                _system_config={
                    "automatic_object_spilling_enabled": False,
                    "prestart_worker_first_driver": False,
                },
                **quiet,
            )
        try:
            yield ray
        finally:
            ray.shutdown()
