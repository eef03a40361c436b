"""One picture, whatever wrote it: the same pixels, or a sentence."""

from __future__ import annotations

import contextlib
import io
import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from PIL import ExifTags, Image

from brainseg.io import NamedBytes
from brainseg.io.readers import READERS, Volume, decode, reader_of
from brainseg.types import InputError

Pixels = npt.NDArray[Any]
HEIGHT, WIDTH = 40, 56


def picture(dtype: Any = np.uint8, channels: int = 3, seed: int = 0) -> Pixels:
    """No symmetry, every level used, sides that no tile divides."""
    top = 1 if np.dtype(dtype).kind == "f" else np.iinfo(dtype).max
    shape = (HEIGHT, WIDTH, channels) if channels > 1 else (HEIGHT, WIDTH)
    return (np.random.default_rng(seed).random(shape) * top).astype(dtype)


def tiff(pixels: Pixels, **options: Any) -> bytes:
    out = io.BytesIO()
    options.setdefault("photometric", "rgb" if pixels.ndim > 2 and 3 in pixels.shape else "minisblack")
    tifffile.imwrite(out, pixels, **options)
    return out.getvalue()


def pillow(pixels: Pixels, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind, **options)
    return out.getvalue()


def read(data: bytes, name: str = "slice_1") -> Volume:
    return decode(NamedBytes(name, data))


def refusal(data: bytes) -> str:
    with pytest.raises(InputError) as caught:
        read(data)
    message = str(caught.value)
    assert message.startswith('"slice_1" ')
    assert message.endswith(".")
    assert ":" in message
    return message


def check(data: bytes, expected: Pixels) -> Volume:
    volume = read(data)
    if expected.ndim == 2:
        expected = expected[..., np.newaxis]
    assert volume.pixels.dtype == expected.dtype
    assert volume.pixels.dtype.isnative
    np.testing.assert_array_equal(volume.pixels, expected[np.newaxis])
    return volume


# --- one picture -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.uint32, np.float32, np.float64])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_layouts_of_tiff_give_the_same_pixels(dtype: Any, byteorder: str, channels: int) -> None:
    pixels = picture(dtype, channels)
    layouts: list[dict[str, Any]] = [
        {"bigtiff": True},
        {"rowsperstrip": 7},
        {"tile": (16, 32)},
        {"tile": (64, 64), "compression": "zlib"},
        *({"compression": c} for c in ("lzw", "zlib", "packbits", "zstd", "lzma", 32946)),
        *({"compression": c, "predictor": True, "rowsperstrip": 9} for c in ("lzw", "zlib")),
    ]
    for layout in layouts:
        check(tiff(pixels, byteorder=byteorder, **layout), pixels)
        if channels == 3:
            planar = {**layout, "planarconfig": "separate", "byteorder": byteorder}
            check(tiff(np.moveaxis(pixels, -1, 0), **planar), pixels)


@pytest.mark.parametrize("channels", [1, 3])
def test_programs_agree(channels: int) -> None:
    pixels = picture(np.uint8, channels)
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "packbits", "zstd", "lzma"):
        check(pillow(pixels, "TIFF", compression=compression), pixels)
    check(pillow(pixels, "PNG"), pixels)


def test_jpeg_within_tiff_is_what_jpeg_is() -> None:
    smooth = np.asarray(Image.fromarray(picture()).resize((4, 4)).resize((WIDTH, HEIGHT), 3))
    for data in (
        pillow(smooth, "JPEG", quality=95),
        pillow(smooth, "TIFF", compression="jpeg", quality=95),
        tiff(smooth, compression="jpeg", compressionargs={"level": 95}),
        tiff(smooth[..., 0], compression="jpeg", compressionargs={"level": 95}),
    ):
        volume = read(data)
        expected = smooth if volume.pixels.shape[-1] == 3 else smooth[..., :1]
        assert np.abs(volume.pixels[0].astype(int) - expected).mean() < 3


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.bool_])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_min_is_white(dtype: Any, byteorder: str) -> None:
    pixels = picture(np.uint8, 1) > 99 if dtype == np.bool_ else picture(dtype, 1)
    stored = ~pixels if dtype == np.bool_ else np.iinfo(dtype).max - pixels
    check(tiff(stored, photometric="miniswhite", byteorder=byteorder), pixels)
    check(tiff(stored, photometric="miniswhite", compression="zlib", byteorder=byteorder), pixels)


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_min_is_white_of_other_values_is_refused(dtype: Any) -> None:
    assert "white" in refusal(tiff(picture(dtype, 1), photometric="miniswhite"))


