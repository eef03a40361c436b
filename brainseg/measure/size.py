"""How large a mask is: voxels, millilitres, area within a slice."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import numpy.typing as npt

from brainseg.measure.checks import check_mask, check_spacing
from brainseg.types import BoolArray, Figure, Spacing, Undefined

SPACING_UNKNOWN = Undefined("the spacing is unknown")


def volume_ml(voxels: int, spacing_mm: Spacing | None) -> Figure:
    """Volume in millilitres of `voxels` voxels; `Undefined` when the spacing is unknown.

    Raises:
        ValueError: if `voxels` is negative or the spacing is not three positive numbers.
    """
    if voxels < 0:
        raise ValueError(f"voxels must not be negative, got {voxels}")
    check_spacing(spacing_mm)
    if spacing_mm is None:
        return SPACING_UNKNOWN
    return voxels * math.prod(spacing_mm) / 1000


def area_per_slice(mask: BoolArray) -> npt.NDArray[np.int64]:
    """Tumour pixels in each slice of a (S, H, W) bool mask, as (S,) int64.

    Raises:
        ValueError: if the mask is not (S, H, W) bool.
    """
    check_mask(mask, (3,))
    return np.asarray(np.count_nonzero(mask, axis=(1, 2)), dtype=np.int64)


def slice_of_largest_area(mask: BoolArray) -> int | None:
    """Index of the slice with the most tumour pixels, the first of equals; None for an empty mask.

    Raises:
        ValueError: if the mask is not (S, H, W) bool.
    """
    area = area_per_slice(mask)
    return int(area.argmax()) if area.any() else None


def area_unit(spacing_mm: Spacing | None) -> Literal["pixels", "mm²"]:
    """Unit of areas within a slice."""
    return "pixels" if spacing_mm is None else "mm²"


def area(pixels: int, spacing_mm: Spacing | None) -> float:
    """An area within a slice in `area_unit`."""
    return pixels if spacing_mm is None else pixels * spacing_mm[1] * spacing_mm[2]
