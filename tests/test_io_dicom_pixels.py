"""Every transfer syntax that can be made here, scales, and what is refused before it is decoded."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import dicom_maker as maker
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder
from pydicom.sequence import Sequence as Items
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)
from test_io_dicom import decoded, named, only

from brainseg.io.dicom import cases, headers, pixels
from brainseg.types import InputError

VOLUME = (np.random.default_rng(0).integers(0, 4000, (3, 40, 48)).cumsum(axis=2) % 4000).astype(np.uint16)

LOSSLESS = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
    RLELossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEG2000Lossless,
    HTJ2KLossless,
)


def changed(syntax: UID = ExplicitVRLittleEndian, **values: Any) -> maker.Disc:
    """One slice whose header was changed after its pixels were encoded."""
    return {"IM1": _changed(maker.as_bytes(maker.datasets(VOLUME[:1], 4)[0], syntax), **values)}


def _changed(data: bytes, **values: Any) -> bytes:
    dataset = pydicom.dcmread(io.BytesIO(data))
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    stream = io.BytesIO()
    dataset.save_as(stream)
    return stream.getvalue()


def refusal(disc: maker.Disc) -> str:
    """What is said of a disc's one series: in the table, or when it is decoded."""
    found, ignored = cases(named(disc))
    if not found:
        return " ".join(file.note for file in ignored)
    with pytest.raises(InputError) as caught:
        decoded(disc, only(disc).series[0].key)
    return str(caught.value)


@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda uid: uid.name)
def test_lossless_transfer_syntaxes(syntax: UID) -> None:
    found = decoded(maker.files({"S": maker.datasets(VOLUME, 4)}, syntax))
    assert np.array_equal(found.pixels, VOLUME)
    assert found.pixels.dtype.isnative


@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda uid: uid.name)
def test_lossless_transfer_syntaxes_of_multi_frame_files(syntax: UID) -> None:
    found = decoded({"IM1": maker.as_bytes(maker.enhanced(VOLUME, 4, order=[2, 0, 1]), syntax)})
    assert np.array_equal(found.pixels, VOLUME)


@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEGExtended12Bit], ids=lambda uid: uid.name)
def test_lossy_transfer_syntaxes_say_so(syntax: UID) -> None:
    smooth = np.broadcast_to(np.linspace(0, 250, 48), (3, 40, 48)).astype(np.uint16)
    found = decoded(maker.files({"S": maker.datasets(smooth, 4)}, syntax))
    assert np.abs(found.pixels.astype(int) - smooth).max() <= 6
    assert found.remarks == ("Series 4 was compressed with loss of detail: results are less reliable.",)


@pytest.mark.parametrize("syntax", [JPEGLossless, JPEGLSLossless, RLELossless, ExplicitVRLittleEndian])
def test_signed_values_stay_signed(syntax: UID) -> None:
    signed = (VOLUME.astype(np.int16) - 2000).astype(np.int16)
    datasets = maker.datasets(signed, 4)
    found = decoded(maker.files({"S": datasets}, syntax))
    assert np.array_equal(found.pixels, signed)


def test_slope_and_intercept_of_each_slice_are_applied() -> None:
    datasets = maker.datasets(VOLUME, 4)
    for at, dataset in enumerate(datasets):
        dataset.RescaleSlope, dataset.RescaleIntercept = at + 0.5, -10
    found = decoded(maker.files({"S": datasets}))
    expected = VOLUME * np.array([0.5, 1.5, 2.5])[:, None, None] - 10
    assert found.pixels.dtype == np.float32
    assert np.allclose(found.pixels, expected)


def test_the_scales_of_enhanced_mr_are_those_of_their_frames() -> None:
    dataset = maker.enhanced(VOLUME, 4, order=[1, 2, 0])
    for at, group in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        scale = Dataset()
        scale.RescaleSlope, scale.RescaleIntercept, scale.RescaleType = at + 1, at, "US"
        group.PixelValueTransformationSequence = Items([scale])
    found = decoded({"IM1": maker.as_bytes(dataset)})
    for place, frame in ((1, 0), (2, 1), (0, 2)):
        assert np.allclose(found.pixels[place], VOLUME[place] * (frame + 1.0) + frame)


def test_a_table_of_values_is_applied() -> None:
    dataset = maker.datasets(VOLUME[:1] % 4, 4)[0]
    table = Dataset()
    table.LUTDescriptor, table.LUTData, table.ModalityLUTType = [4, 0, 16], [7, 5, 3, 1], "US"
    table["LUTDescriptor"].VR = table["LUTData"].VR = "US"
    dataset.ModalityLUTSequence = Items([table])
    found = decoded({"IM1": maker.as_bytes(dataset)})
    assert np.array_equal(found.pixels, np.array([7, 5, 3, 1])[VOLUME[:1] % 4])


def test_real_world_values_are_left_alone() -> None:
    dataset = maker.datasets(VOLUME[:1], 4)[0]
    mapping = Dataset()
    mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept = 0.001, 0.0
    dataset.RealWorldValueMappingSequence = Items([mapping])
    assert np.array_equal(decoded({"IM1": maker.as_bytes(dataset)}).pixels, VOLUME[:1])


