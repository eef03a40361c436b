"""What can be read but is hardly meant: masks that mark too much, slices out of order; said in notes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from brainseg.io.text import listed
from brainseg.types import CHANNELS, BoolArray

MOST_OF_A_SLICE = 0.35
"""Tumour / head in one slice: the most in the training data is 0.30."""

MOST_OF_A_VOLUME = 0.15
"""Tumour / head in all slices: the most in the training data is 0.11."""

# More than half of a head is no lower-grade glioma; a mask with black and white exchanged marks it.
_INVERTED = 0.5
# A slice of less head than this share of its frame has no share of tumour worth a word.
_LEAST_HEAD = 0.03
# The head is what is brighter than this share of the bright tissue.
_BRIGHT, _SHARE_OF_BRIGHT = 99.5, 0.1

# In the training data the given order costs at most 1.03 times and 0.01 a step more than another that is
# sought greedily; names sorted as text, every other slice first, and random orders 1.18 times and 0.043.
_COSTS_MORE, _STEP_COSTS_MORE = 1.1, 0.04
# Below this, slices hardly resemble each other in any order.
_ALIKE = 0.5
_FEWEST, _SIDE = 6, 32


def about_masks(volume: npt.NDArray[Any], reference: BoolArray | None, numbers: tuple[int, ...]) -> list[str]:
    """Whether a reference (S, H, W) marks more of the head in (S, H, W, 3) than a glioma can."""
    if reference is None or not reference.any():
        return []
    flair = volume[..., CHANNELS.index("flair")]
    low, high = np.percentile(flair[:, ::2, ::2], (1, _BRIGHT))
    # Not of the difference, which may be beyond what floating point holds.
    level = (1 - _SHARE_OF_BRIGHT) * low + _SHARE_OF_BRIGHT * high
    if not low < level < high:
        return []
    heads = [np.asarray(image > level) for image in flair]
    area = np.array([np.count_nonzero(head) for head in heads])
    marked = np.array([np.count_nonzero(head & mask) for head, mask in zip(heads, reference, strict=True)])
    of_volume = marked.sum() / max(1, area.sum())
    if of_volume > _INVERTED or reference.mean() > _INVERTED:
        return [
            f"The masks mark {of_volume:.0%} of the head: black and white are probably exchanged, so figures "
            "against this reference mean nothing."
        ]
    of_slice = np.where(area > _LEAST_HEAD * heads[0].size, marked / np.maximum(area, 1), 0)
    if of_slice.max() > MOST_OF_A_SLICE:
        where = listed(numbers[i] for i in np.flatnonzero(of_slice > MOST_OF_A_SLICE))
        return [
            f"The masks mark up to {of_slice.max():.0%} of the head (slice {where}), more than in any slice "
            "the networks were trained on: check the masks."
        ]
    if of_volume > MOST_OF_A_VOLUME:
        return [
            f"The masks mark {of_volume:.0%} of the head, more than in any patient the networks were trained "
            "on: check the masks."
        ]
    return []


def about_order(volume: npt.NDArray[Any], numbers: tuple[int, ...]) -> list[str]:
    """Whether neighbours among the slices (S, H, W, 3) resemble each other less than in another order."""
    flair = volume[..., CHANNELS.index("flair")]
    with np.errstate(over="ignore", invalid="ignore"):
        coarse = np.stack([_coarse(image) for image in flair])
        coarse /= np.abs(coarse).max() or 1
    if not np.isfinite(coarse).all():
        return []
    used = np.flatnonzero(coarse.std(axis=1) > 0)
    if len(used) < _FEWEST:
        return []
    away = np.subtract(1, np.corrcoef(coarse[used]))
    given = np.diagonal(away, 1)
    starts = {0, len(used) // 2, len(used) - 1, int(away.mean(axis=1).argmax())}
    best = min(_greedy(away, start) for start in starts)
    least = max(_COSTS_MORE * best, best + _STEP_COSTS_MORE * len(given))
    if best > (1 - _ALIKE) * len(given) or given.sum() <= least:
        return []
    jump = int(given.argmax())
    one, other = numbers[used[jump]], numbers[used[jump + 1]]
    return [
        f"Slices jump, for instance from {one} to {other}: neighbours would resemble each other more in "
        "another order, so check how the files are numbered."
    ]


def _coarse(image: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    rows, columns = (max(1, side // _SIDE) for side in image.shape)
    height, width = image.shape[0] // rows * rows, image.shape[1] // columns * columns
    blocks = image[:height, :width].reshape(height // rows, rows, width // columns, columns)
    means: npt.NDArray[np.float64] = blocks.mean(axis=(1, 3), dtype=np.float64).ravel()
    return means


def _greedy(away: npt.NDArray[Any], start: int) -> float:
    """The cost of going from slice to the most similar slice left."""
    left = np.ones(len(away), np.bool_)
    at, cost = start, 0.0
    for _ in range(len(away) - 1):
        left[at] = False
        following = int(np.where(left, away[at], np.inf).argmin())
        cost += float(away[at, following])
        at = following
    return cost
