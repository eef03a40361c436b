"""Networks at work in a thread of their own, so that the page stays usable and can stop them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from brainseg.types import BrainsegError, Cancelled, Prediction, Study

UNEXPECTED = "Something went wrong that brainseg did not expect; try again or with another file."

# A page that has not asked for this long is gone; browsers let hidden tabs ask once a minute.
_ABANDONED_S = 300.0

# Two networks at once on one machine only make each other slower, and they share their hooks.
_TURN = threading.Lock()

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


@dataclass(frozen=True)
class Status:
    """How far a job is.

    Attributes:
        name: weights at work.
        index: how many models are behind it.
        models: how many there are.
        done: slices done by this model.
        slices: slices in all, 0 until the network is loaded.
        waiting: another page's networks have the turn.
        ended: nothing more will come.
        stopped: the user ended it.
    """

    name: str
    index: int
    models: int
    done: int = 0
    slices: int = 0
    waiting: bool = False
    ended: bool = False
    stopped: bool = False

    @property
    def fraction(self) -> float:
        """0 to 1 over all slices of all models."""
        within = self.done / self.slices if self.slices else 0.0
        return min(1.0, (self.index + within) / self.models)


class Job:
    """Runs models one after another over a study; results are taken as they come.

    A model that fails leaves its sentence instead of a prediction and does not stop the next one.
    """

    def __init__(self, study: Study, names: Sequence[str], tta: bool, predict: Predict) -> None:
        self.study = study
        self.tta = tta
        self._names = tuple(names)
        self._predict = predict
        self._status = Status(self._names[0], 0, len(self._names))
        self._results: list[tuple[str, Prediction | str]] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._asked = time.monotonic()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> Job:
        self._thread.start()
        return self

    def stop(self) -> None:
        """Ask the network at work to end before its next batch."""
        self._stop.set()

    def join(self, timeout: float | None = None) -> None:
        """Wait for the end."""
        self._thread.join(timeout)

    def status(self) -> Status:
        with self._lock:
            self._asked = time.monotonic()
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
        with self._lock:
            return self._stop.is_set() or time.monotonic() - self._asked > _ABANDONED_S

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
            self._say(ended=True, waiting=False)

    def _one(self, name: str) -> Prediction | str:
        while not _TURN.acquire(timeout=0.2):
            self._say(waiting=True)
            if self._cancelled():
                raise Cancelled("stopped while waiting")
        try:
            self._say(waiting=False)
            if self._cancelled():
                raise Cancelled("stopped between models")
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
        finally:
            _TURN.release()
