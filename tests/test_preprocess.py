"""From a study to network input and back, on any grid and any dtype."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from brainseg.head import find_head
from brainseg.postprocess import cut
from brainseg.preprocess import MULTIPLE, Preprocess, apply_mask, invert, without_captions
from brainseg.types import Box, FloatArray, Letterbox, Source, Study

DTYPES = ("uint8", "uint16", "int16", "int32", "float32", "float64")
quick = settings(max_examples=40, deadline=None, derandomize=True)
sides = st.integers(min_value=1, max_value=700)
sizes = st.integers(min_value=16, max_value=130)


def study(slices: npt.NDArray[np.generic]) -> Study:
    return Study(slices, "case", Source("test", (), ""), tuple(range(1, len(slices) + 1)))


def noise(*shape: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def disc(height: int, width: int, row: float, column: float, radius: float) -> npt.NDArray[np.bool_]:
    y, x = np.mgrid[:height, :width]
    return np.asarray((y - row) ** 2 + (x - column) ** 2 <= radius**2)


def onto(plane: FloatArray, preprocess: Preprocess) -> tuple[FloatArray, Letterbox]:
    """One plane in 0..1 taken to the network's grid as an image would be, through all three channels."""
    stack = np.repeat((plane[None, ..., None] * 60000).astype(np.uint16), 3, axis=3)
    batch, letterbox = replace(preprocess, low=0, high=100).apply(study(stack))
    return batch[:, 0], letterbox


# --- normalisation ---


@quick
@given(
    hnp.arrays(
        st.sampled_from([np.dtype(name) for name in DTYPES]),
        st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 9), st.just(3)),
    ),
    st.floats(0, 40),
    st.floats(60, 100),
)
def test_any_numbers_become_0_to_1(slices: npt.NDArray[np.generic], low: float, high: float) -> None:
    if slices.dtype.kind == "f":
        assume(np.isfinite(slices).all())
        assume(np.abs(slices.astype(np.float64)).max() < 1e150)
    before = slices.copy()
    out = Preprocess(low=low, high=high).normalise(slices)
    assert out.dtype == np.float32
    assert out.shape == slices.shape
    assert ((out >= 0) & (out <= 1)).all()  # NaN fails
    assert np.array_equal(slices, before)


@pytest.mark.parametrize("dtype", DTYPES)
def test_normalisation_equals_the_formula(dtype: str) -> None:
    slices = noise(4, 12, 10, 3).astype(dtype)
    out = Preprocess(low=2.0, high=97.0).normalise(slices)
    for channel in range(3):
        values = np.sort(slices[..., channel].astype(np.float64).ravel())
        low, high = (np.interp(q / 100 * (values.size - 1), np.arange(values.size), values) for q in (2, 97))
        expected = np.clip((slices[..., channel] - low) / (high - low), 0, 1)
        np.testing.assert_allclose(out[..., channel], expected, atol=1e-6)
        assert out[..., channel].min() == 0
        assert out[..., channel].max() == 1


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_constant_channel_becomes_zero_and_leaves_the_others(dtype: str) -> None:
    slices = noise(2, 8, 8, 3).astype(dtype)
    whole = Preprocess().normalise(slices)
    slices[..., 1] = 77
    out = Preprocess().normalise(slices)
    assert (out[..., 1] == 0).all()
    assert np.array_equal(out[..., [0, 2]], whole[..., [0, 2]])
    assert whole[..., 1].max() == 1


@quick
@given(st.floats(1e-3, 1e4), st.floats(-1e4, 1e4), st.integers(0, 5))
def test_linear_scaling_of_intensities_is_of_no_matter(scale: float, offset: float, seed: int) -> None:
    slices = noise(2, 7, 6, 3, seed=seed).astype(np.float64)
    expected = Preprocess(low=1, high=95).normalise(slices)
    out = Preprocess(low=1, high=95).normalise(slices * scale + offset)
    np.testing.assert_allclose(out, expected, atol=1e-5)


@pytest.mark.parametrize(("dtype", "factor"), [("uint16", 257), ("int32", 1 << 22), ("float32", 1e-30)])
def test_wider_types_give_what_eight_bits_gave(dtype: str, factor: float) -> None:
    slices = noise(3, 9, 9, 3)
    wide = slices.astype(dtype) * np.dtype(dtype).type(factor)
    np.testing.assert_allclose(Preprocess().normalise(wide), Preprocess().normalise(slices), atol=1e-5)


