"""From a study to network input and back; the same object serves training, command line and app."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from brainseg.types import BoolArray, FloatArray, Geometry, Study

MULTIPLE = 16
"""Four halvings: the networks take sizes divisible by this."""


@dataclass(frozen=True)
class Preprocess:
    """MinMax normalisation on robust percentiles, resizing and padding.

    Attributes:
        size: the longer side of a slice is resized to this many pixels, keeping its proportions.
        low: percentile that becomes 0, of one channel over the patient's whole volume.
        high: percentile that becomes 1; values outside 0..1 are clipped.
    """

    size: int = 256
    low: float = 1.0
    high: float = 99.8

    def __post_init__(self) -> None:
        if self.size < MULTIPLE or not 0 <= self.low < self.high <= 100:
            raise ValueError(f"{self} makes no sense: size >= {MULTIPLE}, 0 <= low < high <= 100")

    def normalise(self, slices: npt.NDArray[Any]) -> FloatArray:
        """(S, H, W, 3) of any real dtype -> (S, H, W, 3) float32 in 0..1.

        A channel without contrast becomes 0 everywhere.
        """
        out = np.empty(slices.shape, np.float32)
        for channel in range(slices.shape[-1]):
            values = slices[..., channel]
            # float32 holds every 8- and 16-bit integer exactly, and the span of any two; not so other types.
            small = values.dtype.kind in "iu" and values.dtype.itemsize <= 2
            numbers: npt.NDArray[Any] = values.astype(np.float32 if small else np.float64)
            kind = numbers.dtype.type
            low, high = np.percentile(values if small else numbers, (self.low, self.high))
            scale = 1.0 / (high - low) if high - low > np.finfo(np.float64).tiny else 0.0
            out[..., channel] = np.clip((numbers - kind(low)) * kind(scale), 0.0, 1.0)
        return out

    def geometry(self, height: int, width: int) -> Geometry:
        """What `apply` does to slices of (height, width) pixels."""
        factor = self.size / max(height, width)
        scaled = (max(1, round(height * factor)), max(1, round(width * factor)))
        padded = (-(-scaled[0] // MULTIPLE) * MULTIPLE, -(-scaled[1] // MULTIPLE) * MULTIPLE)
        return Geometry((height, width), scaled, padded)

    def apply(self, study: Study) -> tuple[FloatArray, Geometry]:
        """A study -> network input (S, 3, h, w) float32 in 0..1, h and w divisible by 16, and geometry."""
        _, height, width = study.shape
        geometry = self.geometry(height, width)
        images = self.normalise(study.slices)
        batch = np.zeros((len(images), images.shape[-1], *geometry.padded), np.float32)
        rows, columns = geometry.scaled
        for index, image in enumerate(images):
            batch[index, :, :rows, :columns] = _resize(image, geometry.scaled).transpose(2, 0, 1)
        return batch, geometry

    def apply_mask(self, mask: BoolArray) -> BoolArray:
        """A mask (S, H, W) on the network's grid (S, h, w), as `apply` maps the slices."""
        geometry = self.geometry(*mask.shape[1:])
        out = np.zeros((len(mask), *geometry.padded), np.bool_)
        rows, columns = geometry.scaled
        for index, plane in enumerate(mask):
            out[index, :rows, :columns] = _resize(plane.astype(np.float32), geometry.scaled) >= 0.5
        return out


def invert(values: FloatArray, geometry: Geometry) -> FloatArray:
    """(S, h, w) on the network's grid, or on a coarser one that covers it -> (S, H, W) on the slice grid.

    Values are resampled, bilinearly where the grid grows and by area where it shrinks, so thresholds come
    after, never before. None leaves the range its slice had.
    """
    rows, columns = geometry.scaled
    out = np.empty((len(values), *geometry.original), np.float32)
    for index, plane in enumerate(values):
        full = _resize(np.ascontiguousarray(plane, np.float32), geometry.padded)
        out[index] = _resize(np.ascontiguousarray(full[:rows, :columns]), geometry.original)
    return out


def _resize(image: FloatArray, size: tuple[int, int]) -> FloatArray:
    if image.shape[:2] == size:
        return image
    shrinking = size[0] < image.shape[0] or size[1] < image.shape[1]
    interpolation = cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR
    resized: FloatArray = np.asarray(cv2.resize(image, size[::-1], interpolation=interpolation), np.float32)
    # Weights that sum to 1 only up to rounding would lift a probability of 1 above 1.
    return np.clip(resized, image.min(), image.max(), out=resized)
