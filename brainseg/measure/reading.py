"""A finding measured once: what the page, the command line, the exports and the evaluation print."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from brainseg.measure.metrics import MASK_EMPTY, compare, compare_slices, format_figure, worst_slice
from brainseg.measure.rano import Diameters, diameters
from brainseg.measure.size import (
    SPACING_UNKNOWN,
    area,
    area_per_slice,
    area_unit,
    slice_of_largest_area,
    volume_ml,
)
from brainseg.postprocess import Finding
from brainseg.types import Figure, Metrics, Prediction, Study, Undefined

NO_REFERENCE = Undefined("no reference mask was given")

SEEN = "seen in training"
"""Marks the Dice of a patient that the weights were fitted on."""

_TITLES = {
    "dice": ("Dice", 3),
    "iou": ("IoU", 3),
    "sensitivity": ("Sensitivity", 3),
    "precision": ("Precision", 3),
    "hd95": ("HD95", 1),
    "assd": ("ASSD", 1),
}


@dataclass(frozen=True)
class Measurement:
    """One figure and all that is needed to print it.

    Attributes:
        key: its name in JSON and in tables for programs.
        title: its name for people.
        value: the number, or why there is none.
        unit: of the value; empty where it has none or the title names it.
        digits: decimals shown.
        remark: said after the value, in brackets.
    """

    key: str
    title: str
    value: Figure
    unit: str = ""
    digits: int = 0
    remark: str = ""

    @property
    def heading(self) -> str:
        """Title of a column of such figures, with the unit."""
        return f"{self.title} ({self.unit})" if self.unit else self.title

    @property
    def text(self) -> str:
        """The value for a cell below `heading`: "0.815", "12,345" or "not computable: reason"."""
        return format_figure(self.value, self.digits) + (f" ({self.remark})" if self.remark else "")

    @property
    def asked(self) -> bool:
        """False where the study lacks what the figure needs, a reference or a spacing; no column for it."""
        return self.value not in (NO_REFERENCE, SPACING_UNKNOWN)


@dataclass(frozen=True, eq=False)
class Reading:
    """A finding and everything said of it.

    Attributes:
        finding: the mask at the applied threshold.
        figures: of the volume, in the order they are shown; the same keys for every study.
        slices: of each slice, likewise.
        areas: tumour pixels of each slice.
        metrics: against the reference over the volume; None without a reference.
        largest: index of the slice with the largest area; None for an empty mask.
        worst: index of the slice with the lowest Dice; None without one.
        diameters: of the largest lesion, with their ends.
    """

    finding: Finding
    figures: tuple[Measurement, ...]
    slices: tuple[tuple[Measurement, ...], ...]
    areas: tuple[int, ...]
    metrics: Metrics | None
    largest: int | None
    worst: int | None
    diameters: Diameters | Undefined

    @property
    def prediction(self) -> Prediction:
        return self.finding.prediction


def measure(study: Study, finding: Finding) -> Reading:
    """Measure one finding in its study.

    Raises:
        ValueError: if the finding is of another case or of another shape.
    """
    prediction, mask = finding.prediction, finding.mask
    if prediction.case_id != study.case_id:
        raise ValueError(f"finding is of case {prediction.case_id!r}, not {study.case_id!r}")
    if mask.shape != study.shape:
        raise ValueError(f"mask is {mask.shape}, slices are {study.shape}")
    spacing, truth = study.spacing_mm, study.reference
    areas = tuple(area_per_slice(mask).tolist())
    unit = area_unit(spacing)
    largest = slice_of_largest_area(mask)
    across = diameters(mask, spacing)
    whole = None if truth is None else compare(mask, truth, spacing)
    within: Sequence[Metrics | None] = (
        [None] * len(areas) if truth is None else compare_slices(mask, truth, spacing)
    )
    return Reading(
        finding=finding,
        figures=(
            Measurement("tumour_voxels", "Tumour voxels", sum(areas)),
            Measurement("volume_ml", "Volume", volume_ml(sum(areas), spacing), "ml", 1),
            _largest_slice(study, largest),
            Measurement(
                "largest_area",
                "Largest area",
                MASK_EMPTY if largest is None else area(areas[largest], spacing),
                unit,
            ),
            *_diameters(across, "pixels" if spacing is None else "mm"),
            *_agreement(whole, "voxels" if spacing is None else "mm", prediction.seen_in_training),
            Measurement(
                "threshold",
                "Threshold",
                finding.threshold,
                digits=2,
                remark="largest region" if finding.keep == "largest" else "",
            ),
            Measurement("seconds", "Seconds", prediction.seconds, digits=1),
        ),
        slices=tuple(
            (
                Measurement("area", "Area", area(pixels, spacing), unit),
                *_agreement(metrics, "pixels" if spacing is None else "mm"),
            )
            for pixels, metrics in zip(areas, within, strict=True)
        ),
        areas=areas,
        metrics=whole,
        largest=largest,
        worst=None if truth is None else worst_slice(mask, truth),
        diameters=across,
    )


def _largest_slice(study: Study, largest: int | None) -> Measurement:
    """The slice's own number; where files do not count from 1, its place too, by which viewers count."""
    if largest is None:
        return Measurement("largest_slice", "Largest slice", MASK_EMPTY)
    number = study.slice_numbers[largest]
    remark = "" if number == largest + 1 else f"place {largest + 1} of {study.shape[0]}"
    return Measurement("largest_slice", "Largest slice", number, remark=remark)


