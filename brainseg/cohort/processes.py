"""The engine of one machine: processes that take one patient at a time."""

from __future__ import annotations

import os
import signal
from collections import Counter, deque
from collections.abc import Callable, Generator, Mapping
from contextlib import suppress
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnContext
from pathlib import Path
from typing import Any, Generic

import torch

from brainseg.cohort.outcome import KILLED, TRIES, Engine, Outcome, Refusal, T, Work, attempt, silence
from brainseg.types import BrainsegError


def processes(workers: int) -> Engine:
    """An `Engine` of that many processes, which share the cores.

    A process that is killed is replaced, and its patient tried once more. The caller's program must be
    guarded by ``if __name__ == "__main__"``, as for every process that is spawned.
    """
    return partial(_over, workers)


def _over(workers: int, work: Work[T], patients: Mapping[str, Path]) -> Generator[Outcome[T]]:
    pool = _Pool(workers, work, patients)
    try:
        while pool.busy():
            yield from pool.step()
    finally:
        pool.end()


class _Pool(Generic[T]):
    """Workers, and the patients that wait for one."""

    def __init__(self, workers: int, work: Work[T], patients: Mapping[str, Path]) -> None:
        self._most = workers
        self._work = work
        self._patients = patients
        self._waiting = deque(patients)
        self._tries: Counter[str] = Counter()
        self._workers: list[_Worker] = []
        self._stillborn = 0
        self._context = get_context("spawn")
        self._threads = max(1, torch.get_num_threads() // workers)

    def busy(self) -> int:
        """How many patients are not done."""
        return len(self._waiting) + sum(worker.patient is not None for worker in self._workers)

    def step(self) -> list[Outcome[T]]:
        """Give every worker something to do, and wait until one has something to say.

        Raises:
            BrainsegError: if workers cannot start.
        """
        while len(self._workers) < min(self._most, self.busy()):
            self._workers.append(_Worker(self._context, self._work, self._threads))
        for worker in self._workers:
            if worker.ready and worker.patient is None and self._waiting:
                patient = self._waiting.popleft()
                worker.give(patient, self._patients[patient])
        talking = wait([worker.pipe for worker in self._workers])
        heard = [self._hear(worker) for worker in list(self._workers) if worker.pipe in talking]
        return [outcome for outcome in heard if outcome is not None]

    def end(self) -> None:
        """Kill them all."""
        for worker in self._workers:
            worker.end()

    def _hear(self, worker: _Worker) -> Outcome[T] | None:
        message = worker.take()
        if message is None:
            return self._lost(worker)
        if isinstance(message, Refusal):
            raise BrainsegError(message.reason)
        if isinstance(message, Outcome):
            worker.patient = None
            return message
        worker.ready, self._stillborn = True, 0
        return None

    def _lost(self, worker: _Worker) -> Outcome[T] | None:
        """A worker has died: its patient waits again, or has failed."""
        self._workers.remove(worker)
        code = worker.end()
        if worker.patient is None:
            self._stillborn += not worker.ready
            if self._stillborn > self._most + 1:
                raise BrainsegError(
                    f"workers end before they can begin (exit code {code}), perhaps for want of memory; "
                    "free some, or give fewer --workers"
                )
            return None
        self._tries[worker.patient] += 1
        if self._tries[worker.patient] < TRIES:
            self._waiting.appendleft(worker.patient)
            return None
        return Outcome(worker.patient, None, KILLED)


class _Worker:
    """One process and the parent's end of its pipe."""

    def __init__(self, context: SpawnContext, work: Work[Any], threads: int) -> None:
        self.pipe, theirs = context.Pipe()
        self.ready = False
        self.patient: str | None = None
        self._process = context.Process(target=_serve, args=(theirs, work, threads), daemon=True)
        try:
            self._process.start()
        finally:
            # Held by the process alone, so that its death is the end of the pipe.
            theirs.close()

    def give(self, patient: str, path: Path) -> None:
        self.patient = patient
        with suppress(OSError):  # it has died; reading from it tells
            self.pipe.send((patient, path))

    def take(self) -> object:
        """Its next message; None when it has died."""
        try:
            return self.pipe.recv()
        except (EOFError, OSError):
            return None

    def end(self) -> int | None:
        """Kill it if it lives; its exit code."""
        self.pipe.close()
        self._process.kill()
        self._process.join()
        code = self._process.exitcode
        self._process.close()
        return code


def _serve(pipe: Connection, work: Work[object], threads: int) -> None:
    """What runs in each process until its pipe ends, as it does when the parent dies."""
    # Ctrl-C reaches the whole group of processes: the parent alone answers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    silence()
    torch.set_num_threads(threads)
    try:
        try:
            run: Callable[[Path], object] = work.start()
        except BrainsegError as error:
            pipe.send(Refusal(str(error)))
            return
        pipe.send(os.getpid())
        while True:
            patient, path = pipe.recv()
            pipe.send(attempt(run, patient, path))
    except (EOFError, OSError):
        return
