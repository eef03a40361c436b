"""The model card: README.md of a weights folder, in the Hub's format."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from brainseg.checkpoint import write_card
from brainseg.datasets.lgg import SLUG
from brainseg.files import atomic_write
from brainseg.measure import FIGURES
from brainseg.models import ARCHITECTURES
from brainseg.types import RESEARCH_USE, InputError, Undefined, WeightsCard


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
{_front_matter(card).to_yaml()}
---

# {architecture.title} for lower-grade glioma on brain MRI

{RESEARCH_USE}

{architecture.title} ({architecture.paper}), width {card.spec.width}, norm {card.spec.norm}, dropout
{card.spec.dropout:g}. Input: axial slices of T1 before contrast, FLAIR and T1 after contrast, resized so that
the longer side has {card.preprocess["size"]} pixels. Output: the probability of tumour in each pixel, on the
grid of the slices as given. Made by `brainseg train recipes/{card.name}.toml`,
{start}.

## Use

```
pip install brainseg-lgg
brainseg predict PATIENT --model OWNER/NAME --out RESULTS
```

OWNER/NAME is the id of this page, OWNER/NAME@COMMIT these weights and no later ones; PATIENT is a folder, a
zip or files. In Python, `brainseg.load("OWNER/NAME")` gives network, card and preprocessing together. The
network takes (B, 3, H, W), normalised to 0..1 as the preprocessing does, and gives logits (B, 1, H, W); a
probability is the sigmoid of a logit divided by {card.temperature:g}, and tumour is where it reaches
{card.threshold:g}.

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


def _front_matter(card: WeightsCard) -> ModelCardData:
    """What the Hub itself reads of a card."""
    figures = card.metrics
    return ModelCardData(
        license=card.licence,
        library_name="brainseg",
        pipeline_tag="image-segmentation",
        tags=["medical", "mri", "glioma", "segmentation", card.spec.architecture.replace("_", "-")],
        datasets=[SLUG],
        model_name=card.name,
        eval_results=[
            EvalResult(
                task_type="image-segmentation",
                task_name="Lower-grade glioma segmentation",
                dataset_type=SLUG,
                dataset_name=f"LGG, {figures['cases']} validation patients",
                dataset_split="validation",
                metric_type="dice",
                metric_name=name,
                metric_value=round(figures[key], 3),
                metric_args={"protocol": figures["protocol"]},
            )
            for key, name in (
                ("dice_mean", "Mean volumetric Dice by patient"),
                ("dice_median", "Median volumetric Dice by patient"),
            )
        ],
    )


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
