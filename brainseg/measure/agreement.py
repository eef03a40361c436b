"""Where models agree with each other: votes, and Dice of each pair."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt

from brainseg.measure.metrics import dice, format_figure
from brainseg.measure.size import volume_ml
from brainseg.types import BoolArray, Spacing, Undefined


def votes(masks: Sequence[BoolArray]) -> npt.NDArray[np.uint8]:
    """How many of the masks mark each voxel.

    Args:
        masks: 1 to 255 bool arrays of one shape.

    Returns:
        uint8 votes in that shape, 0 (none) to ``len(masks)`` (all).

    Raises:
        ValueError: for no masks, more than 255, another dtype or differing shapes.
    """
    if not 1 <= len(masks) <= 255:
        raise ValueError(f"votes need 1 to 255 masks, got {len(masks)}")
    counts = np.zeros(masks[0].shape, dtype=np.uint8)
    for mask in masks:
        if mask.dtype != np.bool_ or mask.shape != counts.shape:
            raise ValueError(f"masks must be bool {counts.shape}, got {mask.dtype} {mask.shape}")
        counts += mask
    return counts


def voxels_by_votes(masks: Sequence[BoolArray]) -> list[int]:
    """Item k - 1 counts the voxels that exactly k of the masks mark; raises as `votes`."""
    counts: list[int] = np.bincount(votes(masks).ravel(), minlength=len(masks) + 1)[1:].tolist()
    return counts


def votes_sentence(masks: Sequence[BoolArray], spacing_mm: Spacing | None = None) -> str:
    """How much of what any model marks all of them mark, in words; in ml where the spacing is known.

    Raises:
        ValueError: as `votes` and `volume_ml`.
    """
    counts = voxels_by_votes(masks)
    either = sum(counts)
    if not either:
        return "No model marks a voxel."
    whom = "both" if len(masks) == 2 else f"all {len(masks)}"
    volume = volume_ml(either, spacing_mm)
    amount = f"{either:,} voxels" if isinstance(volume, Undefined) else f"{volume:,.1f} ml"
    return f"Of the {amount} that any model marks, {whom} mark {counts[-1] / either:.0%}."


def pairs(masks: Sequence[BoolArray]) -> dict[tuple[int, int], str]:
    """Dice of each pair of masks with each other, as text, by their places."""
    return {(a, b): format_figure(dice(masks[a], masks[b]), 3) for a, b in combinations(range(len(masks)), 2)}
