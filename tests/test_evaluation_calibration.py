"""Calibration error and temperature, against scikit-learn, SciPy on the raw voxels, and known answers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit
from sklearn.calibration import calibration_curve
from sklearn.metrics import log_loss

from brainseg.evaluation.calibration import BINS, fit_temperature, reliability

Pair = tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]


def patient(seed: int, sharpness: float, voxels: int = 4000) -> Pair:
    """Probabilities whose logits are `sharpness` times the ones the reference was drawn from."""
    rng = np.random.default_rng(seed)
    honest = rng.normal(-1.0, 2.0, (4, voxels // 40, 10))
    reference = rng.random(honest.shape) < expit(honest)
    return expit(honest * sharpness).astype(np.float32), reference


@pytest.mark.parametrize("sharpness", [0.4, 1.0, 3.0])
def test_ece_is_that_of_scikit_learn_bins(sharpness: float) -> None:
    probability, reference = patient(0, sharpness)
    share, mean = calibration_curve(reference.ravel(), probability.ravel(), n_bins=BINS)
    weights = np.histogram(probability, np.linspace(0, 1, BINS + 1))[0]
    expected = float(np.average(np.abs(share - mean), weights=weights[weights > 0]))
    assert reliability(probability, reference).ece == pytest.approx(expected, abs=1e-6)


def test_ece_of_known_answers() -> None:
    reference = np.array([True, False, False, False])
    assert reliability(np.full(4, 0.25, np.float32), reference).ece == pytest.approx(0)
    assert reliability(np.ones(4, np.float32), reference).ece == pytest.approx(0.75)
    assert reliability(reference.astype(np.float32), reference).ece == 0
    assert reliability(np.zeros(0, np.float32), np.zeros(0, bool)).ece is None


def test_below_the_floor_only_tumour_counts() -> None:
    probability = np.array([0.0, 0.001, 0.001, 0.6], np.float32)
    reference = np.array([False, False, True, True])
    counted = reliability(probability, reference, floor=0.01)
    assert counted.voxels.sum() == 2
    assert counted.tumour.sum() == 2
    assert counted.ece == pytest.approx((0.999 + 0.4) / 2)


@given(st.integers(1, 5), st.integers(0, 100))
def test_patients_add_up_to_all_voxels(count: int, seed: int) -> None:
    pairs = [patient(seed + n, 2.0, 400) for n in range(count)]
    together = reliability(np.concatenate([p for p, _ in pairs]), np.concatenate([y for _, y in pairs]))
    total = reliability(*pairs[0])
    for pair in pairs[1:]:
        total = total + reliability(*pair)
    assert total.ece == pytest.approx(together.ece)
    assert np.array_equal(total.voxels, together.voxels)


@pytest.mark.parametrize("sharpness", [0.5, 1.6, 3.0])
def test_temperature_is_the_one_that_was_put_in(sharpness: float) -> None:
    pairs = [patient(seed, sharpness) for seed in range(6)]
    probabilities, references = [p for p, _ in pairs], [y for _, y in pairs]
    found = fit_temperature(probabilities, references)
    assert found == pytest.approx(sharpness, rel=0.1)

    # The same minimum on the voxels themselves, by scikit-learn's cross-entropy.
    logits, truth = logit(np.concatenate(probabilities).astype(float)).ravel(), np.concatenate(references)
    exact = minimize_scalar(
        lambda t: log_loss(truth.ravel(), expit(logits / t)), bounds=(0.25, 4), method="bounded"
    )
    assert found == pytest.approx(float(exact.x), abs=0.02)


def test_a_temperature_that_helps_no_new_patient_is_not_kept() -> None:
    sure, unsure = patient(0, 4.0), patient(1, 0.25)
    assert fit_temperature([sure[0], unsure[0]], [sure[1], unsure[1]]) == 1.0
    assert fit_temperature([sure[0]], [sure[1]]) == 1.0, "one patient cannot be left out"


def test_probabilities_at_the_ends_do_no_harm() -> None:
    probability = np.array([0.0, 1.0, 0.5, 0.25], np.float32)
    reference = np.array([False, True, True, False])
    assert 0.25 <= fit_temperature([probability] * 3, [reference] * 3) <= 4
