"""What the page shows, worked out without any page: plain functions over frozen dataclasses.

Streamlit's face and the next one share this module; it knows nothing of widgets.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from brainseg import overlay
from brainseg.metrics import (
    area_per_slice,
    compare,
    compare_slices,
    format_figure,
    slice_of_largest_area,
    volume_ml,
    worst_slice,
)
from brainseg.models import ARCHITECTURES
from brainseg.postprocess import Finding, find
from brainseg.types import (
    RESEARCH_USE,
    Figure,
    Keep,
    Metrics,
    Prediction,
    Spacing,
    Study,
    Undefined,
    WeightsCard,
)
from brainseg.ui.wire import Block, attention_id, box_of, message

__all__ = [
    "SEEN",
    "TYPED_SPACING",
    "Jump",
    "PredictionKey",
    "Reading",
    "agreement_lines",
    "area_unit",
    "describe",
    "file_table",
    "first_slice",
    "identity",
    "key_of",
    "pack_id",
    "prediction_key",
    "read",
    "table",
    "title_of",
    "view_message",
    "votes_sentence",
    "with_spacing",
]

SEEN = "seen in training"
"""Marks a figure of a patient that the weights were fitted on."""

TYPED_SPACING = "Spacing was given by the user, not by the files."
"""Noted with a study whose spacing was typed, so that it does not look measured."""

PredictionKey = tuple[str, str, str, bool]
"""Content, name of the case, weights, flips: what a prediction depends on, and nothing a slider changes.

