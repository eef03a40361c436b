"""Bytes of files -> pixels and what is known of their geometry: one file for each format.

A format is a `Reader` in a file of its own and one row in `READERS`.
"""

from __future__ import annotations

import numpy as np

from brainseg.io.files import NamedBytes
from brainseg.io.quiet import quiet
from brainseg.io.readers.picture import JPEG, PNG
from brainseg.io.readers.reader import Reader, UnreadableError, Volume
from brainseg.io.readers.tiff import TIFF
from brainseg.io.sniff import ACCEPTED, is_dicom, looks_like
from brainseg.io.text import shown
from brainseg.types import InputError

__all__ = ["JPEG", "PNG", "READERS", "TIFF", "Reader", "UnreadableError", "Volume", "decode", "reader_of"]

READERS = (TIFF, PNG, JPEG)

_LOGGERS = ("tifffile", "PIL.TiffImagePlugin")


def reader_of(head: bytes) -> Reader | None:
    """The reader that recognises a file's first bytes, or None.

    DICOM comes first: its preamble of 128 bytes is free and may begin as a TIFF does.
    """
    if is_dicom(head):
        return None
    return next((reader for reader in READERS if reader.recognises(head)), None)


def decode(file: NamedBytes, *, label: str = "") -> Volume:
    """Decode every plane of a file; `label` is the name to use in messages.

    Raises:
        InputError: empty, not an image, damaged, too large, or a layout with no sound reading.
    """
    name, data = shown(label or file.name), file.data
    if not data:
        raise InputError(f"{name} is empty (0 bytes): copy or export it again.")
    reader = reader_of(data)
    if reader is None:
        raise InputError(
            f"{name} is not a {ACCEPTED} image, its content looks like {looks_like(data)}: "
            "export it again or leave it out."
        )
    try:
        with quiet(*_LOGGERS):
            volume = reader.read([file])
    except UnreadableError as error:
        raise InputError(f"{name} {error}") from None
    # Decoders of hostile bytes raise almost anything.
    except Exception:
        raise InputError(
            f"{name} is damaged or cut short and cannot be read as {reader.kind.upper()}: "
            "copy or export it again."
        ) from None
    pixels = volume.pixels
    if pixels.dtype.kind not in "buif":
        raise InputError(f"{name} holds {pixels.dtype} values, not real numbers: export magnitude images.")
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        raise InputError(f"{name} holds values that are not numbers (NaN or infinity): export it again.")
    return volume
