"""From a study to network input and back; the same object serves training, command line and app."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from brainseg.head import Head, find_head
from brainseg.types import BoolArray, Box, FloatArray, Letterbox, Study

MULTIPLE = 16
"""Four halvings: the networks take sizes divisible by this."""

MAX_SIZE = 1024
"""Well above the slices of any scanner, and within memory for eight of them at once."""

# Scalp and skull, on each side; no mask of 95 patients reaches there.
_INSET = 0.035
# Scanners and viewers write in white. Less writing than this moves no percentile.
_DARKEST_BRIGHTEST, _LEAST_WRITING = (10.0, 99.5), 5e-4


@dataclass(frozen=True)
class Preprocess:
    """MinMax normalisation on robust percentiles, cropping, resizing and padding.

    Attributes:
        size: the longer side of what the network sees has this many pixels; proportions are kept.
        low: percentile that becomes 0, of one channel over the patient's whole volume.
        high: percentile that becomes 1; values outside 0..1 are clipped.
        crop: the network sees the head, inset a little, and percentiles are those of the head alone, so that
            black borders and captions are of no matter; the whole slice where no head is found.
    """

    size: int = 256
    low: float = 1.0
    high: float = 99.8
    crop: bool = False

    def __post_init__(self) -> None:
        if not MULTIPLE <= self.size <= MAX_SIZE or not 0 <= self.low < self.high <= 100:
            raise ValueError(
                f"{self} makes no sense: {MULTIPLE} <= size <= {MAX_SIZE:,}, 0 <= low < high <= 100"
            )

    @property
    def canvas(self) -> tuple[int, int]:
        """Rows and columns that a head longer than wide is cropped to, about as 6 to 5."""
        return self.size, max(MULTIPLE, self.size * 5 // 6 // MULTIPLE * MULTIPLE)

    def normalise(self, slices: npt.NDArray[Any], within: BoolArray | None = None) -> FloatArray:
        """(S, H, W, 3) of any real dtype -> (S, H, W, 3) float32 in 0..1.

        A channel without contrast becomes 0 everywhere. Percentiles are of the voxels `within` marks,
        (S, H, W), or of all.
        """
        out = np.empty(slices.shape, np.float32)
        for channel in range(slices.shape[-1]):
            values = slices[..., channel]
            # float32 holds every 8- and 16-bit integer exactly, and the span of any two; not so other types.
            small = values.dtype.kind in "iu" and values.dtype.itemsize <= 2
            numbers: npt.NDArray[Any] = values.astype(np.float32 if small else np.float64)
            kind = numbers.dtype.type
            counted = values if small else numbers
            low, high = np.percentile(counted if within is None else counted[within], (self.low, self.high))
            scale = 1.0 / (high - low) if high - low > np.finfo(np.float64).tiny else 0.0
            out[..., channel] = np.clip((numbers - kind(low)) * kind(scale), 0.0, 1.0)
        return out

    def letterbox(self, height: int, width: int, head: Box | None = None, margin: float = 0.0) -> Letterbox:
        """What `apply` does to slices of (height, width) pixels with that head; the whole slice without one.

        Box and canvas around a head grow by `margin`, as a fraction, at the same scale.
        """
        if head is None:
            factor = self.size / max(height, width)
            scaled = (max(1, round(height * factor)), max(1, round(width * factor)))
            padded = (-(-scaled[0] // MULTIPLE) * MULTIPLE, -(-scaled[1] // MULTIPLE) * MULTIPLE)
            return Letterbox((height, width), Box(0, 0, height, width), scaled, padded)
        rows, columns = self.canvas if head.height >= head.width else self.canvas[::-1]
        shown = 1 - 2 * _INSET
        pixel = max(head.height * shown / rows, head.width * shown / columns)
        rows, columns = round(rows * (1 + margin)), round(columns * (1 + margin))
        tall, wide = max(1, round(rows * pixel)), max(1, round(columns * pixel))
        top = round(head.top + (head.height - tall) / 2)
        left = round(head.left + (head.width - wide) / 2)
        return Letterbox((height, width), Box(top, left, tall, wide), (rows, columns), (rows, columns))

    def apply(self, study: Study, margin: float = 0.0) -> tuple[FloatArray, Letterbox]:
        """A study -> network input (S, 3, h, w) float32 in 0..1, and how it lies over the slices.

        h and w are divisible by 16 without a `margin`; see `letterbox`.
        """
        _, height, width = study.shape
        head = find_head(study.slices)
        letterbox = self.letterbox(height, width, head.box if head and self.crop else None, margin)
        within = None if head is None else head.mask if self.crop else without_captions(study.slices, head)
        images = self.normalise(study.slices, within)
        batch = np.zeros((len(images), images.shape[-1], *letterbox.padded), np.float32)
        rows, columns = letterbox.scaled
        for index, image in enumerate(images):
            part = _resize(_cut(image, letterbox.box), letterbox.scaled)
            batch[index, :, :rows, :columns] = part.transpose(2, 0, 1)
        return batch, letterbox


def without_captions(slices: npt.NDArray[Any], head: Head) -> BoolArray | None:
    """The voxels that count where whole slices are seen: all but writing; None where there is none.

    Writing lies outside the head, is brighter than it in every channel, and is more than a few hot pixels.
    Its soft edges count with it.
    """
    bright = soft = ~head.mask
    for channel in range(slices.shape[-1]):
        values = slices[..., channel]
        dark, light = np.percentile(values[head.mask], _DARKEST_BRIGHTEST)
        bright, soft = bright & (values > light), soft & (values > dark)
    return ~soft if bright.mean() > _LEAST_WRITING else None


def apply_mask(mask: BoolArray, letterbox: Letterbox) -> BoolArray:
    """A mask (S, H, W) on the network's grid (S, h, w), as `Preprocess.apply` maps the slices."""
    out = np.zeros((len(mask), *letterbox.padded), np.bool_)
    rows, columns = letterbox.scaled
    for index, plane in enumerate(mask):
        part = _cut(plane.astype(np.float32), letterbox.box)
        out[index, :rows, :columns] = _resize(part, letterbox.scaled) >= 0.5
    return out


