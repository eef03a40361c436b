"""What every measure asks of its arrays, and where in them there is something to measure."""

from __future__ import annotations

import math

import numpy as np

from brainseg.types import BoolArray, Spacing


def check_mask(mask: BoolArray, axes: tuple[int, ...]) -> None:
    if mask.dtype != np.bool_:
        raise ValueError(f"a mask must be bool, not {mask.dtype}")
    if mask.ndim not in axes:
        raise ValueError(f"a mask must have {' or '.join(map(str, axes))} axes, not {mask.ndim}")


def check_pair(mask: BoolArray, reference: BoolArray, axes: tuple[int, ...]) -> None:
    check_mask(mask, axes)
    check_mask(reference, axes)
    if mask.shape != reference.shape:
        raise ValueError(f"mask is {mask.shape}, reference is {reference.shape}")


def check_spacing(spacing_mm: Spacing | None) -> None:
    if spacing_mm is not None and (
        len(spacing_mm) != 3 or not all(math.isfinite(x) and x > 0 for x in spacing_mm)
    ):
        raise ValueError(f"spacing_mm must be three positive numbers, got {spacing_mm}")


def bounding_box(mask: BoolArray) -> tuple[slice, ...]:
    """Slices that cut a mask that is not empty down to its voxels."""
    box: list[slice] = []
    for axis in range(mask.ndim):
        others = tuple(a for a in range(mask.ndim) if a != axis)
        # What the axes before have cut away is not looked at again.
        used = np.flatnonzero(mask[tuple(box)].any(axis=others))
        box.append(slice(int(used[0]), int(used[-1]) + 1))
    return tuple(box)
