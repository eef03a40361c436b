"""The pixels of one DICOM file, by pydicom's decoders, with what the header declares checked before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from openjpeg.utils import get_parameters
from pydicom.dataset import Dataset, FileDataset
from pydicom.encaps import generate_frames
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_modality_lut
from pydicom.pixels.utils import _get_jpg_parameters, get_expected_length
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from brainseg.io.dicom import jpeg
from brainseg.io.dicom.headers import items, number, syntax_of, text, whole, words
from brainseg.io.readers.reader import UnreadableError

_CUT_SHORT = "is cut short, it lacks pixels that its header declares: copy or export it again."

_NATIVE = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
)
_J2K = (JPEG2000, JPEG2000Lossless, HTJ2K, HTJ2KLossless, HTJ2KLosslessRPCL)
_JPEG_LS = (JPEGLSLossless, JPEGLSNearLossless)
# The one decoder used of each compression: GDCM and pylibjpeg-rle, of which pydicom knows too, take the whole
# process down over damaged data.
_PLUGINS = {
    **dict.fromkeys(_J2K, "pylibjpeg"),
    **dict.fromkeys(_JPEG_LS, "pyjpegls"),
    **dict.fromkeys(jpeg.SYNTAXES, jpeg.PLUGIN),
    RLELossless: "pydicom",
}
_PACKAGES = {
    **dict.fromkeys(_J2K, "pylibjpeg and pylibjpeg-openjpeg"),
    **dict.fromkeys(_JPEG_LS, "pyjpegls"),
}

jpeg.register()


def frames_of(dataset: FileDataset, frames: Sequence[int]) -> npt.NDArray[Any]:
    """The frames asked for, (N, H, W), as the scanner meant them; to be called within `reading`.

    MONOCHROME1 is turned so that more is brighter; slope and intercept, or a table of values in their place,
    are applied, to float32 unless they change nothing. Real-world values, a second scale that some headers
    offer beside, are left alone.

    Raises:
        UnreadableError: cut short, a compression without a decoder, or compressed data of another size.
    """
    check_pixels(dataset)
    stored = _decoded(dataset)
    if stored.dtype.kind not in "iu" and not np.isfinite(stored).all():
        raise UnreadableError("holds values that are not numbers (NaN or infinity): export it again.")
    if "MONOCHROME1" in words(dataset, "PhotometricInterpretation"):
        stored = _inverted(stored, dataset)
    return _scaled(stored[list(frames)], dataset, frames)


def _check_decoder(syntax: UID) -> None:
    if syntax in _NATIVE:
        return
    # A private identifier may be anything; the standard's have a name.
    name = syntax.name if not syntax.is_private and syntax.name != str(syntax) else ""
    if syntax not in _PLUGINS:
        what = f"is stored as {name}" if name else "is stored in a way of its maker's own"
        raise UnreadableError(f"{what}, which is not read: export it uncompressed.")
    if _PLUGINS[syntax] not in get_decoder(syntax).available_plugins:
        raise UnreadableError(
            f"is compressed as {name}, for which no decoder is installed: install {_PACKAGES[syntax]}, or "
            "export it uncompressed."
        )


def check_pixels(dataset: FileDataset) -> None:
    """What the header declares against the pixels that are there, before any are decoded.

    Raises:
        UnreadableError: as `frames_of`.
    """
    syntax = syntax_of(dataset)
    if syntax is not None:
        _check_decoder(syntax)
    if "PixelData" not in dataset:
        raise UnreadableError(_CUT_SHORT)
    rows, columns = whole(dataset, "Rows") or 0, whole(dataset, "Columns") or 0
    frames = whole(dataset, "NumberOfFrames") or 1
    data = dataset.PixelData
    if syntax is None or syntax in _NATIVE:
        if len(data) < get_expected_length(dataset):
            raise UnreadableError(_CUT_SHORT)
        return
    if syntax == RLELossless:
        return
    count = 0
    for count, frame in enumerate(generate_frames(data, number_of_frames=frames), 1):  # noqa: B007
        if syntax in _J2K:
            found = get_parameters(frame)
            size, samples = (found["rows"], found["columns"]), found["samples_per_pixel"]
        else:
            found = _get_jpg_parameters(frame)
            size, samples = (found["height"], found["width"]), found["components"]
        # A decoder makes room for what the compressed data declare, before it finds that they are not there.
        if size != (rows, columns) or samples != 1:
            raise UnreadableError(
                "holds compressed pixels of another size than its header says: export it again."
            )
    if count < frames:
        raise UnreadableError(_CUT_SHORT)


def _decoded(dataset: FileDataset) -> npt.NDArray[Any]:
    """All frames, (N, H, W)."""
    syntax = syntax_of(dataset)
    rows, columns = whole(dataset, "Rows") or 0, whole(dataset, "Columns") or 0
    frames = whole(dataset, "NumberOfFrames") or 1
    if syntax is None:
        # Files without a meta header say nothing of compression, and are not compressed.
        dataset.ensure_file_meta()
        little, implicit = dataset.original_encoding[1], dataset.original_encoding[0]
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        syntax = ImplicitVRLittleEndian if implicit else explicit
        dataset.file_meta.TransferSyntaxUID = syntax
    pixels, _ = get_decoder(syntax).as_array(dataset, raw=True, decoding_plugin=_PLUGINS.get(syntax, ""))
    return np.asarray(pixels).reshape(frames, rows, columns)


def decompress(dataset: FileDataset) -> None:
    """Make compressed pixels native in place, by the decoders chosen here; to be called within `reading`.

    Raises:
        UnreadableError: as `frames_of`.
    """
    check_pixels(dataset)
    if syntax_of(dataset) in (None, *_NATIVE):
        return
    stored = _decoded(dataset)
    dataset.PixelData = stored.astype(stored.dtype.newbyteorder("<")).tobytes()
    dataset["PixelData"].is_undefined_length = False
    dataset.BitsAllocated = 8 * stored.dtype.itemsize
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
        dataset.pop(keyword, None)


def _inverted(stored: npt.NDArray[Any], dataset: FileDataset) -> npt.NDArray[Any]:
    if stored.dtype.kind not in "iu":
        return np.asarray(-stored)
    bits = whole(dataset, "BitsStored") or whole(dataset, "BitsAllocated") or 16
    # Lowest and highest value change places: 0 and 4095 of 12 bits, -2048 and 2047.
    if stored.dtype.kind == "i":
        return np.asarray(~stored)
    return np.asarray(stored.dtype.type(2**bits - 1) - stored)


def _scaled(stored: npt.NDArray[Any], dataset: FileDataset, frames: Sequence[int]) -> npt.NDArray[Any]:
    if items(dataset, "ModalityLUTSequence"):
        return np.asarray(apply_modality_lut(stored, dataset), np.float32)
    groups = items(dataset, "PerFrameFunctionalGroupsSequence")
    shared = items(dataset, "SharedFunctionalGroupsSequence")[:1]
    scales = [_scale(dataset, [*groups[frame : frame + 1], *shared]) for frame in frames]
    if set(scales) == {(1.0, 0.0)}:
        return stored
    out = np.empty(stored.shape, np.float32)
    for plane, (slope, intercept), target in zip(stored, scales, out, strict=True):
        target[:] = plane * slope + intercept
    if not np.isfinite(out).all():
        raise UnreadableError("has a rescale slope that makes no numbers of its pixels: export it again.")
    return out


def _scale(dataset: FileDataset, groups: Sequence[Dataset]) -> tuple[float, float]:
    """Slope and intercept of a frame, whose functional groups are given."""
    for group in groups:
        for item in items(group, "PixelValueTransformationSequence")[:1]:
            return _slope(item)
    return _slope(dataset)


def _slope(item: Dataset) -> tuple[float, float]:
    slope, intercept = number(item, "RescaleSlope"), number(item, "RescaleIntercept")
    if slope == 0 or (slope is None and text(item, "RescaleSlope")):
        raise UnreadableError("has a rescale slope that makes no numbers of its pixels: export it again.")
    return 1.0 if slope is None else slope, intercept or 0.0