def _diameters(found: Diameters | Undefined, unit: str) -> tuple[Measurement, ...]:
    """Both diameters and their product; where the mask has several lesions, the first says whose they are."""
    remark = ""
    longest: Figure
    perpendicular: Figure
    product: Figure
    if isinstance(found, Undefined):
        longest = perpendicular = product = found
    else:
        longest, perpendicular = found.longest.length, found.perpendicular.length
        product = found.product
        if found.lesions > 1:
            remark = f"largest of {found.lesions}"
    return (
        Measurement("longest_diameter", "Longest diameter", longest, unit, 1, remark),
        Measurement("perpendicular_diameter", "Perpendicular diameter", perpendicular, unit, 1),
        Measurement("diameter_product", "Diameter product", product, f"{unit}²"),
    )


def _agreement(metrics: Metrics | None, unit: str, seen: bool = False) -> tuple[Measurement, ...]:
    return tuple(
        Measurement(
            key,
            title,
            NO_REFERENCE if metrics is None else getattr(metrics, key),
            unit if key in ("hd95", "assd") else "",
            digits,
            SEEN if seen and key == "dice" and metrics is not None else "",
        )
        for key, (title, digits) in _TITLES.items()
    )


def table(readings: Sequence[Reading]) -> tuple[list[str], list[list[str]]]:
    """Figures of the volume as text: headings, then a row of cells for each reading of one study.

    Figures that the study lacks a reference or a spacing for have no column.
    """
    if not readings:
        return [], []
    shown = [n for n, figure in enumerate(readings[0].figures) if figure.asked]
    head = [readings[0].figures[n].heading for n in shown]
    return head, [[reading.figures[n].text for n in shown] for reading in readings]


def figures_to_json(figures: Sequence[Measurement]) -> dict[str, Any]:
    """Values by key, None where not computable, with the reasons by key under ``not_computable``.

    A unit that the key does not name stands beside it, as ``hd95_unit``.

    Raises:
        ValueError: if a number is NaN or infinite.
    """
    row: dict[str, Any] = {}
    reasons: dict[str, str] = {}
    for figure in figures:
        if isinstance(figure.value, Undefined):
            row[figure.key], reasons[figure.key] = None, figure.value.reason
        elif not math.isfinite(figure.value):
            raise ValueError(f"a figure must be finite or Undefined, got {figure.key} {figure.value}")
        else:
            row[figure.key] = figure.value
        if figure.unit and not figure.key.endswith(f"_{figure.unit}"):
            row[f"{figure.key}_unit"] = figure.unit
    return row | {"not_computable": reasons}
