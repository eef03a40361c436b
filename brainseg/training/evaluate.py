"""Figures of a data set: every patient, every model, and their ensemble; and the card that states them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np

from brainseg import __version__
from brainseg.checkpoint import LoadedModel, write_card
from brainseg.datasets.lgg import patient_folders, without_mask
from brainseg.files import atomic_write
from brainseg.inference import Predictor, precision
from brainseg.io import read_study
from brainseg.io.text import plural
from brainseg.measure import FIGURES, measure, metrics_to_json, summarise
from brainseg.models import ARCHITECTURES
from brainseg.postprocess import Finding, find
from brainseg.training.calibration import Reliability, reliability
from brainseg.types import (
    RESEARCH_USE,
    InputError,
    Metrics,
    Prediction,
    Study,
    Undefined,
    WeightsCard,
)

ENSEMBLE = "ensemble"
PROTOCOL = (
    "Volumetric Dice by patient on the original grid, averaged over patients; both masks empty: not "
    "computable and left out; missed lesion: 0."
)
MISSING = {"T1 before contrast": (0,), "T1 after contrast": (2,), "both": (0, 2)}
"""Channels that FLAIR takes the place of, as in the data where a sequence is missing."""
LESION_FLOOR = 0.01
"""Voxels below this probability that are no tumour either are out of the question."""
Report = Callable[[str, int, int], None]


def evaluate(
    models: Sequence[LoadedModel],
    dataset: Path,
    *,
    ensemble: bool = False,
    validation: bool = False,
    tta: bool = False,
    missing_sequences: bool = False,
    device: str = "auto",
    report: Report | None = None,
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
        report: called with (sentence, patients done, patients in all).

    Returns:
        ``{"protocol", "models": {NAME: {"dice_mean", "dice_median", "dice_std", "missed", ...,
        "healthy_slices", "calibration", "missing_sequences", "patients": {ID: {"dice", "iou", "sensitivity",
        "precision", "hd95", ...}}}}}``; figures that are not computable are None, with the reason under
        ``not_computable``.

    Raises:
        InputError: if there is nothing to evaluate, or a patient cannot be read or lacks a mask.
    """
    folders = _validation_folders(models, dataset) if validation else patient_folders(dataset)
    predictors = [Predictor(model, device) for model in models]
    found: dict[str, dict[str, _Scored]] = {}
    lacking: dict[str, dict[str, dict[str, Metrics]]] = {}
    for done, (patient, folder) in enumerate(folders.items()):
        if report:
            report(patient, done, len(folders))
        study = _with_masks(folder)
        for name, one in _patient(predictors, study, ensemble, tta):
            found.setdefault(name, {})[patient] = one
        for sequences, channels in MISSING.items() if missing_sequences else ():
            for name, one in _patient(predictors, _without(study, channels), ensemble, tta):
                lacking.setdefault(name, {}).setdefault(sequences, {})[patient] = one.metrics
    if report:
        report("done", len(folders), len(folders))
    used = {predictor.model.card.name: _weights(predictor) for predictor in predictors}
    return {
        "research_use": RESEARCH_USE,
        "brainseg_version": __version__,
        "protocol": PROTOCOL + (" Mean over left-right flips." if tta else ""),
        "models": {
            name: used.get(name, {})
            | summarise({patient: one.metrics for patient, one in patients.items()})
            | _behaviour(list(patients.values()))
            | (
                {"missing_sequences": {key: _brief(summarise(row)) for key, row in lacking[name].items()}}
                if missing_sequences
                else {}
            )
            | {
                "patients": {
                    patient: metrics_to_json(one.metrics) | {"seen_in_training": one.seen}
                    for patient, one in patients.items()
                }
            }
            for name, patients in found.items()
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


@dataclass(frozen=True, eq=False)
class _Scored:
    """What one model made of one patient."""

    metrics: Metrics
    seen: bool
    healthy: int
    """Slices without tumour in the reference."""
    false: tuple[int, ...]
    """Pixels found in each of those of them where any was."""
    everywhere: Reliability
    lesion: Reliability


def _scored(study: Study, finding: Finding) -> _Scored:
    reading = measure(study, finding)
    assert study.reference is not None
    assert reading.metrics is not None
    healthy = ~study.reference.any(axis=(1, 2))
    areas = np.asarray(reading.areas)[healthy]
    probability = finding.prediction.probability
    return _Scored(
        reading.metrics,
        finding.prediction.seen_in_training,
        int(healthy.sum()),
        tuple(int(area) for area in areas[areas > 0]),
        reliability(probability, study.reference),
        reliability(probability, study.reference, LESION_FLOOR),
    )


def _behaviour(patients: Sequence[_Scored]) -> dict[str, Any]:
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


def _without(study: Study, channels: tuple[int, ...]) -> Study:
    slices = study.slices.copy()
    for channel in channels:
        slices[..., channel] = slices[..., 1]
    return replace(study, slices=slices)


def _weights(predictor: Predictor) -> dict[str, Any]:
    card = predictor.model.card
    return {
        "weights_sha256": card.sha256,
        "threshold": card.threshold,
        "keep": card.keep,
        "temperature": card.temperature,
        "device": predictor.device.type,
        "precision": precision(predictor.device),
    }


def _with_masks(folder: Path) -> Study:
    study = read_study(folder)
    if without := without_mask(study):
        raise InputError(
            f"{folder} has no mask for {plural(without, 'slice')}; evaluation needs one for each, named "
            "<slice>_mask.tif, empty where there is no tumour"
        )
    return study


def _patient(
    predictors: Sequence[Predictor], study: Study, ensemble: bool, tta: bool
) -> Iterator[tuple[str, _Scored]]:
    """(model, what it made of the patient) for each model, then their ensemble."""
    predictions = [predictor.predict(study, tta=tta, attention=False) for predictor in predictors]
    for prediction in predictions + ([_mean(predictions)] if ensemble else []):
        yield prediction.model, _scored(study, find(prediction))


def _mean(predictions: Sequence[Prediction]) -> Prediction:
    """What the models say together: the mean of probabilities and thresholds, what most of them keep."""
    largest = sum(p.keep == "largest" for p in predictions)
    return Prediction(
        model=ENSEMBLE,
        architecture=ENSEMBLE,
        case_id=predictions[0].case_id,
        probability=np.asarray(np.mean([p.probability for p in predictions], axis=0), np.float32),
        threshold=float(np.mean([p.threshold for p in predictions])),
        keep="largest" if largest * 2 > len(predictions) else "all",
        seconds=sum(p.seconds for p in predictions),
        seen_in_training=any(p.seen_in_training for p in predictions),
        tta=predictions[0].tta,
    )


def state_on_card(folder: Path, card: WeightsCard, result: dict[str, Any]) -> None:
    """Write the figures of an evaluation into a weights folder: config.json and README.md.

    Raises:
        InputError: if the evaluation was not on the validation patients of the card.
    """
    figures = result["models"][card.name]
    if set(figures["patients"]) != set(card.validation_patients):
        raise InputError(f"the card of {card.name} states its validation patients alone; add --validation")
    own = ("weights_sha256", "threshold", "keep", "temperature")
    stated = {key: value for key, value in figures.items() if key not in own}
    if "missing_sequences" not in figures:
        raise InputError(f"the card of {card.name} states figures for missing sequences; evaluate those too")
    card = replace(card, metrics={"protocol": result["protocol"]} | stated)
    write_card(folder, card)
    with atomic_write(folder / "README.md") as file:
        file.write(model_card(card).encode())


def _cell(row: dict[str, Any], key: str) -> str:
    return str(Undefined(row["not_computable"][key])) if row[key] is None else f"{row[key]:.3f}"


def model_card(card: WeightsCard) -> str:
    """README.md of a weights folder in the Hub's format; every figure comes from `card.metrics`."""
    architecture = ARCHITECTURES[card.spec.architecture]
    figures = card.metrics
    number = {key: f"{figures[key]:.3f}" for key in ("dice_mean", "dice_median", "dice_std")}
    hd95 = (
        "not computable"
        if figures["hd95_mean"] is None
        else f"{figures['hd95_mean']:.1f} {figures['hd95_unit']}"
    )
    rows = "\n".join(
        f"| {patient} | " + " | ".join(_cell(row, key) for key in FIGURES) + " |"
        for patient, row in figures["patients"].items()
    )
    start = "from a random start"
    if card.init:
        name, _, digest = card.init.partition("@")
        start = f"starting from the weights {name} (sha256 {digest[:12]}) where names and shapes agree"
    return f"""---
license: {card.licence}
library_name: brainseg
pipeline_tag: image-segmentation
tags: [medical, mri, glioma, segmentation, {card.spec.architecture.replace("_", "-")}]
datasets: [mateuszbuda/lgg-mri-segmentation]
model-index:
- name: {card.name}
  results:
  - task: {{type: image-segmentation, name: Lower-grade glioma segmentation}}
    dataset: {{type: mateuszbuda/lgg-mri-segmentation, name: "LGG, {figures["cases"]} validation patients"}}
    metrics:
    - {{type: dice, name: "Mean volumetric Dice by patient", value: {number["dice_mean"]}}}
    - {{type: dice, name: "Median volumetric Dice by patient", value: {number["dice_median"]}}}
---
# {architecture.title} for lower-grade glioma on brain MRI

{RESEARCH_USE}

{architecture.title} ({architecture.paper}), width {card.spec.width}, norm {card.spec.norm}, dropout
{card.spec.dropout:g}. Input: axial slices of T1 before contrast, FLAIR and T1 after contrast, resized so that
the longer side has {card.preprocess["size"]} pixels. Output: the probability of tumour in each pixel, on the
grid of the slices as given. Made by `brainseg train recipes/{card.name}.toml`,
{start}.

## Figures

{figures["protocol"]} {figures["cases"]} validation patients, none of them seen in training; computed in
{figures["precision"]} on the device type {figures["device"]}. The same patients chose the epoch, the
threshold ({card.threshold:g}) and the post-processing (connected components kept: {card.keep}), so expect
slightly less on other patients. HD95 is in {figures["hd95_unit"] or "voxels"}.

| mean Dice | median Dice | standard deviation | lesions missed | not computable | mean HD95 |
|---|---|---|---|---|---|
| {" | ".join([*number.values(), str(figures["missed"]), str(figures["not_computable"]), hd95])} |

The same figures again: `brainseg evaluate DATASET --model {card.name} --validation --missing-sequences`.

| patient | Dice | IoU | sensitivity | precision | HD95 |
|---|---|---|---|---|---|
{rows}

## Data and licence

Trained on {len(card.training_patients)} patients of the LGG set of Buda, Saha and Mazurowski (Computers in
Biology and Medicine 2019, doi 10.1016/j.compbiomed.2019.05.002; images from The Cancer Imaging Archive,
TCGA-LGG), which is licensed CC BY-NC-SA 4.0. The weights carry the same licence. IDs of the training and
validation patients are listed in config.json.

## Intended use and limits

Research on lower-grade glioma. The data are preoperative grade II and III gliomas from five institutions;
other tumours, operated brains, other scanners and slices other than axial were not seen. The network sees
one slice at a time.

{_measured(card)}
"""


def _measured(card: WeightsCard) -> str:
    """What the card says of healthy slices, missing sequences and calibration."""
    healthy, calibration = card.metrics["healthy_slices"], card.metrics["calibration"]
    share = healthy["with_false_positives"] / healthy["slices"] if healthy["slices"] else 0.0
    rows = "\n".join(
        f"| {key} | {row['dice_mean']:.3f} | {row['dice_median']:.3f} | {row['missed']} |"
        for key, row in card.metrics["missing_sequences"].items()
    )
    scaled = "Logits are used as they are: no temperature helped patients it was not fitted on"
    if card.temperature != 1:
        scaled = f"Logits are divided by a temperature of {card.temperature:g}, fitted on the same patients"
    return f"""Measured on the validation patients:

- Healthy slices: of {healthy["slices"]} slices without tumour in the reference,
  {healthy["with_false_positives"]} ({share:.0%}) got a false positive; its median size is
  {healthy["median_false_pixels"]:.0f} pixels. All are slices of patients with a tumour; brains without any
  were not seen.
- Missing sequences: with FLAIR in the place of a sequence, as in some patients of the training data:

| in place of | mean Dice | median Dice | lesions missed |
|---|---|---|---|
{rows}

- Calibration: the expected calibration error (15 bins) is {calibration["ece"]:.4f} over all voxels, and
  {calibration["ece_lesion"]:.3f} over those that are tumour or got a probability of
  {calibration["lesion_floor"]:g} or more. {scaled}."""