def test_values_far_from_zero_keep_their_contrast() -> None:
    """float32 cannot tell 2**30 from 2**30 + 63."""
    slices = noise(2, 8, 8, 3)
    moved = slices.astype(np.int64) + 2**30
    np.testing.assert_allclose(Preprocess().normalise(moved), Preprocess().normalise(slices), atol=1e-5)


@pytest.mark.parametrize("span", [1e-310, 1e-40, 1e40, 1e300])
def test_tiny_and_huge_contrast(span: float) -> None:
    slices = np.linspace(0, span, 2 * 8 * 8 * 3).reshape(2, 8, 8, 3)
    out = Preprocess().normalise(slices)
    assert np.isfinite(out).all()
    assert out.max() == (1 if span > 1e-300 else 0)


def test_percentiles_are_of_the_volume_and_of_each_channel() -> None:
    slices = np.zeros((2, 10, 10, 3), np.uint8)
    slices[0] = np.arange(100).reshape(10, 10, 1)
    slices[1] = 100 + np.arange(100).reshape(10, 10, 1)
    slices[..., 2] //= 2
    out = Preprocess(low=0, high=100).normalise(slices)
    assert out[0, ..., 0].max() == pytest.approx(99 / 199)
    assert out[1, ..., 0].min() == pytest.approx(100 / 199)
    assert out[1, ..., 2].max() == 1


def test_a_few_hot_pixels_do_not_darken_the_patient() -> None:
    slices = noise(4, 32, 32, 3)
    calm = Preprocess().normalise(slices)
    slices[0, 0, 0] = 0
    bright = slices.astype(np.uint16)
    bright[0, 0, :4] = 65535
    np.testing.assert_allclose(Preprocess().normalise(bright)[1:], calm[1:], atol=0.01)


# --- letterbox ---


@quick
@given(sides, sides, st.integers(16, 600))
def test_geometry_keeps_proportions_and_is_divisible(height: int, width: int, size: int) -> None:
    letterbox = Preprocess(size=size).letterbox(height, width)
    assert letterbox.original == (height, width)
    assert max(letterbox.scaled) == size
    for side, scaled, padded in zip((height, width), letterbox.scaled, letterbox.padded, strict=True):
        assert abs(scaled - max(1, side * size / max(height, width))) <= 0.5
        assert padded % MULTIPLE == 0
        assert 0 <= padded - scaled < MULTIPLE


@quick
@given(st.integers(1, 3), st.integers(1, 150), st.integers(1, 150), sizes, st.integers(0, 9))
def test_apply_pads_with_zeros_and_invert_restores_the_shape(
    count: int, height: int, width: int, size: int, seed: int
) -> None:
    slices = np.maximum(noise(count, height, width, 3, seed=seed), 1)
    batch, letterbox = Preprocess(size=size).apply(study(slices))
    assert batch.dtype == np.float32
    assert batch.shape == (count, 3, *letterbox.padded)
    assert batch.flags.c_contiguous
    assert ((batch >= 0) & (batch <= 1)).all()
    rows, columns = letterbox.scaled
    assert not batch[:, :, rows:].any()
    assert not batch[:, :, :, columns:].any()
    back = invert(batch[:, 0], letterbox)
    assert back.dtype == np.float32
    assert back.shape == (count, height, width)


def test_padding_is_at_the_bottom_and_right_and_channels_keep_their_order() -> None:
    slices = np.zeros((2, 20, 30, 3), np.uint8)
    slices[0, :10, :, 0] = slices[0, :, :15, 1] = slices[1, :, :, 2] = 200
    batch, letterbox = Preprocess(size=30).apply(study(slices))
    assert letterbox == Letterbox((20, 30), Box(0, 0, 20, 30), (20, 30), (32, 32))
    expected = np.zeros((2, 3, 32, 32), np.float32)
    expected[0, 0, :10, :30] = expected[0, 1, :20, :15] = expected[1, 2, :20, :30] = 1
    assert np.array_equal(batch, expected)


def test_256_by_256_is_untouched() -> None:
    preprocess = Preprocess()
    slices = noise(3, 256, 256, 3)
    batch, letterbox = preprocess.apply(study(slices))
    assert letterbox == Letterbox((256, 256), Box(0, 0, 256, 256), (256, 256), (256, 256))
    assert np.array_equal(batch, preprocess.normalise(slices).transpose(0, 3, 1, 2))
    values = np.random.default_rng(0).random((3, 256, 256), np.float32)
    assert np.array_equal(invert(values, letterbox), values)


