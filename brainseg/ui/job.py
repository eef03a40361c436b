"""Networks at work in a thread of their own, so that a face stays usable and can stop them."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass, replace
from typing import Protocol

from brainseg.types import BrainsegError, Cancelled, Prediction, Study

UNEXPECTED = "Something went wrong that brainseg did not expect; try again or with another file."

# How long a waiting job may not notice that its page has gone. `Job.stop` wakes it at once.
_LOOK_S = 0.25

_log = logging.getLogger(__name__)


class Predict(Protocol):
    """Runs the weights of that name over a study."""

    def __call__(
        self,
        name: str,
        study: Study,
        *,
        tta: bool,
        progress: Callable[[int, int], None],
        cancelled: Callable[[], bool],
    ) -> Prediction: ...


class Queue:
    """One job at a time, in the order they came; a job that was stopped leaves the queue at once."""

    def __init__(self) -> None:
        self._tickets: deque[object] = deque()
        self._changed = threading.Condition()

    @contextmanager
    def turn(self, cancelled: Callable[[], bool], waiting: Callable[[int], None]) -> Iterator[None]:
        """Hold the turn inside.

        Args:
            cancelled: asked while waiting and once when the turn comes.
            waiting: told how many are before this one, whenever that changes, and 0 in the end.

        Raises:
            Cancelled: if `cancelled` answered True.
        """
        ticket = object()
        with self._changed:
            self._tickets.append(ticket)
        try:
            self._wait(ticket, cancelled, waiting)
            yield
        finally:
            with self._changed:
                self._tickets.remove(ticket)
                self._changed.notify_all()

    def wake(self) -> None:
        """Let all who wait ask again whether they are cancelled."""
        with self._changed:
            self._changed.notify_all()

    def _wait(self, ticket: object, cancelled: Callable[[], bool], waiting: Callable[[int], None]) -> None:
        told = None
        while True:
            # Asked and told without the lock: both may take locks of their own.
            if cancelled():
                raise Cancelled("stopped while waiting")
            with self._changed:
                before = self._tickets.index(ticket)
                if before and before == told:
                    self._changed.wait(_LOOK_S)
                    before = self._tickets.index(ticket)
            if before != told:
                waiting(before)
                told = before
            if before == 0:
                return


# Two networks at once on one machine only make each other slower, and they share their hooks.
_QUEUE = Queue()


@dataclass(frozen=True)
class Status:
    """How far a job is.

    Attributes:
        name: weights at work.
        index: how many models are behind it.
        models: how many there are.
        done: slices done by this model.
        slices: slices in all, 0 until the network is loaded.
        before: other jobs that have the turn before this one; 0 when it is at work.
        ended: nothing more will come.
        stopped: the user ended it, or the page it belongs to has gone.
    """

    name: str
    index: int
    models: int
    done: int = 0
    slices: int = 0
    before: int = 0
    ended: bool = False
    stopped: bool = False

    @property
    def fraction(self) -> float:
        """0 to 1 over all slices of all models."""
        within = self.done / self.slices if self.slices else 0.0
        return min(1.0, (self.index + within) / self.models)


def _always() -> bool:
    return True


class Job:
    """Runs models one after another over a study; results are taken as they come.

    A model that fails leaves its sentence instead of a prediction and does not stop the next one. Between
    batches, between models and while waiting for its turn a job asks `alive`; when the page that wanted the
    results has gone, it ends and the next one gets the turn.

    Args:
        study: the patient.
        names: weights, in the order they shall run.
        tta: average over flips.
        predict: runs one of them.
        alive: whether anyone still waits for the results; may be called from any thread.
        queue: shared by all jobs of a machine.
    """

    def __init__(
        self,
        study: Study,
        names: Sequence[str],
        tta: bool,
        predict: Predict,
        alive: Callable[[], bool] = _always,
        queue: Queue = _QUEUE,
    ) -> None:
        self.study = study
        self.tta = tta
        self._names = tuple(names)
        self._predict = predict
        self._alive = alive
        self._queue = queue
        self._status = Status(self._names[0], 0, len(self._names))
        self._results: list[tuple[str, Prediction | str]] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        # A face may have said there for whom this is; ZeroGPU charges a visitor by it.
        self._thread = threading.Thread(target=copy_context().run, args=(self._run,), daemon=True)

    def start(self) -> Job:
        self._thread.start()
        return self

    def stop(self) -> None:
        """Ask the network at work to end before its next batch, or leave the queue at once."""
        self._stop.set()
        self._queue.wake()

    def join(self, timeout: float | None = None) -> None:
        """Wait for the end."""
        self._thread.join(timeout)

    def status(self) -> Status:
        with self._lock:
            return self._status

    def ready(self) -> bool:
        """Whether `take` would give something, or the end has come."""
        with self._lock:
            return bool(self._results) or self._status.ended

    def take(self) -> list[tuple[str, Prediction | str]]:
        """Predictions, or sentences saying why there is none, by name of the weights; each is given once."""
        with self._lock:
            results, self._results = self._results, []
            return results

    def _cancelled(self) -> bool:
        return self._stop.is_set() or not self._alive()

    def _say(self, **changes: object) -> None:
        with self._lock:
            self._status = replace(self._status, **changes)  # type: ignore[arg-type]

    def _run(self) -> None:
        try:
            for index, name in enumerate(self._names):
                self._say(name=name, index=index, done=0, slices=0)
                result = self._one(name)
                with self._lock:
                    self._results.append((name, result))
            self._say(index=len(self._names), done=0, slices=0)
        except Cancelled:
            self._say(stopped=True)
        finally:
            self._say(ended=True, before=0)

    def _one(self, name: str) -> Prediction | str:
        try:
            with self._queue.turn(self._cancelled, lambda before: self._say(before=before)):
                return self._predict(
                    name,
                    self.study,
                    tta=self.tta,
                    progress=lambda done, slices: self._say(done=done, slices=slices),
                    cancelled=self._cancelled,
                )
        except Cancelled:
            raise
        except BrainsegError as error:
            return str(error)
        except Exception as error:
            # Its message may name a patient's file; the type is enough to look for the cause.
            _log.error("prediction failed: %s", type(error).__name__)
            return UNEXPECTED
