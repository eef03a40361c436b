"""Bytes of one TIFF, PNG or JPEG -> pixels, as stored, or one sentence."""

from __future__ import annotations

import io
import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image, UnidentifiedImageError

from brainseg.io.files import NamedBytes
from brainseg.io.limits import MAX_SIDE, MAX_SLICES, MAX_VOXELS
from brainseg.io.sniff import ACCEPTED, Kind, kind_of, looks_like
from brainseg.io.text import shown
from brainseg.types import InputError

_FAITHFUL = frozenset({"1", "L", "LA", "RGB", "RGBA", "I", "I;16", "I;16B", "I;16L", "F"})
# (bits, sample format) of one-channel TIFFs above 8 bits that Pillow reads without loss; 1 is unsigned,
# 2 signed, 3 float. More channels at more bits it cuts to 8 bits.
_DEEP_IN_PILLOW = frozenset({(12, 1), (16, 1), (16, 2), (32, 2), (32, 3)})
_BITS, _SAMPLES, _FORMAT = 258, 277, 339

# Warning filters and loggers belong to the process: two threads changing them at once would leave them off.
_LOCK = threading.Lock()
_LOGGERS = ("tifffile", "PIL.TiffImagePlugin")


class _TooLargeError(Exception):
    pass


class _UnreadableError(Exception):
    pass


@dataclass(frozen=True, eq=False)
class Raster:
    """The pixels of one file.

    Attributes:
        pixels: (pages, H, W, C), C 1 or 3, the dtype as stored (bool for 1-bit images), native byte order.
        kind: format by content.
        alpha: a constant transparency channel was dropped.
    """

    pixels: npt.NDArray[Any]
    kind: Kind
    alpha: bool = False


def decode(file: NamedBytes, *, label: str = "") -> Raster:
    """Decode every page of a file; `label` is the name to use in messages.

    Raises:
        InputError: empty, not an image, damaged, too large, or a layout with no sound reading.
    """
    name, data = shown(label or file.name), file.data
    if not data:
        raise InputError(f"{name} is empty (0 bytes): copy or export it again.")
    kind = kind_of(data)
    if kind is None:
        raise InputError(
            f"{name} is not a {ACCEPTED} image, its content looks like {looks_like(data)}: "
            "export it again or leave it out."
        )
    try:
        with _LOCK, _quiet():
            pages = _tiff(data) if kind == "tiff" else [_picture(data, kind)]
    except _UnreadableError as error:
        raise InputError(f"{name} {error}") from None
    except (_TooLargeError, Image.DecompressionBombError):
        raise InputError(
            f"{name} is larger than {MAX_SIDE:,} x {MAX_SIDE:,} pixels: give slices as the scanner made them."
        ) from None
    # Decoders of hostile bytes raise almost anything.
    except Exception:
        raise InputError(
            f"{name} is damaged or cut short and cannot be read as {kind.upper()}: copy or export it again."
        ) from None
    if len({page.shape for page in pages}) > 1 or len({page.dtype for page in pages}) > 1:
        raise InputError(f"{name} holds pages of different sizes or depths: give one file a slice.")
    pixels = np.stack(pages)
    if pixels.dtype.kind not in "buif":
        raise InputError(f"{name} holds {pixels.dtype} values, not real numbers: export magnitude images.")
    pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        raise InputError(f"{name} holds values that are not numbers (NaN or infinity): export it again.")
    return _without_alpha(name, pixels, kind)


def _without_alpha(name: str, pixels: npt.NDArray[Any], kind: Kind) -> Raster:
    channels = pixels.shape[-1]
    if channels in (1, 3):
        return Raster(pixels, kind)
    if channels not in (2, 4):
        raise InputError(f"{name} {_channels(channels)}")
    alpha = pixels[..., -1]
    if (alpha != alpha.flat[0]).any():
        raise InputError(
            f"{name} has a transparency channel that varies: save it without, as plain RGB or grey."
        )
    return Raster(np.ascontiguousarray(pixels[..., :-1]), kind, alpha=True)