@quick
@given(st.integers(60, 500), st.integers(60, 500))
def test_a_smooth_image_survives_there_and_back(height: int, width: int) -> None:
    y, x = np.mgrid[:height, :width]
    image = (0.5 + 0.25 * np.sin(4 * y / height) + 0.25 * np.cos(5 * x / width)).astype(np.float32)
    image = (image - image.min()) / (image.max() - image.min())
    there, letterbox = onto(image, Preprocess(size=128))
    back = invert(there, letterbox)[0]
    assert np.abs(back - image).max() < 0.06
    assert np.abs(back - image).mean() < 0.01


@pytest.mark.parametrize("grid", [(300, 200), (200, 300), (250, 197), (512, 512), (101, 77), (1000, 700)])
def test_a_disc_keeps_its_centre_and_area(grid: tuple[int, int]) -> None:
    height, width = grid
    wanted = disc(height, width, 0.6 * height, 0.3 * width, 0.15 * min(grid))
    there, letterbox = onto(wanted.astype(np.float32), Preprocess())
    found = invert(there, letterbox)[0] >= 0.5
    for axis in (0, 1):
        assert abs(np.nonzero(found)[axis].mean() - np.nonzero(wanted)[axis].mean()) < 0.1
    assert found.sum() == pytest.approx(wanted.sum(), rel=0.02)


def test_a_disc_drawn_on_the_network_grid_lands_where_it_belongs() -> None:
    """300 x 200 becomes 256 x 171, padded to 176: the pixel centre c lies at (c + 1/2) * 300 / 256 - 1/2."""
    letterbox = Preprocess().letterbox(300, 200)
    assert letterbox == Letterbox((300, 200), Box(0, 0, 300, 200), (256, 171), (256, 176))
    values = disc(256, 176, 150, 60, 20).astype(np.float32)
    rows, columns = np.nonzero(invert(values[None], letterbox)[0] >= 0.5)
    assert abs(rows.mean() - (150.5 * 300 / 256 - 0.5)) < 0.5
    assert abs(columns.mean() - (60.5 * 200 / 171 - 0.5)) < 0.5
    assert len(rows) == pytest.approx(math.pi * 20**2 * (300 / 256) * (200 / 171), rel=0.03)


def test_padding_does_not_leak_into_the_slice() -> None:
    letterbox = Preprocess().letterbox(300, 200)
    values = np.zeros((1, 256, 176), np.float32)
    values[:, :, 171:] = 1
    assert not invert(values, letterbox).any()


def test_a_coarser_grid_covers_the_padded_one() -> None:
    """Columns 0..43 of 88 are columns 0..87 of 176, and 88 of the 171 that hold the slice."""
    letterbox = Preprocess().letterbox(300, 200)
    values = np.zeros((2, 128, 88), np.float32)
    values[1, :, :44] = 1
    out = invert(values, letterbox)
    assert out.shape == (2, 300, 200)
    assert not out[0].any()
    edge = (out[1] >= 0.5).sum(axis=1)
    assert (np.abs(edge - 88 * 200 / 171) <= 1).all()


