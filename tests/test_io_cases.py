"""What is nobody's slice: our own results, discs of DICOM, links; and slices that programs saved oddly."""

from __future__ import annotations

import io
import os
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from brainseg.io import Case, NamedBytes, collect, expand, find_cases, read_case, read_study
from brainseg.io.sniff import HEAD, is_own_result
from brainseg.postprocess import find
from brainseg.report import masks_zip, overlays_zip
from brainseg.types import InputError, Prediction, Study

SIDE = 32
Pixels = npt.NDArray[Any]


def encoded(pixels: Pixels, kind: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind, **options)
    return out.getvalue()


def rgb(seed: int) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), np.uint8)


def mask(top: int = 255) -> Pixels:
    pixels = np.zeros((SIDE, SIDE), np.uint8)
    pixels[8:14, 10:18] = top
    return pixels


def patient(count: int = 4, kind: str = "TIFF") -> list[NamedBytes]:
    return [NamedBytes(f"P/P_{n}.tif", encoded(rgb(n), kind)) for n in range(1, count + 1)]


def read(files: list[NamedBytes], **options: Any) -> Study:
    (case,) = find_cases(expand(files))
    return read_case(case, **options)


def refusal(files: list[NamedBytes]) -> str:
    with pytest.raises(InputError) as caught:
        read(files)
    message = str(caught.value)
    assert message.endswith(".")
    assert ":" in message
    return message


# --- our own results ---------------------------------------------------------------------------------------


def results(what: Literal["tif", "png", "overlays"], models: int = 1) -> list[NamedBytes]:
    study = read(patient())
    probability = np.zeros(study.shape, np.float32)
    probability[:, 8:14, 10:18] = 0.9
    found = [
        find(Prediction(f"model {m}" * 20, "unet", study.case_id, probability, threshold=0.4, keep="all"))
        for m in range(models)
    ]
    packed = overlays_zip(study, found) if what == "overlays" else masks_zip(study, found, what)
    return expand([NamedBytes("out.zip", packed)])


@pytest.mark.parametrize("models", [1, 12])
@pytest.mark.parametrize("what", ["tif", "png", "overlays"])
def test_own_results_are_neither_reference_nor_slices(what: Any, models: int) -> None:
    own = [file for file in results(what, models) if not file.name.endswith(".txt")]
    assert own
    assert all(is_own_result(file.head(HEAD)) for file in own)
    plain = read(patient())
    for folder in ("P/results/", "P/masks/", "P/"):
        study = read([*patient(), *(NamedBytes(f"{folder}{file.name}", file.data) for file in own)])
        assert study.reference is None
        assert np.array_equal(study.slices, plain.slices)
        assert study.source.sha256 == plain.source.sha256
        assert any("a result that brainseg itself wrote" in note for note in study.notes)
        assert sum(file.role == "ignored" for file in study.source.files) == len(own)


@pytest.mark.parametrize(
    "name", ["P/P_{}_seg.tif", "P/GT/P_{}.tif", "P/reference {}.png", "P/P_{}_mask.TIFF"]
)
def test_own_masks_are_known_under_any_name(name: str) -> None:
    own = [file for file in results("tif") if file.name.endswith(".tif")]
    given = [NamedBytes(name.format(n), file.data) for n, file in enumerate(own, 1)]
    assert read([*patient(), *given]).reference is None
    true = [NamedBytes(f"P/P_{n}_mask.tif", encoded(mask(), "TIFF")) for n in range(1, 5)]
    study = read([*patient(), *given, *true] if "_mask" not in name else [*patient(), *true])
    assert study.reference is not None
    assert study.reference.any((1, 2)).all()


def test_own_masks_are_known_in_a_case_made_by_hand() -> None:
    own = [NamedBytes(f"P/{file.name}", file.data) for file in results("png") if file.name.endswith(".png")]
    study = read_case(Case("P", (*patient(), *own)))
    assert study.reference is None
    unnamed = [NamedBytes(f"P_{n}.png", file.data) for n, file in enumerate(own, 1)]
    with pytest.raises(InputError, match="brainseg itself wrote"):
        read_case(Case("P", tuple(unnamed)))
    assert "brainseg itself wrote" in refusal(own)


