"""Overlays as pictures: masks over FLAIR, models side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from brainseg import __version__
from brainseg.measure import Reading
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
from brainseg.report.provenance import check, now, png, provenance, safe_name, zipped
from brainseg.types import CHANNELS, RESEARCH_USE, BoolArray, Study

OPACITY = 0.4
"""Of the fill of a mask."""

THUMBNAIL_PX = 128
"""Sides of a model's part of a `thumbnail`."""

_MOST_PIXELS = 40_000_000
_SMALLEST_SIDE = 256
_CAPTION_PX = 16


def overlays_zip(study: Study, findings: Sequence[Finding]) -> bytes:
    """A zip of one PNG for every slice and a README.txt.

    A picture shows FLAIR once for each model, side by side, with the mask filled and outlined in its
    architecture's colour and the reference outlined in blue; captions name slice, model and threshold. Small
    slices are enlarged and very large pictures reduced by a whole factor.

    Raises:
        ValueError: for no findings, if a finding is of another case or shape, or two bear one model's name.
    """
    if not findings:
        raise ValueError("an overlay needs at least one model's finding")
    check(study, findings)
    flair = study.slices[..., CHANNELS.index("flair")]
    low, high = display_range(flair)
    made_by = provenance(study, findings)
    files = {}
    for i, number in enumerate(study.slice_numbers):
        base = window(flair[i], low, high)
        name = f"{safe_name(study.case_id)}_{number}_overlay.png"
        files[name] = png(_side_by_side(study, findings, i, base), made_by)
    return zipped(study, findings, files, "Overlays on FLAIR; a reference, where given, is outlined in blue.")


def thumbnail(study: Study, readings: Sequence[Reading]) -> tuple[bytes, int]:
    """A small PNG of one slice, models side by side as in `overlays_zip`, and the number of the slice.

    It is the slice that the models mark most of together, or the middle one where they mark none.
    """
    areas = np.sum([reading.areas for reading in readings], axis=0)
    index = int(areas.argmax()) if areas.any() else len(areas) // 2
    flair = study.slices[..., CHANNELS.index("flair")]
    flat = Image.fromarray(window(flair[index], *display_range(flair)))
    # Painted when it is small: an outline of one pixel would be lost in shrinking.
    base = np.asarray(ImageOps.contain(flat, (THUMBNAIL_PX, THUMBNAIL_PX)))
    height, width = base.shape
    top, left = (THUMBNAIL_PX - height) // 2, (THUMBNAIL_PX - width) // 2
    strip = Image.new("RGB", (THUMBNAIL_PX * len(readings), THUMBNAIL_PX))
    truth = None if study.reference is None else _shrunk(study.reference[index], base)
    for i, reading in enumerate(readings):
        mask = _shrunk(reading.finding.mask[index], base)
        panel = Image.fromarray(_painted(base, mask, truth, _colour(reading.finding)))
        strip.paste(panel, (i * THUMBNAIL_PX + left, top))
    made_by = provenance(study, [reading.finding for reading in readings])
    return png(strip, made_by), study.slice_numbers[index]


def _side_by_side(study: Study, findings: Sequence[Finding], index: int, base: RgbArray) -> Image.Image:
    _, height, width = study.shape
    zoom = max(1, _SMALLEST_SIDE // max(height, width))
    shrink = math.ceil(math.sqrt(len(findings) * width * height * zoom**2 / _MOST_PIXELS))
    cell_w = math.ceil(width * zoom / shrink)
    cell_h = math.ceil(height * zoom / shrink) + _CAPTION_PX
    footer = [
        RESEARCH_USE,
        f"{study.case_id}, FLAIR, orientation {study.orientation or 'unknown'}",
        f"brainseg {__version__}, {now()}",
        *(["reference: blue outline"] if study.reference is not None else []),
    ]
    picture = Image.new("RGB", (len(findings) * cell_w, cell_h + len(footer) * _CAPTION_PX))
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=11)
    for i, finding in enumerate(findings):
        panel = Image.fromarray(_panel(study, finding, index, base))
        panel = panel.resize((width * zoom, height * zoom), Image.Resampling.NEAREST).reduce(shrink)
        name, number = finding.prediction.model, study.slice_numbers[index]
        cell = Image.new("RGB", (cell_w, _CAPTION_PX))
        caption = _plain(f"slice {number}, {name}, threshold {finding.threshold:g}")
        ImageDraw.Draw(cell).text((3, 1), caption, _colour(finding), font)
        picture.paste(cell, (i * cell_w, 0))
        picture.paste(panel, (i * cell_w, _CAPTION_PX))
    for i, line in enumerate(footer):
        draw.text((3, cell_h + i * _CAPTION_PX + 1), _plain(line), "white", font)
    return picture


def _panel(study: Study, finding: Finding, index: int, base: RgbArray) -> RgbArray:
    truth = None if study.reference is None else study.reference[index]
    return _painted(base, finding.mask[index], truth, _colour(finding))


def _painted(base: RgbArray, mask: BoolArray, truth: BoolArray | None, colour: str) -> RgbArray:
    picture = overlay_mask(base, mask, colour, OPACITY)
    picture = overlay_mask(picture, mask, colour, 1.0, outline_only=True)
    if truth is not None:
        picture = overlay_mask(picture, truth, REFERENCE, 1.0, outline_only=True)
    return picture


def _shrunk(mask: BoolArray, base: RgbArray) -> BoolArray:
    height, width = base.shape[:2]
    small = Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST)
    return np.asarray(small, dtype=np.bool_)


def _colour(finding: Finding) -> str:
    row = ARCHITECTURES.get(finding.prediction.architecture)
    return row.colour if row else PREDICTION


def _plain(text: str) -> str:
    """What the built-in font can draw."""
    return "".join(c if " " <= c <= "~" else "?" for c in text)
