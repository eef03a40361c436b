from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage
from skimage.measure import label

from brainseg.postprocess import cut, find
from brainseg.types import FloatArray, Prediction


def volume(*shape: int) -> FloatArray:
    return np.zeros(shape, dtype=np.float32)


def test_at_or_above_the_threshold() -> None:
    p = volume(1, 1, 3)
    p[0, 0] = (0.49, 0.5, 0.51)
    assert cut(p, 0.5, "all").tolist() == [[[False, True, True]]]


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.7, np.float64(0.7), np.float32(0.9)])
def test_a_probability_stored_as_float32_reaches_its_own_threshold(threshold: float) -> None:
    p = np.full((1, 2, 2), threshold, dtype=np.float32)
    assert cut(p, threshold, "all").all()


def test_threshold_ends() -> None:
    p = volume(2, 2, 2)
    p[0, 0, 0] = 1
    assert cut(p, 0.0, "all").all()
    assert cut(p, 1.0, "all").sum() == 1


def test_largest_component_stays() -> None:
    p = volume(4, 8, 8)
    p[0, 0:2, 0:2] = 0.9
    p[2:4, 4:7, 4:7] = 0.6
    mask = cut(p, 0.5, "largest")
    assert np.array_equal(mask, p == np.float32(0.6))
    assert cut(p, 0.5, "all").sum() == mask.sum() + 4


def test_corners_connect_across_slices() -> None:
    p = volume(3, 4, 4)
    p[0, 0, 0] = p[1, 1, 1] = p[2, 2, 2] = 0.9
    p[0, 3, 2:] = 0.9
    mask = cut(p, 0.5, "largest")
    assert np.argwhere(mask).tolist() == [[0, 0, 0], [1, 1, 1], [2, 2, 2]]


@pytest.mark.parametrize("order", [1, -1])
def test_tie_goes_to_the_higher_summed_probability(order: int) -> None:
    p = volume(1, 5, 5)
    p[0, 0, :2], p[0, 4, :2] = (0.6, 0.7)[::order]
    mask = cut(p, 0.5, "largest")
    assert mask.sum() == 2
    assert p[mask].min() == np.float32(0.7)


@pytest.mark.parametrize("keep", ["all", "largest"])
def test_nothing_and_everything(keep: str) -> None:
    assert not cut(volume(2, 3, 3), 0.5, keep).any()  # type: ignore[arg-type]
    assert cut(volume(2, 3, 3) + 1, 0.5, keep).all()  # type: ignore[arg-type]
    assert cut(volume(0, 3, 3), 0.5, keep).shape == (0, 3, 3)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(5))
def test_largest_equals_scikit_image(seed: int) -> None:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).random((6, 20, 20)), 1)
    p = ((noise - noise.min()) / np.ptp(noise)).astype(np.float32)
    labels = label(p >= 0.6, connectivity=3)
    sizes = np.bincount(labels.ravel())[1:]
    assert np.count_nonzero(sizes == sizes.max()) == 1
    assert np.array_equal(cut(p, 0.6, "largest"), labels == sizes.argmax() + 1)


def test_probability_is_left_alone() -> None:
    p = np.random.default_rng(0).random((3, 6, 6), dtype=np.float32)
    before = p.copy()
    cut(p, 0.5, "largest")
    assert np.array_equal(p, before)


@pytest.mark.parametrize(
    ("probability", "threshold", "keep", "words"),
    [
        (volume(3, 3), 0.5, "all", "must be"),
        (np.zeros((2, 3, 3), dtype=np.uint8), 0.5, "all", "must be"),
        (volume(2, 3, 3) + 1.5, 0.5, "all", "0..1"),
        (volume(2, 3, 3) - 0.1, 0.5, "all", "0..1"),
        (volume(2, 3, 3) * np.float32(math.nan), 0.5, "all", "0..1"),
        (volume(2, 3, 3), 1.1, "all", "threshold"),
        (volume(2, 3, 3), -0.1, "all", "threshold"),
        (volume(2, 3, 3), math.nan, "all", "threshold"),
        (volume(2, 3, 3), 0.5, "biggest", "keep"),
    ],
)
def test_segment_rejects(probability: FloatArray, threshold: float, keep: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        cut(probability, threshold, keep)  # type: ignore[arg-type]


def test_find_uses_what_the_weights_store_unless_told() -> None:
    p = volume(1, 3, 5)
    p[0, 0, :3], p[0, 2, :2] = 0.5, 0.8
    prediction = Prediction("m", "unet", "case", p, threshold=0.4, keep="largest")
    stored = find(prediction)
    assert (stored.threshold, stored.keep, stored.mask.sum()) == (0.4, "largest", 3)
    told = find(prediction, threshold=0.6, keep="all")
    assert (told.threshold, told.keep, told.mask.sum()) == (0.6, "all", 2)
    assert told.prediction is prediction
    assert find(prediction, threshold=0.0).mask.all()