def packed_tiff(levels: Pixels, bits: int, photometric: int) -> bytes:
    """A grey TIFF of 1, 2 or 4 bits, written by hand."""
    unpacked = np.unpackbits(levels.astype(np.uint8)[..., np.newaxis], axis=-1)[..., -bits:]
    strip = np.packbits(unpacked.reshape(levels.shape[0], -1), axis=1).tobytes()
    tags = [
        (256, 3, levels.shape[1]),
        (257, 3, levels.shape[0]),
        (258, 3, bits),
        (259, 3, 1),
        (262, 3, photometric),
        (273, 4, 8),
        (277, 3, 1),
        (278, 3, levels.shape[0]),
        (279, 4, len(strip)),
    ]
    strip += b"\0" * (len(strip) % 2)
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return (
        b"II*\0"
        + struct.pack("<I", 8 + len(strip))
        + strip
        + struct.pack("<H", len(tags))
        + entries
        + bytes(4)
    )


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_few_bits_are_as_bright_as_in_png(bits: int) -> None:
    levels = picture(np.uint8, 1) >> (8 - bits)
    expected = levels > 0 if bits == 1 else levels * np.uint8(255 // (2**bits - 1))
    check(packed_tiff(levels, bits, 1), expected)
    check(packed_tiff(2**bits - 1 - levels, bits, 0), expected)
    check(png_of(levels, bits), expected)


def png_of(levels: Pixels, bits: int) -> bytes:
    unpacked = np.unpackbits(levels.astype(np.uint8)[..., np.newaxis], axis=-1)[..., -bits:]
    rows = np.packbits(unpacked.reshape(levels.shape[0], -1), axis=1)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    out = b"\x89PNG\r\n\x1a\n"
    header = struct.pack(">IIBBBBB", levels.shape[1], levels.shape[0], bits, 0, 0, 0, 0)
    for kind, body in ((b"IHDR", header), (b"IDAT", zlib.compress(raw)), (b"IEND", b"")):
        out += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return out


def test_fax_compression_of_one_bit() -> None:
    pixels = picture(np.uint8, 1) > 99
    for compression in ("group3", "group4", "raw", "packbits"):
        check(pillow(pixels, "TIFF", compression=compression), pixels)


def test_palettes_are_seen_in_their_colours() -> None:
    image = Image.fromarray(picture()).quantize(32)
    expected = np.asarray(image.convert("RGB"))
    for kind in ("TIFF", "PNG"):
        out = io.BytesIO()
        image.save(out, kind)
        check(out.getvalue(), expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_tiff(orientation: int, channels: int, dtype: Any) -> None:
    pixels = picture(dtype, channels)
    expected = turned(pixels, orientation)
    data = tiff(pixels, extratags=[(274, "H", 1, orientation, False)])
    volume = check(data, expected)
    assert bool(volume.remarks) == (orientation > 1)


def turned(pixels: Pixels, orientation: int) -> Pixels:
    """By the table of the standard: where row 0 and column 0 of the stored picture belong."""
    rotations: dict[int, Callable[[Pixels], Pixels]] = {
        1: lambda p: p,
        2: np.fliplr,
        3: lambda p: np.rot90(p, 2),
        4: np.flipud,
        5: lambda p: np.rot90(np.fliplr(p)),
        6: lambda p: np.rot90(p, -1),
        7: lambda p: np.rot90(np.fliplr(p), -1),
        8: np.rot90,
    }
    return rotations[orientation](pixels)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_exif(orientation: int, kind: str) -> None:
    pixels = picture()
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    plain = read(pillow(pixels, kind)).pixels[0]
    volume = check(pillow(pixels, kind, exif=exif), turned(plain, orientation))
    assert bool(volume.remarks) == (orientation > 1)


def test_alpha() -> None:
    opaque = np.concatenate([picture(), np.full((HEIGHT, WIDTH, 1), 255, np.uint8)], -1)
    for data in (pillow(opaque, "PNG"), pillow(opaque, "TIFF"), tiff(opaque, photometric="rgb")):
        assert check(data, picture()).remarks
    fourth = picture(channels=4)
    for data in (
        pillow(fourth, "PNG"),
        tiff(fourth, photometric="rgb"),
        tiff(fourth, photometric="rgb", extrasamples=["unspecified"]),
        tiff(fourth, photometric="minisblack", planarconfig="contig"),
        tiff(picture(np.uint16, 4), photometric="minisblack", planarconfig="contig"),
    ):
        assert "has 4 channels" in refusal(data)
    assert "has 2 channels" in refusal(
        tiff(picture(channels=2), photometric="minisblack", planarconfig="contig")
    )


def test_a_constant_channel_that_is_no_transparency_is_not_dropped() -> None:
    data = np.concatenate([picture(), np.zeros((HEIGHT, WIDTH, 1), np.uint8)], -1)
    assert "has 4 channels" in refusal(tiff(data, photometric="minisblack", planarconfig="contig"))


# --- pages and axes ----------------------------------------------------------------------------------------


def volume(slices: int = 5, channels: int = 3, dtype: Any = np.uint8) -> Pixels:
    return np.stack([picture(dtype, channels, seed) for seed in range(slices)])


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_imagej_channels(dtype: Any, byteorder: str) -> None:
    pixels = volume(dtype=dtype)
    data = tiff(
        np.moveaxis(pixels, -1, 1),
        imagej=True,
        metadata={"axes": "ZCYX"},
        byteorder=byteorder,
        photometric="minisblack",
    )
    decoded = read(data)
    np.testing.assert_array_equal(decoded.pixels, pixels)
    assert decoded.axes_known


@pytest.mark.parametrize("axes", ["CZYX", "ZCYX"])
@pytest.mark.parametrize("names", [None, ["T1", "FLAIR", "T1ce"]])
def test_ome_channels(axes: str, names: list[str] | None) -> None:
    pixels = volume()
    metadata: dict[str, Any] = {"axes": axes}
    if names:
        metadata["Channel"] = {"Name": names}
    data = tiff(
        np.moveaxis(pixels, -1, axes.index("C")), ome=True, metadata=metadata, photometric="minisblack"
    )
    decoded = read(data)
    np.testing.assert_array_equal(decoded.pixels, pixels)
    assert list(decoded.channels) == (names or ["", "", ""])


def test_axes_of_tifffile() -> None:
    pixels = volume()
    data = tiff(np.moveaxis(pixels, -1, 1), metadata={"axes": "ZCYX"}, photometric="minisblack")
    np.testing.assert_array_equal(read(data).pixels, pixels)
    np.testing.assert_array_equal(read(tiff(pixels, photometric="rgb")).pixels, pixels)
    np.testing.assert_array_equal(
        read(tiff(np.moveaxis(pixels, -1, 1), photometric="rgb", planarconfig="separate")).pixels, pixels
    )


def test_one_slice_of_three_channels() -> None:
    pixels = picture()
    planes = np.moveaxis(pixels, -1, 0)
    for options in ({"imagej": True}, {"ome": True}, {}):
        data = tiff(planes, metadata={"axes": "CYX"}, photometric="minisblack", **options)
        check(data, pixels)


@pytest.mark.parametrize(
    "metadata", [{"axes": "ZYX"}, {"axes": "TYX"}], ids=["slices", "frames, as programs confuse them"]
)
def test_imagej_stack_of_one_page_directory(metadata: dict[str, str]) -> None:
    pixels = volume(channels=1)
    data = one_directory(tiff(pixels, imagej=True, metadata=metadata))
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        assert len(file.pages) == 1
    np.testing.assert_array_equal(read(data).pixels, pixels[..., np.newaxis])
    assert "header" in refusal(data[: len(data) // 2])
    for old, new in ((b"images=5", b"images=9"), (b"slices=5", b"slices=9"), (b"frames=5", b"frames=9")):
        if old in data:
            assert "header" in refusal(data.replace(old, new))


def one_directory(data: bytes) -> bytes:
    """The first page's directory alone, which ImageJ writes for large stacks."""
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        first = file.pages[0]
        entries, offset = len(first.tags), first.offset
    raw = bytearray(data)
    order = "<" if data[:2] == b"II" else ">"
    struct.pack_into(f"{order}I", raw, offset + 2 + 12 * entries, 0)
    return bytes(raw)


def test_a_stack_cut_to_one_directory_by_tifffile() -> None:
    pixels = volume(channels=1)
    np.testing.assert_array_equal(read(tiff(pixels, metadata={"truncate": True})).pixels[..., 0], pixels)


def test_other_axes_are_refused() -> None:
    five = np.zeros((2, 4, 3, HEIGHT, WIDTH), np.uint8)
    assert "axes" in refusal(tiff(five, imagej=True, metadata={"axes": "TZCYX"}, photometric="minisblack"))
    assert "5 channels" in refusal(
        tiff(five[0, 0, [0] * 5], imagej=True, metadata={"axes": "CYX"}, photometric="minisblack")
    )
    assert "2 x 4" in refusal(tiff(five[:, :, 0], photometric="minisblack"))
    assert "2 channels" in refusal(
        tiff(five[0, :, :2], ome=True, metadata={"axes": "ZCYX"}, photometric="minisblack")
    )


@pytest.mark.parametrize("shape", [(96, 96, 3), (240, 200, 4), (8, 64, 64, 3), (200, 3, 200)])
def test_arrays_whose_channels_were_taken_for_columns_are_refused(shape: tuple[int, ...]) -> None:
    data = np.zeros(shape, np.float32)
    for options in ({}, {"metadata": None}):
        assert "as an array" in refusal(tiff(data, photometric="minisblack", **options))


@pytest.mark.parametrize("marked", [True, False])
def test_reduced_pages_are_left_aside(marked: bool) -> None:
    out = io.BytesIO()
    with tifffile.TiffWriter(out) as writer:
        writer.write(picture(), photometric="rgb")
        writer.write(picture()[::2, ::2], photometric="rgb", subfiletype=int(marked), metadata=None)
    if marked:
        assert len(check(out.getvalue(), picture()).remarks) == 1
    else:
        assert "pages" in refusal(out.getvalue())


def test_pyramids_are_read_at_full_size() -> None:
    out = io.BytesIO()
    with tifffile.TiffWriter(out) as writer:
        writer.write(picture(), photometric="rgb", subifds=1)
        writer.write(picture()[::2, ::2], photometric="rgb", subfiletype=1)
    check(out.getvalue(), picture())


def test_second_picture_of_a_phone() -> None:
    out = io.BytesIO()
    first, second = Image.fromarray(picture()), Image.fromarray(picture(seed=1)[::2, ::2].copy())
    first.save(out, "MPO", save_all=True, append_images=[second], quality=95)
    decoded = read(out.getvalue())
    np.testing.assert_array_equal(decoded.pixels[0], read(pillow(picture(), "JPEG", quality=95)).pixels[0])
    assert len(decoded.remarks) == 1


def test_animations_are_refused() -> None:
    out = io.BytesIO()
    frames = [Image.fromarray(picture(seed=seed)) for seed in range(2)]
    frames[0].save(out, "PNG", save_all=True, append_images=frames[1:])
    assert "several pictures" in refusal(out.getvalue())


def test_ome_header_names_no_files_on_disk(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tiff(volume(channels=1), ome=True, metadata={"axes": "ZYX"})
    (tmp_path / "other.ome.tif").write_bytes(data)
    monkeypatch.chdir(tmp_path)
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        header = file.ome_metadata
    assert header
    elsewhere = header.replace(
        '<TiffData IFD="0" PlaneCount="5"/>',
        '<TiffData IFD="0" PlaneCount="5"><UUID FileName="other.ome.tif">urn:uuid:1</UUID></TiffData>',
    )
    assert elsewhere != header
    pages = tiff(volume(1, 1), description=elsewhere, metadata=None)
    with pytest.raises(InputError):
        read(pages)


# --- refused by name, before memory is spent ---------------------------------------------------------------


def patched(data: bytes, tag: int, value: int) -> bytes:
    """A little-endian TIFF with one tag's value changed."""
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        at = file.pages[0].tags[tag].offset
    raw = bytearray(data)
    kind = struct.unpack_from("<H", raw, at + 2)[0]
    struct.pack_into("<I" if kind == 4 else "<H", raw, at + 8, value)
    return bytes(raw)


@pytest.mark.parametrize("side", [16_384, 32_768, 46_336, 65_520])
@pytest.mark.parametrize("compression", [None, "zlib", "zstd", "lzw"])
def test_declared_tiles_are_checked_before_they_are_allocated(side: int, compression: str | None) -> None:
    data = tiff(picture(channels=1)[:32, :32], tile=(32, 32), compression=compression)
    for tags in ((322,), (323,), (322, 323)):
        hostile = data
        for tag in tags:
            hostile = patched(hostile, tag, side)
        spent(hostile, "tiles")


def spent(data: bytes, word: str, most: int = 20 * 2**20) -> None:
    read(tiff(picture()))
    tracemalloc.start()
    begin = time.perf_counter()
    assert word in refusal(data)
    assert time.perf_counter() - begin < 2
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < most


def test_jpeg_streams_are_checked_before_they_are_allocated() -> None:
    data = tiff(picture(), compression="jpeg")
    at = data.index(b"\xff\xc0") + 5
    hostile = data[:at] + struct.pack(">HH", 65_000, 65_000) + data[at + 4 :]
    spent(hostile, "larger than 4,096")


def test_strips_cannot_unpack_beyond_their_page() -> None:
    for compression in ("zlib", "zstd", "lzma", "lzw"):
        big = tiff(np.zeros((4_000, 4_000), np.uint8), compression=compression, rowsperstrip=4_000)
        small = patched(patched(patched(big, 256, 40), 257, 40), 278, 40)
        tracemalloc.start()
        with contextlib.suppress(InputError):
            assert read(small).pixels.shape == (1, 40, 40, 1)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 2**20 + len(small)


def test_many_pages_are_refused() -> None:
    data = bytearray(tiff(picture(channels=1), metadata=None))
    directory = tifffile.TiffFile(io.BytesIO(data)).pages[0].offset
    end = directory + 2 + 12 * struct.unpack_from("<H", data, directory)[0]
    block = bytes(data[directory:end])
    for _ in range(3_100):
        struct.pack_into("<I", data, end, len(data))
        data += block + bytes(4)
        end = len(data) - 4
    assert "pages" in refusal(bytes(data))


def test_missing_strips_are_damage() -> None:
    data = tiff(picture(), rowsperstrip=HEIGHT)
    for tag, value in ((279, 0), (279, 10), (273, 2**31), (278, 3)):
        assert "damaged" in refusal(patched(data, tag, value))


@pytest.mark.parametrize(
    ("compression", "word"),
    [("jpeg2000", "JPEG"), ("webp", "WEBP"), ("png", "PNG"), ("jpegxl", "JPEGXL")],
)
def test_compressions_with_headers_of_their_own_are_refused_by_name(compression: str, word: str) -> None:
    message = refusal(tiff(picture(), compression=compression))
    assert "compression" in message
    assert any(one in message for one in word.split("|")), message


def test_unusual_compression_is_named() -> None:
    assert read(tiff(picture(np.uint16), compression="zstd")).detail == "Zstandard"
    assert read(tiff(picture(np.uint16))).detail == ""
    assert "61234" in refusal(patched(tiff(picture()), 259, 61_234))


def test_other_pixels_are_refused_by_name() -> None:
    out = io.BytesIO()
    Image.fromarray(picture()).convert("CMYK").save(out, "TIFF")
    assert "SEPARATED" in refusal(out.getvalue())
    out = io.BytesIO()
    Image.fromarray(picture()).convert("LAB").save(out, "TIFF")
    assert "CIELAB" in refusal(out.getvalue())
    assert "complex" in refusal(tiff(picture(np.float32, 1).astype(np.complex64)))
    one_bit = packed_tiff(picture(np.uint8, 1) >> 7, 1, 1)
    assert "1-bit" in refusal(patched(patched(one_bit, 277, 3), 262, 2))
    assert "ScanImage" in refusal(tiff(picture(channels=1), software="SI.5.1", metadata=None))


# --- what a file is ----------------------------------------------------------------------------------------


def test_dicom_comes_before_tiff() -> None:
    dual = bytearray(tiff(picture()))
    dual[128:132] = b"DICM"
    assert reader_of(bytes(dual)) is None
    assert "DICOM" in refusal(bytes(dual))
    assert "DICOM" in refusal(bytes(128) + b"DICM" + bytes(100))
    assert "DICOM" in refusal(b"\x08\0\5\0CS\x0a\0ISO_IR 100" + bytes(100))


def test_each_reader_recognises_its_own() -> None:
    for kind, data in (
        ("tiff", tiff(picture())),
        ("tiff", tiff(picture(), byteorder=">", bigtiff=True)),
        ("png", pillow(picture(), "PNG")),
        ("jpeg", pillow(picture(), "JPEG")),
    ):
        reader = reader_of(data)
        assert reader is not None
        assert reader.kind == kind
        assert sum(one.recognises(data) for one in READERS) == 1
    assert reader_of(b"") is None


@pytest.mark.parametrize(
    ("head", "word"),
    [
        (b"GIF89a", "GIF"),
        (b"RIFF\0\0\0\0WEBP", "WebP"),
        (b"\0\0\0\x18ftypheic", "HEIC"),
        (b"BM\0\0", "BMP"),
        (bytes(344) + b"n+1\0", "NIfTI"),
        (b"\x1f\x8b", "gzip"),
        (b"NRRD0004", "NRRD"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (b"/annex/objects/SHA256E-s1\n", "git-annex"),
    ],
)
def test_formats_that_are_not_read_are_named(head: bytes, word: str) -> None:
    assert word in refusal(head)