def test_own_masks_are_known_after_another_program_saved_them() -> None:
    own = next(file for file in results("tif") if file.name.endswith(".tif"))
    with Image.open(io.BytesIO(own.data)) as image:
        tags = {code: image.tag_v2[code] for code in (270, 305)}  # type: ignore[attr-defined]
        pixels = np.asarray(image)
    out = io.BytesIO()
    tifffile.imwrite(
        out, pixels, description=str(tags[270]), software=str(tags[305]), metadata=None, byteorder=">"
    )
    assert is_own_result(out.getvalue())
    assert not is_own_result(encoded(mask(), "TIFF"))
    assert not is_own_result(encoded(mask()))
    for cut in range(0, 400, 7):
        is_own_result(out.getvalue()[:cut])


# --- DICOM -------------------------------------------------------------------------------------------------

DICOM = bytes(128) + b"DICM" + bytes(300)


def icons(folder: str, count: int = 3) -> list[NamedBytes]:
    return [NamedBytes(f"CD/{folder}toolbar_{n}.png", encoded(rgb(n)[:24, :24])) for n in range(1, count + 1)]


@pytest.mark.parametrize("folder", ["VIEWER/img/", "Viewer/", "icons/", "html/pics/", "", "DICOM/", "x/"])
@pytest.mark.parametrize("directory", [True, False])
def test_discs_are_not_read_as_their_icons(folder: str, directory: bool) -> None:
    files = [NamedBytes(f"CD/DICOM/IM{n:04d}", DICOM) for n in range(5)]
    if directory:
        files = [*files[:2], NamedBytes("CD/DICOMDIR", DICOM)]
    message = refusal([*icons(folder), *files])
    assert '"IM0000" cannot be used, as it is not a DICOM image' in message


def test_many_icons_beside_little_dicom() -> None:
    files = [NamedBytes("CD/IM0000", DICOM), *icons("viewer/", 40)]
    assert '"IM0000" cannot be used, as it is not a DICOM image' in refusal(files)


def test_previews_beside_volumes_are_nobodys_slices() -> None:
    for name in ("brain.nii.gz", "brain.nrrd", "brain.mha"):
        files = [NamedBytes(f"P/{name}", b"x"), NamedBytes("P/preview.png", encoded(rgb(1)))]
        assert f'"{name}" cannot be used' in refusal(files)


def test_slices_beside_a_little_dicom_are_read_and_it_is_said() -> None:
    study = read([*patient(), NamedBytes("P/IM0001", DICOM)])
    assert study.shape[0] == 4
    assert any('"IM0001" was ignored: it is not a DICOM image' in note for note in study.notes)


@pytest.mark.parametrize("preamble", [b"II*\0", b"MM\0*", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b""])
def test_dicom_is_named_whatever_its_preamble_holds(preamble: bytes) -> None:
    data = preamble.ljust(128, b"\0") + b"DICM" + bytes(300)
    for name in ("IM000000", "a/IM000000.tif", "1.png", "x.dcm"):
        assert "DICOM" in refusal([NamedBytes(name, data)])


# --- links -------------------------------------------------------------------------------------------------


def write(folder: Path, files: list[NamedBytes]) -> Path:
    for file in files:
        path = folder / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.data)
    return folder


def test_linked_folders_are_read(tmp_path: Path) -> None:
    masks = [NamedBytes(f"elsewhere/P_{n}.tif", encoded(mask(), "TIFF")) for n in range(1, 5)]
    root = write(tmp_path, [*patient(), *masks])
    (root / "P" / "masks").symlink_to(root / "elsewhere")
    study = read_study(root / "P")
    assert study.reference is not None
    assert study.reference.any((1, 2)).all()


def test_links_in_a_circle_end_and_are_said(tmp_path: Path) -> None:
    root = write(tmp_path, patient())
    (root / "P" / "again").symlink_to(root / "P")
    (root / "P" / "above").symlink_to(root)
    study = read_study(root / "P")
    assert study.shape[0] == 4
    assert [file.name for file in study.source.files if file.role == "ignored"] == ["above", "again"]
    assert any("a link to a folder that is read anyway" in note for note in study.notes)


