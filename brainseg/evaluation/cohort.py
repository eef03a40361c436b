"""Figures of a data set: every patient by every model, and their ensemble."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial, reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np

from brainseg import __version__
from brainseg.checkpoint import LoadedModel
from brainseg.cohort.outcome import Engine, in_loop
from brainseg.datasets.lgg import patient_folders, without_mask
from brainseg.evaluation.patient import LESION_FLOOR, Row, evaluate_patient
from brainseg.inference import Predictor, choose_device, precision
from brainseg.io import read_study
from brainseg.io.text import plural, shown
from brainseg.measure import metrics_to_json, summarise
from brainseg.types import RESEARCH_USE, InputError, Say, Study

PROTOCOL = (
    "Volumetric Dice by patient on the original grid, averaged over patients; both masks empty: not "
    "computable and left out; missed lesion: 0."
)


@dataclass(frozen=True, eq=False)
class Work:
    """What is done to each patient folder, a `brainseg.cohort.outcome.Work`."""

    models: Sequence[LoadedModel]
    ensemble: bool
    tta: bool
    missing_sequences: bool
    device: str

    def start(self) -> Callable[[Path], dict[str, Row]]:
        return partial(self._compare, [Predictor(model, self.device) for model in self.models])

    def _compare(self, predictors: Sequence[Predictor], folder: Path) -> dict[str, Row]:
        return evaluate_patient(
            predictors,
            _with_masks(folder),
            ensemble=self.ensemble,
            tta=self.tta,
            missing_sequences=self.missing_sequences,
        )


def evaluate(
    models: Sequence[LoadedModel],
    dataset: Path,
    *,
    ensemble: bool = False,
    validation: bool = False,
    tta: bool = False,
    missing_sequences: bool = False,
    device: str = "auto",
    engine: Engine = in_loop,
    say: Say | None = None,
) -> dict[str, Any]:
    """Predict every patient of a data set with every model and compare with the reference masks.

    Args:
        models: one or more, of different names.
        dataset: folder of patient folders.
        ensemble: also the mean of the models' probabilities, at the mean of their thresholds, keeping the
            largest component when most of the models do.
        validation: only the patients that every model's card lists as validation patients.
        tta: average over left-right flips.
        missing_sequences: also with FLAIR in place of T1 before contrast, after contrast, and both; four
            times the work.
        device: see `brainseg.inference.choose_device`.
        engine: who does the work; see `brainseg.cohort`. What it gives is the same whoever does.
        say: called with (patient, patients done, patients in all).

    Returns:
        ``{"protocol", "failures": {ID: sentence}, "models": {NAME: {"dice_mean", "dice_median", "dice_std",
        "missed", ..., "healthy_slices", "calibration", "missing_sequences", "patients": {ID: {"dice", "iou",
        "sensitivity", "precision", "hd95", ...}}}}}``; figures that are not computable are None, with the
        reason under ``not_computable``. A patient that cannot be read or lacks a mask is among the failures,
        and counts nowhere else.

    Raises:
        InputError: if there is nothing to evaluate, or every patient failed; the sentence is the first one's.
    """
    folders = _validation_folders(models, dataset) if validation else patient_folders(dataset)
    work = Work(models, ensemble, tta, missing_sequences, device)
    rows: dict[str, dict[str, Row]] = {}
    failures: dict[str, str] = {}
    if say:
        say("patients", 0, len(folders))
    with closing(engine(work, folders)) as outcomes:
        for number, outcome in enumerate(outcomes, 1):
            if outcome.result is None:
                failures[outcome.patient] = outcome.failure
            else:
                rows[outcome.patient] = outcome.result
            if say:
                say(shown(outcome.patient), number, len(folders))
    found = {patient: rows[patient] for patient in folders if patient in rows}
    failures = {patient: failures[patient] for patient in folders if patient in failures}
    if not found:
        raise InputError(next(iter(failures.values())))
    used = {model.card.name: _weights(model, device) for model in models}
    return {
        "research_use": RESEARCH_USE,
        "brainseg_version": __version__,
        "protocol": PROTOCOL + (" Mean over left-right flips." if tta else ""),
        "failures": failures,
        "models": {
            name: used.get(name, {}) | _summary({patient: rows[name] for patient, rows in found.items()})
            for name in next(iter(found.values()))
        },
    }


def _summary(patients: dict[str, Row]) -> dict[str, Any]:
    """Everything said of one model."""
    lacking = {
        sequences: _brief(summarise({patient: row.lacking[sequences] for patient, row in patients.items()}))
        for sequences in next(iter(patients.values())).lacking
    }
    return {
        **summarise({patient: row.metrics for patient, row in patients.items()}),
        **_behaviour(list(patients.values())),
        **({"missing_sequences": lacking} if lacking else {}),
        "patients": {
            patient: metrics_to_json(row.metrics) | {"seen_in_training": row.seen}
            for patient, row in patients.items()
        },
    }


def _validation_folders(models: Sequence[LoadedModel], dataset: Path) -> dict[str, Path]:
    folders = patient_folders(dataset)
    wanted = set.intersection(*(set(model.card.validation_patients) for model in models))
    missing = sorted(wanted - folders.keys())
    if missing or not wanted:
        raise InputError(
            f"{dataset} lacks {plural(len(missing), 'validation patient')}, first {missing[0]}; "
            "fetch the data again"
            if missing
            else "these models have no validation patient in common; leave out --validation"
        )
    return {patient: folder for patient, folder in folders.items() if patient in wanted}


def _behaviour(patients: Sequence[Row]) -> dict[str, Any]:
    """False positives on slices without tumour, and calibration, over all patients."""
    false = [area for one in patients for area in one.false]
    everywhere, lesion = (
        reduce(add, (getattr(one, name) for one in patients)) for name in ("everywhere", "lesion")
    )
    return {
        "healthy_slices": {
            "slices": sum(one.healthy for one in patients),
            "with_false_positives": len(false),
            "median_false_pixels": float(np.median(false)) if false else 0.0,
        },
        "calibration": {"ece": everywhere.ece, "ece_lesion": lesion.ece, "lesion_floor": LESION_FLOOR},
    }


def _brief(summary: dict[str, Any]) -> dict[str, Any]:
    return {key: summary[key] for key in ("dice_mean", "dice_median", "missed")}


def _weights(model: LoadedModel, device: str) -> dict[str, Any]:
    card, where = model.card, choose_device(device)
    return {
        "weights_sha256": card.sha256,
        "threshold": card.threshold,
        "keep": card.keep,
        "temperature": card.temperature,
        "device": where.type,
        "precision": precision(where),
    }


def _with_masks(folder: Path) -> Study:
    study = read_study(folder)
    if without := without_mask(study):
        raise InputError(
            f"{folder} has no mask for {plural(without, 'slice')}; evaluation needs one for each, named "
            "<slice>_mask.tif, empty where there is no tumour"
        )
    return study
