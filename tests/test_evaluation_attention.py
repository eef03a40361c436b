"""Figures of a gate against scikit-learn and NumPy, on the gate's own grid."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from brainseg.evaluation.attention import BINS, GateCounts, count_gate
from brainseg.types import AttentionMap, Box, Letterbox

LETTERBOX = Letterbox((64, 48), Box(0, 0, 64, 48), (64, 48), (64, 48))


def gate(coefficients: np.ndarray, letterbox: Letterbox = LETTERBOX) -> AttentionMap:
    return AttentionMap("x1", 1, coefficients.astype(np.float16), letterbox)


def test_area_and_deviation_equal_independent_ones() -> None:
    rng = np.random.default_rng(0)
    reference = np.zeros((3, 64, 48), np.bool_)
    reference[1:, 16:32, 8:24] = True
    head = np.zeros_like(reference)
    head[:, 4:60, 4:44] = True
    lesion, inside = reference[:, ::2, ::2], head[:, ::2, ::2]
    coefficients = np.clip(rng.normal(0.4, 0.15, (3, 32, 24)) + 0.2 * lesion, 0, 1).astype(np.float16)
    counts = count_gate(gate(coefficients), reference, head)
    assert counts.lesion.sum() == lesion.sum()
    assert counts.rest.sum() == (inside & ~lesion).sum()
    values = coefficients.astype(np.float64)[inside]
    assert counts.auc == pytest.approx(roc_auc_score(lesion[inside], values), abs=0.002)
    assert counts.std == pytest.approx(values.std(), abs=0.002)


def test_patients_add_up() -> None:
    rng = np.random.default_rng(1)
    reference = rng.random((2, 64, 48)) < 0.2
    head = np.ones_like(reference)
    maps = [gate(rng.random((2, 64, 48))) for _ in range(2)]
    one, other = (count_gate(item, reference, head) for item in maps)
    together = one + other
    assert together.lesion.sum() == 2 * reference.sum()
    assert np.array_equal(together.rest, one.rest + other.rest)


def test_ties_count_half_and_nothing_to_compare_is_none() -> None:
    reference = np.zeros((1, 64, 48), np.bool_)
    reference[0, :8] = True
    head = np.ones_like(reference)
    flat = count_gate(gate(np.full((1, 64, 48), 0.5)), reference, head)
    assert flat.auc == 0.5
    assert flat.std == 0
    assert count_gate(gate(np.ones((1, 64, 48))), ~head, head).auc is None
    nothing = GateCounts(np.zeros(BINS, np.int64), np.zeros(BINS, np.int64))
    assert nothing.auc is None
    assert nothing.std is None


def test_positions_follow_the_crop() -> None:
    """The lesion lies in a corner of the slice, which the crop shows at its centre."""
    letterbox = Letterbox((64, 48), Box(0, 0, 16, 16), (32, 32), (32, 32))
    reference = np.zeros((1, 64, 48), np.bool_)
    reference[0, 4:12, 4:12] = True
    coefficients = np.zeros((1, 16, 16))
    coefficients[0, 4:12, 4:12] = 1
    counts = count_gate(gate(coefficients, letterbox), reference, np.ones_like(reference))
    assert counts.auc == 1
    assert counts.lesion.sum() == 64
