"""TIFF in every layout that microscopes, scanners and numpy write, by tifffile and imagecodecs."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tifffile

from brainseg.io.files import NamedBytes
from brainseg.io.readers.reader import (
    ALPHA_DROPPED,
    MAX_PAGES,
    REDUCED,
    TURNED,
    Reader,
    UnreadableError,
    Volume,
    check_size,
    check_stack,
    upright,
    without_alpha,
    wrong_channels,
)

# Little- and big-endian, classic and BigTIFF.
_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

_ORIENTATION, _PHOTOMETRIC = 274, 262
_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB, _PALETTE, _YCBCR = 0, 1, 2, 3, 6
_PHOTOMETRICS = frozenset({_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB, _PALETTE})
_JPEG = 7
# Those that cannot unpack to more than the page declares; the others' own headers decide what is allocated.
_COMPRESSIONS = {
    1: "",
    2: "CCITT",
    3: "CCITT fax 3",
    4: "CCITT fax 4",
    5: "",
    _JPEG: "JPEG",
    8: "",
    32773: "",
    32946: "",
    34925: "LZMA",
    50000: "Zstandard",
}
# A tile may reach over the edge of its page, but not far.
_TILE_MARGIN = 1_024
# A page narrower than this, in a stack, is a row of an array and no slice.
_NARROWEST = 8
# Flavours that hide planes from the page directories, in orders of their own.
_FLAVOURS = {
    "stk": "MetaMorph STK",
    "lsm": "Zeiss LSM",
    "fluoview": "Olympus FluoView",
    "mmstack": "Micro-Manager",
    "ndtiff": "NDTiff",
    "scanimage": "ScanImage",
    "nih": "NIH Image",
}
_SPATIAL = "YX"


class _Stack(NamedTuple):
    # (S, H, W, C) as stored; the page that describes it; the rest as in `Volume`.
    pixels: npt.NDArray[Any]
    page: Any
    axes_known: bool
    channels: tuple[str, ...] = ()


def _read(files: Sequence[NamedBytes]) -> Volume:
    (file,) = files
    data = file.data
    remarks = []
    # Without _multifile, OME-TIFF would open files on disk that its header names.
    with tifffile.TiffFile(io.BytesIO(data), _multifile=False) as tiff:
        pages = [lazy.aspage() for lazy in itertools.islice(tiff.pages, MAX_PAGES + 1)]
        if not pages:
            # A page directory that is cut off looks like none; `decode` has the sentence for damage.
            raise ValueError("holds no page")
        if len(pages) > MAX_PAGES:
            raise UnreadableError(f"holds more than {MAX_PAGES:,} pages: give one patient's stack.")
        full = [page for page in pages if not (page.is_reduced or page.is_mask)] or pages
        if len(full) < len(pages):
            remarks.append(REDUCED)
        total = 0
        for page in full:
            _check(page, len(data))
            total += page.imagelength * page.imagewidth
            check_stack(1, total, 1, _bytes_per_pixel(page))
        for flag, title in _FLAVOURS.items():
            if getattr(tiff, f"is_{flag}"):
                raise UnreadableError(f"is a {title} file: export one plain TIFF a slice.")
        stack = _described(tiff, full) or _plain(full)
        pixels = stack.pixels.astype(stack.pixels.dtype.newbyteorder("="), copy=False)
        pixels, has_alpha = _as_seen(pixels, stack.page)
        orientation = _tag(stack.page, _ORIENTATION, 1)
    if has_alpha:
        pixels = without_alpha(pixels)
        remarks.append(ALPHA_DROPPED)
    if pixels.shape[-1] not in (1, 3):
        raise wrong_channels(pixels.shape[-1])
    if orientation in range(2, 9):
        pixels = upright(pixels, orientation)
        remarks.append(TURNED)
    return Volume(
        pixels,
        "tiff",
        axes_known=stack.axes_known,
        channels=stack.channels,
        detail=_COMPRESSIONS[int(stack.page.compression)],
        remarks=tuple(remarks),
    )


def _check(page: Any, size: int) -> None:
    """Everything a page declares, against the limits and the file's `size` in bytes."""
    height, width, samples = page.imagelength, page.imagewidth, page.samplesperpixel
    check_size(height, width)
    if samples > 4:
        raise wrong_channels(samples)
    if page.imagedepth != 1:
        raise UnreadableError("is not a TIFF of plain slices: give one slice a file.")
    compression = int(page.compression)
    if compression not in _COMPRESSIONS:
        name = getattr(page.compression, "name", str(compression)).replace("_", " ")
        raise UnreadableError(
            f"uses the TIFF compression {name}, which is not read: save it uncompressed or with Deflate."
        )
    bits = page.bitspersample
    if page.dtype is None or not isinstance(bits, int) or (samples > 1 and bits < 8):
        raise UnreadableError(
            f"holds {samples} x {bits}-bit samples a pixel, which are not read: save 8 or 16 bits a channel."
        )
    photometric = int(page.photometric)
    if photometric not in _PHOTOMETRICS and not (photometric == _YCBCR and compression == _JPEG):
        name = getattr(page.photometric, "name", str(photometric))
        raise UnreadableError(f"uses the colour space {name}: save it as plain RGB or grey.")
    if _PHOTOMETRIC not in page.tags:
        raise UnreadableError("does not say whether 0 is black or white: export it again.")
    if page.is_tiled and (
        page.tiledepth != 1
        or not 0 < page.tilelength <= height + _TILE_MARGIN
        or not 0 < page.tilewidth <= width + _TILE_MARGIN
    ):
        raise UnreadableError(
            f"has tiles of {page.tilelength} x {page.tilewidth} pixels for a picture of {height} x {width}: "
            "export it again."
        )
    check_stack(1, height, width, _bytes_per_pixel(page))
    _check_segments(page, size)


