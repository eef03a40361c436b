"""What a reader is, and what every reader owes: limits checked before anything is decoded, one sentence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from brainseg.io.files import NamedBytes
from brainseg.io.limits import MAX_SIDE, MAX_SLICES, MAX_VOXELS
from brainseg.types import FloatArray

MAX_BYTES = 2**30
"""Decoded pixels of one file."""

MAX_PAGES = 3 * MAX_SLICES
"""Planes of one file: three channels of the most slices."""

# What readers did to a file; `{files}` becomes "1 file", "3 files".
ALPHA_DROPPED = "A constant transparency channel was dropped from {files}."
TURNED = "Pixels were turned upright, as the orientation tag says, in {files}."
REDUCED = "Reduced-resolution or transparency pages were left aside in {files}."
MORE_PICTURES = "Further pictures after the first, as cameras add, were left aside in {files}."


class UnreadableError(Exception):
    """A file has no sound reading; the message continues the file's name."""


@dataclass(frozen=True, eq=False)
class Volume:
    """What a reader makes of one file or of one group of files.

    Attributes:
        pixels: (S, H, W, C), C 1 or 3, the dtype as stored (bool for 1-bit images), native byte order.
        kind: the format's short name, ``"tiff"``.
        affine: (4, 4) from slice, row and column to mm in RAS+, or None where the format holds no geometry.
        axes_known: the file says which of its planes are slices and which are channels.
        channels: names of the channels as the file gives them; empty where it gives none.
        detail: how the pixels were stored, where that is uncommon, for instance ``"Zstandard"``.
        remarks: what was done to the pixels or left aside; sentences with ``{files}`` in them.
    """

    pixels: npt.NDArray[Any]
    kind: str
    affine: FloatArray | None = None
    axes_known: bool = False
    channels: tuple[str, ...] = ()
    detail: str = ""
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reader:
    """One format.

    Attributes:
        kind: short name, also the key of `Volume.kind`.
        suffixes: in lower case, with the dot.
        recognises: whether a file's first bytes are of this format.
        read: the bytes of a group of files that belong together (one file, where a file is a whole) -> pixels
            and geometry. Raises `UnreadableError` with a reason, or anything at all for damaged bytes.
    """

    kind: str
    suffixes: tuple[str, ...]
    recognises: Callable[[bytes], bool]
    read: Callable[[Sequence[NamedBytes]], Volume]


def too_large() -> UnreadableError:
    """The refusal of a slice beyond `MAX_SIDE`."""
    return UnreadableError(
        f"is larger than {MAX_SIDE:,} x {MAX_SIDE:,} pixels: give slices as the scanner made them."
    )


def check_size(height: int, width: int) -> None:
    """Refuse slices beyond `MAX_SIDE`, and none at all."""
    if max(height, width) > MAX_SIDE:
        raise too_large()
    if min(height, width) < 1:
        raise UnreadableError("has no pixels: copy or export it again.")


def check_stack(planes: int, height: int, width: int, bytes_per_pixel: int) -> None:
    """Refuse more planes, voxels or bytes than one patient's; compressed files unpack a thousandfold."""
    if planes > MAX_PAGES:
        raise UnreadableError(f"holds more than {MAX_PAGES:,} pages: give one patient's stack.")
    voxels = planes * height * width
    if voxels > MAX_VOXELS or voxels * bytes_per_pixel > MAX_BYTES:
        raise UnreadableError(
            f"holds more than {MAX_VOXELS // 10**6} million voxels or {MAX_BYTES // 2**30} GB: "
            "give smaller slices."
        )


def wrong_channels(count: int) -> UnreadableError:
    """The refusal of any other number of channels than 1 and 3."""
    return UnreadableError(f"has {count} channels: give three (pre, FLAIR, post) or one (FLAIR) a slice.")


def without_alpha(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """(..., C + 1) -> (..., C), if the last channel, which is transparency, is constant."""
    alpha = pixels[..., -1]
    if (alpha != alpha.flat[0]).any():
        raise UnreadableError(
            f"has {pixels.shape[-1]} channels, the last a transparency channel that varies: "
            "save it without, as plain RGB or grey."
        )
    return np.ascontiguousarray(pixels[..., :-1])


def upright(pixels: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """(S, H, W, C) turned and mirrored as the TIFF or EXIF orientation 1 to 8 asks, for viewing."""
    if orientation in (5, 6, 7, 8):
        pixels = np.swapaxes(pixels, 1, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[:, ::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, :, ::-1]
    return np.ascontiguousarray(pixels)
