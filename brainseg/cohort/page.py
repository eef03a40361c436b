"""A cohort as a page: one file beside its thumbnails, without a request to anyone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, StrictUndefined, Template

from brainseg.models import ARCHITECTURES
from brainseg.overlay import PREDICTION
from brainseg.report.pictures import THUMBNAIL_PX
from brainseg.types import RESEARCH_USE, Undefined


@dataclass(frozen=True)
class _Cell:
    """A figure as it is shown and as it is sorted by; what is not computable comes last."""

    text: str
    value: float | None


def page(settings: dict[str, Any], records: Sequence[dict[str, Any]], total: int) -> bytes:
    """HTML with a row and a thumbnail for each patient, sortable by every column.

    Args:
        settings: of the run.
        records: of the patients so far, in the order they are shown.
        total: patients of the run, for how far it is.
    """
    done = [record for record in records if record["failure"] is None]
    names = list(settings["models"])
    figures = _figures(done)
    text = _template().render(
        research_use=RESEARCH_USE,
        version=settings["brainseg_version"],
        settings=settings,
        models=[(name, _colour(settings["models"][name])) for name in names],
        figures=[title for _, title in figures],
        rows=[_row(record, names, [key for key, _ in figures]) for record in records],
        done=len(done),
        failed=len(records) - len(done),
        left=max(0, total - len(records)),
        reference=any(record["reference_voxels"] is not None for record in done),
        width=THUMBNAIL_PX * len(names),
        height=THUMBNAIL_PX,
    )
    # Names of files may hold what is no character.
    return text.encode(errors="replace")


@cache
def _template() -> Template:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))


def _figures(done: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """Keys and titles of the columns of each model: those that any patient has what is needed for."""
    found = [("tumour_voxels", "Voxels")]
    if any(record["spacing_mm"] is not None for record in done):
        found.append(("volume_ml", "ml"))
    if any(record["reference_voxels"] is not None for record in done):
        found.append(("dice", "Dice"))
    return [*found, ("seconds", "s")]


def _row(record: dict[str, Any], models: Sequence[str], figures: Sequence[str]) -> dict[str, Any]:
    failed = record["failure"] is not None
    return {
        "patient": record["patient"],
        "failure": record["failure"],
        "folder": "" if failed else quote(record["folder"]) + "/",
        "thumbnail": "" if failed else quote(record["thumbnail"]),
        "slice": None if failed else record["thumbnail_slice"],
        "notes": [] if failed else record["notes"],
        "seen": [] if failed else [name for name in models if record["models"][name]["seen_in_training"]],
        "cells": [] if failed else [_cell(record["models"][name], key) for name in models for key in figures],
    }


def _cell(model: dict[str, Any], key: str) -> _Cell:
    value = model[key]
    if value is None:
        return _Cell(str(Undefined(model["not_computable"][key])), None)
    return _Cell({"dice": "{:.3f}", "tumour_voxels": "{:,}"}.get(key, "{:.1f}").format(value), value)


def _colour(model: dict[str, Any]) -> str:
    row = ARCHITECTURES.get(model["architecture"])
    return row.colour if row else PREDICTION
