"""The head is found whatever surrounds it, and not where there is none."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brainseg.head import find_head
from brainseg.types import Box

quick = settings(max_examples=25, deadline=None, derandomize=True)


def ball(
    shape: tuple[int, int, int], centre: tuple[float, float], radii: tuple[float, float], seed: int = 0
) -> npt.NDArray[np.uint8]:
    """(S, H, W, 3): a head with texture and a dark ventricle, in dim noise."""
    rng = np.random.default_rng(seed)
    z, y, x = np.mgrid[: shape[0], : shape[1], : shape[2]]
    middle = (shape[0] - 1) / 2
    # Slices thin out towards the ends, as a head does.
    ring = (
        ((y - centre[0]) / radii[0]) ** 2 + ((x - centre[1]) / radii[1]) ** 2 + ((z - middle) / shape[0]) ** 2
    )
    dark = ((y - centre[0]) / radii[0]) ** 2 + ((x - centre[1]) / radii[1]) ** 2 < 0.05
    image = np.where(ring <= 1, 110, 3) + rng.normal(0, 4, ring.shape)
    image[dark] = 12
    return np.asarray(np.clip(np.repeat(image[..., None], 3, axis=-1), 0, 255), np.uint8)


def test_a_head_is_found_to_within_a_few_pixels() -> None:
    head = find_head(ball((12, 256, 256), (120, 140), (110, 85)))
    assert head is not None
    for found, wanted in zip(head.box, (10, 55, 220, 170), strict=True):
        assert abs(found - wanted) <= 6
    assert head.mask[6, 120, 140], "the ventricle is part of the head"
    assert not head.mask[:, :8].any()
    assert head.mask.mean() == pytest.approx(np.pi * 110 * 85 / 256**2, rel=0.1)


@quick
@given(
    st.integers(80, 400),
    st.integers(80, 400),
    st.floats(0.25, 0.45),
    st.sampled_from(["uint8", "uint16", "int16", "float64"]),
)
def test_box_and_mask_agree_on_any_grid_and_dtype(height: int, width: int, share: float, dtype: str) -> None:
    side = min(height, width)
    slices = ball((5, height, width), (height / 2, width / 2), (share * side, 0.8 * share * side))
    head = find_head(slices.astype(dtype))
    assert head is not None
    assert head.mask.shape == (5, height, width)
    top, left, tall, wide = head.box
    assert 0 <= top < top + tall <= height
    assert 0 <= left < left + wide <= width
    outside = head.mask.copy()
    outside[:, top : top + tall, left : left + wide] = False
    assert outside.mean() < 0.01
    assert tall == pytest.approx(2 * share * side, abs=0.04 * max(height, width) + 2)


def test_a_caption_beside_the_head_is_not_the_head() -> None:
    plain = ball((10, 256, 256), (128, 128), (90, 75))
    captioned = plain.copy()
    captioned[:, 4:20, 4:150] = 255
    one, other = find_head(plain), find_head(captioned)
    assert one is not None
    assert other is not None
    assert one.box == other.box


def test_black_borders_move_the_box_and_change_nothing_else() -> None:
    plain = ball((8, 200, 200), (100, 100), (85, 70))
    padded = np.zeros((8, 400, 400, 3), np.uint8)
    padded[:, 100:300, 100:300] = plain
    one, other = find_head(plain), find_head(padded)
    assert one is not None
    assert other is not None
    moved = Box(one.box.top + 100, one.box.left + 100, one.box.height, one.box.width)
    assert max(abs(a - b) for a, b in zip(moved, other.box, strict=True)) <= 8


def test_a_background_that_is_not_black_in_one_channel() -> None:
    """Some scanners write the air of a subtracted sequence as mid-grey."""
    slices = ball((10, 256, 256), (128, 128), (100, 80))
    slices[..., 0] = np.where(slices[..., 0] < 30, 100, slices[..., 0])
    head = find_head(slices)
    assert head is not None
    assert head.box.height == pytest.approx(200, abs=12)


@pytest.mark.parametrize(
    "slices",
    [
        np.zeros((4, 64, 64, 3), np.uint8),
        np.full((4, 64, 64, 3), 90, np.uint8),
        np.pad(np.full((4, 3, 64, 3), 200, np.uint8), ((0, 0), (30, 31), (0, 0), (0, 0))),
        np.pad(np.full((4, 4, 4, 3), 200, np.uint8), ((0, 0), (30, 30), (30, 30), (0, 0))),
        np.full((1, 1, 1, 3), 7, np.uint8),
    ],
    ids=["black", "flat", "a stripe", "a speck", "one pixel"],
)
def test_what_is_no_head_gives_none(slices: npt.NDArray[np.uint8]) -> None:
    assert find_head(slices) is None


def test_input_is_left_as_it_was() -> None:
    slices = ball((4, 100, 100), (50, 50), (40, 32))
    before = slices.copy()
    find_head(slices)
    assert np.array_equal(slices, before)
