"""Libraries that say on their own what they met in a file are kept from it: it may be about a patient."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

# Warning filters and loggers belong to the process: two threads changing them at once would leave them off.
_LOCK = threading.RLock()


@contextmanager
def quiet(*loggers: str) -> Iterator[None]:
    """Within, no warning is shown and nothing is logged by `loggers` or those below; one thread at a time."""
    with _LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        named = [logging.getLogger(name) for name in loggers]
        before = [(logger.disabled, logger.propagate, logger.handlers) for logger in named]
        try:
            for logger in named:
                # What a module's own logger says goes up past a disabled one: it ends here.
                logger.disabled, logger.propagate, logger.handlers = True, False, [logging.NullHandler()]
            yield
        finally:
            for logger, (disabled, propagate, handlers) in zip(named, before, strict=True):
                logger.disabled, logger.propagate, logger.handlers = disabled, propagate, handlers
