"""A GPU lent for each run, on a Space of the Hub that has none of its own (ZeroGPU).

There the package `spaces` is installed, and runs what `spaces.GPU` decorates in a process of its own, forked
for the purpose: only what can be pickled goes in and comes out. So the run is a generator that yields how far
it is and then its result; closing it stops the network before its next batch. Elsewhere nothing is decorated.

The GPU is charged to the visitor whose request is in the context of the call; `Job` carries that context into
its thread.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from importlib import import_module
from importlib.util import find_spec
from queue import SimpleQueue
from types import ModuleType

import gradio as gr

# Before anything that may touch CUDA, which `spaces` must see first. A mere folder of that name, as at the
# root of a clone, has no origin.
_found = find_spec("spaces")
_spaces: ModuleType | None = import_module("spaces") if _found is not None and _found.origin else None

# ruff: noqa: E402
from brainseg.types import BrainsegError, Cancelled, Prediction, Study
from brainseg.ui import networks
from brainseg.ui.job import UNEXPECTED, Predict

Step = tuple[int, int] | Prediction | BrainsegError
Steps = Generator[Step, None, None]

_BASE_S, _SLICE_S, _MOST_S = 20, 0.05, 120

_log = logging.getLogger(__name__)


def seconds(_name: str, study: Study, tta: bool) -> int:
    """For how long a GPU is asked; less is lent sooner."""
    return min(_MOST_S, round(_BASE_S + _SLICE_S * study.shape[0] * (1 + tta)))


def steps(name: str, study: Study, tta: bool) -> Steps:
    """Run bundled weights: slices done and in all, again and again, then the result or why there is none."""
    told: SimpleQueue[Step] = SimpleQueue()
    stop = threading.Event()

    def run() -> None:
        try:
            told.put(
                networks.predict(
                    name,
                    study,
                    tta=tta,
                    progress=lambda done, slices: told.put((done, slices)),
                    cancelled=stop.is_set,
                )
            )
        except BrainsegError as error:
            told.put(error)
        except Exception as error:
            # `spaces` would print a message and a traceback, which may name a patient's files.
            _log.error("prediction failed: %s", type(error).__name__)
            told.put(BrainsegError(UNEXPECTED))

    worker = threading.Thread(target=copy_context().run, args=(run,), daemon=True)
    worker.start()
    try:
        while True:
            step = told.get()
            yield step
            if not isinstance(step, tuple):
                return
    finally:
        stop.set()
        worker.join()


def predictor() -> Predict:
    """What runs a network: in this process, or on a lent GPU where `spaces` is installed."""
    if _spaces is None:
        return networks.predict
    lent: Callable[[str, Study, bool], Steps] = _spaces.GPU(duration=seconds)(steps)

    def predict(
        name: str,
        study: Study,
        *,
        tta: bool,
        progress: Callable[[int, int], None],
        cancelled: Callable[[], bool],
    ) -> Prediction:
        with _sentences():
            running = lent(name, study, tta)
            try:
                for step in running:
                    if isinstance(step, BrainsegError):
                        raise step
                    if isinstance(step, Prediction):
                        return step
                    progress(*step)
                    if cancelled():
                        raise Cancelled("prediction was stopped")
            finally:
                running.close()
        raise BrainsegError(UNEXPECTED)

    return predict


@contextmanager
def _sentences() -> Iterator[None]:
    """What `spaces` says to the visitor, such as that a quota is used up, reaches the page."""
    try:
        yield
    except gr.Error as error:
        raise BrainsegError(str(error.message)) from None
