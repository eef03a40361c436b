"""Reading one patient: layouts, triage, depths, notes, and every kind of bad input."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from brainseg.io import Case, NamedBytes, collect, expand, find_cases, read_case, read_study
from brainseg.io.limits import MAX_SLICES
from brainseg.io.text import listed
from brainseg.types import InputError, Study

SIDE = 32
PATIENT = "ABC_01_0001_20000101"
Pixels = npt.NDArray[Any]


def rgb(seed: int = 0, side: int = SIDE) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)


def grey(seed: int = 0, dtype: Any = np.uint8) -> Pixels:
    return np.random.default_rng(seed).integers(0, 200, (SIDE, SIDE)).astype(dtype)


def blob(top: int = 255, side: int = SIDE) -> Pixels:
    mask = np.zeros((side, side), np.uint8)
    mask[8:16, 10:20] = top
    return mask


def encoded(pixels: Pixels, kind: str = "TIFF", **options: Any) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind, **options)
    return out.getvalue()


def deep_tiff(pixels: Pixels, **options: Any) -> bytes:
    out = io.BytesIO()
    tifffile.imwrite(out, pixels, photometric="rgb", **options)
    return out.getvalue()


def lgg(count: int = 11, patient: str = PATIENT, folder: str = "") -> list[NamedBytes]:
    files = []
    for n in range(1, count + 1):
        files.append(NamedBytes(f"{folder}{patient}_{n}.tif", encoded(rgb(n))))
        mask = blob() if n % 2 else blob(0)
        files.append(NamedBytes(f"{folder}{patient}_{n}_mask.tif", encoded(mask)))
    return files


def named(**files: bytes) -> list[NamedBytes]:
    return [NamedBytes(name, data) for name, data in files.items()]


def read(files: list[NamedBytes], **options: Any) -> Study:
    (case,) = find_cases(expand(files))
    return read_case(case, **options)


def same(one: Study, other: Study) -> bool:
    if one.reference is None or other.reference is None:
        references = one.reference is other.reference
    else:
        references = np.array_equal(one.reference, other.reference)
    return (
        references
        and one.slices.dtype == other.slices.dtype
        and np.array_equal(one.slices, other.slices)
        and (one.case_id, one.source, one.slice_numbers, one.notes)
        == (other.case_id, other.source, other.slice_numbers, other.notes)
    )


def roles(study: Study) -> dict[str, str]:
    return {file.name: file.role for file in study.source.files}


def refusal(files: list[NamedBytes]) -> str:
    with pytest.raises(InputError) as caught:
        read(files)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    assert ":" in message, "a remedy follows the problem"
    return message


# --- layouts -----------------------------------------------------------------------------------------------


def test_lgg_layout() -> None:
    study = read(lgg())
    assert study.case_id == PATIENT
    assert study.slice_numbers == tuple(range(1, 12))
    assert study.slices.dtype == np.uint8
    assert study.shape == (11, SIDE, SIDE)
    for i in range(11):
        np.testing.assert_array_equal(study.slices[i], rgb(i + 1))
    assert study.reference is not None
    np.testing.assert_array_equal(study.reference.any((1, 2)), [n % 2 == 1 for n in range(1, 12)])
    np.testing.assert_array_equal(study.reference[0], blob() > 0)
    assert study.spacing_mm is None
    assert study.orientation is None
    assert study.notes == ()
    assert study.source.format == "lgg-tiff"
    first, second = study.source.files[:2]
    assert (first.name, first.role, first.note) == (f"{PATIENT}_1.tif", "slice", "slice 1, 3 channels, uint8")
    assert (second.role, second.note) == ("mask", "mask of slice 1: named as a mask; values 0 and 255")


def test_masks_are_optional() -> None:
    study = read([file for file in lgg(3) if "mask" not in file.name])
    assert study.reference is None
    assert study.notes == ()


@pytest.mark.parametrize(
    ("slices", "masks"),
    [
        ("slice_{:03d}.png", "mask_{:03d}.png"),
        ("{}.png", "{}_mask.png"),
        ("images/{}.png", "masks/{}.png"),
        ("P 7/Images/IM{:04d}.png", "P 7/Labels/IM{:04d}.png"),
        ("scan-{}.png", "scan-{}-seg.png"),
        ("Ünï cøde_{}.png", "Ünï cøde_{}_mask.png"),
        ("brain_{}_flair.png", "brain_{}_label.png"),
        ("axial{}.png", "masks/axial{}_mask.png"),
    ],
)
def test_names(slices: str, masks: str) -> None:
    files = [NamedBytes(slices.format(n), encoded(rgb(n), "PNG")) for n in (1, 2, 10)]
    files += [NamedBytes(masks.format(n), encoded(blob(), "PNG")) for n in (1, 2, 10)]
    study = read(files)
    assert study.slice_numbers == (1, 2, 10)
    assert list(roles(study).values()) == ["slice", "mask"] * 3
    assert study.reference is not None
    assert study.reference.all(0).any()


def test_case_id_without_one_in_the_names() -> None:
    data = encoded(rgb(), "PNG")
    assert read([NamedBytes("1.png", data)]).case_id == "study"
    assert read([NamedBytes("Mrs X/images/1.png", data)]).case_id == "Mrs X"


def test_single_slice_and_mask_without_numbers() -> None:
    study = read(named(**{"flair.png": encoded(rgb(), "PNG"), "mask.png": encoded(blob(), "PNG")}))
    assert study.slice_numbers == (1,)
    assert study.reference is not None
    study = read(named(**{"slice_0.png": encoded(rgb(), "PNG"), "mask.png": encoded(blob(), "PNG")}))
    assert study.slice_numbers == (0,)


def test_stack() -> None:
    pages = [Image.fromarray(rgb(n)) for n in range(3)]
    out = io.BytesIO()
    pages[0].save(out, "TIFF", save_all=True, append_images=pages[1:])
    marks = [Image.fromarray(mask) for mask in (blob(0), blob(), blob(0))]
    masks = io.BytesIO()
    marks[0].save(masks, "TIFF", save_all=True, append_images=marks[1:])
    study = read(named(**{f"{PATIENT}.tif": out.getvalue(), f"{PATIENT}_mask.tif": masks.getvalue()}))
    assert study.case_id == PATIENT
    assert study.slice_numbers == (1, 2, 3)
    np.testing.assert_array_equal(study.slices[2], rgb(2))
    assert study.reference is not None
    assert study.reference.any((1, 2)).tolist() == [False, True, False]
    assert study.source.format == "tiff-stack"
    assert len(study.source.files) == 2
    message = refusal(named(**{f"{PATIENT}_1.tif": out.getvalue(), f"{PATIENT}_2.tif": encoded(rgb())}))
    assert "3 pages" in message
    message = refusal(named(**{f"{PATIENT}.tif": out.getvalue(), f"{PATIENT}_mask.tif": encoded(blob())}))
    assert "1 page" in message


def test_format_by_content_not_suffix() -> None:
    study = read([NamedBytes("1.tif", encoded(rgb(), "PNG"))])
    assert study.source.format == "png"
    assert "PNG by its content" in study.source.files[0].note
    assert read([NamedBytes("slice.001", encoded(rgb(), "PNG"))]).slice_numbers == (1,)


# --- triage by content -------------------------------------------------------------------------------------


def test_unnamed_mask_with_the_number_of_a_slice_is_a_mask() -> None:
    files = [NamedBytes(f"a/{n}.png", encoded(rgb(n), "PNG")) for n in (1, 2)]
    files += [NamedBytes(f"a/slices/{n}.png", encoded(blob(), "PNG")) for n in (1, 2)]
    study = read(files)
    assert study.reference is not None
    assert roles(study) == {
        "1.png": "slice",
        "slices/1.png": "mask",
        "2.png": "slice",
        "slices/2.png": "mask",
    }
    assert "only two values" in study.source.files[1].note


def test_flair_named_as_mask_is_refused() -> None:
    files = named(**{"1.png": encoded(rgb(), "PNG"), "1_mask.png": encoded(grey(), "PNG")})
    message = refusal(files)
    assert '"1_mask.png" (named as a mask)' in message
    assert "different values" in message


def test_unnamed_mask_without_slice_is_refused() -> None:
    files = named(**{"1.png": encoded(rgb(), "PNG"), "2.png": encoded(blob(), "PNG")})
    assert '"2.png"' in refusal(files)


def test_nearly_blank_grey_slice_stays_a_slice() -> None:
    study = read(named(**{"1.png": encoded(grey(), "PNG"), "2.png": encoded(blob(1), "PNG")}))
    assert study.reference is None
    assert study.source.files[1].note.endswith("only the values 0 and 1")


def test_only_masks_is_refused() -> None:
    assert "Only masks" in refusal([file for file in lgg(3) if "mask" in file.name])
    assert "masks" in refusal(named(**{"1.png": encoded(blob(), "PNG"), "2.png": encoded(blob(), "PNG")}))


@pytest.mark.parametrize(
    ("mask", "kind"),
    [
        (blob(1), "PNG"),
        (blob(7), "PNG"),
        (blob() > 0, "PNG"),
        (blob() > 0, "TIFF"),
        (np.repeat(blob()[..., None], 3, -1), "PNG"),
        (blob()[..., None] * np.array([1, 0, 0], np.uint8), "PNG"),
        (blob().astype(np.uint16) * 257, "PNG"),
        (blob().astype(np.float32) / 255, "TIFF"),
    ],
)
def test_masks_of_two_values(mask: Pixels, kind: str) -> None:
    study = read(named(**{"1.png": encoded(rgb(), "PNG"), "1_mask.png": encoded(mask, kind)}))
    assert study.reference is not None
    np.testing.assert_array_equal(study.reference[0], blob() > 0)


def test_palette_mask() -> None:
    image = Image.fromarray(blob(1)).convert("P")
    image.putpalette([0, 0, 0, 128, 0, 0])
    out = io.BytesIO()
    image.save(out, "PNG")
    study = read(named(**{"1.png": encoded(rgb(), "PNG"), "1_mask.png": out.getvalue()}))
    assert study.reference is not None
    np.testing.assert_array_equal(study.reference[0], blob() > 0)


def test_jpeg_mask_is_cut_and_said() -> None:
    disc = np.hypot(*np.ogrid[-64:64, -64:64]) < 20
    jpeg = encoded(disc.astype(np.uint8) * 255, "JPEG", quality=95)
    study = read(named(**{"1.png": encoded(rgb(side=128), "PNG"), "1_mask.jpg": jpeg}))
    assert study.reference is not None
    np.testing.assert_array_equal(study.reference[0], disc)
    assert any("soft edges" in note for note in study.notes)


@pytest.mark.parametrize(
    "mask",
    [
        blob(1) + blob(1).T,
        blob(1) + 1,
        np.full((SIDE, SIDE), 255, np.uint8),
        blob()[..., None] * np.array([1, 0, 0], np.uint8)
        + blob().T[..., None] * np.array([0, 1, 0], np.uint8),
        grey(),
    ],
    ids=["labels", "no zero", "full", "colours", "image"],
)
def test_masks_of_other_values_are_refused(mask: Pixels) -> None:
    files = named(**{"1.png": encoded(rgb(), "PNG"), "1_mask.png": encoded(mask, "PNG")})
    assert '"1_mask.png"' in refusal(files)


# --- depths ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.float32, np.float64, np.uint32])
@pytest.mark.parametrize("options", [{}, {"byteorder": ">"}, {"compression": "zlib"}, {"bigtiff": True}])
def test_deep_colour_tiff_is_kept(dtype: Any, options: dict[str, Any]) -> None:
    pixels = (rgb().astype(np.float64) * 255).astype(dtype)
    study = read([NamedBytes("1.tif", deep_tiff(pixels, **options))])
    assert study.slices.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(study.slices[0], pixels)
    assert any(str(np.dtype(dtype)) in note for note in study.notes)


def test_bits_become_numbers() -> None:
    black, white = (np.full((SIDE, SIDE), bit) for bit in (False, True))
    study = read(named(**{"1.png": encoded(black, "PNG"), "2.png": encoded(white, "PNG")}))
    assert study.slices.dtype == np.uint8
    assert [np.unique(one).tolist() for one in study.slices] == [[0], [255]]


def test_planar_tiff() -> None:
    pixels = rgb().astype(np.uint16) * 200
    data = deep_tiff(np.moveaxis(pixels, -1, 0), planarconfig="separate")
    np.testing.assert_array_equal(read([NamedBytes("1.tif", data)]).slices[0], pixels)


@pytest.mark.parametrize(
    ("pixels", "kind"),
    [
        (grey(), "PNG"),
        (grey(), "TIFF"),
        (grey(dtype=np.uint16) * 300, "PNG"),
        (grey(dtype=np.uint16) * 300, "TIFF"),
        (grey(dtype=np.int32) - 100, "TIFF"),
        (grey(dtype=np.float32) / 7, "TIFF"),
    ],
)
def test_one_channel_is_used_for_all_three(pixels: Pixels, kind: str) -> None:
    study = read([NamedBytes("1.x", encoded(pixels, kind))])
    for channel in range(3):
        np.testing.assert_array_equal(study.slices[0, ..., channel], pixels)
    assert study.slices.dtype == pixels.dtype
    assert [note for note in study.notes if "only one sequence was given" in note.lower()]
    assert not [note for note in study.notes if "equals" in note]


def test_constant_alpha_is_dropped_and_varying_refused() -> None:
    alpha = np.full((SIDE, SIDE, 1), 255, np.uint8)
    study = read([NamedBytes("1.png", encoded(np.concatenate([rgb(), alpha], -1), "PNG"))])
    np.testing.assert_array_equal(study.slices[0], rgb())
    assert study.notes == ("A constant transparency channel was dropped from 1 file.",)
    alpha[0] = 0
    assert "transparency" in refusal(
        [NamedBytes("1.png", encoded(np.concatenate([rgb(), alpha], -1), "PNG"))]
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("shape", [(SIDE, SIDE), (SIDE, SIDE, 3)])
def test_not_a_number_is_refused(value: float, shape: tuple[int, ...]) -> None:
    pixels = np.ones(shape, np.float32)
    pixels[3, 3] = value
    out = io.BytesIO()
    tifffile.imwrite(out, pixels, photometric="rgb" if len(shape) == 3 else "minisblack")
    assert "NaN" in refusal([NamedBytes("1.tif", out.getvalue())])


def test_jpeg_slices_are_said_to_be_lossy() -> None:
    study = read([NamedBytes("1.jpg", encoded(rgb(), "JPEG"))])
    assert study.source.format == "jpeg"
    assert any("JPEG" in note for note in study.notes)


def png16_rgb() -> bytes:
    data = bytearray(encoded(rgb(), "PNG"))
    data[24] = 16
    return bytes(data)


def test_16_bit_colour_png_is_refused_rather_than_cut() -> None:
    assert "16-bit TIFF" in refusal([NamedBytes("1.png", png16_rgb())])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_other_numbers_of_channels_are_refused(dtype: Any) -> None:
    out = io.BytesIO()
    tifffile.imwrite(out, np.ones((SIDE, SIDE, 6), dtype), photometric="minisblack", planarconfig="contig")
    assert "6 channels" in refusal([NamedBytes("1.tif", out.getvalue())])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_stack_of_too_many_voxels_is_refused(dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.BytesIO()
    tifffile.imwrite(out, np.ones((3, SIDE, SIDE, 3), dtype), photometric="rgb", compression="zlib")
    monkeypatch.setattr("brainseg.io.readers.reader.MAX_VOXELS", 2 * SIDE * SIDE)
    assert "voxels" in refusal([NamedBytes("P.tif", out.getvalue())])


def test_colour_space_is_refused() -> None:
    out = io.BytesIO()
    Image.fromarray(rgb()).convert("CMYK").save(out, "JPEG")
    assert "CMYK" in refusal([NamedBytes("1.jpg", out.getvalue())])


# --- notes -------------------------------------------------------------------------------------------------


def test_missing_sequences_are_said() -> None:
    post = rgb()
    post[..., 2] = post[..., 1]
    both = post.copy()
    both[..., 0] = both[..., 1]
    blank = rgb()
    blank[..., 0] = 0
    said = "equals FLAIR in every slice: the sequence was probably missing."
    assert read([NamedBytes("1.tif", encoded(post))]).notes == (f"Post-contrast {said}",)
    assert read([NamedBytes("1.tif", encoded(both))]).notes == (
        f"Pre-contrast {said}",
        f"Post-contrast {said}",
    )
    assert "Pre-contrast is blank" in read([NamedBytes("1.tif", encoded(blank))]).notes[0]
    # In one slice only, the sequence is there.
    assert read(named(**{"1.tif": encoded(post), "2.tif": encoded(rgb(2))})).notes == ()


def test_blank_study_is_refused() -> None:
    assert "blank" in refusal([NamedBytes("1.tif", encoded(np.zeros((SIDE, SIDE, 3), np.uint8)))])


def test_gaps_are_said() -> None:
    files = [file for file in lgg(6) if "_3" not in file.name and "_5" not in file.name]
    study = read(files)
    assert study.slice_numbers == (1, 2, 4, 6)
    assert "3 and 5 are missing" in study.notes[0]
    assert "begin at 4" in read([NamedBytes("4.tif", encoded(rgb()))]).notes[0]


def test_slices_without_mask_are_said_to_count_as_empty() -> None:
    study = read([file for file in lgg(4) if not file.name.endswith(("2_mask.tif", "3_mask.tif"))])
    assert study.reference is not None
    assert study.reference.any((1, 2)).tolist() == [True, False, False, False]
    assert "No mask was given for slices 2 and 3: they count as having no tumour" in study.notes[0]


def test_masks_that_mark_nothing_are_said() -> None:
    study = read(named(**{"1.tif": encoded(rgb()), "1_mask.tif": encoded(blob(0))}))
    assert study.notes == ("The masks given mark no tumour.",)


def test_spacing() -> None:
    assert read(lgg(1), spacing_mm=(5.0, 0.5, 0.5)).spacing_mm == (5.0, 0.5, 0.5)
    for wrong in ((0.0, 1.0, 1.0), (1.0, float("nan"), 1.0), (1.0, 1.0)):
        with pytest.raises(InputError, match="spacing"):
            read(lgg(1), spacing_mm=wrong)


# --- bad input ---------------------------------------------------------------------------------------------


def tiff_of_size(width: int, height: int) -> bytes:
    data = encoded(blob())
    for tag, value in ((256, width), (257, height)):
        at = data.index(tag.to_bytes(2, "little") + b"\4\0\1\0\0\0")
        data = data[: at + 8] + value.to_bytes(4, "little") + data[at + 12 :]
    return data


def png_of_size(width: int, height: int) -> bytes:
    data = bytearray(encoded(blob(), "PNG"))
    data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


BAD_FILES: dict[str, tuple[bytes, str]] = {
    "truncated": (encoded(rgb())[:600], "damaged"),
    "truncated png": (encoded(rgb(), "PNG")[:600], "damaged"),
    "truncated jpeg": (encoded(rgb(), "JPEG")[:600], "damaged"),
    "truncated deep": (deep_tiff(rgb().astype(np.uint16))[:600], "damaged"),
    "directory cut off": (encoded(rgb())[:14], "damaged or cut short"),
    "no directory": (b"II*\0\x08\0\0\0", "damaged or cut short"),
    "header only": (b"II*\0", "damaged"),
    "zero bytes": (b"", "empty"),
    "text": (b"patient notes\n", "text"),
    "zip": (b"PK\3\4" + bytes(40), "zip"),
    "dicom": (bytes(128) + b"DICM", "DICOM"),
    "huge tiff": (tiff_of_size(60_000, 60_000), "larger than 4,096"),
    "huge png": (png_of_size(60_000, 60_000), "larger than 4,096"),
    "big tiff": (tiff_of_size(11_000, 11_000), "larger than 4,096"),
    "wide png": (png_of_size(4_097, 1), "larger than 4,096"),
    "no pixels": (tiff_of_size(32, 0), "3.tif"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_file(case: str, capfd: pytest.CaptureFixture[str]) -> None:
    data, word = BAD_FILES[case]
    message = refusal([*lgg(2), NamedBytes(f"{PATIENT}_3.tif", data)])
    assert f'"{PATIENT}_3.tif"' in message
    assert word in message
    assert capfd.readouterr() == ("", "")


def without(files: list[NamedBytes], *names: str) -> list[NamedBytes]:
    return [file for file in files if not file.name.endswith(names)]


BAD_SETS: dict[str, tuple[Callable[[], list[NamedBytes]], tuple[str, ...]]] = {
    "nothing": (list, ("No files",)),
    "no images": (lambda: named(**{"data.csv": b"a,b", "README": b"x"}), ('"data.csv"', "2 files")),
    "dicom": (lambda: named(**{"IM1": bytes(128) + b"DICM"}), ('"IM1"', "not a DICOM image")),
    "dicom by name": (lambda: named(**{"1.dcm": b"x"}), ('"1.dcm"', "DICOM")),
    "nifti": (lambda: named(**{"brain.nii.gz": b"x"}), ('"brain.nii.gz"', "NIfTI")),
    "mixed sizes": (
        lambda: [*lgg(3), NamedBytes(f"{PATIENT}_4.tif", encoded(rgb(side=40)))],
        (f'"{PATIENT}_4.tif" is 40 x 40', "32 x 32"),
    ),
    "mixed channels": (
        lambda: [*lgg(3), NamedBytes(f"{PATIENT}_4.tif", encoded(grey()))],
        (f'"{PATIENT}_4.tif" has 1 channel',),
    ),
    "mixed depths": (
        lambda: [*lgg(3), NamedBytes(f"{PATIENT}_4.tif", deep_tiff(rgb().astype(np.uint16)))],
        ("uint16", "uint8"),
    ),
    "repeated number": (
        lambda: [*lgg(3), NamedBytes(f"{PATIENT}_03.tif", encoded(rgb()))],
        (f'"{PATIENT}_03.tif"', f'"{PATIENT}_3.tif"'),
    ),
    "repeated mask": (
        lambda: [*lgg(3), NamedBytes(f"{PATIENT}_3_seg.tif", encoded(blob()))],
        (f'"{PATIENT}_3_mask.tif"', f'"{PATIENT}_3_seg.tif"', "both mask 3"),
    ),
    "same file twice": (lambda: [*lgg(1), *lgg(1)], (f'"{PATIENT}_1.tif"',)),
    "mask without slice": (
        lambda: without(lgg(3), "0101_2.tif"),
        (f'"{PATIENT}_2_mask.tif"', "slice 2, which was not given"),
    ),
    "mask of another size": (
        lambda: [
            *lgg(3),
            *named(**{f"{PATIENT}_4.tif": encoded(rgb()), f"{PATIENT}_4_mask.tif": encoded(blob(side=40))}),
        ],
        (f'"{PATIENT}_4_mask.tif" is 40 x 40', "32 x 32"),
    ),
    "mask without number": (
        lambda: [*lgg(3), NamedBytes(f"{PATIENT}_mask.tif", encoded(blob()))],
        (f'"{PATIENT}_mask.tif" has no slice number',),
    ),
    "too many slices": (
        lambda: [NamedBytes(f"{n}.tif", b"") for n in range(2 * MAX_SLICES)],
        ("2,000 slices", "1,000"),
    ),
}


@pytest.mark.parametrize("case", BAD_SETS)
def test_bad_set(case: str) -> None:
    build, words = BAD_SETS[case]
    message = refusal(build())
    for word in words:
        assert word in message


def test_case_ids_are_safe() -> None:
    for name in ("../1.png", "/..\\../1.png", "a\nb\x1b[0m\u202e_1.png", "\udcff_1.png"):
        (case,) = find_cases(expand([NamedBytes(name, encoded(rgb(), "PNG"))]))
        assert case.case_id.isprintable()
        assert not set("/\\") & set(case.case_id)
        assert case.case_id.strip(".")
        assert all(file.name.isprintable() for file in read_case(case).source.files)


def test_names_are_shown_safe_and_short() -> None:
    message = refusal([NamedBytes("\x1b[31m\u202e" + "é" * 300 + "_1.tif", b"")])
    assert "\x1b" not in message
    assert "\u202e" not in message
    assert len(message) < 160


def test_listed() -> None:
    assert [listed(range(n)) for n in range(4)] == ["", "0", "0 and 1", "0, 1 and 2"]
    assert listed(range(20), most=2) == "0, 1 and 18 more"


# --- whole properties --------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.permutations([*lgg(5), NamedBytes("data.csv", b"x")]))
def test_order_of_files_does_not_matter(files: list[NamedBytes]) -> None:
    assert same(read(files), read([*lgg(5), NamedBytes("data.csv", b"x")]))


HEADS = [b"", b"II*\0", b"MM\0*", b"II+\0", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"PK\x03\x04"]


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(HEADS),
    st.binary(max_size=200),
    st.sampled_from(["1.tif", "1_mask.png", "x.zip", "x", "a/b.jpg", "1.dcm"]),
)
def test_random_bytes_raise_input_error_only(head: bytes, tail: bytes, name: str) -> None:
    with contextlib.suppress(InputError):
        read([NamedBytes(name, head + tail)])


GOOD = [
    encoded(rgb()),
    encoded(rgb(), compression="tiff_lzw"),
    encoded(rgb(), "PNG"),
    encoded(rgb(), "JPEG"),
    deep_tiff(rgb().astype(np.float32)),
]


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(GOOD),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=6),
    st.data(),
)
def test_damaged_images_raise_input_error_only(
    good: bytes, changes: list[tuple[int, int]], data: st.DataObject
) -> None:
    damaged = bytearray(good)
    for at, value in changes:
        damaged[at % len(damaged)] = value
    cut = data.draw(st.integers(1, len(damaged)))
    try:
        study = read([NamedBytes("1.tif", bytes(damaged[:cut]))])
    except InputError:
        return
    assert study.slices.shape[-1] == 3


def test_digest_follows_content_and_names() -> None:
    digest = read(lgg(2)).source.sha256
    files = lgg(2)
    files[0] = replace(files[0], data=encoded(rgb(99)))
    assert read(files).source.sha256 != digest
    assert read(lgg(2, patient="XYZ")).source.sha256 != digest
    assert read(lgg(2, folder="some/where/")).source.sha256 == digest


def test_read_case_needs_no_find_cases() -> None:
    assert same(read_case(Case(PATIENT, tuple(reversed(lgg(3))))), read(lgg(3)))


def test_import_is_light() -> None:
    code = "import sys, brainseg.io; print({'torch', 'streamlit', 'cv2', 'scipy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_disk_read(tmp_path: Path) -> None:
    folder = tmp_path / "any name"
    folder.mkdir()
    for file in lgg(3):
        (folder / file.name).write_bytes(file.data)
    assert same(read_study(folder), read(lgg(3)))
    assert same(read_study(sorted(folder.iterdir())), read(lgg(3)))
    assert collect(folder)[0].name == f"any name/{PATIENT}_1.tif"


def test_two_thousand_files_of_one_patient_are_read() -> None:
    """The most one patient may have: every slice with its mask."""
    image, mask = encoded(rgb(side=16)), encoded(blob(side=16))
    files = [
        NamedBytes(f"{PATIENT}_{number}{kind}.tif", data)
        for number in range(1, MAX_SLICES + 1)
        for kind, data in (("", image), ("_mask", mask))
    ]
    assert len(files) == 2_000
    study = read(files)
    assert study.shape == (MAX_SLICES, 16, 16)
    assert study.reference is not None
    assert study.slice_numbers == tuple(range(1, MAX_SLICES + 1))
