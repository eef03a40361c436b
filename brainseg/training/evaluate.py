"""Figures of a data set: every patient, every model, and their ensemble; and the card that states them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from brainseg.checkpoint import LoadedModel, write_card
from brainseg.inference import Predictor
from brainseg.io import read_study
from brainseg.metrics import FIGURES, compare, figure_to_json, summarise
from brainseg.models import ARCHITECTURES
from brainseg.postprocess import segment
from brainseg.training.data import patient_folders
from brainseg.types import RESEARCH_USE, InputError, Keep, Metrics, Study, WeightsCard

ENSEMBLE = "ensemble"
PROTOCOL = (
    "Volumetric Dice by patient on the original grid, averaged over patients; both masks empty: not "
    "computable and left out; missed lesion: 0."
)
Report = Callable[[str, int, int], None]


def evaluate(
    models: Sequence[LoadedModel],
    dataset: Path,
    *,
    ensemble: bool = False,
    unseen: bool = False,
    tta: bool = False,
    device: str = "auto",
    report: Report | None = None,
) -> dict[str, Any]:
    """Predict every patient of a data set with every model and compare with the reference masks.

    Args:
        models: one or more, of different names.
        dataset: folder of patient folders.
        ensemble: also the mean of the models' probabilities, at the mean of their thresholds, keeping the
            largest component when most of the models do.
        unseen: leave out patients that any of the models was trained on.
        tta: average over left-right flips.
        device: see `brainseg.inference.choose_device`.
        report: called with (sentence, patients done, patients in all).

    Returns:
        ``{"protocol", "models": {NAME: {"dice_mean", "dice_median", "dice_std", "missed", ...,
        "patients": {ID: {"dice", "iou", "sensitivity", "precision", "hd95", "seen_in_training"}}}}}``;
        figures that are not computable are None.

    Raises:
        InputError: if there is nothing to evaluate, or a patient cannot be read or has no masks.
    """
    folders = patient_folders(dataset)
    trained_on = {patient for model in models for patient in model.card.training_patients}
    if unseen:
        folders = {patient: folder for patient, folder in folders.items() if patient not in trained_on}
        if not folders:
            raise InputError(f"every patient in {dataset} was used to train these models; leave out --unseen")
    predictors = [Predictor(model, device) for model in models]
    names = [model.card.name for model in models] + [ENSEMBLE] * ensemble
    found: dict[str, dict[str, Metrics]] = {name: {} for name in names}
    for done, (patient, folder) in enumerate(folders.items()):
        if report:
            report(patient, done, len(folders))
        for name, metrics in _patient(predictors, _with_reference(folder), ensemble, tta):
            found[name][patient] = metrics
    if report:
        report("done", len(folders), len(folders))
    return {
        "research_use": RESEARCH_USE,
        "protocol": PROTOCOL + (" Mean over left-right flips." if tta else ""),
        "models": {
            name: summarise(patients)
            | {
                "patients": {
                    patient: {figure: figure_to_json(getattr(metrics, figure)) for figure in FIGURES}
                    | {"seen_in_training": patient in _trained_on(models, name)}
                    for patient, metrics in patients.items()
                }
            }
            for name, patients in found.items()
        },
    }


def _with_reference(folder: Path) -> Study:
    study = read_study(folder)
    if study.reference is None:
        raise InputError(
            f"{folder} has no masks; evaluation needs a mask for each slice, named <slice>_mask.tif"
        )
    return study


def _patient(
    predictors: Sequence[Predictor], study: Study, ensemble: bool, tta: bool
) -> Iterator[tuple[str, Metrics]]:
    assert study.reference is not None
    predictions = [predictor.predict(study, tta=tta, attention=False) for predictor in predictors]
    for prediction in predictions:
        mask = segment(prediction.probability, prediction.threshold, prediction.keep)
        yield prediction.model, compare(mask, study.reference, study.spacing_mm)
    if ensemble:
        probability = np.asarray(np.mean([p.probability for p in predictions], axis=0), np.float32)
        threshold = float(np.mean([p.threshold for p in predictions]))
        keep: Keep = (
            "largest" if sum(p.keep == "largest" for p in predictions) * 2 > len(predictions) else "all"
        )
        yield ENSEMBLE, compare(segment(probability, threshold, keep), study.reference, study.spacing_mm)


def _trained_on(models: Sequence[LoadedModel], name: str) -> set[str]:
    return {
        patient
        for model in models
        if name in (model.card.name, ENSEMBLE)
        for patient in model.card.training_patients
    }


def state_on_card(folder: Path, card: WeightsCard, result: dict[str, Any]) -> None:
    """Write the figures of an evaluation into a weights folder: config.json and README.md."""
    figures = result["models"][card.name]
    seen = sum(row["seen_in_training"] for row in figures["patients"].values())
    stated = {key: value for key, value in figures.items() if key != "patients"}
    stated |= {
        "protocol": result["protocol"],
        "patients_seen_in_training": seen,
        "patients": figures["patients"],
    }
    card = replace(card, metrics=stated)
    write_card(folder, card)
    (folder / "README.md").write_text(model_card(card), encoding="utf-8")


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
        f"| {patient} | "
        + " | ".join("not computable" if row[key] is None else f"{row[key]:.3f}" for key in FIGURES)
        + " |"
        for patient, row in figures["patients"].items()
    )
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
{card.spec.dropout:g}. Input: axial slices of T1 before contrast, FLAIR and T1 after contrast. Output: the
probability of tumour in each pixel. Made by `brainseg train recipes/{card.name}.toml`.

## Figures

{figures["protocol"]} {figures["cases"]} patients; {figures["patients_seen_in_training"]} of them were seen
in training. These validation patients chose the epoch, the threshold ({card.threshold:g}) and the
post-processing (connected components kept: {card.keep}), so expect slightly less on other patients.

| mean Dice | median Dice | standard deviation | lesions missed | not computable | mean HD95 |
|---|---|---|---|---|---|
| {" | ".join([*number.values(), str(figures["missed"]), str(figures["not_computable"]), hd95])} |

The same figures again: `brainseg evaluate DATASET --model {card.name} --unseen`.

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
one slice at a time. Where a sequence is missing, FLAIR in its place was part of the training; figures for
that case alone were not measured.
"""
