"""PNG and JPEG, by Pillow."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import ExifTags, Image

from brainseg.io.files import NamedBytes
from brainseg.io.readers.reader import (
    ALPHA_DROPPED,
    MORE_PICTURES,
    TURNED,
    Reader,
    UnreadableError,
    Volume,
    check_size,
    check_stack,
    too_large,
    upright,
    without_alpha,
)

_FAITHFUL = frozenset({"1", "L", "LA", "RGB", "RGBA", "I", "I;16", "I;16B", "I;16L", "F"})
_PNG = b"\x89PNG\r\n\x1a\n"


def _read_png(files: Sequence[NamedBytes]) -> Volume:
    (file,) = files
    data = file.data
    # IHDR: depth at byte 24, colour type at 25. Pillow would cut 16-bit colour to 8 bits in silence.
    if data[24] == 16 and data[25] != 0:
        raise UnreadableError(
            "is a PNG with 16 bits a colour channel, which is not read: save it as 16-bit TIFF."
        )
    return _read(data, "png")


def _read_jpeg(files: Sequence[NamedBytes]) -> Volume:
    (file,) = files
    return _read(file.data, "jpeg")


def _read(data: bytes, kind: str) -> Volume:
    remarks = []
    try:
        opened = Image.open(io.BytesIO(data), formats=[kind.upper()])
    except Image.DecompressionBombError:
        raise too_large() from None
    with opened as image:
        check_size(image.height, image.width)
        check_stack(1, image.height, image.width, 8)
        if getattr(image, "is_animated", False):
            # A phone's JPEG holds a preview or a depth map behind the picture; an animation has no first.
            if kind != "jpeg":
                raise UnreadableError("holds several pictures: give one file a slice.")
            remarks.append(MORE_PICTURES)
        plain = image.convert("RGBA" if image.mode == "PA" else "RGB") if image.mode in ("P", "PA") else image
        if plain.mode not in _FAITHFUL:
            raise UnreadableError(f"uses the colour space {plain.mode}: save it as plain RGB or grey.")
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        has_alpha = plain.mode in ("LA", "RGBA")
        pixels = np.array(plain)
    pixels = pixels[np.newaxis] if pixels.ndim == 3 else pixels[np.newaxis, ..., np.newaxis]
    if has_alpha:
        pixels = without_alpha(pixels)
        remarks.append(ALPHA_DROPPED)
    if orientation in range(2, 9):
        pixels = upright(pixels, orientation)
        remarks.append(TURNED)
    return Volume(pixels, kind, remarks=tuple(remarks))


PNG = Reader("png", (".png",), lambda head: head[:8] == _PNG, _read_png)
JPEG = Reader("jpeg", (".jpg", ".jpeg"), lambda head: head[:3] == b"\xff\xd8\xff", _read_jpeg)
