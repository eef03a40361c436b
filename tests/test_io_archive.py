"""Zips: what is refused, in which words, and that no member costs more than it declared."""

from __future__ import annotations

import bz2
import contextlib
import io
import lzma
import stat
import struct
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from brainseg.io import NamedBytes, expand, read_study
from brainseg.io.archive import check_name, unzip
from brainseg.io.limits import MAX_FILES, MAX_UNZIPPED
from brainseg.types import InputError


def patient() -> dict[str, bytes]:
    files = {}
    for n in range(1, 4):
        out = io.BytesIO()
        Image.fromarray(np.random.default_rng(n).integers(0, 256, (32, 32, 3), np.uint8)).save(out, "TIFF")
        files[f"P_{n}.tif"] = out.getvalue()
    return files


def packed(files: dict[str, bytes], *, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


def linked() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        info = zipfile.ZipInfo("P_1.tif")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    return out.getvalue()


def with_flag(data: bytes, flag: int) -> bytes:
    raw = bytearray(data)
    local, central = raw.index(b"PK\3\4"), raw.index(b"PK\1\2")
    raw[local + 6] |= flag
    raw[central + 8] |= flag
    return bytes(raw)


def with_method(method: int) -> bytes:
    """A sound zip whose headers name another method."""
    raw = bytearray(packed({"P_1.tif": b"x" * 100}))
    local, central = raw.index(b"PK\3\4"), raw.index(b"PK\1\2")
    raw[local + 8 : local + 10] = raw[central + 10 : central + 12] = method.to_bytes(2, "little")
    return bytes(raw)


def declaring(size: int) -> bytes:
    raw = bytearray(packed({"P_1.tif": bytes(1000)}))
    local, central = raw.index(b"PK\3\4"), raw.index(b"PK\1\2")
    raw[local + 22 : local + 26] = raw[central + 24 : central + 28] = size.to_bytes(4, "little")
    return bytes(raw)


def damaged() -> bytes:
    raw = bytearray(packed(patient(), method=zipfile.ZIP_STORED))
    raw[200] ^= 0xFF
    return bytes(raw)


def nested(depth: int) -> bytes:
    data = packed(patient())
    for _ in range(depth):
        data = packed({"inner.zip": data})
    return data


BAD_ZIPS = {
    "parent": (packed({"../P_1.tif": b"x"}), "leads out"),
    "parent inside": (packed({"a/../../P_1.tif": b"x"}), "leads out"),
    "backslashes": (packed({"..\\P_1.tif": b"x"}), "leads out"),
    "absolute": (packed({"/etc/P_1.tif": b"x"}), "leads out"),
    "drive": (packed({"C:\\P_1.tif": b"x"}), "leads out"),
    "link": (linked(), "a link"),
    "encrypted": (with_flag(packed({"P_1.tif": b"x"}), 1), "encrypted"),
    "bomb by ratio": (packed({"P_1.tif": bytes(80 * 2**20)}), "bomb"),
    "bomb by size": (declaring(MAX_UNZIPPED + 1), "more than 2 GB"),
    "lying about size": (declaring(999), "damaged"),
    "bad checksum": (damaged(), "damaged"),
    "truncated": (packed(patient())[:500], "damaged"),
    "text": (b"hello", "damaged or not a zip"),
    "zero bytes": (b"", "damaged or not a zip"),
    "Deflate64": (with_method(9), "compressed with Deflate64"),
    "bzip2": (packed({"P_1.tif": b"x"}, method=zipfile.ZIP_BZIP2), "compressed with bzip2"),
    "LZMA": (packed({"P_1.tif": b"x"}, method=zipfile.ZIP_LZMA), "compressed with LZMA"),
    "Zstandard": (with_method(93), "compressed with Zstandard"),
    "a method without a name": (with_method(77), "compressed with method 77"),
    "declaring more": (declaring(1001), "damaged"),
    "long name": (packed({f"a/{'0' * 60_000}9.tif": b"x"}), "60,007 bytes"),
    "long part": (packed({f"a/{'0' * 300}9.tif": b"x"}), "part of 305 bytes"),
    "many folders": (packed({f"{n}/": b"" for n in range(2 * MAX_FILES + 1)}), "20,000 files"),
    "many files": (packed({f"{n}.txt": b"" for n in range(MAX_FILES + 1)}), "20,000 files"),
    "too deep": (nested(2), "a zip in a zip in a zip"),
}


@pytest.mark.parametrize("case", BAD_ZIPS)
def test_bad_zip(case: str, tmp_path: Path) -> None:
    data, word = BAD_ZIPS[case]
    path = tmp_path / "patient 7.zip"
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        read_study(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    assert word in message
    assert '"patient 7' in message


def test_blank_masks_are_no_bomb() -> None:
    blank = io.BytesIO()
    Image.fromarray(np.zeros((256, 256), np.uint8)).save(blank, "TIFF")
    files = {f"P_{n}_mask.tif": blank.getvalue() for n in range(100)}
    assert len(expand([NamedBytes("m.zip", packed(files))])) == 100


BOMB = 64 * 2**20


def lying(method: int, stream: bytes, declared: int) -> bytes:
    """One member whose stream holds `BOMB` zeros, and headers that say `declared`, with its checksum."""
    name, crc = b"P_1.tif", zlib.crc32(bytes(declared))
    sizes = struct.pack("<HHHHHIIIH", 20, 0, method, 0, 33, crc, len(stream), declared, len(name))
    local = b"PK\3\4" + sizes + bytes(2) + name + stream
    central = b"PK\1\2" + struct.pack("<H", 20) + sizes + bytes(16) + name
    end = b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(central), len(local), 0)
    return local + central + end


def peak_of(data: bytes) -> int:
    tracemalloc.start()
    try:
        with contextlib.suppress(InputError):
            unzip("x.zip", data)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_no_member_is_unpacked_beyond_what_it_declared() -> None:
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    streams = {
        zipfile.ZIP_DEFLATED: deflate.compress(bytes(BOMB)) + deflate.flush(),
        zipfile.ZIP_BZIP2: bz2.compress(bytes(BOMB)),
        zipfile.ZIP_LZMA: lzma.compress(bytes(BOMB)),
    }
    for method, stream in streams.items():
        assert peak_of(lying(method, stream, 100)) < 2**20
    assert unzip("x.zip", lying(zipfile.ZIP_DEFLATED, streams[zipfile.ZIP_DEFLATED], 100)) == [
        ("x/P_1.tif", bytes(100))
    ]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=8), st.integers(0, 2000))
def test_damaged_zips_raise_input_error_only(changes: list[tuple[int, int]], cut: int) -> None:
    raw = bytearray(packed({"a/P_1.tif": b"x" * 500, "b.zip": packed({"P_2.tif": bytes(500)})}))
    for at, value in changes:
        raw[at % len(raw)] = value
    with contextlib.suppress(InputError):
        members = unzip("x.zip", bytes(raw[: len(raw) - cut] if cut < len(raw) else raw))
        assert sum(len(data) for _, data in members) < 2**20


@given(st.text(max_size=300))
def test_names_are_measured_in_bytes(name: str) -> None:
    too_long = any(len(part.encode()) > 255 for part in name.replace("\\", "/").split("/"))
    if too_long or len(name.encode()) > 1000:
        with pytest.raises(InputError):
            check_name(name)
    else:
        check_name(name)