The same slices under another name are another case, which may or may not have been seen in training.
"""

_DIGITS = {"dice": 3, "iou": 3, "sensitivity": 3, "precision": 3, "hd95": 1}
_TITLES = {
    "dice": "Dice",
    "iou": "IoU",
    "sensitivity": "Sensitivity",
    "precision": "Precision",
    "hd95": "HD95",
}


@dataclass(frozen=True)
class Jump:
    """Where the viewer is asked to go; a new `nonce` makes it go, even to the same slice."""

    slice: int
    nonce: int


@dataclass(frozen=True, eq=False)
class Reading:
    """One model's finding and everything shown of it.

    Attributes:
        finding: the mask at the applied threshold.
        metrics: against the reference over the volume; None without a reference.
        by_slice: the same within each slice.
        areas: tumour pixels of each slice.
        largest: index of the slice with the largest area; None for an empty mask.
        worst: index of the slice with the lowest Dice; None without one.
    """

    finding: Finding
    metrics: Metrics | None
    by_slice: tuple[Metrics, ...] | None
    areas: tuple[int, ...]
    largest: int | None
    worst: int | None

    @property
    def prediction(self) -> Prediction:
        return self.finding.prediction

    @property
    def title(self) -> str:
        return ARCHITECTURES[self.prediction.architecture].title

    @property
    def colour(self) -> str:
        return ARCHITECTURES[self.prediction.architecture].colour

    @property
    def dash(self) -> tuple[int, ...]:
        return ARCHITECTURES[self.prediction.architecture].dash


def title_of(card: WeightsCard) -> str:
    """How weights are called on the page."""
    return ARCHITECTURES[card.spec.architecture].title


def prediction_key(study: Study, card: WeightsCard, tta: bool) -> PredictionKey:
    """Where the output of these weights on this study is kept."""
    return study.source.sha256, study.case_id, card.sha256, tta


def key_of(study: Study, prediction: Prediction) -> PredictionKey:
    """Where this prediction of the study is kept."""
    return study.source.sha256, study.case_id, prediction.weights_sha256, prediction.tta


def identity(key: PredictionKey) -> str:
    """A short name for a key, in which the case's own does not stand."""
    content, case, weights, tta = key
    case = hashlib.sha256(case.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{content[:16]}/{case[:8]}/{weights[:16]}/{int(tta)}"


def pack_id(study: Study, prediction: Prediction) -> str:
    """The name of a prediction's arrays in the browser."""
    return identity(key_of(study, prediction))


def with_spacing(study: Study, spacing_mm: Spacing) -> Study:
    """The study with the spacing that the user typed, and a note that says so."""
    return replace(study, spacing_mm=spacing_mm, notes=(*study.notes, TYPED_SPACING))


def read(study: Study, prediction: Prediction, threshold: float, keep: Keep) -> Reading:
    """Cut a prediction at a threshold and measure it; no network runs."""
    finding = find(prediction, threshold, keep)
    truth = study.reference
    return Reading(
        finding=finding,
        metrics=None if truth is None else compare(finding.mask, truth, study.spacing_mm),
        by_slice=None if truth is None else compare_slices(finding.mask, truth, study.spacing_mm),
        areas=tuple(int(a) for a in area_per_slice(finding.mask)),
        largest=slice_of_largest_area(finding.mask),
        worst=None if truth is None else worst_slice(finding.mask, truth),
    )


def describe(study: Study) -> tuple[str, ...]:
    """What is known of a study, and what is not, in short phrases."""
    slices, height, width = study.shape
    if study.spacing_mm is None:
        spacing = "spacing unknown"
    else:
        between, row, column = study.spacing_mm
        spacing = f"{between:g} mm between slices, pixels {row:g} × {column:g} mm"
    return (
        f"{slices} slices of {height} × {width}",
        spacing,
        f"orientation {study.orientation}" if study.orientation else "orientation unknown",
        "reference mask" if study.reference is not None else "no reference mask",
    )


def file_table(study: Study) -> list[dict[str, str]]:
    """What each given file was taken as."""
    return [{"File": f.name, "Taken as": f.role, "Note": f.note} for f in study.source.files]


def area_unit(study: Study) -> str:
    """Unit of areas within a slice."""
    return "pixels" if study.spacing_mm is None else "mm²"


def area(study: Study, pixels: int) -> float:
    """An area in `area_unit`."""
    return float(pixels) if study.spacing_mm is None else pixels * study.spacing_mm[1] * study.spacing_mm[2]


def table(study: Study, readings: Sequence[Reading]) -> tuple[list[str], list[list[str]]]:
    """Figures of the patient: column titles, then for each model its cells, the title first."""
    with_reference = study.reference is not None
    head = ["Model", "Tumour voxels"]
    if study.spacing_mm is not None:
        head.append("Volume (ml)")
    head.append("Largest slice")
    if with_reference:
        unit = "mm" if study.spacing_mm is not None else "voxels"
        head += [f"{title} ({unit})" if name == "hd95" else title for name, title in _TITLES.items()]
    head += ["Threshold", "Seconds"]
    return head, [_row(study, reading) for reading in readings]


def _row(study: Study, reading: Reading) -> list[str]:
    voxels = sum(reading.areas)
    cells = [reading.title, f"{voxels:,}"]
    if study.spacing_mm is not None:
        cells.append(format_figure(volume_ml(voxels, study.spacing_mm), 1))
    if reading.largest is None:
        cells.append("no tumour found")
    else:
        size = area(study, reading.areas[reading.largest])
        cells.append(f"{reading.largest + 1} ({size:,.0f} {area_unit(study)})")
    if reading.metrics is not None:
        figures = _figures(reading.metrics)
        if reading.prediction.seen_in_training:
            figures[0] += f" ({SEEN})"
        cells += figures
    finding = reading.finding
    keep = ", largest region" if finding.keep == "largest" else ""
    return [*cells, f"{finding.threshold:.2f}{keep}", f"{reading.prediction.seconds:.1f}"]


def _figures(metrics: Metrics) -> list[str]:
    return [format_figure(getattr(metrics, name), digits) for name, digits in _DIGITS.items()]


def agreement_lines(study: Study, readings: Sequence[Reading]) -> list[tuple[str, str, str]]:
    """Dice of each pair of models with each other: two titles and the figure."""
    return [
        (a.title, b.title, format_figure(compare(a.finding.mask, b.finding.mask, study.spacing_mm).dice, 3))
        for a, b in combinations(readings, 2)
    ]


def votes_sentence(readings: Sequence[Reading]) -> str:
    """How many of the voxels that any model marks all of them mark, in words."""
    masks = [r.finding.mask for r in readings]
    either = int(np.count_nonzero(np.logical_or.reduce(masks)))
    if not either:
        return "No model marks a voxel."
    share = int(np.count_nonzero(np.logical_and.reduce(masks))) / either
    whom = "both" if len(masks) == 2 else f"all {len(masks)}"
    return f"Of the {either:,} voxels that any model marks, {whom} mark {share:.0%}."


def first_slice(study: Study) -> int:
    """The slice to open with: the reference's largest, else the middle."""
    largest = None if study.reference is None else slice_of_largest_area(study.reference)
    return study.shape[0] // 2 if largest is None else largest


_OPPOSITE = {"L": "R", "R": "L", "A": "P", "P": "A", "S": "I", "I": "S"}


def mirror(orientation: str | None) -> tuple[bool, bool]:
    """Whether rows and columns are shown the other way round for the radiological view.

    Patient right belongs on screen left and front on top; in views from the side, front on screen left. An
    unknown orientation is shown as the files have it.
    """
    if orientation is None:
        return False, False
    return orientation[1] not in "PI", orientation[0] not in "LP"


def edges(orientation: str | None) -> dict[str, str] | None:
    """Letters for the four sides of the screen, after `mirror`; None when the orientation is unknown.

    `orientation` names the directions in which columns, rows and slices count up, as in DICOM's "LPS".

        >>> edges("LPS")
        {'left': 'R', 'right': 'L', 'top': 'A', 'bottom': 'P'}
    """
    if orientation is None:
        return None
    rows, columns = mirror(orientation)
    right = _OPPOSITE[orientation[0]] if columns else orientation[0]
    bottom = _OPPOSITE[orientation[1]] if rows else orientation[1]
    return {"left": _OPPOSITE[right], "right": right, "top": _OPPOSITE[bottom], "bottom": bottom}


def view_message(
    study: Study, readings: Sequence[Reading], wanted: Sequence[str] = (), jump: Jump | None = None
) -> bytes:
    """Everything the viewer needs beside the packs: masks, figures of every slice, names and colours.

    Args:
        study: the patient.
        readings: the models shown, in order.
        wanted: ids of the attention packs that are being sent along.
        jump: where to go.
    """
    slices, height, width = study.shape
    truth = study.reference
    unit = area_unit(study)
    reference: dict[str, Any] | None = None
    if truth is not None:
        pixels = area_per_slice(truth)
        reference = {
            "colour": overlay.REFERENCE,
            "largest": slice_of_largest_area(truth),
            "rows": [f"{area(study, int(p)):,.0f}" for p in pixels],
        }
    ramp = overlay.palette("viridis")
    count = max(1, len(readings))
    votes = [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in (ramp[255 * n // count] for n in range(count + 1))]
    masks = [reading.finding.mask for reading in readings]
    if truth is not None:
        masks.append(truth)
    header = {
        "kind": "view",
        "label": RESEARCH_USE,
        "study": {
            "id": study.source.sha256,
            "title": study.case_id,
            "slices": slices,
            "height": height,
            "width": width,
            "aspect": 1.0 if study.spacing_mm is None else study.spacing_mm[1] / study.spacing_mm[2],
            "numbers": study.slice_numbers,
            "edges": edges(study.orientation),
            "mirror": mirror(study.orientation),
            "first": first_slice(study),
        },
        "unit": unit,
        "reference": reference,
        "errors": {
            "tp": overlay.TRUE_POSITIVE,
            "fp": overlay.FALSE_POSITIVE,
            "fn": overlay.FALSE_NEGATIVE,
        },
        "votes": votes,
        "marks": box_of(np.array([mask.any(axis=0) for mask in masks])) if masks else None,
        "wanted": list(wanted),
        "jump": None if jump is None else {"slice": jump.slice, "nonce": jump.nonce},
        "models": [_model_header(study, reading) for reading in readings],
    }
    blocks = {f"mask{i}": Block(reading.finding.mask, "bits") for i, reading in enumerate(readings)}
    return message(header, blocks)


def _model_header(study: Study, reading: Reading) -> dict[str, Any]:
    prediction = reading.prediction
    identity = pack_id(study, prediction)
    columns = [f"Area ({area_unit(study)})"]
    rows: list[list[Any]] = [[f"{area(study, pixels):,.0f}"] for pixels in reading.areas]
    if reading.by_slice is not None:
        unit = "mm" if study.spacing_mm is not None else "pixels"
        columns += [f"{title} ({unit})" if name == "hd95" else title for name, title in _TITLES.items()]
        for row, metrics in zip(rows, reading.by_slice, strict=True):
            row += [_cell(getattr(metrics, name), digits) for name, digits in _DIGITS.items()]
    return {
        "name": prediction.model,
        "id": identity,
        "title": reading.title,
        "colour": reading.colour,
        "dash": reading.dash,
        "seen": prediction.seen_in_training,
        "largest": reading.largest,
        "worst": reading.worst,
        "columns": columns,
        "rows": rows,
        "gates": [
            {"id": attention_id(identity, a.gate), "gate": a.gate, "level": a.level}
            for a in prediction.attention
        ],
    }


def _cell(figure: Figure, digits: int) -> str | dict[str, str]:
    return {"none": str(figure)} if isinstance(figure, Undefined) else format_figure(figure, digits)
