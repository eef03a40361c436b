"""Values of headers, and bytes that are none."""

from __future__ import annotations

import functools
import io
from dataclasses import replace
from typing import Any

import dicom_maker as maker
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLossless,
    JPEGLSLossless,
    RLELossless,
)
from test_io_dicom import named, volume

from brainseg.io.dicom import acquisitions, cases
from brainseg.io.dicom.headers import items, kind_of, number, numbers, read_header, text, whole, words
from brainseg.io.files import NamedBytes
from brainseg.io.readers.reader import UnreadableError
from brainseg.types import InputError

SYNTAXES = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
    RLELossless,
    JPEGBaseline8Bit,
    JPEGLossless,
    JPEGLSLossless,
    JPEG2000Lossless,
    HTJ2KLossless,
)
SMALL = volume((3, 32, 32))


@functools.cache
def seeds() -> dict[str, maker.Disc]:
    """Small discs, the first file of which is to be damaged."""
    images = maker.datasets(SMALL, 4)
    out = {syntax.name: {"IM1": maker.as_bytes(images[1], syntax)} for syntax in SYNTAXES}
    out["enhanced"] = {"IM1": maker.as_bytes(maker.enhanced(SMALL, 4))}
    seg = maker.segmentation(images, {"Tumour": np.ones(SMALL.shape, np.bool_)}, 9)
    out["segmentation"] = {"SEG": maker.as_bytes(seg), "IM1": maker.as_bytes(images[0])}
    return out


def end(disc: maker.Disc) -> str:
    """A result, or a sentence; anything else is a fault. Every series is asked for in turn."""
    try:
        found, ignored = cases(named(disc))
        for file in ignored:
            check(file.note)
        for case in found:
            for one in case.series:
                check(one.why)
                role: Any = "mask" if one.segments else "flair"
                chosen = tuple(replace(x, role=role if x is one else None) for x in case.series)
                for acquired in acquisitions(replace(case, series=chosen)):
                    assert np.isfinite(acquired.pixels).all()
                    assert acquired.pixels.shape == acquired.grid.shape
    except InputError as error:
        check(str(error))
        return "refused"
    return "read" if found else "ignored"


def check(sentence: str) -> None:
    assert sentence
    assert sentence.isprintable()
    assert len(sentence) < 400
    for secret in (maker.NAME, maker.PATIENT, maker.BIRTH):
        assert secret not in sentence


@pytest.mark.parametrize("name", [*(syntax.name for syntax in SYNTAXES), "enhanced", "segmentation"])
def test_seeds_are_sound(name: str) -> None:
    assert end(seeds()[name]) == "read"


@given(
    st.sampled_from([*(syntax.name for syntax in SYNTAXES), "enhanced", "segmentation"]),
    st.lists(
        st.tuples(
            st.floats(0, 1, exclude_max=True),
            st.sampled_from(["set", "flip", "cut", "insert", "end"]),
            st.binary(min_size=1, max_size=6),
        ),
        min_size=1,
        max_size=6,
    ),
)
@settings(max_examples=150)
@example("enhanced", [(0.1, "end", b"x")])
def test_damaged_bytes_end_in_a_result_or_a_sentence(
    name: str, changes: list[tuple[float, str, bytes]]
) -> None:
    disc = dict(seeds()[name])
    first = next(iter(disc))
    data = bytearray(disc[first])
    for where, what, content in changes:
        # The preamble may hold anything.
        at = 128 + int(where * max(1, len(data) - 128))
        if what == "set":
            data[at : at + len(content)] = content
        elif what == "flip" and at < len(data):
            data[at] ^= content[0]
        elif what == "cut":
            del data[at : at + content[0]]
        elif what == "insert":
            data[at:at] = content
        elif what == "end":
            del data[at:]
    disc[first] = bytes(data)
    end(disc)


@given(st.binary(max_size=400))
def test_any_bytes_behind_the_magic_word(content: bytes) -> None:
    end({"IM1": bytes(128) + b"DICM" + content})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x",
        bytes(128) + b"DICM",
        bytes(128) + b"DICM" + b"hello, this is no DICOM",
        b"\x08\0\5\0CS\n\0ISO_IR 100",
    ],
)
def test_what_is_no_dicom_is_refused_by_name(data: bytes) -> None:
    with pytest.raises(UnreadableError, match=r"^is "):
        read_header(NamedBytes("IM1", data))


def test_a_header_longer_than_what_is_read_at_first() -> None:
    dataset = maker.datasets(SMALL, 4)[0]
    dataset.add_new(0x00291010, "OB", bytes(2**19))
    header = read_header(NamedBytes("IM1", maker.as_bytes(dataset)))
    assert whole(header, "Rows") == 32
    assert "PixelData" not in header


def test_values_are_taken_with_care() -> None:
    dataset = Dataset()
    dataset.SeriesDescription = "AX\tT1\x07 "
    dataset.ImageType = ["ORIGINAL", "PRIMARY", ""]
    dataset.EchoTime = "12.5"
    dataset.SeriesNumber = "4"
    dataset.PixelSpacing = [0.5, 0.7]
    assert text(dataset, "SeriesDescription") == "AX T1"
    assert words(dataset, "ImageType") == ("ORIGINAL", "PRIMARY")
    assert number(dataset, "EchoTime") == 12.5
    assert whole(dataset, "EchoTime") is None
    assert whole(dataset, "SeriesNumber") == 4
    assert numbers(dataset, "PixelSpacing", 2) == (0.5, 0.7)
    assert numbers(dataset, "PixelSpacing", 3) is None
    assert items(dataset, "PixelSpacing") == []
    for keyword in ("PatientID", "Rows"):
        assert text(dataset, keyword) == ""
        assert number(dataset, keyword) is None
    assert kind_of(dataset) == ""


def test_text_in_the_alphabets_of_others() -> None:
    dataset = maker.datasets(SMALL, 4)[0]
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SeriesDescription = "FLAIR Schädel 頭部"
    (case,), _ = cases([NamedBytes("IM1", maker.as_bytes(dataset))])
    assert case.series[0].title == "4: FLAIR Schädel 頭部, 1 slice"


def test_a_file_without_preamble_and_meta_header() -> None:
    stream = io.BytesIO()
    dataset = maker.datasets(SMALL, 4)[0]
    plain = Dataset()
    plain.update(dataset)
    plain.save_as(stream, implicit_vr=True, little_endian=True)
    assert end({"IM1": stream.getvalue()}) == "read"
