"""JPEG in all its kinds for pydicom, by libjpeg-turbo: 8 and 12 bits with loss, up to 16 bits without.

pydicom's own choice for them, GDCM, ends the whole process over damaged data.
"""

from __future__ import annotations

from imagecodecs import jpeg8_decode
from pydicom.pixels.decoders.base import DecodeRunner, get_decoder
from pydicom.uid import JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1

SYNTAXES = (JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1)
PLUGIN = "brainseg"
"""What pydicom knows the decoder as."""

DECODER_DEPENDENCIES = dict.fromkeys(SYNTAXES, ("imagecodecs",))


def is_available(uid: str) -> bool:
    """Asked by pydicom; imagecodecs is among what brainseg needs."""
    return uid in SYNTAXES


def decode_frame(src: bytes, runner: DecodeRunner) -> bytearray:
    """One frame, as pydicom asks for it: its bytes, and their size noted in `runner`."""
    pixels = jpeg8_decode(src)
    runner.set_option("bits_allocated", 8 * pixels.itemsize)
    return bytearray(pixels.tobytes())


def register() -> None:
    """Offer the decoder to pydicom."""
    for syntax in SYNTAXES:
        get_decoder(syntax).add_plugin(PLUGIN, (__name__, "decode_frame"))
