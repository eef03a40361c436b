"""Where the head lies in a volume: what is normalised and cropped to, whatever surrounds it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from brainseg.types import BoolArray, Box, FloatArray

# Fine enough for a box, coarse enough that noise and thin captions average away.
_COARSE = 128
# Between air and brain; a head is darker at its rim than the threshold that Otsu puts there.
_SHARE_OF_OTSU = 0.5
_LEAST_AREA, _LEAST_FILLED, _LONGEST = 0.02, 0.3, 2.0


@dataclass(frozen=True, eq=False)
class Head:
    """The largest connected bright region of a volume.

    Attributes:
        mask: (S, H, W) bool, to within a few pixels, holes filled.
        box: the smallest rectangle that holds it in every slice.
    """

    mask: BoolArray
    box: Box


def find_head(slices: npt.NDArray[Any]) -> Head | None:
    """The head in (S, H, W, C) of any real dtype; None where no region looks like one.

    The channels are averaged after each was stretched between its percentiles 1 and 99, cut at half of
    Otsu's threshold (Otsu 1979), and the largest three-dimensional component is taken: captions, frames and
    tables beside the head are other components.
    """
    count, height, width, _ = slices.shape
    factor = min(1.0, _COARSE / max(height, width))
    rows, columns = max(1, round(height * factor)), max(1, round(width * factor))
    coarse = np.empty((count, rows, columns), np.float32)
    low, high = (np.percentile(slices, q, axis=(0, 1, 2)) for q in (1, 99))
    span = np.where(high > low, high - low, np.inf)
    for index, image in enumerate(slices):
        mean = np.clip((image - low) / span, 0, 1).mean(axis=-1, dtype=np.float32)
        coarse[index] = cv2.resize(mean, (columns, rows), interpolation=cv2.INTER_AREA)
    largest = _largest(coarse)
    if largest is None:
        return None
    top, left, bottom, right = _extent(largest)
    area, sides = (bottom - top) * (right - left), (bottom - top, right - left)
    filled = largest[:, top:bottom, left:right].any(axis=0).mean()
    if area < _LEAST_AREA * rows * columns or max(sides) > _LONGEST * min(sides) or filled < _LEAST_FILLED:
        return None
    mask = np.empty((count, height, width), np.bool_)
    for index, plane in enumerate(largest):
        whole = ndimage.binary_fill_holes(plane).astype(np.uint8)
        mask[index] = cv2.resize(whole, (width, height), interpolation=cv2.INTER_NEAREST)
    scale = np.array([height / rows, width / columns] * 2)
    top, left, bottom, right = (round(side) for side in np.array([top, left, bottom, right]) * scale)
    return Head(mask, Box(top, left, bottom - top, right - left))


def _largest(volume: FloatArray) -> BoolArray | None:
    threshold, _ = cv2.threshold(
        np.rint(volume * 255).astype(np.uint8).reshape(len(volume), -1), 0, 1, cv2.THRESH_OTSU
    )
    bright = (volume > threshold / 255 * _SHARE_OF_OTSU).astype(np.uint8)
    kernel = np.ones((3, 3), np.uint8)
    opened = np.stack([cv2.morphologyEx(plane, cv2.MORPH_OPEN, kernel) for plane in bright])
    labels = np.zeros(opened.shape, np.int32)
    if not ndimage.label(opened, output=labels):
        return None
    voxels = np.bincount(labels.ravel())
    voxels[0] = 0
    return np.asarray(labels == voxels.argmax())


def _extent(mask: BoolArray) -> tuple[int, int, int, int]:
    """Top, left, bottom, right of what (S, H, W) marks in any slice."""
    rows, columns = np.flatnonzero(mask.any(axis=(0, 2))), np.flatnonzero(mask.any(axis=(0, 1)))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1
