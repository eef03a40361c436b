"""Which pixels are a mask, and what they mark."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from brainseg.io.text import listed
from brainseg.types import BoolArray

_NEAR = 8
_MOST_BETWEEN = 0.02
_FEW = 4


class NotAMaskError(Exception):
    """The pixels mark nothing clearly; the message continues the file's name."""


def looks_like_mask(pixels: npt.NDArray[Any]) -> bool:
    """Whether (..., H, W, C) pixels are grey and hold exactly two values, the lower one 0."""
    if not _is_grey(pixels):
        return False
    grey = pixels[..., 0]
    top = grey.max()
    return bool(top) and bool(((grey == 0) | (grey == top)).all()) and not bool(grey.all())


def to_mask(pixels: npt.NDArray[Any]) -> tuple[BoolArray, str]:
    """(..., H, W, C) pixels -> (..., H, W) bool and a note on the rule used.

    Two values, 0 and another, or black and one colour: what is not 0 is marked. All 0: nothing is marked.
    8-bit pixels of more than four values, of which at most 2 % lie more than 8 from 0 and 255, fewer than are
    near 255 (the soft edges that JPEG and resampling make): 128 and above is marked.

    Raises:
        NotAMaskError: anything else.
    """
    if _is_grey(pixels):
        grey = pixels[..., 0]
        if not grey.any():
            return np.zeros(grey.shape, np.bool_), "nothing marked"
        if grey.all():
            raise NotAMaskError("has no pixel of value 0, so it marks the whole slice")
        if looks_like_mask(pixels):
            marked: BoolArray = np.asarray(grey != 0)
            return marked, f"values 0 and {grey.max():g}" if grey.dtype != np.bool_ else "1-bit"
        return _soft(grey)
    colours = np.unique(pixels.reshape(-1, pixels.shape[-1]), axis=0)
    if len(colours) == 2 and not colours[0].any():
        coloured: BoolArray = np.asarray(pixels.any(axis=-1))
        return coloured, "black and one colour"
    raise NotAMaskError("is in colour, so it cannot be read as a mask of two values")


def _soft(grey: npt.NDArray[Any]) -> tuple[BoolArray, str]:
    # Few values are labels, not soft edges: 0, 1, 2 must not be cut at 128 into nothing.
    if grey.dtype == np.uint8 and len(np.unique(grey)) > _FEW:
        high = int((grey >= 255 - _NEAR).sum())
        between = int(((grey > _NEAR) & (grey < 255 - _NEAR)).sum())
        if between <= _MOST_BETWEEN * grey.size and between < high:
            marked: BoolArray = np.asarray(grey >= 128)
            return marked, "soft edges, cut at 128"
    raise NotAMaskError(_values(grey))


def _values(grey: npt.NDArray[Any]) -> str:
    values = np.unique(grey)
    if len(values) <= 8:
        return f"holds the values {listed(f'{v:g}' for v in values)}, where a mask has two, 0 and another"
    return f"holds {len(values):,} different values, where a mask has two, 0 and another"


def _is_grey(pixels: npt.NDArray[Any]) -> bool:
    return pixels.shape[-1] == 1 or bool((pixels == pixels[..., :1]).all())