@contextmanager
def _quiet() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [logger.disabled for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.disabled = True
            yield
        finally:
            for logger, disabled in zip(loggers, before, strict=True):
                logger.disabled = disabled


def _picture(data: bytes, kind: Kind) -> npt.NDArray[Any]:
    # IHDR: depth at byte 24, colour type at 25. Pillow would cut 16-bit colour to 8 bits in silence.
    if kind == "png" and data[24] == 16 and data[25] != 0:
        raise _UnreadableError(
            "is a PNG with 16 bits a colour channel, which is not read: save it as 16-bit TIFF."
        )
    with Image.open(io.BytesIO(data), formats=[kind.upper()]) as image:
        if getattr(image, "is_animated", False):
            raise _UnreadableError("holds several pictures: give one file a slice.")
        return _array(image)


def _tiff(data: bytes) -> list[npt.NDArray[Any]]:
    try:
        with Image.open(io.BytesIO(data), formats=["TIFF"]) as image:
            if _pillow_is_faithful(image):
                return _pillow_pages(image)
    except UnidentifiedImageError:
        pass
    return _tifffile_pages(data)


def _pillow_is_faithful(image: Image.Image) -> bool:
    tags: Any = getattr(image, "tag_v2", {})
    bits = _as_tuple(tags.get(_BITS, 1))
    formats = _as_tuple(tags.get(_FORMAT, 1))
    if max(bits) <= 8:
        return set(formats) == {1}
    return tags.get(_SAMPLES, 1) == 1 and (bits[0], formats[0]) in _DEEP_IN_PILLOW


def _as_tuple(value: Any) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (int(value),)


def _pillow_pages(image: Image.Image) -> list[npt.NDArray[Any]]:
    pages = []
    for index in range(MAX_SLICES + 1):
        try:
            image.seek(index)
        except EOFError:
            break
        if index == MAX_SLICES:
            raise _UnreadableError(f"holds more than {MAX_SLICES:,} pages: give one patient's stack.")
        if not _pillow_is_faithful(image):
            raise _UnreadableError("holds pages of different depths: give one file a slice.")
        _check_stack((index + 1) * image.height * image.width)
        pages.append(_array(image))
    return pages


def _array(image: Image.Image) -> npt.NDArray[Any]:
    _check_size(image.height, image.width)
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA" if image.mode == "PA" else "RGB")
    if image.mode not in _FAITHFUL:
        raise _UnreadableError(f"uses the colour space {image.mode}: save it as plain RGB or grey.")
    # A copy: the next page overwrites the image's own memory.
    pixels = np.array(image)
    return pixels[..., np.newaxis] if pixels.ndim == 2 else pixels


def _tifffile_pages(data: bytes) -> list[npt.NDArray[Any]]:
    pages = []
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        for index, lazy in enumerate(tiff.pages):
            if index == MAX_SLICES:
                raise _UnreadableError(f"holds more than {MAX_SLICES:,} pages: give one patient's stack.")
            page = lazy.aspage()
            _check_size(page.imagelength, page.imagewidth)
            _check_stack((index + 1) * page.imagelength * page.imagewidth)
            if page.samplesperpixel > 4:
                raise _UnreadableError(_channels(page.samplesperpixel))
            if page.imagedepth != 1:
                raise _UnreadableError("is not a TIFF of plain slices: give one slice a file.")
            try:
                pixels = page.asarray()
            except ValueError as error:
                if "imagecodecs" in str(error):
                    raise _UnreadableError(
                        "uses a compression that is not read at this depth: "
                        "save it uncompressed or with Deflate."
                    ) from None
                raise
            if page.samplesperpixel == 1:
                pixels = pixels.reshape(page.imagelength, page.imagewidth, 1)
            elif page.planarconfig == 2:
                pixels = np.moveaxis(pixels, 0, -1)
            if pixels.shape != (page.imagelength, page.imagewidth, page.samplesperpixel):
                raise _UnreadableError("is not a TIFF of plain slices: give one slice a file.")
            pages.append(pixels)
    if not pages:
        # A page directory that is cut off looks like none; `decode` has the sentence for damage.
        raise ValueError("holds no page")
    return pages


def _check_stack(voxels: int) -> None:
    # Before each page is decoded: compressed pages can be a thousand times smaller than their pixels.
    if voxels > MAX_VOXELS:
        raise _UnreadableError(f"holds more than {MAX_VOXELS // 10**6} million voxels: give smaller slices.")


def _channels(count: int) -> str:
    return f"has {count} channels: give three (pre, FLAIR, post) or one (FLAIR) a slice."


def _check_size(height: int, width: int) -> None:
    if max(height, width) > MAX_SIDE:
        raise _TooLargeError
    if min(height, width) < 1:
        raise _UnreadableError("has no pixels: copy or export it again.")