@pytest.mark.parametrize("grid", [(106, 116), (165, 175), (188, 74), (300, 200), (933, 611), (5, 900)])
def test_certainty_stays_certainty(grid: tuple[int, int]) -> None:
    """Resampling weights sum to 1 up to rounding; a probability of 1.0000001 would be refused further on."""
    letterbox = Preprocess().letterbox(*grid)
    for shrink in (1, 2, 16):
        ones = np.ones((1, letterbox.padded[0] // shrink, letterbox.padded[1] // shrink), np.float32)
        out = invert(ones, letterbox)
        assert (out == 1).all()
        assert cut(out, 0.5, "all").all()


def test_a_strip_that_shrinks_along_one_axis_is_averaged_not_sampled() -> None:
    strip = np.zeros((1, 1, 1024, 3), np.uint8)
    strip[:, :, ::4] = 200
    batch, _ = Preprocess(size=16, low=0, high=100).apply(study(strip))
    np.testing.assert_allclose(batch[0, :, 0], 0.25, atol=0.01)


# --- masks ---


@pytest.mark.parametrize("grid", [(300, 200), (250, 197), (100, 77), (256, 256), (90, 300)])
def test_a_mask_lies_on_its_image(grid: tuple[int, int]) -> None:
    """A picture of the mask and the mask itself reach the network's grid as one."""
    masks = np.stack([disc(*grid, 0.6 * grid[0], 0.3 * grid[1], 0.2 * min(grid)), np.zeros(grid, np.bool_)])
    picture = np.repeat(masks[..., None].astype(np.uint8) * 200, 3, axis=3)
    for size in (256, 64):
        preprocess = Preprocess(size=size, low=0, high=100)
        batch, letterbox = preprocess.apply(study(picture))
        out = apply_mask(masks, letterbox)
        assert out.dtype == np.bool_
        assert out.shape == (2, *letterbox.padded)
        assert np.array_equal(out, batch[:, 1] >= 0.5)
        assert out[0].any()
        assert not out[1].any()
        back = invert(out.astype(np.float32), letterbox)[0] >= 0.5
        overlap = 2 * (back & masks[0]).sum() / (back.sum() + masks[0].sum())
        assert overlap > 0.9
        if grid == letterbox.padded:
            assert np.array_equal(out, masks)


def test_a_full_mask_does_not_reach_into_the_padding() -> None:
    out = apply_mask(np.ones((1, 40, 60), np.bool_), Preprocess(size=30).letterbox(40, 60))
    assert out.shape == (1, 32, 32)
    assert out[0, :20, :30].all()
    assert out.sum() == 20 * 30


# --- the head ---

CROP = Preprocess(size=96, high=99.5, crop=True)


def patient(height: int, width: int, centre: tuple[float, float], radii: tuple[float, float]) -> Study:
    """A textured ellipse with a bright disc in it, the disc as the reference."""
    head = ((np.mgrid[:height, :width][0] - centre[0]) / radii[0]) ** 2
    head = head + ((np.mgrid[:height, :width][1] - centre[1]) / radii[1]) ** 2 <= 1
    lesion = disc(height, width, centre[0] - radii[0] / 3, centre[1] + radii[1] / 4, radii[1] / 4)
    y, x = np.mgrid[:height, :width]
    image = np.where(head, 90 + 25 * np.sin(y / 9) * np.cos(x / 7), 0) + np.where(lesion, 60, 0)
    slices = np.repeat(np.repeat(image[None, ..., None], 4, axis=0), 3, axis=3).astype(np.uint8)
    return replace(study(slices), reference=np.repeat(lesion[None], 4, axis=0))


@quick
@given(
    st.integers(120, 400), st.integers(120, 400), st.floats(0.25, 0.45), st.floats(0.6, 1.0), st.booleans()
)
def test_the_head_fills_the_canvas_and_comes_back_where_it_was(
    height: int, width: int, share: float, slim: float, lying: bool
) -> None:
    radius = share * min(height, width)
    radii = (slim * radius, radius) if lying else (radius, slim * radius)
    given_study = patient(height, width, (height / 2, width / 2), radii)
    batch, letterbox = CROP.apply(given_study)
    # A head as long as wide may go either way.
    assert batch.shape[2:] in {CROP.canvas, CROP.canvas[::-1]}
    if slim < 0.9:
        assert batch.shape[2:] == (CROP.canvas[::-1] if lying else CROP.canvas)
    assert letterbox.scaled == letterbox.padded
    assert (batch[:, 1] > 0).mean() > 0.6
    rows, columns = letterbox.scaled
    # One scale for both axes, to within the rounding of the box.
    assert letterbox.box.height / rows == pytest.approx(letterbox.box.width / columns, rel=0.03)
    assert given_study.reference is not None
    there = apply_mask(given_study.reference, letterbox)
    back = invert(there.astype(np.float32), letterbox) >= 0.5
    assert back.shape == given_study.shape
    overlap = 2 * (back & given_study.reference).sum() / (back.sum() + given_study.reference.sum())
    assert overlap > 0.9


def test_a_mask_lies_on_its_cropped_image() -> None:
    given_study = patient(256, 256, (120, 140), (100, 80))
    assert given_study.reference is not None
    picture = replace(
        given_study, slices=np.repeat(given_study.reference[..., None].astype(np.uint8) * 200, 3, axis=3)
    )
    _, letterbox = CROP.apply(given_study)
    there = apply_mask(given_study.reference, letterbox)
    # The same box, for a picture in which no head would be found.
    whole = np.stack([plane[..., 0] / np.float32(200) for plane in picture.slices])
    rows, columns = letterbox.scaled
    top, left, tall, wide = letterbox.box
    cut = np.pad(whole, ((0, 0), (200, 200), (200, 200)))[
        :, top + 200 : top + 200 + tall, left + 200 : left + 200 + wide
    ]
    centre = np.array([np.argwhere(cut[0] > 0.5).mean(axis=0) / (tall, wide)])
    found = np.argwhere(there[0]).mean(axis=0) / (rows, columns)
    np.testing.assert_allclose(found, centre[0], atol=0.01)


def test_borders_and_captions_leave_what_the_network_sees() -> None:
    plain = patient(200, 200, (100, 100), (85, 70))
    wide = np.zeros((4, 400, 400, 3), np.uint8)
    wide[:, 100:300, 100:300] = plain.slices
    captioned = plain.slices.copy()
    captioned[:, 2:8, 2:90] = 255
    expected, _ = CROP.apply(plain)
    for other in (wide, captioned):
        batch, _ = CROP.apply(study(other))
        assert batch.shape == expected.shape
        assert np.abs(batch - expected)[:, :, 8:-8, 8:-8].mean() < 0.04
        assert np.corrcoef(batch.ravel(), expected.ravel())[0, 1] > 0.95
    whole = Preprocess(size=96)
    assert np.corrcoef(whole.apply(study(wide))[0].ravel(), whole.apply(plain)[0].ravel())[0, 1] < 0.5


def test_writing_is_left_out_of_the_percentiles_of_whole_slices() -> None:
    whole = Preprocess(size=96)
    plain = patient(200, 200, (100, 100), (85, 70))
    captioned = plain.slices.copy()
    captioned[:, 2:10, 2:90] = 255
    captioned[:, 10:12, 2:90] = 120  # soft edges
    expected, _ = whole.apply(plain)
    batch, _ = whole.apply(study(captioned))
    assert np.abs(batch - expected)[:, :, 8:].max() < 0.03
    few = plain.slices.copy()
    few[0, 2, 2:6] = 255
    head = find_head(few)
    assert head is not None
    assert without_captions(few, head) is None, "hot pixels are no writing"


def test_a_box_that_reaches_over_the_edge_is_black_there_and_nothing_is_lost() -> None:
    given_study = patient(200, 120, (100, 60), (90, 59))
    narrow = replace(given_study, slices=given_study.slices[:, :, 10:110], reference=None)
    batch, letterbox = CROP.apply(narrow)
    assert letterbox.box.left < 0
    outside = round(-letterbox.box.left * letterbox.scaled[1] / letterbox.box.width) - 1
    assert outside > 3
    assert not batch[..., :outside].any()
    assert invert(batch[:, 1], letterbox).shape == (4, 200, 100)


def test_outside_the_box_there_is_no_probability() -> None:
    letterbox = CROP.letterbox(256, 256, Box(60, 70, 120, 90))
    found = invert(np.ones((1, *letterbox.padded), np.float32), letterbox)
    top, left, tall, wide = letterbox.box
    assert (found[0, top : top + tall, left : left + wide] == 1).all()
    assert found.sum() == tall * wide


def test_without_a_head_the_whole_slice_is_seen() -> None:
    slices = np.zeros((2, 64, 96, 3), np.uint8)
    slices[:, :, :3] = 100
    batch, letterbox = CROP.apply(study(slices))
    assert letterbox.box == Box(0, 0, 64, 96)
    assert batch.shape[2:] == (64, 96)


def test_a_margin_shows_more_at_the_same_scale() -> None:
    given_study = patient(256, 256, (128, 128), (100, 80))
    plain, box = CROP.apply(given_study)
    wide, larger = CROP.apply(given_study, margin=0.25)
    assert larger.scaled == (120, 100)
    assert larger.box.height / larger.scaled[0] == pytest.approx(box.box.height / box.scaled[0], rel=0.01)
    middle = wide[:, :, 12:108, 10:90]
    assert np.corrcoef(middle.ravel(), plain.ravel())[0, 1] > 0.99


# --- parameters ---


@pytest.mark.parametrize(
    "parameters",
    [
        {"size": 15},
        {"size": 0},
        {"size": -256},
        {"size": 1025},
        {"size": 10**18},
        {"low": -1.0},
        {"high": 100.5},
        {"low": 50.0, "high": 50.0},
        {"low": 99.0, "high": 1.0},
        {"low": math.nan},
        {"high": math.nan},
    ],
)
def test_parameters_without_sense_are_refused(parameters: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="makes no sense: 16 <= size"):
        Preprocess(**parameters)  # type: ignore[arg-type]


def test_defaults_are_those_the_weights_were_trained_with() -> None:
    assert Preprocess() == Preprocess(size=256, low=1.0, high=99.8)
    Preprocess(size=16, low=0, high=100)