def _check_segments(page: Any, size: int) -> None:
    """Strips and tiles lie within the file and are all there; a decoder would fill gaps with zeros."""
    height, width, samples = page.imagelength, page.imagewidth, page.samplesperpixel
    segments = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    planes = samples if page.planarconfig == 2 else 1
    if page.is_tiled:
        needed = math.ceil(height / page.tilelength) * math.ceil(width / page.tilewidth)
    else:
        needed = math.ceil(height / page.rowsperstrip)
    if len(segments) < needed * planes or any(
        count < 1 or offset < 1 or offset + count > size for offset, count in segments
    ):
        raise ValueError("strips or tiles reach beyond the file")
    if page.compression == 1 and not page.is_tiled:
        row = width * (1 if page.planarconfig == 2 else samples) * page.bitspersample
        if sum(count for _, count in segments) < height * planes * math.ceil(row / 8):
            raise ValueError("strips hold fewer bytes than their pixels")
    if page.compression == _JPEG:
        handle = page.parent.filehandle
        for offset, count in segments:
            handle.seek(offset)
            check_size(*_jpeg_size(handle.read(count)))


def _bytes_per_pixel(page: Any) -> int:
    return int(page.samplesperpixel * np.dtype(page.dtype).itemsize)


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """Rows and columns that a JPEG stream declares; its decoder allocates them, whatever the page says."""
    at = 2
    while data[at] == 0xFF:
        marker = data[at + 1]
        if marker in range(0xC0, 0xD0) and marker not in (0xC4, 0xC8, 0xCC):
            return int.from_bytes(data[at + 5 : at + 7], "big"), int.from_bytes(data[at + 7 : at + 9], "big")
        at += 2 + max(2, int.from_bytes(data[at + 2 : at + 4], "big"))
    raise ValueError("no frame in a JPEG stream")


def _plain(pages: list[Any]) -> _Stack:
    """Pages without a word on axes: each is a slice."""
    first = pages[0]
    _check_narrow(len(pages), first)
    decoded = []
    for page in pages:
        alike = ("imagelength", "imagewidth", "samplesperpixel", "bitspersample", "sampleformat")
        if any(getattr(page, name) != getattr(first, name) for name in alike) or (
            int(page.photometric),
            _tag(page, _ORIENTATION, 1),
        ) != (int(first.photometric), _tag(first, _ORIENTATION, 1)):
            raise UnreadableError("holds pages of different sizes or depths: give one file a slice.")
        pixels = page.asarray(maxworkers=1)
        decoded.append(_channels_last(pixels, page))
    return _Stack(np.stack(decoded), first, axes_known=len(pages) == 1)


def _channels_last(pixels: npt.NDArray[Any], page: Any) -> npt.NDArray[Any]:
    height, width, samples = page.imagelength, page.imagewidth, page.samplesperpixel
    if samples == 1:
        return pixels.reshape(height, width, 1)
    return np.moveaxis(pixels, 0, -1) if page.planarconfig == 2 else pixels.reshape(height, width, samples)


def _described(tiff: Any, pages: list[Any]) -> _Stack | None:
    """Pages whose axes ImageJ, OME or tifffile wrote down; None where none did."""
    first = pages[0]
    kind = "imagej" if tiff.is_imagej else "ome" if tiff.is_ome else "shaped" if tiff.is_shaped else None
    if kind is None:
        return None
    if kind == "ome" and ("<!DOCTYPE" in first.description or "<!ENTITY" in first.description):
        raise UnreadableError("has an OME header with a document type: export it again.")
    _check_narrow(len(pages), first)
    series = tiff.series[0]
    if series.kind != kind:
        _check_undescribed(tiff, pages, kind)
        return None
    planes = math.prod(series.shape) // (first.imagelength * first.imagewidth * first.samplesperpixel)
    if planes < len(pages):
        # tifffile appends arrays as series of their own; other programs' further images are not explained.
        if kind == "shaped" and planes == 1:
            return None
        raise UnreadableError(
            f"holds {len(pages)} pages of which its header explains {planes}: give one image a file."
        )
    if kind == "imagej" and (tiff.imagej_metadata or {}).get("images", 1) > planes:
        _check_undescribed(tiff, pages, kind)
    check_stack(planes, first.imagelength, first.imagewidth, _bytes_per_pixel(first))
    # A page that an OME header names and the file lacks would be filled with zeros.
    if any(page is None for page in series.pages):
        raise ValueError("pages are missing")
    return _by_axes(series, first, kind)


