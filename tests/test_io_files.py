"""Folders, zips and data sets of many patients."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from brainseg.io import NamedBytes, collect, expand, find_cases, read_case, read_study
from brainseg.types import InputError, Study

SIDE = 32


def tiff(seed: int, *, mask: bool = False) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    out = io.BytesIO()
    if mask:
        pixels = (pixels[..., 0] > 240).astype(np.uint8) * 255
    Image.fromarray(pixels).save(out, "TIFF")
    return out.getvalue()


def patient(name: str = "ABC_01_0001_20000101", count: int = 3) -> dict[str, bytes]:
    files = {}
    for n in range(1, count + 1):
        files[f"{name}_{n}.tif"] = tiff(n)
        files[f"{name}_{n}_mask.tif"] = tiff(n, mask=True)
    return files


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def packed(files: dict[str, bytes], *, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


def upload(files: dict[str, bytes]) -> Study:
    (case,) = find_cases(expand([NamedBytes(name, data) for name, data in files.items()]))
    return read_case(case)


def same(one: Study, other: Study) -> bool:
    assert one.reference is not None
    assert other.reference is not None
    return (
        np.array_equal(one.slices, other.slices)
        and np.array_equal(one.reference, other.reference)
        and (one.case_id, one.source, one.slice_numbers, one.notes)
        == (other.case_id, other.source, other.slice_numbers, other.notes)
    )


@pytest.mark.parametrize(
    "files",
    [
        patient(),
        patient("Jürgen Ölmann 漢字"),
        {
            f"P/{kind}/{n}.tif": tiff(n, mask=kind == "masks")
            for n in range(1, 4)
            for kind in ("images", "masks")
        },
    ],
    ids=["lgg", "unicode", "folders"],
)
def test_folder_zip_and_upload_read_alike(tmp_path: Path, files: dict[str, bytes]) -> None:
    folder = write(tmp_path / "in", files)
    archive = tmp_path / "some patient.zip"
    archive.write_bytes(packed(files))
    expected = upload(files)
    assert same(read_study(folder), expected)
    assert same(read_study(archive), expected)
    assert same(read_study([archive]), expected)
    assert same(upload({"x.zip": packed(files)}), expected)
    assert same(upload({"x.ZIP": packed(files, method=zipfile.ZIP_STORED)}), expected)
    assert same(upload({f"a/b/{name}": data for name, data in files.items()}), expected)
    assert same(upload({f"a\\b\\{name}": data for name, data in files.items()}), expected)
    assert same(upload({"outer.zip": packed({"inner.zip": packed(files)})}), expected)


def test_decomposed_accents_and_undeclared_utf8_are_one_patient() -> None:
    expected = upload(patient("Zoë"))
    assert same(
        upload({name.replace("ë", "e\u0308"): data for name, data in patient("Zoë").items()}), expected
    )
    raw = packed({name.replace("ë", "##"): data for name, data in patient("Zoë").items()})
    assert same(upload({"x.zip": raw.replace(b"##", "ë".encode())}), expected)


def test_system_files_are_left_out(tmp_path: Path) -> None:
    files = patient()
    junk = ["__MACOSX/._a.tif", ".DS_Store", "Thumbs.db", ".hidden/1.tif", "sub/.git/2.tif"]
    extended = {**files, **dict.fromkeys(junk, b"x")}
    expected = upload(files)
    assert same(upload(extended), expected)
    assert same(upload({"x.zip": packed(extended)}), expected)
    assert same(read_study(write(tmp_path / ".hidden", extended)), expected)


def test_stray_files_are_reported() -> None:
    study = upload(
        {
            "d/data.csv": b"x",
            "d/P/scan.nii.gz": b"x",
            "d/P/shot.png": b"x",
            **{f"d/P/{name}": data for name, data in patient().items()},
        }
    )
    ignored = {file.name: file.note for file in study.source.files if file.role == "ignored"}
    assert ignored["data.csv"] == "not an image"
    assert "NIfTI" in ignored["scan.nii.gz"]
    assert "no slice number" in ignored["shot.png"]
    assert len(study.notes) == 2
    assert all("was ignored" in note for note in study.notes)


# --- several patients --------------------------------------------------------------------------------------


def test_cases_of_a_data_set(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for name in ("P_a_2", "P_a_10", "P_b_1"):
        write(root / name, patient(f"{name}_20000101"))
    write(root, {"data.csv": b"x"})
    cases = find_cases(collect(root))
    assert [case.case_id for case in cases] == ["P_a_2_20000101", "P_a_10_20000101", "P_b_1_20000101"]
    assert [len(case.files) for case in cases] == [6, 6, 6]
    assert [file.name for case in cases for file in case.ignored] == ["data.csv"] * 3
    # The order of names, not of the disk: 2 before 10.
    one = read_study(root, case_id="P_a_10_20000101")
    assert same(one, read_case(cases[1]))
    with pytest.raises(InputError, match=r'3 patients .*"P_a_2_20000101"'):
        read_study(root)
    with pytest.raises(InputError, match='no patient "nobody"'):
        read_study(root, case_id="nobody")


def test_a_damaged_patient_does_not_disturb_the_others() -> None:
    files = {**patient("A"), **patient("B"), "B_9.tif": b""}
    cases = find_cases([NamedBytes(name, data) for name, data in files.items()])
    assert [case.case_id for case in cases] == ["A", "B"]
    read_case(cases[0])
    with pytest.raises(InputError, match=r'"B_9\.tif" is empty'):
        read_case(cases[1])


def test_a_folder_a_patient_for_plain_numbers() -> None:
    files = [NamedBytes(f"set/{who}/slice_{n}.tif", tiff(n)) for who in ("p2", "p10") for n in (1, 2)]
    assert [case.case_id for case in find_cases(files)] == ["p2", "p10"]
    files = [NamedBytes(f"{hospital}/p1/{n}.tif", tiff(n)) for hospital in ("x", "y") for n in (1, 2)]
    assert [case.case_id for case in find_cases(files)] == ["x_p1", "y_p1"]
    assert [len(case.files) for case in find_cases(files)] == [2, 2]


def test_equal_names_in_two_folders() -> None:
    files = [NamedBytes(f"{who}/brain_{n}.tif", tiff(n + ord(who))) for who in "ab" for n in (1, 2)]
    assert [case.case_id for case in find_cases(files)] == ["a_brain", "b_brain"]


def test_exact_copies_are_read_once() -> None:
    files = [NamedBytes(f"{top}/{name}", data) for top in ("a", "b") for name, data in patient("P").items()]
    (case,) = find_cases(files)
    assert len(case.files) == 6
    assert read_case(case).source.sha256 == upload(patient("P")).source.sha256


def test_slices_and_masks_in_folders_of_any_name() -> None:
    files = {(f"contours by MD/{n}" if "mask" in n else f"mri/{n}"): d for n, d in patient("P").items()}
    study = upload(files)
    assert study.reference is not None
    assert study.case_id == "P"


def test_plain_masks_join_the_one_patient_of_their_folder() -> None:
    files = {
        name.replace("P_", "mask_").replace("_mask.", ".") if "mask" in name else name: data
        for name, data in patient("P").items()
    }
    assert "mask_1.tif" in files
    assert upload(files).reference is not None


def test_finding_cases_decodes_nothing() -> None:
    files = [NamedBytes(f"set/P{p}/P{p}_x_{n}.tif", b"") for p in range(100) for n in range(70)]
    assert len(find_cases(files)) == 100


# --- bad input ---------------------------------------------------------------------------------------------


def refusal(source: Path | list[Path]) -> str:
    with pytest.raises(InputError) as caught:
        read_study(source)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    assert ":" in message
    return message


def test_bad_paths(tmp_path: Path) -> None:
    empty = tmp_path / "empty one"
    empty.mkdir()
    assert '"empty one" is empty' in refusal(empty)
    (empty / ".DS_Store").write_bytes(b"x")
    assert '"empty one" is empty' in refusal(empty)
    assert '"nowhere" does not exist' in refusal(tmp_path / "nowhere")
    assert "No files" in refusal([])
    assert "No image" in refusal(write(tmp_path / "texts", {"a.txt": b"x", "b.csv": b"x"}))
    (tmp_path / "none.zip").write_bytes(packed({}))
    assert '"none.zip" is empty' in refusal(tmp_path / "none.zip")


def test_a_file_that_vanishes(tmp_path: Path) -> None:
    folder = write(tmp_path / "P", patient())
    (case,) = find_cases(collect(folder))
    (folder / "ABC_01_0001_20000101_2.tif").unlink()
    with pytest.raises(InputError, match=r'0101_2\.tif" cannot be opened'):
        read_case(case)


def test_too_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("brainseg.io.files.MAX_FILES", 3)
    assert "more than 3 files" in refusal(write(tmp_path / "P", patient()))
    with pytest.raises(InputError, match="More than 3 files"):
        expand([NamedBytes(name, b"") for name in patient()])


LONG_NAMES = {
    "digits": "0" * 60_000 + "9.tif",
    "spaces": " " * 60_000 + "(1.tif",
    "words": "mask_" * 12_000 + ".tif",
    "one part": "x" * 252 + ".tif",
    "accents": "é" * 126 + ".tif",
    "backslashes": "ab\\" * 400 + "1.tif",
    "in all": "ab/" * 400 + "1.tif",
    "surrogates": "\udcff" * 300 + ".tif",
}


@pytest.mark.parametrize("name", LONG_NAMES.values(), ids=LONG_NAMES)
def test_long_names_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"(255|1,000): ") as caught:
        expand([NamedBytes(name, tiff(1))])
    assert len(str(caught.value)) < 200


def test_names_as_long_as_they_may_be() -> None:
    for name in ("é" * 125 + "x.tif", ("y" * 199 + "/") * 4 + "z" * 196 + ".tif"):
        assert expand([NamedBytes(name, b"")]) == [NamedBytes(name, b"")]


def test_folders_within_folders_without_end(tmp_path: Path) -> None:
    # os.walk calls itself for each of them, so that thousands would end it.
    deep = tmp_path / "P" / Path(*["a" * 200] * 5)
    deep.mkdir(parents=True)
    (deep / "1.tif").write_bytes(tiff(1))
    assert "shorten the names of its folders" in refusal(tmp_path / "P")
