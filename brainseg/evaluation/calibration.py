"""How far probabilities can be taken at their word: expected calibration error, and one temperature."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import logit

from brainseg.types import BoolArray, FloatArray

BINS = 15
"""Bins of equal width in 0..1, as in Guo 2017."""
_EDGES = np.linspace(0.0, 1.0, BINS + 1)
# Fine enough that rounding a logit to its bin changes a probability by a third of a percent at most.
_LOGITS = np.linspace(-16.0, 16.0, 2401)
_CENTRES = np.concatenate([_LOGITS[:1], (_LOGITS[1:] + _LOGITS[:-1]) / 2, _LOGITS[-1:]])


@dataclass(frozen=True, eq=False)
class Reliability:
    """Voxels in bins of predicted probability.

    Attributes:
        voxels: (15,) how many voxels a bin holds.
        predicted: (15,) the sum of their probabilities.
        tumour: (15,) how many of them are tumour in the reference.
    """

    voxels: npt.NDArray[np.int64]
    predicted: npt.NDArray[np.float64]
    tumour: npt.NDArray[np.int64]

    def __add__(self, other: Reliability) -> Reliability:
        return Reliability(
            self.voxels + other.voxels, self.predicted + other.predicted, self.tumour + other.tumour
        )

    @property
    def ece(self) -> float | None:
        """Expected calibration error (Naeini 2015; Guo 2017, arXiv:1706.04599), 0..1; None without voxels.

        The distance between the mean probability of a bin and its share of tumour, averaged over voxels.
        """
        total = int(self.voxels.sum())
        return float(np.abs(self.predicted - self.tumour).sum() / total) if total else None


def reliability(probability: FloatArray, reference: BoolArray, floor: float = 0.0) -> Reliability:
    """Bin the voxels of one patient.

    Args:
        probability: any shape, floating point in 0..1.
        reference: the same shape, bool.
        floor: voxels below this probability that are no tumour either are left out; most voxels of a head
            are out of the question, and would make any network look well calibrated.
    """
    counted = (probability >= floor) | reference
    values, truth = probability[counted].astype(np.float64), reference[counted]
    index = np.clip(np.searchsorted(_EDGES, values, side="right") - 1, 0, BINS - 1)
    return Reliability(
        np.bincount(index, minlength=BINS),
        np.asarray(np.bincount(index, weights=values, minlength=BINS), np.float64),
        np.bincount(index[truth], minlength=BINS),
    )


def fit_temperature(probabilities: Sequence[FloatArray], references: Sequence[BoolArray]) -> float:
    """The temperature T of ``sigmoid(logits / T)`` (Guo 2017), or 1 where it would not help new patients.

    T minimises the cross-entropy over all voxels. It is kept only if it lowers the cross-entropy of patients
    that had no part in it (each left out in turn).

    Args:
        probabilities: of each patient, at temperature 1.
        references: their masks, of the same shapes.

    Returns:
        The temperature, rounded to two decimals, in 0.25..4.
    """
    counts = np.stack([_histogram(p, y) for p, y in zip(probabilities, references, strict=True)])
    total = counts.sum(0)
    left_out = sum(_cross_entropy(_fit(total - one), one) for one in counts)
    if len(counts) < 2 or left_out >= _cross_entropy(1.0, total):
        return 1.0
    return round(_fit(total), 2)


def _histogram(probability: FloatArray, reference: BoolArray) -> npt.NDArray[np.float64]:
    """(2, bins): voxels without and with tumour, by logit."""
    index = np.searchsorted(_LOGITS, logit(probability.astype(np.float64)).ravel())
    truth = reference.ravel()
    return np.stack(
        [np.bincount(index[truth == kind], minlength=len(_CENTRES)).astype(float) for kind in (False, True)]
    )


def _cross_entropy(temperature: float, counts: npt.NDArray[np.float64]) -> float:
    scaled = _CENTRES / temperature
    return float(counts[0] @ np.logaddexp(0.0, scaled) + counts[1] @ np.logaddexp(0.0, -scaled))


def _fit(counts: npt.NDArray[np.float64]) -> float:
    # In its logarithm, since halving and doubling are steps of one size.
    found = minimize_scalar(
        lambda power: _cross_entropy(2.0**power, counts), bounds=(-2.0, 2.0), method="bounded"
    )
    return float(2.0**found.x)
