from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage
from skimage.color import deltaE_ciede2000, rgb2lab

from brainseg import overlay
from brainseg.overlay import (
    FALSE_NEGATIVE,
    FALSE_POSITIVE,
    MODEL_COLOURS,
    MODEL_DASHES,
    PREDICTION,
    REFERENCE,
    TRUE_POSITIVE,
    display_range,
    outline,
    overlay_mask,
    palette,
    rgb,
    window,
)

ARCHITECTURES = {"unet", "attention_unet", "unetpp", "attention_unetpp"}
# Machado, Oliveira, Fernandes 2009, severity 1, for linear RGB.
VISION = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "tritanopia": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}


def seen(colours: list[tuple[int, int, int]], vision: str) -> npt.NDArray[np.float64]:
    """CIELAB of colours as a viewer perceives them."""
    c = np.array(colours) / 255
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    linear = np.clip(linear @ VISION[vision].T, 0, 1)
    c = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    lab: npt.NDArray[np.float64] = rgb2lab(c[None])[0]
    return lab


def test_every_architecture_has_its_own_colour_and_line() -> None:
    assert set(MODEL_COLOURS) == set(MODEL_DASHES) == ARCHITECTURES
    reserved = {REFERENCE, TRUE_POSITIVE, FALSE_POSITIVE, FALSE_NEGATIVE}
    assert len(set(MODEL_COLOURS.values()) | reserved) == 8
    assert len(set(MODEL_DASHES.values())) == 4
    assert MODEL_COLOURS["unet"] == PREDICTION


@pytest.mark.parametrize("vision", VISION)
def test_model_colours_are_told_apart_by_colour_blind_viewers(vision: str) -> None:
    models = seen([rgb(c) for c in MODEL_COLOURS.values()], vision)
    others = [rgb(c) for c in (REFERENCE, TRUE_POSITIVE, FALSE_POSITIVE, FALSE_NEGATIVE)]
    greys = [(g, g, g) for g in range(30, 250, 10)]
    for a, b in itertools.combinations(models, 2):
        assert deltaE_ciede2000(a, b) > 10
    for a, b in itertools.product(models, seen(others + greys, vision)):
        assert deltaE_ciede2000(a, b) > 10


def test_rgb() -> None:
    assert rgb("#E69F00") == (230, 159, 0)
    assert rgb("#e69f00") == (230, 159, 0)
    for bad in ("E69F00", "#E69F0", "#E69F0G", "#+69F00", "red", "#E69F000"):
        with pytest.raises(ValueError, match="#RRGGBB"):
            rgb(bad)


def test_window() -> None:
    image = np.array([[-5.0, 0.0, 50.0], [100.0, 1000.0, np.nan]])
    assert window(image, 0, 100).tolist() == [[0, 0, 128], [255, 255, 0]]
    assert window(np.array([-np.inf, np.inf]), 0, 1).tolist() == [0, 255]
    assert window(np.array([0, 40_000, 65_535], dtype=np.uint16), 0, 65_535).tolist() == [0, 156, 255]
    ramp = np.arange(256, dtype=np.uint8)
    assert np.array_equal(window(ramp, 0, 255), ramp)
    assert window(np.zeros((2, 3, 4)), 0, 1).shape == (2, 3, 4)
    for low, high in ((1, 1), (2, 1), (np.nan, 1)):
        with pytest.raises(ValueError, match="low < high"):
            window(image, low, high)


def test_display_range_is_usable_for_any_image() -> None:
    rng = np.random.default_rng(0)
    image = rng.normal(100, 10, (4, 50, 50))
    low, high = display_range(image)
    assert (low, high) == pytest.approx(np.percentile(image, (0.5, 99.5)))
    one_bright = np.zeros((4, 50, 50), dtype=np.uint8)
    one_bright[0, 0, 0] = 9
    assert display_range(one_bright) == (0.0, 9.0)
    image[0, 0, 0] = np.inf
    for odd in (image, np.zeros((2, 2)), np.full((2, 2), -3e9), np.full((2, 2), np.nan), np.zeros((0, 2))):
        low, high = display_range(odd)
        assert low < high
        window(odd, low, high)


@pytest.mark.parametrize("seed", range(4))
def test_outline_is_the_inner_boundary(seed: int) -> None:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal((20, 30)), 2)
    mask = noise > 0
    padded = np.pad(mask, 1)
    neighbours = np.stack([np.roll(padded, s, a) for a in (0, 1) for s in (1, -1)]).all(axis=0)
    assert np.array_equal(outline(mask), mask & ~neighbours[1:-1, 1:-1])


def test_outline_of_a_full_slice_is_its_frame() -> None:
    assert outline(np.ones((4, 5), dtype=bool)).sum() == 14
    assert not outline(np.zeros((4, 5), dtype=bool)).any()
    assert outline(np.ones((1, 1), dtype=bool)).all()


GREY = np.full((4, 4), 100, dtype=np.uint8)
SQUARE = np.zeros((4, 4), dtype=bool)
SQUARE[:3, :3] = True


def test_overlay_blends_inside_the_mask_alone() -> None:
    base = GREY.copy()
    picture = overlay_mask(base, SQUARE, "#FF0000", 0.5)
    assert picture.dtype == np.uint8
    assert picture[0, 0].tolist() == [178, 50, 50]
    assert (picture[~SQUARE] == 100).all()
    assert (base == 100).all()


def test_overlay_outline_leaves_the_inside() -> None:
    picture = overlay_mask(GREY, SQUARE, "#00FF00", 1.0, outline_only=True)
    assert picture[1, 1].tolist() == [100, 100, 100]
    assert picture[0, 1].tolist() == [0, 255, 0]


def test_overlay_opacity_ends_and_rgb_base() -> None:
    base = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    before = base.copy()
    assert np.array_equal(overlay_mask(base, SQUARE, REFERENCE, 0.0), base)
    full = overlay_mask(base, SQUARE, REFERENCE, 1.0)
    assert (full[SQUARE] == rgb(REFERENCE)).all()
    assert np.array_equal(base, before)


@pytest.mark.parametrize("name", ["viridis", "magma"])
def test_palette_is_perceptual_and_red_green_blue(name: overlay.Palette) -> None:
    colours = palette(name)
    assert colours.shape == (256, 3)
    assert colours.dtype == np.uint8
    ends = {"viridis": ((68, 1, 84), (253, 231, 37)), "magma": ((0, 0, 4), (252, 253, 191))}[name]
    assert np.abs(colours[[0, 255]].astype(int) - ends).max() <= 2
    lightness = rgb2lab(colours[None] / 255)[0, :, 0]
    assert (np.diff(lightness) > -0.3).all()
    with pytest.raises(ValueError, match="read-only"):
        colours[0] = 0


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="base must be"):
        overlay_mask(GREY.astype(np.float32), SQUARE, REFERENCE, 0.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="base must be"):
        overlay_mask(GREY[:2], SQUARE, REFERENCE, 0.5)
    with pytest.raises(ValueError, match="a mask must be"):
        overlay_mask(GREY, SQUARE.astype(np.uint8), REFERENCE, 0.5)  # type: ignore[arg-type]
    for opacity in (-0.1, 1.1, np.nan):
        with pytest.raises(ValueError, match="opacity"):
            overlay_mask(GREY, SQUARE, REFERENCE, opacity)
