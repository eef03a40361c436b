"""A cohort from its data set to a folder of results, as far as it is not done yet."""

from __future__ import annotations

import time
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brainseg import __version__
from brainseg.cohort.folder import open_folder
from brainseg.cohort.outcome import Engine
from brainseg.cohort.patient import Examination
from brainseg.datasets.lgg import data_folder
from brainseg.io.files import is_junk
from brainseg.io.names import natural
from brainseg.io.text import shown
from brainseg.report.provenance import now
from brainseg.types import RESEARCH_USE, BrainsegError, InputError, Say

_REFRESH_S = 20.0
"""How old the table and the page may grow while patients are being done."""


@dataclass(frozen=True)
class CohortResult:
    """How a run ended.

    Attributes:
        patients: how many the data set holds.
        done: patients on record, those of earlier starts among them.
        earlier: how many of them were done before this start.
        failures: why the others failed, by patient.
        left_out: files beside the patients' folders that belong to none.
    """

    patients: int
    done: int
    earlier: int
    failures: dict[str, str]
    left_out: tuple[str, ...]


def predict_cohort(
    dataset: Path, out: Path, work: Examination, engine: Engine, say: Say | None = None
) -> CohortResult:
    """Predict every patient of a data set that is not done yet, and keep what is found in a folder.

    It may be killed at any time and started again: what is on record is not done again, what was begun is.

    Args:
        dataset: folder of patients, a folder or a zip each.
        out: see `brainseg.cohort.folder`.
        work: what is done to each.
        engine: who does it, `brainseg.cohort.processes.processes` or `brainseg.cohort.on_ray.on_ray`.
        say: called with (patient, patients done, patients in all).

    Raises:
        InputError: if there are no patients.
        BrainsegError: if `out` cannot be used or its disk is full, or the work cannot be started.
    """
    patients, left_out = find_patients(dataset, out)
    with open_folder(out, _settings(dataset, work)) as folder:
        todo = {patient: path for patient, path in patients.items() if patient not in folder.records}
        earlier = len(patients) - len(todo)
        folder.name(patients)
        if say:
            say("patients", earlier, len(patients))
        failures: dict[str, str] = {}
        refreshed = time.monotonic()
        try:
            with closing(engine(work, todo)) as outcomes:
                for number, outcome in enumerate(outcomes, earlier + 1):
                    if outcome.result is None:
                        failures[outcome.patient] = outcome.failure
                        folder.fail(outcome.patient, outcome.failure, _about())
                    else:
                        folder.add(outcome.patient, outcome.result)
                    if say:
                        say(shown(outcome.patient), number, len(patients))
                    if time.monotonic() - refreshed > _REFRESH_S:
                        folder.finish(len(patients))
                        refreshed = time.monotonic()
        except BaseException:
            with suppress(BrainsegError):
                folder.finish(len(patients))
            raise
        folder.finish(len(patients))
    return CohortResult(len(patients), len(patients) - len(failures), earlier, failures, left_out)


def find_patients(dataset: Path, out: Path) -> tuple[dict[str, Path], tuple[str, ...]]:
    """Folders and zips of a data set by name, in natural order, and the names of what else lies there.

    Args:
        dataset: the folder, or one with the LGG set's ``kaggle_3m`` in it.
        out: left out, where it lies in the data set.

    Raises:
        InputError: if `dataset` is not a folder or there is none in it.
    """
    root = data_folder(dataset)
    own = out.resolve()
    entries = sorted(
        (path for path in root.iterdir() if not is_junk(path.name) and path.resolve() != own),
        key=lambda path: natural(path.name),
    )
    patients = {path.name: path for path in entries if path.is_dir() or path.suffix.lower() == ".zip"}
    if not patients:
        raise InputError(
            f"{dataset} holds no patients; give the folder that holds a folder or a zip for each patient"
        )
    return patients, tuple(path.name for path in entries if path.name not in patients)


def _settings(dataset: Path, work: Examination) -> dict[str, Any]:
    """What tells one run from another; engine and workers are of no matter."""
    return {
        "research_use": RESEARCH_USE,
        "brainseg_version": __version__,
        "dataset": str(dataset.resolve()),
        "models": {
            card.name: {
                "architecture": card.spec.architecture,
                "weights_sha256": card.sha256,
                "threshold": card.threshold,
                "keep": card.keep,
                "temperature": card.temperature,
                "preprocess": card.preprocess,
            }
            for card in (model.card for model in work.models)
        },
        "tta": work.tta,
        "spacing_mm": work.spacing_mm,
        "channels": work.channels,
        "device": work.device,
    }


def _about() -> dict[str, Any]:
    return {"research_use": RESEARCH_USE, "brainseg_version": __version__, "time_utc": now()}
