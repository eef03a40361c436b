"""Colours, palettes, and masks painted over images: arrays in, RGB uint8 out.

An image to paint on (`base`) is (H, W) or (H, W, 3) uint8; every result is a new (H, W, 3) uint8.
Colours are "#RRGGBB" strings, so that the page, its charts and these functions share the constants.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from brainseg.types import BoolArray

RgbArray = npt.NDArray[np.uint8]
Palette = Literal["viridis", "magma"]

REFERENCE = "#0072B2"
PREDICTION = "#E69F00"
TRUE_POSITIVE = "#009E73"
FALSE_POSITIVE = "#D55E00"
FALSE_NEGATIVE = "#56B4E9"

# Okabe and Ito's eight colours leave three once black, the reference and TP/FP/FN are taken, and the third,
# reddish purple, turns into mid-grey for deuteranopes: invisible on a brain. So the ungated pair keeps orange
# and yellow, and the gated pair is violet and mint, found by maximising the smallest CIEDE2000 difference to
# each other, to the reserved colours and to greys under normal vision and three kinds of colour blindness.
MODEL_COLOURS = {
    "unet": PREDICTION,
    "attention_unet": "#AA66FF",
    "unetpp": "#F0E442",
    "attention_unetpp": "#BBFFBB",
}
"""Hue of each architecture."""

MODEL_DASHES: dict[str, tuple[int, ...]] = {
    "unet": (),
    "attention_unet": (8, 4),
    "unetpp": (2, 3),
    "attention_unetpp": (8, 3, 2, 3),
}
"""Line style of each architecture: lengths of dash and gap in pixels, empty for a solid line."""

_COLOURMAPS: dict[Palette, str] = {"viridis": "COLORMAP_VIRIDIS", "magma": "COLORMAP_MAGMA"}


def rgb(colour: str) -> tuple[int, int, int]:
    """Red, green, blue in 0..255 of "#RRGGBB".

    Raises:
        ValueError: if the text is not of that form.
    """
    if len(colour) != 7 or colour[0] != "#" or not all(c in "0123456789abcdefABCDEF" for c in colour[1:]):
        raise ValueError(f"a colour must look like #RRGGBB, got {colour!r}")
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def display_range(image: npt.NDArray[Any]) -> tuple[float, float]:
    """Window for showing a channel: its 0.5th and 99.5th percentile, over the whole volume for steadiness.

    Args:
        image: any shape, any real dtype; voxels that are not finite are left out.

    Returns:
        ``(low, high)`` with ``low < high``, also for a constant or empty image.
    """
    values = image[np.isfinite(image)]
    if not values.size:
        return 0.0, 1.0
    low, high = (float(x) for x in np.percentile(values, (0.5, 99.5)))
    if not low < high:
        low, high = float(values.min()), float(values.max())
    return (low, high) if low < high else (low, low + max(1.0, abs(low)))


def window(image: npt.NDArray[Any], low: float, high: float) -> npt.NDArray[np.uint8]:
    """Grey levels: `low` and below to 0, `high` and above to 255, linear and rounded between.

    Args:
        image: any shape, any real dtype; NaN becomes 0.
        low: intensity shown black.
        high: intensity shown white.

    Returns:
        uint8, same shape.

    Raises:
        ValueError: unless ``low < high``.
    """
    if not low < high:
        raise ValueError(f"window needs low < high, got {low} and {high}")
    scaled = (np.nan_to_num(image.astype(np.float64), nan=low, posinf=high, neginf=low) - low) / (high - low)
    return np.rint(np.clip(scaled, 0, 1) * 255).astype(np.uint8)


def outline(mask: BoolArray) -> BoolArray:
    """The pixels of a (H, W) bool mask with a side neighbour outside it; beyond the border is outside.

    Raises:
        ValueError: if the mask is not (H, W) bool.
    """
    _check_mask(mask)
    return np.asarray(mask & ~ndimage.binary_erosion(mask), dtype=np.bool_)


def overlay_mask(
    base: npt.NDArray[np.uint8], mask: BoolArray, colour: str, opacity: float, outline_only: bool = False
) -> RgbArray:
    """Paint a mask, filled or as its one-pixel outline, over an image.

    Args:
        base: (H, W) or (H, W, 3) uint8.
        mask: (H, W) bool.
        colour: "#RRGGBB".
        opacity: 0 (leaves the image) to 1 (hides it).
        outline_only: paint `outline(mask)` and leave the inside alone.

    Raises:
        ValueError: if the arrays do not fit, or `colour` or `opacity` is out of range.
    """
    _check_mask(mask)
    picture = _as_rgb(base, mask.shape)
    painted = outline(mask) if outline_only else mask
    picture[painted] = _blend(picture[painted], np.array(rgb(colour)), opacity)
    return picture


@cache
def palette(name: Palette) -> RgbArray:
    """The 256 colours of a perceptual map, (256, 3) uint8, read-only; row 0 is 0.0 and row 255 is 1.0."""
    import cv2  # noqa: PLC0415  the slowest import of this module, and only maps need it

    ramp = np.arange(256, dtype=np.uint8)[:, None]
    bgr = np.asarray(cv2.applyColorMap(ramp, getattr(cv2, _COLOURMAPS[name])), dtype=np.uint8)
    colours = np.ascontiguousarray(bgr[:, 0, ::-1])
    colours.flags.writeable = False
    return colours


def _blend(below: RgbArray, above: npt.NDArray[Any], opacity: float) -> RgbArray:
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity must lie in 0..1, got {opacity}")
    return np.rint(below * (1 - opacity) + above * opacity).astype(np.uint8)


def _as_rgb(base: npt.NDArray[np.uint8], shape: tuple[int, ...]) -> RgbArray:
    """A fresh (H, W, 3) uint8 picture of that (H, W)."""
    if base.dtype != np.uint8 or base.shape not in (shape, (*shape, 3)):
        raise ValueError(f"base must be uint8 {shape} or {(*shape, 3)}, not {base.dtype} {base.shape}")
    return np.repeat(base[..., None], 3, axis=-1) if base.ndim == 2 else base.copy()


def _check_mask(mask: BoolArray) -> None:
    if mask.dtype != np.bool_ or mask.ndim != 2:
        raise ValueError(f"a mask must be (H, W) bool, not {mask.shape} {mask.dtype}")