def test_links_to_nothing_are_said(tmp_path: Path) -> None:
    masks = [NamedBytes(f"P/P_{n}_mask.tif", encoded(mask(), "TIFF")) for n in range(1, 5)]
    root = write(tmp_path, [*patient(), *masks])
    for path in [root / "P" / "P_3.tif", *sorted((root / "P").glob("*_mask.tif"))]:
        path.unlink()
        path.symlink_to(f"../.git/annex/objects/{path.name}")
    study = read_study(root / "P")
    assert study.slice_numbers == (1, 2, 4)
    assert any("3 is missing" in note for note in study.notes)
    (note,) = [note for note in study.notes if "a link to content that is not here" in note]
    assert "were ignored" in note
    for path in (root / "P").glob("*.tif"):
        path.unlink()
        path.symlink_to("../nowhere")
    with pytest.raises(InputError, match=r'"P_.*link to content that is not here'):
        read_study(root / "P")
    with pytest.raises(InputError, match="link to content that is not here"):
        read_study(root / "P" / "P_1.tif")


def test_pipes_are_said_and_not_opened(tmp_path: Path) -> None:
    root = write(tmp_path, patient())
    os.mkfifo(root / "P" / "P_9.tif")
    study = read_study(root / "P")
    assert study.shape[0] == 4
    assert any("a pipe or device" in note for note in study.notes)


def test_finding_cases_reads_beginnings_only(tmp_path: Path) -> None:
    root = write(tmp_path, patient())
    file = next(file for file in collect(root) if file.name.endswith("P_1.tif"))
    assert file.head(4) == file.data[:4]
    assert len(file.head(10)) == 10


# --- slices saved oddly ------------------------------------------------------------------------------------