def invert(values: FloatArray, letterbox: Letterbox) -> FloatArray:
    """(S, h, w) on the network's grid, or on a coarser one that covers it -> (S, H, W) on the slice grid.

    Values are resampled, bilinearly where the grid grows and by area where it shrinks, so thresholds come
    after, never before. None leaves the range its slice had, but for the zeros outside the box.
    """
    rows, columns = letterbox.scaled
    box = letterbox.box
    out = np.zeros((len(values), *letterbox.original), np.float32)
    inside, within = _overlap(letterbox.original, box)
    for index, plane in enumerate(values):
        full = _resize(np.ascontiguousarray(plane, np.float32), letterbox.padded)
        part = _resize(np.ascontiguousarray(full[:rows, :columns]), (box.height, box.width))
        out[index][inside] = part[within]
    return out


def _overlap(shape: tuple[int, ...], box: Box) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Rows and columns that a slice of that shape and a box share, in the slice and in the box."""
    spans = [
        (max(0, start), min(side, start + length), start)
        for side, start, length in zip(shape, (box.top, box.left), (box.height, box.width), strict=False)
    ]
    inside, within = zip(
        *((slice(first, last), slice(first - start, last - start)) for first, last, start in spans),
        strict=True,
    )
    return inside, within


def _cut(image: FloatArray, box: Box) -> FloatArray:
    """The box of (H, W, ...), zeros where it reaches over the edges."""
    if (box.height, box.width) == image.shape[:2] and (box.top, box.left) == (0, 0):
        return image
    out = np.zeros((box.height, box.width, *image.shape[2:]), np.float32)
    inside, within = _overlap(image.shape, box)
    out[within] = image[inside]
    return out


def _resize(image: FloatArray, size: tuple[int, int]) -> FloatArray:
    if image.shape[:2] == size:
        return image
    shrinking = size[0] < image.shape[0] or size[1] < image.shape[1]
    interpolation = cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR
    resized: FloatArray = np.asarray(cv2.resize(image, size[::-1], interpolation=interpolation), np.float32)
    # Weights that sum to 1 only up to rounding would lift a probability of 1 above 1.
    return np.clip(resized, image.min(), image.max(), out=resized)
