"""What the page shows, worked out without any page: plain functions over frozen dataclasses.

Streamlit's face and the next one share this module; it knows nothing of widgets.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from brainseg import overlay
from brainseg.grid import edges, mirror
from brainseg.measure import (
    Measurement,
    Reading,
    area,
    area_per_slice,
    area_unit,
    cost_of_missing,
    measure,
    pairs,
    slice_of_largest_area,
    table,
)
from brainseg.models import ARCHITECTURES
from brainseg.postprocess import find
from brainseg.types import (
    RESEARCH_USE,
    Keep,
    Prediction,
    Spacing,
    Study,
    Undefined,
    WeightsCard,
)
from brainseg.ui.wire import Block, attention_id, box_of, message

TYPED_SPACING = "Spacing was given by the user, not by the files."
"""Noted with a study whose spacing was typed, so that it does not look measured."""

PredictionKey = tuple[str, str, str, bool]
"""Content, name of the case, weights, flips: what a prediction depends on, and nothing a slider changes.

The same slices under another name are another case, which may or may not have been seen in training.
"""


@dataclass(frozen=True)
class Jump:
    """Where the viewer is asked to go; a new `nonce` makes it go, even to the same slice."""

    slice: int
    nonce: int


def title_of(architecture: str) -> str:
    """How weights of this network are called on the page."""
    return ARCHITECTURES[architecture].title


def line_of(prediction: Prediction) -> tuple[str, tuple[int, ...]]:
    """Colour and dash of a model's lines."""
    network = ARCHITECTURES[prediction.architecture]
    return network.colour, network.dash


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


def reading_at(study: Study, prediction: Prediction, threshold: float, keep: Keep) -> Reading:
    """Cut a prediction at a threshold and measure it; no network runs."""
    return measure(study, find(prediction, threshold, keep))


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


def notes(study: Study, cards: Iterable[WeightsCard]) -> tuple[str, ...]:
    """What was assumed while reading, and what it costs the networks, in sentences."""
    cost = cost_of_missing(study, {title_of(card.spec.architecture): card for card in cards})
    return study.notes if cost is None else (*study.notes, cost)


def file_table(study: Study) -> list[dict[str, str]]:
    """What each given file was taken as."""
    return [{"File": f.name, "Taken as": f.role, "Note": f.note} for f in study.source.files]


def figure_table(readings: Sequence[Reading]) -> tuple[list[str], list[list[str]]]:
    """Figures of the patient: column titles, then for each model its cells, the title first."""
    head, rows = table(readings)
    titles = [title_of(reading.prediction.architecture) for reading in readings]
    return ["Model", *head], [[title, *row] for title, row in zip(titles, rows, strict=True)]


def agreement_lines(readings: Sequence[Reading]) -> list[tuple[str, str, str]]:
    """Dice of each pair of models with each other: two titles and the figure."""
    titles = [title_of(reading.prediction.architecture) for reading in readings]
    found = pairs([reading.finding.mask for reading in readings])
    return [(titles[a], titles[b], text) for (a, b), text in found.items()]


def first_slice(study: Study) -> int:
    """The slice to open with: the reference's largest, else the middle."""
    largest = None if study.reference is None else slice_of_largest_area(study.reference)
    return study.shape[0] // 2 if largest is None else largest


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
    unit = area_unit(study.spacing_mm)
    reference: dict[str, Any] | None = None
    if truth is not None:
        pixels = area_per_slice(truth)
        reference = {
            "colour": overlay.REFERENCE,
            "largest": slice_of_largest_area(truth),
            "rows": [f"{area(int(p), study.spacing_mm):,.0f}" for p in pixels],
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
    shown = [n for n, figure in enumerate(reading.slices[0]) if figure.asked]
    colour, dash = line_of(prediction)
    return {
        "name": prediction.model,
        "id": identity,
        "title": title_of(prediction.architecture),
        "colour": colour,
        "dash": dash,
        "seen": prediction.seen_in_training,
        "largest": reading.largest,
        "worst": reading.worst,
        "columns": [reading.slices[0][n].heading for n in shown],
        "rows": [[_cell(figures[n]) for n in shown] for figures in reading.slices],
        "gates": [
            {"id": attention_id(identity, a.gate), "gate": a.gate, "level": a.level}
            for a in prediction.attention
        ],
    }


def _cell(figure: Measurement) -> str | dict[str, str]:
    return {"none": figure.text} if isinstance(figure.value, Undefined) else figure.text
