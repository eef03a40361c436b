"""What is done to each patient of a cohort and what comes of it, whichever engine does it."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from brainseg.types import BrainsegError

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

TRIES = 2
"""How often a patient is begun whose worker dies over it."""
KILLED = (
    "its worker was killed twice at this patient, perhaps for want of memory; free some, or give fewer "
    "--workers"
)


class Work(Protocol[T_co]):
    """What is done to each patient; sent whole to every worker, so it must be picklable."""

    def start(self) -> Callable[[Path], T_co]:
        """Called once in each worker: gets ready, and returns what is called with each patient's path.

        Raises:
            BrainsegError: if nothing can be done here, for instance for want of a device; ends the whole run.
        """
        ...


@dataclass(frozen=True, eq=False)
class Outcome(Generic[T]):
    """What came of one patient.

    Attributes:
        patient: its key.
        result: what the work returned; None if it failed.
        failure: why it failed, in a sentence; empty if it did not.
    """

    patient: str
    result: T | None
    failure: str = ""


@dataclass(frozen=True)
class Refusal:
    """What a worker says that could not start its work."""

    reason: str


class Engine(Protocol):
    """Does some work to patients, by key, and yields outcomes as they are ready, one for each patient."""

    def __call__(self, work: Work[T], patients: Mapping[str, Path]) -> Generator[Outcome[T]]: ...


def in_loop(work: Work[T], patients: Mapping[str, Path]) -> Generator[Outcome[T]]:
    """The plainest `Engine`: here, one after another, in order."""
    run = work.start()
    for patient, path in patients.items():
        yield attempt(run, patient, path)


def attempt(run: Callable[[Path], T], patient: str, path: Path) -> Outcome[T]:
    """Do the work to one patient; whatever is wrong with it becomes a sentence."""
    try:
        return Outcome(patient, run(path))
    except BrainsegError as error:
        reason = str(error)
    except MemoryError:
        reason = "there was not enough memory; free some, or give fewer --workers"
    except OSError as error:
        reason = f"{error.filename or 'a file'}: {error.strerror or error}; check that it may be read"
    except Exception as error:
        # Its message may hold anything; the type is enough to look for the cause.
        reason = f"something went wrong that brainseg did not expect ({type(error).__name__})"
    return Outcome(patient, None, " ".join(reason.split()))


def silence() -> None:
    """Send what a worker's libraries write to standard error nowhere: it may name patients' files."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
