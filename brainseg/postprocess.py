"""From probabilities to a mask: the threshold, then which connected components count."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from brainseg.types import BoolArray, FloatArray, Keep, Prediction


@dataclass(frozen=True, eq=False)
class Finding:
    """A prediction cut at one threshold; made by `find`, so that mask and settings belong together.

    Attributes:
        prediction: the probabilities and where they come from.
        threshold: applied, which may differ from the one stored with the weights.
        keep: applied, likewise.
        mask: (S, H, W) bool on the original grid.
    """

    prediction: Prediction
    threshold: float
    keep: Keep
    mask: BoolArray


def find(prediction: Prediction, threshold: float | None = None, keep: Keep | None = None) -> Finding:
    """The mask of a prediction, at the operating point stored with the weights unless another is given.

    Args:
        prediction: from `Predictor.predict`.
        threshold: 0..1; a voxel is tumour at or above it.
        keep: ``"all"``, or ``"largest"`` for the largest connected component alone.

    Raises:
        ValueError: as `cut`.
    """
    threshold = prediction.threshold if threshold is None else float(threshold)
    keep = prediction.keep if keep is None else keep
    return Finding(prediction, threshold, keep, cut(prediction.probability, threshold, keep))


def cut(probability: FloatArray, threshold: float, keep: Keep) -> BoolArray:
    """Voxels at or above `threshold`, all of them or the largest connected component alone.

    Components are three-dimensional; voxels sharing a face, an edge or a corner are connected. Of
    components with equally many voxels the one with the highest summed probability is kept.

    Args:
        probability: (S, H, W) floating point, 0..1.
        threshold: 0..1.
        keep: ``"all"`` or ``"largest"``.

    Returns:
        (S, H, W) bool.

    Raises:
        ValueError: for another shape, dtype, range (NaN included), threshold or `keep`.
    """
    if probability.ndim != 3 or not np.issubdtype(probability.dtype, np.floating):
        raise ValueError(
            f"probability must be (S, H, W) floating point, not {probability.shape} {probability.dtype}"
        )
    # Written so that NaN fails.
    if probability.size and not (probability.min() >= 0 and probability.max() <= 1):
        raise ValueError("probability must lie in 0..1")
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold must lie in 0..1, got {threshold}")
    if keep not in ("all", "largest"):
        raise ValueError(f'keep must be "all" or "largest", got {keep!r}')
    # A Python float is compared in the array's own precision: float32 0.7 is at 0.7, not below it.
    mask: BoolArray = np.asarray(probability >= float(threshold), dtype=np.bool_)
    return mask if keep == "all" else _largest(mask, probability)


def _largest(mask: BoolArray, probability: FloatArray) -> BoolArray:
    labels = np.zeros(mask.shape, dtype=np.int32)
    count = int(ndimage.label(mask, structure=np.ones((3, 3, 3)), output=labels))
    if count < 2:
        return mask
    inside = labels[mask]
    voxels = np.bincount(inside)
    weight = np.bincount(inside, weights=probability[mask])
    return np.asarray(labels == np.lexsort((weight, voxels))[-1], dtype=np.bool_)
