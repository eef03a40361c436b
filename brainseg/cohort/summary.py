"""A cohort as a table for spreadsheets."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from typing import Any

from brainseg.measure import FIGURES
from brainseg.report.figures import SETTINGS, cell, row_figures

_OF_A_PATIENT = (
    "patient",
    "case_id",
    "folder",
    "device",
    "precision",
    "brainseg_version",
    "time_utc",
    "research_use",
)
COLUMNS = (
    "patient",
    "case_id",
    "model",
    "failure",
    "tumour_voxels",
    "volume_ml",
    "reference_voxels",
    *FIGURES,
    "hd95_unit",
    *SETTINGS,
    "device",
    "precision",
    "source_format",
    "source_sha256",
    "spacing_mm",
    "folder",
    "brainseg_version",
    "time_utc",
    "notes",
    "research_use",
)


def summary(records: Iterable[dict[str, Any]]) -> bytes:
    """A row for each patient and model, and one for each patient that failed.

    UTF-8 with a byte order mark, as `brainseg.report.to_csv` writes its table.
    """
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, restval="")
    writer.writeheader()
    for record in records:
        writer.writerows({key: cell(value) for key, value in row.items()} for row in _rows(record))
    return text.getvalue().encode("utf-8-sig", errors="replace")


def _rows(record: dict[str, Any]) -> Iterator[dict[str, Any]]:
    common = {key: record.get(key) for key in _OF_A_PATIENT}
    if record["failure"] is not None:
        yield {**common, "failure": record["failure"]}
        return
    spacing = record["spacing_mm"]
    common |= {
        "source_format": record["source"]["format"],
        "source_sha256": record["source"]["sha256"],
        "spacing_mm": "unknown" if spacing is None else " x ".join(f"{x:g}" for x in spacing),
        "notes": " ".join(record["notes"]),
    }
    for name, model in record["models"].items():
        settings = {key: model[key] for key in SETTINGS}
        yield {**common, "model": name, **settings, **row_figures(model, (*FIGURES, "volume_ml"))}
