"""Every figure of a study as JSON and as a table for spreadsheets."""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np

from brainseg import __version__
from brainseg.measure import (
    FIGURES,
    Diameters,
    Reading,
    area_per_slice,
    figures_to_json,
    voxels_by_votes,
)
from brainseg.report.provenance import check, now, settings
from brainseg.types import RESEARCH_USE, Study, Undefined

_FORMULA_START = re.compile(r"(^|[;,|])(\s*[=+\-@＝＋－＠])")


def report(study: Study, readings: Sequence[Reading]) -> dict[str, Any]:
    """Everything there is to say about one study in plain JSON types; the app and `predict --json` share it.

    Figures that are not computable are None, with their reasons by name under ``not_computable``.

    Returns:
        Facts and figures by name.

        - ``research_use``, ``brainseg_version``, ``time_utc`` (ISO 8601);
        - ``case_id``, ``source`` (``format``, ``sha256``, ``files`` with ``name``, ``role``, ``note``),
          ``notes``, ``orientation``, ``spacing_mm`` (slices, rows, columns) or None, ``shape`` (S, H, W),
          ``slice_numbers``, ``reference_voxels`` or None;
        - ``models``, by name: ``architecture``, ``weights_sha256``, ``threshold`` and ``keep`` as applied,
          ``weights_threshold`` and ``weights_keep`` as stored, ``tta``, ``seen_in_training``, ``seconds``,
          every figure of the reading by its key (``tumour_voxels``, ``volume_ml``, ``largest_slice``,
          ``largest_area``, ``longest_diameter``, ``perpendicular_diameter``, ``diameter_product``, ``dice``,
          ``iou``, ``sensitivity``, ``precision``, ``hd95``, ``assd``, ...) with ``not_computable``,
          ``diameters`` (None, or ``slice``, a slice number, ``lesions``, how many there are, and the ends of
          ``longest`` and ``perpendicular`` as [row, column], counted from 0 at the first pixel's centre),
          ``reference_voxels``, ``area_per_slice`` (S pixel counts), ``worst_slice`` (a slice number or None),
          and ``slices``: for each its number as ``slice``, its ``tumour_voxels``, ``area`` and the same
          comparisons within that slice;
        - ``agreement``: for two models or more, ``voxels_by_votes``, where item k - 1 counts the voxels
          marked by exactly k models; otherwise None.

    Raises:
        ValueError: if a reading is of another case or shape, or two readings bear one model's name.
    """
    check(study, [reading.finding for reading in readings])
    source = study.source
    votes = voxels_by_votes([r.finding.mask for r in readings]) if len(readings) > 1 else None
    return {
        "research_use": RESEARCH_USE,
        "brainseg_version": __version__,
        "time_utc": now(),
        "case_id": study.case_id,
        "source": {
            "format": source.format,
            "sha256": source.sha256,
            "files": [{"name": f.name, "role": f.role, "note": f.note} for f in source.files],
        },
        "notes": list(study.notes),
        "orientation": study.orientation,
        "spacing_mm": None if study.spacing_mm is None else [float(x) for x in study.spacing_mm],
        "shape": list(study.shape),
        "slice_numbers": list(study.slice_numbers),
        "reference_voxels": None if study.reference is None else int(np.count_nonzero(study.reference)),
        "models": {r.prediction.model: _model_report(study, r) for r in readings},
        "agreement": None if votes is None else {"voxels_by_votes": votes},
    }


