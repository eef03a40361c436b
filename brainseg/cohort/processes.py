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
from typing import Any

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
    waiting = deque(patients)
    tries: Counter[str] = Counter()
    context = get_context("spawn")
    threads = max(1, torch.get_num_threads() // workers)
    pool: list[_Worker] = []
    stillborn = 0
    try:
        while waiting or any(worker.patient is not None for worker in pool):
            busy = sum(worker.patient is not None for worker in pool)
            while len(pool) < min(workers, busy + len(waiting)):
                pool.append(_Worker(context, work, threads))
            for worker in pool:
                if worker.ready and worker.patient is None and waiting:
                    worker.give(waiting.popleft(), patients)
            for pipe in wait([worker.pipe for worker in pool]):
                worker = next(one for one in pool if one.pipe is pipe)
                message = worker.take()
                patient = worker.patient
                if isinstance(message, Refusal):
                    raise BrainsegError(message.reason)
                if isinstance(message, Outcome):
                    worker.patient = None
                    yield message
                elif message is not None:
                    worker.ready, stillborn = True, 0
                else:
                    pool.remove(worker)
                    code = worker.end()
                    if patient is None:
                        stillborn += not worker.ready
                        if stillborn > workers + 1:
                            raise BrainsegError(
                                f"workers end before they can begin (exit code {code}), perhaps for want of "
                                "memory; free some, or give fewer --workers"
                            )
                        continue
                    tries[patient] += 1
                    if tries[patient] < TRIES:
                        waiting.appendleft(patient)
                    else:
                        yield Outcome(patient, None, KILLED)
    finally:
        for worker in pool:
            worker.end()


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

    def give(self, patient: str, patients: Mapping[str, Path]) -> None:
        self.patient = patient
        with suppress(OSError):  # it has died; reading from it tells
            self.pipe.send((patient, patients[patient]))

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
