"""How well a gate tells lesion from the rest of the head, and how much of its range it uses."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from brainseg.preprocess import apply_mask
from brainseg.types import AttentionMap, BoolArray

BINS = 1000
"""Bins of equal width in 0..1; float16 coefficients are no finer in the upper half of their range."""


@dataclass(frozen=True, eq=False)
class GateCounts:
    """Positions of one gate's grid inside the head, by coefficient; of several patients once added.

    Attributes:
        lesion: (BINS,) how many positions of the reference have a coefficient in the bin.
        rest: (BINS,) how many other positions of the head.
    """

    lesion: npt.NDArray[np.int64]
    rest: npt.NDArray[np.int64]

    def __add__(self, other: GateCounts) -> GateCounts:
        return GateCounts(self.lesion + other.lesion, self.rest + other.rest)

    @property
    def auc(self) -> float | None:
        """Area under the ROC curve (Hanley & McNeil 1982), 0..1: the probability that a lesion position has
        a higher coefficient than another one, ties counted half; None without either."""
        lesion, rest = int(self.lesion.sum()), int(self.rest.sum())
        if not lesion or not rest:
            return None
        below = np.cumsum(self.rest) - self.rest
        return float((self.lesion * (below + self.rest / 2)).sum() / (lesion * rest))

    @property
    def std(self) -> float | None:
        """Standard deviation of the coefficients over the head; None without a head."""
        both = self.lesion + self.rest
        if not both.any():
            return None
        centres = (np.arange(BINS) + 0.5) / BINS
        mean = np.average(centres, weights=both)
        return float(np.sqrt(np.average((centres - mean) ** 2, weights=both)))


def count_gate(attention: AttentionMap, reference: BoolArray, head: BoolArray) -> GateCounts:
    """Count one patient's coefficients.

    Args:
        attention: of one gate.
        reference: (S, H, W) bool on the slice grid.
        head: likewise; positions outside are left out.
    """
    grid = attention.coefficients.shape[1:]
    inside = _on_grid(apply_mask(head, attention.letterbox), grid)
    lesion = _on_grid(apply_mask(reference, attention.letterbox), grid)
    values = np.clip((attention.coefficients.astype(np.float32) * BINS).astype(np.int64), 0, BINS - 1)
    return GateCounts(
        np.bincount(values[lesion], minlength=BINS),
        np.bincount(values[inside & ~lesion], minlength=BINS),
    )


def _on_grid(mask: BoolArray, grid: tuple[int, ...]) -> BoolArray:
    planes = [cv2.resize(m.astype(np.float32), grid[::-1], interpolation=cv2.INTER_AREA) for m in mask]
    return np.asarray(np.stack(planes) >= 0.5)
