"""Downloads, built in memory: masks, overlay pictures, and a table and a JSON of the figures.

Each of them says what made it (weights, threshold, version, time) and that it is for research use only:
in a JSON field, a CSV column, PNG text chunks, the TIFF ImageDescription tag, and a README.txt in a zip.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
import unicodedata
import zipfile
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from brainseg import __version__
from brainseg.metrics import (
    FIGURES,
    agreement,
    area_per_slice,
    compare,
    compare_slices,
    figure_to_json,
    metrics_to_json,
    slice_of_largest_area,
    volume_ml,
    worst_slice,
)
from brainseg.models import ARCHITECTURES
from brainseg.overlay import (
    PREDICTION,
    REFERENCE,
    RgbArray,
    display_range,
    overlay_mask,
    window,
)
from brainseg.postprocess import Finding
from brainseg.types import CHANNELS, RESEARCH_USE, Study, Undefined

__all__ = ["masks_zip", "overlay_png", "overlays_zip", "report", "safe_name", "to_csv", "to_json"]

NO_REFERENCE = Undefined("no reference mask was given")

_DESCRIPTION_TAG, _SOFTWARE_TAG = 270, 305
_SHEET_PIXELS = 40_000_000
_CAPTION_PX = 16
_FORMULA_START = re.compile(r"(^|[;,|])(\s*[=+\-@＝＋－＠])")


def report(study: Study, findings: Sequence[Finding]) -> dict[str, Any]:
    """Everything there is to say about one study in plain JSON types; the app and `predict --json` share it.

    Figures that are not computable are None, with their reasons by name under ``not_computable``.

    Returns:
        - ``research_use``, ``brainseg_version``, ``time_utc`` (ISO 8601);
        - ``case_id``, ``source`` (``format``, ``sha256``, ``files`` with ``name``, ``role``, ``note``),
          ``notes``, ``orientation``, ``spacing_mm`` (slices, rows, columns) or None, ``shape`` (S, H, W),
          ``slice_numbers``, ``reference_voxels`` or None;
        - ``models``, by name: ``architecture``, ``weights_sha256``, ``threshold`` and ``keep`` as applied,
          ``weights_threshold`` and ``weights_keep`` as stored, ``tta``, ``seen_in_training``, ``seconds``,
          ``tumour_voxels``, ``volume_ml``, ``area_per_slice`` (S pixel counts), ``largest_slice`` and
          ``worst_slice`` (slice numbers or None), ``dice``, ``iou``, ``sensitivity``, ``precision``,
          ``hd95``, ``hd95_unit``, ``not_computable``, and ``slices``: for each its number as ``slice``,
          its ``tumour_voxels`` and, with a reference, the same figures within that slice;
        - ``agreement``: for two models or more, ``voxels_by_votes``, where item k - 1 counts the voxels
          marked by exactly k models; otherwise None.

    Raises:
        ValueError: if a finding is of another case or shape, or two findings bear one model's name.
    """
    _check(study, findings)
    source = study.source
    votes = agreement([f.mask for f in findings]) if len(findings) > 1 else None
    return {
        "research_use": RESEARCH_USE,
        "brainseg_version": __version__,
        "time_utc": _now(),
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
        "models": {f.prediction.model: _model_report(study, f) for f in findings},
        "agreement": None
        if votes is None
        else {"voxels_by_votes": np.bincount(votes.ravel(), minlength=len(findings) + 1)[1:].tolist()},
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
        always = {**common, "model": name, **{key: model[key] for key in _SETTINGS}}
        reasons = model["not_computable"]
        patient = _row_figures(model, reasons, (*FIGURES, "volume_ml"))
        rows.append({**always, "scope": "patient", **patient})
        for one in model["slices"]:
            within = _row_figures(one, one.get("not_computable", reasons), FIGURES)
            rows.append({**always, "scope": "slice", "slice": one["slice"], **within})
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, _COLUMNS, restval="")
    writer.writeheader()
    writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
    return text.getvalue().encode("utf-8-sig", errors="replace")


def masks_zip(study: Study, findings: Sequence[Finding], file_format: Literal["tif", "png"]) -> bytes:
    """A zip of the masks, one file a slice, 0 and 255 uint8, and a README.txt.

    Files are named ``<case>_<slice number>_mask.<file_format>`` as in the LGG data set, in a folder for
    each model when there are several.

    Raises:
        ValueError: as `report`.
    """
    _check(study, findings)
    files = {}
    for folder, finding in zip(_folders(findings), findings, strict=True):
        provenance = _provenance(study, [finding])
        for number, mask in zip(study.slice_numbers, finding.mask, strict=True):
            picture = Image.fromarray(mask.astype(np.uint8) * 255)
            name = f"{folder}{safe_name(study.case_id)}_{number}_mask.{file_format}"
            files[name] = _tiff(picture, provenance) if file_format == "tif" else _png(picture, provenance)
    return _zip(study, findings, files, "Masks: 0 is background, 255 is tumour.")


def overlay_png(
    study: Study,
    findings: Sequence[Finding],
    indices: Sequence[int],
    opacity: float = 0.4,
    outline_only: bool = False,
) -> bytes:
    """One PNG of masks over FLAIR: the models side by side, for one slice or for a sheet of several.

    Each mask is filled and outlined in its architecture's colour, the reference is outlined in blue;
    captions name slice, model and threshold. Very large sheets are reduced by a whole factor.

    Args:
        study: the slices and the reference.
        findings: one or more.
        indices: positions of the slices in the study, from 0; at least one.
        opacity: of the fill, 0 to 1.
        outline_only: no fill.

    Raises:
        ValueError: as `report`, for no findings, for no or unknown indices, or an opacity out of range.
    """
    _check(study, findings)
    if not findings:
        raise ValueError("an overlay needs at least one model's finding")
    if not indices or not all(0 <= i < study.shape[0] for i in indices):
        raise ValueError(f"indices must lie in 0..{study.shape[0] - 1}, got {list(indices)}")
    picture = _sheet(study, findings, indices, _Look(_flair_range(study), opacity, outline_only))
    return _png(picture, _provenance(study, findings))


def overlays_zip(
    study: Study, findings: Sequence[Finding], opacity: float = 0.4, outline_only: bool = False
) -> bytes:
    """A zip of `overlay_png` for every slice by itself, models side by side, and a README.txt.

    Raises:
        ValueError: as `overlay_png`.
    """
    if not findings:
        raise ValueError("an overlay needs at least one model's finding")
    _check(study, findings)
    look = _Look(_flair_range(study), opacity, outline_only)
    provenance = _provenance(study, findings)
    files = {
        f"{safe_name(study.case_id)}_{number}_overlay.png": _png(
            _sheet(study, findings, [i], look), provenance
        )
        for i, number in enumerate(study.slice_numbers)
    }
    return _zip(study, findings, files, "Overlays on FLAIR; a reference, where given, is outlined in blue.")


def safe_name(text: str) -> str:
    """`text` as one part of a file name on any system: no separators, no control characters, not empty."""
    kept = "".join("_" if c in '/\\:*?"<>|' or unicodedata.category(c)[0] == "C" else c for c in text)
    # File systems allow 255 bytes for a name; what is appended here needs the rest.
    return kept.strip(" .").encode()[:200].decode(errors="ignore").rstrip(" .") or "case"


_SETTINGS = (
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
    *_SETTINGS,
    "source_format",
    "source_sha256",
    "spacing_mm",
    "brainseg_version",
    "time_utc",
    "notes",
    "research_use",
)


def _model_report(study: Study, finding: Finding) -> dict[str, Any]:
    prediction, mask = finding.prediction, finding.mask
    area = area_per_slice(mask)
    voxels = int(area.sum())
    volume = volume_ml(voxels, study.spacing_mm)
    reasons = {"volume_ml": volume.reason} if isinstance(volume, Undefined) else {}
    slices: list[dict[str, Any]] = [
        {"slice": number, "tumour_voxels": int(pixels)}
        for number, pixels in zip(study.slice_numbers, area, strict=True)
    ]
    figures: dict[str, Any]
    if study.reference is None:
        figures = {
            **dict.fromkeys(FIGURES),
            "hd95_unit": None,
            "not_computable": dict.fromkeys(FIGURES, NO_REFERENCE.reason),
        }
        worst = None
    else:
        figures = metrics_to_json(compare(mask, study.reference, study.spacing_mm))
        for one, metrics in zip(slices, compare_slices(mask, study.reference, study.spacing_mm), strict=True):
            one.update(metrics_to_json(metrics))
        worst = worst_slice(mask, study.reference)
    largest = slice_of_largest_area(mask)
    return {
        **_settings(finding),
        "seen_in_training": prediction.seen_in_training,
        "seconds": prediction.seconds,
        "volume_ml": figure_to_json(volume),
        "area_per_slice": area.tolist(),
        "largest_slice": None if largest is None else study.slice_numbers[largest],
        "worst_slice": None if worst is None else study.slice_numbers[worst],
        **figures,
        "tumour_voxels": voxels,
        "not_computable": {**reasons, **figures["not_computable"]},
        "slices": slices,
    }


def _settings(finding: Finding) -> dict[str, Any]:
    prediction = finding.prediction
    return {
        "architecture": prediction.architecture,
        "weights_sha256": prediction.weights_sha256,
        "threshold": finding.threshold,
        "weights_threshold": prediction.threshold,
        "keep": finding.keep,
        "weights_keep": prediction.keep,
        "tta": prediction.tta,
    }


def _provenance(study: Study, findings: Sequence[Finding]) -> dict[str, Any]:
    """What made a file, short enough to be written into a picture."""
    return {
        "research_use": RESEARCH_USE,
        "brainseg_version": __version__,
        "time_utc": _now(),
        "case_id": study.case_id,
        "source_sha256": study.source.sha256,
        "models": {f.prediction.model: _settings(f) for f in findings},
    }


def _row_figures(figures: dict[str, Any], reasons: dict[str, str], names: Sequence[str]) -> dict[str, Any]:
    """The counts and the named figures of a model or of one of its slices as CSV columns."""
    row: dict[str, Any] = {
        key: figures.get(key) for key in ("tumour_voxels", "reference_voxels", "hd95_unit")
    }
    for name in names:
        value = figures.get(name)
        row[name] = str(Undefined(reasons[name])) if value is None else value
    return row


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    if not isinstance(value, str):
        return value
    line = "".join(" " if unicodedata.category(c) == "Cc" else c for c in value)
    # After separators too: a spreadsheet that splits at semicolons would begin a cell there.
    return _FORMULA_START.sub(r"\1'\2", line)


class _Look(NamedTuple):
    """How a slice is shown: intensities that are black and white, opacity of the fill, no fill at all."""

    shown: tuple[float, float]
    opacity: float
    outline_only: bool


def _sheet(
    study: Study,
    findings: Sequence[Finding],
    indices: Sequence[int],
    look: _Look,
) -> Image.Image:
    _, height, width = study.shape
    zoom = max(1, 256 // max(height, width))
    across, down = width * zoom * len(findings), height * zoom + _CAPTION_PX
    columns = min(len(indices), max(1, round(math.sqrt(len(indices) * down / across))))
    rows = math.ceil(len(indices) / columns)
    shrink = math.ceil(math.sqrt(columns * across * rows * down / _SHEET_PIXELS))
    cell_w = math.ceil(width * zoom / shrink)
    cell_h = math.ceil(height * zoom / shrink) + _CAPTION_PX
    footer = [
        RESEARCH_USE,
        f"{study.case_id}, FLAIR, orientation {study.orientation or 'unknown'}",
        f"brainseg {__version__}, {_now()}",
        *(["reference: blue outline"] if study.reference is not None else []),
    ]
    sheet = Image.new("RGB", (columns * len(findings) * cell_w, rows * cell_h + len(footer) * _CAPTION_PX))
    font = ImageFont.load_default(size=11)
    for place, index in enumerate(indices):
        row, column = divmod(place, columns)
        for i, finding in enumerate(findings):
            panel = Image.fromarray(_panel(study, finding, index, look))
            panel = panel.resize((width * zoom, height * zoom), Image.Resampling.NEAREST).reduce(shrink)
            caption = (
                f"slice {study.slice_numbers[index]}, {finding.prediction.model}, "
                f"threshold {finding.threshold:g}"
            )
            cell = Image.new("RGB", (cell_w, cell_h))
            ImageDraw.Draw(cell).text((3, 1), _plain(caption), _colour(finding), font)
            cell.paste(panel, (0, _CAPTION_PX))
            sheet.paste(cell, ((column * len(findings) + i) * cell_w, row * cell_h))
    draw = ImageDraw.Draw(sheet)
    for i, line in enumerate(footer):
        draw.text((3, rows * cell_h + i * _CAPTION_PX + 1), _plain(line), "white", font)
    return sheet


def _panel(
    study: Study,
    finding: Finding,
    index: int,
    look: _Look,
) -> RgbArray:
    picture = window(study.slices[index, ..., CHANNELS.index("flair")], *look.shown)
    mask, colour = finding.mask[index], _colour(finding)
    if not look.outline_only:
        picture = overlay_mask(picture, mask, colour, look.opacity)
    picture = overlay_mask(picture, mask, colour, 1.0, outline_only=True)
    if study.reference is not None:
        picture = overlay_mask(picture, study.reference[index], REFERENCE, 1.0, outline_only=True)
    return picture


def _colour(finding: Finding) -> str:
    row = ARCHITECTURES.get(finding.prediction.architecture)
    return row.colour if row else PREDICTION


def _flair_range(study: Study) -> tuple[float, float]:
    return display_range(study.slices[..., CHANNELS.index("flair")])


def _plain(text: str) -> str:
    """What the built-in font can draw."""
    return "".join(c if " " <= c <= "~" else "?" for c in text)


def _png(picture: Image.Image, provenance: dict[str, Any]) -> bytes:
    text = PngInfo()
    text.add_text("Disclaimer", RESEARCH_USE)
    text.add_text("Software", f"brainseg {__version__}")
    text.add_text("Description", json.dumps(provenance))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", pnginfo=text)
    return buffer.getvalue()


def _tiff(picture: Image.Image, provenance: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    tags = {_DESCRIPTION_TAG: json.dumps(provenance), _SOFTWARE_TAG: f"brainseg {__version__}"}
    picture.save(buffer, "TIFF", tiffinfo=tags)
    return buffer.getvalue()


def _zip(study: Study, findings: Sequence[Finding], files: dict[str, bytes], what: str) -> bytes:
    provenance = json.dumps(_provenance(study, findings), indent=2, ensure_ascii=False)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        readme = f"{RESEARCH_USE}\n\n{what}\n\n{provenance}\n"
        archive.writestr("README.txt", readme.encode(errors="replace"))
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _folders(findings: Sequence[Finding]) -> list[str]:
    """A folder for each finding, ending in "/"; nothing for a single one."""
    if len(findings) < 2:
        return [""] * len(findings)
    names = [safe_name(f.prediction.model) for f in findings]
    # Two names may differ only in characters that a file name cannot hold.
    return [f"{n}/" if names.count(n) == 1 else f"{n}_{i}/" for i, n in enumerate(names, 1)]


def _check(study: Study, findings: Sequence[Finding]) -> None:
    names = [f.prediction.model for f in findings]
    if len(set(names)) < len(names):
        raise ValueError(f"each model may appear once, got {names}")
    for finding in findings:
        if finding.prediction.case_id != study.case_id:
            raise ValueError(f"finding is of case {finding.prediction.case_id!r}, not {study.case_id!r}")
        if finding.mask.shape != study.shape:
            raise ValueError(f"mask is {finding.mask.shape}, slices are {study.shape}")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