def to_json(figures: dict[str, Any]) -> bytes:
    """A `report` as indented UTF-8 JSON.

    Raises:
        ValueError: if a number is NaN or infinite.
    """
    text = json.dumps(figures, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    # A file name that is not UTF-8 holds lone surrogates; escaped like this they are JSON too.
    return text.encode(errors="backslashreplace")


def to_csv(figures: dict[str, Any]) -> bytes:
    """A `report` as a table: for each model one row for the patient and one for each slice.

    UTF-8 with a byte order mark, as spreadsheets expect. Text that a spreadsheet would run as a formula
    gets an apostrophe before it. Figures that are not computable read "not computable: reason".
    """
    spacing = figures["spacing_mm"]
    common = {
        "case_id": figures["case_id"],
        "source_format": figures["source"]["format"],
        "source_sha256": figures["source"]["sha256"],
        "spacing_mm": "unknown" if spacing is None else " x ".join(f"{x:g}" for x in spacing),
        "brainseg_version": figures["brainseg_version"],
        "time_utc": figures["time_utc"],
        "notes": " ".join(figures["notes"]),
        "research_use": figures["research_use"],
    }
    rows = []
    for name, model in figures["models"].items():
        always = {**common, "model": name, **{key: model[key] for key in SETTINGS}}
        patient = row_figures(model, (*FIGURES, "volume_ml", *_DIAMETERS))
        rows.append({**always, "scope": "patient", **patient, **_units(model)})
        for one in model["slices"]:
            within = row_figures(one, FIGURES)
            rows.append({**always, "scope": "slice", "slice": one["slice"], **within, **_units(one)})
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, _COLUMNS, restval="")
    writer.writeheader()
    writer.writerows({key: cell(value) for key, value in row.items()} for row in rows)
    return text.getvalue().encode("utf-8-sig", errors="replace")


_DIAMETERS = ("longest_diameter", "perpendicular_diameter", "diameter_product")
_UNITS = tuple(f"{name}_unit" for name in ("assd", *_DIAMETERS))

SETTINGS = (
    "architecture",
    "weights_sha256",
    "threshold",
    "weights_threshold",
    "keep",
    "weights_keep",
    "tta",
    "seen_in_training",
    "seconds",
)

_COLUMNS = (
    "case_id",
    "model",
    "scope",
    "slice",
    "tumour_voxels",
    "volume_ml",
    "reference_voxels",
    *FIGURES,
    "hd95_unit",
    *_DIAMETERS,
    *_UNITS,
    *SETTINGS,
    "source_format",
    "source_sha256",
    "spacing_mm",
    "brainseg_version",
    "time_utc",
    "notes",
    "research_use",
)


def _model_report(study: Study, reading: Reading) -> dict[str, Any]:
    truth = None if study.reference is None else area_per_slice(study.reference).tolist()
    slices: list[dict[str, Any]] = []
    for i, figures in enumerate(reading.slices):
        one = {"slice": study.slice_numbers[i], "tumour_voxels": reading.areas[i]}
        if truth is not None:
            one["reference_voxels"] = truth[i]
        slices.append(one | figures_to_json(figures))
    return {
        **settings(reading.finding),
        "seen_in_training": reading.prediction.seen_in_training,
        **figures_to_json(reading.figures),
        "reference_voxels": None if truth is None else sum(truth),
        "area_per_slice": list(reading.areas),
        "diameters": _ends(study, reading.diameters),
        "worst_slice": None if reading.worst is None else study.slice_numbers[reading.worst],
        "slices": slices,
    }


def _ends(study: Study, found: Diameters | Undefined) -> dict[str, Any] | None:
    """Where the diameters lie."""
    if isinstance(found, Undefined):
        return None
    return {
        "slice": study.slice_numbers[found.slice],
        "lesions": found.lesions,
        "longest": [list(found.longest.start), list(found.longest.end)],
        "perpendicular": [list(found.perpendicular.start), list(found.perpendicular.end)],
    }


def _units(figures: dict[str, Any]) -> dict[str, Any]:
    return {key: figures[key] for key in _UNITS if key in figures}


def row_figures(figures: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The counts and the named figures of a model or of one of its slices as CSV columns."""
    row: dict[str, Any] = {
        key: figures.get(key) for key in ("tumour_voxels", "reference_voxels", "hd95_unit")
    }
    for name in names:
        reason = figures["not_computable"].get(name)
        row[name] = figures[name] if reason is None else str(Undefined(reason))
    return row


def cell(value: Any) -> Any:
    """A value for a CSV; text on one line, and none that a spreadsheet would run as a formula."""
    if value is None:
        return ""
    if not isinstance(value, str):
        return value
    line = "".join(" " if unicodedata.category(c) == "Cc" else c for c in value)
    # After separators too: a spreadsheet that splits at semicolons would begin a cell there.
    return _FORMULA_START.sub(r"\1'\2", line)