@pytest.mark.parametrize("blank", [np.zeros((SIDE, SIDE), np.bool_), np.zeros((SIDE, SIDE), np.uint8)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_blank_slices_in_fewer_bits_are_slices(blank: Pixels, dtype: Any) -> None:
    out = {}
    for n in range(1, 5):
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, rgb(n).astype(dtype), photometric="rgb")
        out[n] = buffer.getvalue()
    files = [NamedBytes(f"P_{n}.tif", data) for n, data in out.items()]
    study = read([*files, NamedBytes("P_5.png", encoded(blank)), NamedBytes("P_6.png", encoded(blank))])
    assert study.slices.dtype == dtype
    assert study.slices[:4].any((1, 2, 3)).all()
    assert not study.slices[4:].any()


def test_one_bit_slices_are_black_and_white() -> None:
    files = [NamedBytes(f"P_flair_{n}.png", encoded(rgb(n)[..., 0] > 99)) for n in (1, 2)]
    study = read(files)
    assert study.slices.dtype == np.uint8
    np.testing.assert_array_equal(study.slices[0, ..., 1], np.where(rgb(1)[..., 0] > 99, 255, 0))


def test_a_grey_slice_that_holds_something_is_still_refused_among_colour() -> None:
    grey = encoded(rgb(9)[..., 0])
    assert "1 channel" in refusal([*patient(), NamedBytes("P/P_5.tif", grey)])


def test_grey_saved_as_colour_is_grey() -> None:
    files = [NamedBytes(f"P_{n}.png", encoded(rgb(n)[..., 0])) for n in range(1, 5)]
    colour = encoded(np.repeat(rgb(5)[..., :1], 3, -1))
    study = read([*files, NamedBytes("P_5.png", colour)])
    np.testing.assert_array_equal(study.slices[4, ..., 0], rgb(5)[..., 0])


def stretched(count: int) -> list[NamedBytes]:
    return [NamedBytes(f"P_{n}.png", encoded(rgb(n)[..., 0])) for n in range(1, count + 1)]


@pytest.mark.parametrize("bits", [8, 1])
def test_a_stretched_blank_slice_is_a_slice_and_said(bits: int) -> None:
    stray = np.zeros((SIDE, SIDE), np.uint8)
    stray[3, 4:9] = 255
    last = encoded(stray if bits == 8 else stray > 0)
    study = read([*stretched(7), NamedBytes("P_8.png", last)])
    assert study.reference is None
    assert study.slices.dtype == np.uint8
    np.testing.assert_array_equal(study.slices[7, ..., 0], stray)
    assert any("Only black and white, but read as slices" in note for note in study.notes)


def test_unnamed_masks_are_not_taken_for_stretched_slices() -> None:
    marks = [NamedBytes(f"P_{n}.png", encoded(mask())) for n in range(5, 8)]
    assert "as a mask does" in refusal([*stretched(4), *marks])
    assert "as a mask does" in refusal([*patient(), NamedBytes("P/P_5.png", encoded(mask()))])


def check_sentence(error: InputError) -> None:
    assert str(error).endswith(".")
    assert "\n" not in str(error)


NAMES = st.sampled_from(
    [
        *("P_{}.png", "P_{}_mask.png", "P_t1_{}.png", "P_flair_{}.png", "P_{}_0001.png", "s ({}).png"),
        *("masks/{}.png", "FLAIR/{}.png", "imagesTr/P_{}.png", "labelsTr/P_{}.png", "{}.dcm", "x{}.tif"),
    ]
)
CONTENTS = st.sampled_from(
    [
        encoded(rgb(1)),
        encoded(rgb(2)[..., 0]),
        encoded(mask()),
        encoded(mask() > 0),
        encoded(np.zeros((SIDE, SIDE), np.bool_)),
        encoded(rgb(3)[:20]),
        DICOM,
        b"",
        b"text",
    ]
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(NAMES, st.integers(0, 4), CONTENTS), max_size=9, unique_by=lambda file: file[:2]),
    st.sampled_from([None, ("flair", "pre", "post")]),
)
def test_every_file_is_read_or_named(
    given_files: list[tuple[str, int, bytes]], channels: tuple[str, ...] | None
) -> None:
    files = [NamedBytes(f"d/{name.format(n)}", data) for name, n, data in given_files]
    try:
        cases = find_cases(files)
    except InputError as error:
        check_sentence(error)
        return
    seen = {file.name for case in cases for file in case.files}
    seen |= {f"d/{file.name}".removeprefix("d/d/") for case in cases for file in case.ignored}
    accounted = {PurePosixPath(name).name for name in seen}
    for case in cases:
        try:
            study = read_case(case, channels=channels)
        except InputError as error:
            check_sentence(error)
            continue
        listed = {PurePosixPath(file.name).name for file in study.source.files}
        assert {PurePosixPath(file.name).name for file in case.files} <= listed
        again = read_case(Case(case.case_id, case.files[::-1], case.ignored), channels=channels)
        assert np.array_equal(again.slices, study.slices)
        assert again.source == study.source
    assert {PurePosixPath(file.name).name for file in files} == accounted


@pytest.mark.parametrize(
    "spacing", [(1e-9, 1, 1), (5, 0.009, 1), (5, 1, 101), (1e6, 1, 1), (-1, 1, 1), (float("inf"), 1, 1)]
)
def test_spacing_out_of_bounds_is_refused(spacing: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"from 0\.01 to 100"):
        read(patient(), spacing_mm=spacing)
    with pytest.raises(InputError, match=r"from 0\.01 to 100"):
        read_study(write(tmp_path, patient()) / "P", spacing_mm=spacing)


def test_spacing_within_bounds_is_kept() -> None:
    for spacing in ((0.01, 0.01, 0.01), (100.0, 1.0, 1.0)):
        assert read(patient(), spacing_mm=spacing).spacing_mm == spacing


def test_split_folders_are_sets_of_their_own() -> None:
    files = [
        NamedBytes(f"d/{split}_{kind}/{n}.png", encoded(rgb(n) if kind == "images" else mask()))
        for split in ("train", "test")
        for kind in ("images", "masks")
        for n in (1, 2)
    ]
    cases = find_cases(files)
    assert [case.case_id for case in cases] == ["test", "train"]
    for case in cases:
        assert read_case(case).reference is not None
    (alone,) = find_cases(files[:4])
    assert alone.case_id == "d"