def test_monochrome1_is_turned() -> None:
    datasets = maker.datasets(VOLUME, 4)
    for dataset in datasets:
        dataset.PhotometricInterpretation, dataset.BitsStored, dataset.HighBit = "MONOCHROME1", 12, 11
    assert np.array_equal(decoded(maker.files({"S": datasets})).pixels, 4095 - VOLUME)
    signed = maker.datasets((VOLUME.astype(np.int16) - 2000).astype(np.int16), 4)
    for dataset in signed:
        dataset.PhotometricInterpretation = "MONOCHROME1"
    assert np.array_equal(decoded(maker.files({"S": signed})).pixels, 1999 - VOLUME.astype(int))


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"Rows": 41}, "is cut short, it lacks pixels that its header declares"),
        ({"Rows": 5000}, "is larger than 4,096 x 4,096 pixels"),
        ({"Rows": 0}, "has no pixels"),
        ({"BitsAllocated": 64}, "other than 8, 16 or 32 bits"),
        ({"BitsAllocated": 12}, "other than 8, 16 or 32 bits"),
        ({"NumberOfFrames": 4000}, "more than 3,000 slices"),
        ({"NumberOfFrames": 3000, "Rows": 4000, "Columns": 4000}, "a file of more than 1 GB"),
        ({"NumberOfFrames": 2}, "does not say where its slices lie"),
        ({"RescaleSlope": "0"}, "has a rescale slope that makes no numbers"),
        ({"BitsStored": 99}, "is damaged"),
        ({"PixelRepresentation": 7}, "is damaged"),
        ({"SamplesPerPixel": 3}, "a picture in colour"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "a picture in colour"),
    ],
)
def test_headers_that_lie_are_refused_in_a_sentence(values: dict[str, Any], sentence: str) -> None:
    assert sentence in refusal(changed(**values))


@pytest.mark.parametrize("syntax", [JPEGLossless, JPEGLSLossless, JPEG2000Lossless, HTJ2KLossless])
def test_compressed_pixels_of_another_size_than_the_header_says(syntax: UID) -> None:
    assert "compressed pixels of another size" in refusal(changed(syntax, Rows=10))


def test_compressed_pixels_that_declare_more_than_there_is_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The decoder must not be asked at all."""
    frame = bytearray(_frame(JPEG2000Lossless))
    at = frame.index(b"\xff\x51") + 6
    frame[at : at + 8] = struct.pack(">II", 2**31 - 1, 2**31 - 1)

    def unasked(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(pixels, "_decoded", unasked)
    said = refusal(changed(JPEG2000Lossless, PixelData=encapsulate([bytes(frame)])))
    assert "is damaged" in said or "another size" in said


def _frame(syntax: UID) -> bytes:
    data = maker.as_bytes(maker.datasets(VOLUME[:1], 4)[0], syntax)
    return next(
        iter(pydicom.encaps.generate_frames(pydicom.dcmread(io.BytesIO(data)).PixelData, number_of_frames=1))
    )


@pytest.mark.parametrize(
    ("syntax", "sentence"),
    [
        (
            "1.2.840.10008.1.2.4.102",
            "is stored as MPEG-4 AVC/H.264 High Profile / Level 4.1, which",
        ),
        (
            "1.2.826.0.1.99.7",
            "is stored in a way of its maker's own, which is not read: export",
        ),
    ],
)
def test_transfer_syntaxes_that_are_not_read_are_named(syntax: str, sentence: str) -> None:
    data = maker.as_bytes(maker.datasets(VOLUME[:1], 4)[0], JPEG2000Lossless)
    dataset = pydicom.dcmread(io.BytesIO(data))
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    stream = io.BytesIO()
    dataset.save_as(stream, implicit_vr=False, little_endian=True)
    assert sentence in refusal({"IM1": stream.getvalue()})


def test_a_missing_decoder_says_which_package_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    disc = {"IM1": maker.as_bytes(maker.datasets(VOLUME[:1], 4)[0], JPEG2000Lossless)}
    monkeypatch.setattr(type(get_decoder(JPEG2000Lossless)), "available_plugins", ())
    assert refusal(disc) == (
        '"IM1" of series 4 is compressed as JPEG 2000 Image Compression (Lossless Only), for which no '
        "decoder is installed: install pylibjpeg and pylibjpeg-openjpeg, or export it uncompressed."
    )


def test_gdcm_and_pylibjpeg_rle_are_never_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both end the process over damaged data."""
    asked = []
    for syntax in (*LOSSLESS, JPEGBaseline8Bit, JPEGExtended12Bit):
        if syntax.is_encapsulated:
            decoder = get_decoder(syntax)
            original: Callable[..., Any] = decoder.as_array

            def spy(*args: Any, original: Callable[..., Any] = original, **kwargs: Any) -> Any:
                asked.append(kwargs["decoding_plugin"])
                return original(*args, **kwargs)

            monkeypatch.setattr(decoder, "as_array", spy)
            decoded(maker.files({"S": maker.datasets(VOLUME[:1] % 256, 4)}, syntax))
    assert set(asked) == {"brainseg", "pyjpegls", "pylibjpeg", "pydicom"}
    assert asked[0] == "pydicom"  # RLE


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.9, 0.99])
@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda uid: uid.name)
def test_files_that_are_cut_short_are_refused(syntax: UID, keep: float) -> None:
    data = maker.as_bytes(maker.datasets(VOLUME[:1], 4)[0], syntax)
    assert refusal({"IM1": data[: int(len(data) * keep)]})


def test_a_deflated_bomb_is_refused_before_it_is_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = maker.as_bytes(maker.datasets(VOLUME[:1], 4)[0], DeflatedExplicitVRLittleEndian)
    start = 132 + 12 + struct.unpack("<I", whole[140:144])[0]
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    bomb = whole[:start] + packer.compress(bytes(2**25)) + packer.flush()
    assert len(bomb) < 2**16
    monkeypatch.setattr(headers, "MAX_BYTES", 2**24)
    found, (ignored,) = cases(named({"IM1": bomb}))
    assert not found
    assert ignored.note.startswith("it unpacks to more than")