def _check_undescribed(tiff: Any, pages: list[Any], kind: str) -> None:
    if kind == "shaped":
        shape = tiff.shaped_metadata[0].get("shape", ()) if tiff.shaped_metadata else ()
        first = pages[0]
        plane = first.imagelength * first.imagewidth * first.samplesperpixel
        if math.prod(shape) <= plane * len(pages):
            # The file was edited since, and what is left of the header says no more than its pages.
            return
    raise UnreadableError(
        f"has a header that does not fit its {len(pages)} page{'s' if len(pages) > 1 else ''}: "
        "export it again as one plain TIFF a slice."
    )


def _by_axes(series: Any, page: Any, kind: str) -> _Stack:
    axes, shape = series.axes, series.shape
    size = dict(zip(axes, shape, strict=True))
    others = [i for i, axis in enumerate(axes) if axis not in (*_SPATIAL, "C", "S") and shape[i] > 1]
    if len(others) > 1:
        listed = " x ".join(f"{shape[i]}" for i in others)
        raise UnreadableError(
            f"holds {listed} pages along {len(others)} axes ({axes}): give one volume, slices by rows by "
            "columns, with three channels or one."
        )
    channels = [i for i, axis in enumerate(axes) if axis in "CS" and shape[i] > 1]
    if len(channels) > 1:
        raise UnreadableError(
            f"holds {size['C']} channels of {size['S']} samples each: give three (pre, FLAIR, post) or one "
            "(FLAIR) a slice."
        )
    if channels and shape[channels[0]] > 4:
        raise wrong_channels(shape[channels[0]])
    spatial = [axes.index(axis) for axis in _SPATIAL]
    keep = others + spatial + channels
    pixels = series.asarray(maxworkers=1)
    order = [*keep, *(i for i in range(len(axes)) if i not in keep)]
    pixels = pixels.transpose(order).reshape(
        (shape[others[0]] if others else 1),
        *(shape[i] for i in spatial),
        (shape[channels[0]] if channels else 1),
    )
    known = kind != "shaped" or not others or axes[others[0]] not in "QI"
    return _Stack(pixels, page, known, _ome_channels(page) if kind == "ome" else ())


def _ome_channels(page: Any) -> tuple[str, ...]:
    pixels = tifffile.xml2dict(page.description)["OME"]["Image"]
    image = pixels[0] if isinstance(pixels, list) else pixels
    channels = image["Pixels"].get("Channel", [])
    channels = channels if isinstance(channels, list) else [channels]
    return tuple(str(channel.get("Name", "")) for channel in channels)


def _check_narrow(pages: int, page: Any) -> None:
    if pages > 1 and min(page.imagelength, page.imagewidth) < _NARROWEST:
        raise UnreadableError(
            f"holds {pages} pages of {page.imagelength} x {page.imagewidth} pixels, as an array whose "
            "channels were taken for columns: save each slice as RGB."
        )


def _as_seen(pixels: npt.NDArray[Any], page: Any) -> tuple[npt.NDArray[Any], bool]:
    """Stored values -> grey or colour, 0 black; and whether the last channel is transparency."""
    photometric, bits = int(page.photometric), page.bitspersample
    if photometric == _PALETTE:
        # The table has 16 bits, of which 8-bit pictures use the upper ones.
        return np.moveaxis((page.colormap >> 8).astype(np.uint8)[:, pixels[..., 0]], 0, -1), False
    if photometric == _MIN_IS_WHITE:
        if pixels.dtype.kind == "b":
            pixels = ~pixels
        elif pixels.dtype.kind == "u":
            pixels = pixels.dtype.type(2**bits - 1) - pixels
        else:
            raise UnreadableError(
                f"stores white as the lowest of {pixels.dtype} values, which has no one meaning: "
                "save it with 0 as black."
            )
    if pixels.dtype == np.uint8 and bits < 8:
        # As PNG does: the highest value is white.
        pixels = pixels * np.uint8(255 // (2**bits - 1))
    colours = 3 if photometric in (_RGB, _YCBCR) else 1
    extra = [int(sample) for sample in page.extrasamples]
    return pixels, len(extra) == 1 and extra[0] in (1, 2) and pixels.shape[-1] == colours + 1


def _tag(page: Any, code: int, default: int) -> int:
    tag = page.tags.get(code)
    return default if tag is None else int(tag.value)


TIFF = Reader("tiff", (".tif", ".tiff"), lambda head: head[:4] in _MAGIC, _read)
