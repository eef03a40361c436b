"""Figures of a data set: every patient by every model, and their ensemble."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np

from brainseg import __version__
from brainseg.checkpoint import LoadedModel
from brainseg.datasets.lgg import patient_folders, without_mask
from brainseg.evaluation.patient import LESION_FLOOR, Row, evaluate_patient
from brainseg.inference import Predictor, choose_device, precision
from brainseg.io import read_study
from brainseg.io.text import plural
from brainseg.measure import metrics_to_json, summarise
from brainseg.types import RESEARCH_USE, InputError, Say, Study

PROTOCOL = (
    "Volumetric Dice by patient on the original grid, averaged over patients; both masks empty: not "
    "computable and left out; missed lesion: 0."
)

Engine = Callable[[Callable[[Path], dict[str, Row]], Iterable[Path]], Iterator[dict[str, Row]]]


@dataclass(frozen=True, eq=False)
class Work:
    """What is done to each patient folder; it can be sent to another process."""

    models: Sequence[LoadedModel]
    ensemble: bool
    tta: bool
    missing_sequences: bool
    device: str

    def __call__(self, folder: Path) -> dict[str, Row]:
        """Read a patient and compare every model with the reference.

        Raises:
            InputError: if the patient cannot be read or lacks a mask.
        """
        return evaluate_patient(
            [Predictor(model, self.device) for model in self.models],
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
    engine: Engine = map,
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
        engine: maps the work over the patient folders, in order: `map`, or that of a pool of processes.
        say: called with (sentence, patients done, patients in all).

    Returns:
        ``{"protocol", "models": {NAME: {"dice_mean", "dice_median", "dice_std", "missed", ...,
        "healthy_slices", "calibration", "missing_sequences", "patients": {ID: {"dice", "iou", "sensitivity",
        "precision", "hd95", ...}}}}}``; figures that are not computable are None, with the reason under
        ``not_computable``.

    Raises:
        InputError: if there is nothing to evaluate, or a patient cannot be read or lacks a mask.
    """
    folders = _validation_folders(models, dataset) if validation else patient_folders(dataset)
    results = engine(Work(models, ensemble, tta, missing_sequences, device), folders.values())
    found: dict[str, dict[str, Row]] = {}
    for done, patient in enumerate(folders):
        if say:
            say(patient, done, len(folders))
        found[patient] = next(results)
    if say:
        say("done", len(folders), len(folders))
    used = {model.card.name: _weights(model, device) for model in models}
    return {
        "research_use": RESEARCH_USE,
        "brainseg_version": __version__,
        "protocol": PROTOCOL + (" Mean over left-right flips." if tta else ""),
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
