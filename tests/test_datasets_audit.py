"""What the check of a data set finds."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile

from brainseg.datasets.audit import Audit, check_dataset
from brainseg.types import InputError

SIZE = 16


def write(
    root: Path,
    patient: str,
    numbers: Iterable[int] = range(1, 5),
    *,
    size: int = SIZE,
    dtype: str = "uint8",
    tumour: Iterable[int] = (2,),
    seed: int | None = None,
) -> Path:
    """One patient in the LGG layout, noise of its own; four marked pixels in the slices with tumour."""
    folder = root / patient
    folder.mkdir(parents=True)
    rng = np.random.default_rng(sum(map(ord, patient)) if seed is None else seed)
    for number in numbers:
        mask = np.zeros((size, size), np.uint8)
        mask[2:4, 2:4] = 255 if number in tumour else 0
        image(folder, number, rng.integers(0, 255, (size, size, 3)).astype(dtype))
        tifffile.imwrite(folder / f"{patient}_{number}_mask.tif", mask)
    return folder


def image(folder: Path, number: int, pixels: npt.NDArray[Any]) -> None:
    tifffile.imwrite(folder / f"{folder.name}_{number}.tif", pixels, photometric="rgb")


def pixels_of(folder: Path, number: int) -> npt.NDArray[Any]:
    return np.asarray(tifffile.imread(folder / f"{folder.name}_{number}.tif"))


def about(report: Audit, patient: str) -> list[tuple[str, str, str]]:
    return [(p.severity, p.kind, p.text) for p in report.problems if p.patient == patient]


def only(report: Audit, patient: str) -> tuple[str, str, str]:
    (problem,) = about(report, patient)
    return problem


def test_a_sound_data_set(tmp_path: Path) -> None:
    write(tmp_path / "kaggle_3m", "SYN_AA_0010")
    write(tmp_path / "kaggle_3m", "SYN_AA_0002", range(1, 13), tumour=(9, 10, 11))
    write(tmp_path / "kaggle_3m", "SYN_BB_0001")
    (tmp_path / "kaggle_3m" / "data.csv").write_text("Patient\n")
    report = check_dataset(tmp_path)
    assert report.problems == ()
    assert [patient.patient for patient in report.patients] == ["SYN_AA_0002", "SYN_AA_0010", "SYN_BB_0001"]
    assert (report.folders, report.slices, report.slices_with_tumour) == (3, 20, 5)
    assert report.foreground_fraction == pytest.approx(5 * 4 / (20 * SIZE * SIZE))
    assert report.institutions == {"AA": 2, "BB": 1}
    first = report.patients[0]
    assert (first.slices, first.slices_with_tumour, first.tumour_voxels) == (12, 3, 12)
    assert (first.height, first.width, first.dtype, first.institution) == (SIZE, SIZE, "uint8", "AA")


def test_the_report_as_json(tmp_path: Path) -> None:
    folder = write(tmp_path, "SYN_AA_0001")
    write(tmp_path, "SYN_AA_0002")
    (folder / "SYN_AA_0001_3_mask.tif").unlink()
    found = check_dataset(tmp_path).to_json()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["patients"] == 2
    assert (found["errors"], found["warnings"]) == (1, 0)
    assert found["problems"][0]["patient"] == "SYN_AA_0001"
    assert set(found["problems"][0]) == {"patient", "severity", "kind", "text"}
    assert found["by_patient"][1]["patient"] == "SYN_AA_0002"
    assert found["missing_sequences"] == {"pre": [], "flair": [], "post": []}


def test_missing_masks(tmp_path: Path) -> None:
    some, none = write(tmp_path, "SYN_AA_0001"), write(tmp_path, "SYN_AA_0002")
    (some / "SYN_AA_0001_3_mask.tif").unlink()
    for path in none.glob("*_mask.tif"):
        path.unlink()
    report = check_dataset(tmp_path)
    assert only(report, "SYN_AA_0001") == ("error", "masks", "Masks are missing: 1 slice without a mask.")
    assert only(report, "SYN_AA_0002") == ("error", "masks", "Masks are missing: no slice has a mask.")
    assert len(report.errors) == 2


def test_a_mask_without_its_slice(tmp_path: Path) -> None:
    folder = write(tmp_path, "SYN_AA_0001")
    (folder / "SYN_AA_0001_4.tif").unlink()
    severity, kind, text = only(check_dataset(tmp_path), "SYN_AA_0001")
    assert (severity, kind) == ("error", "files")
    assert "SYN_AA_0001_4_mask.tif" in text
    assert "slice 4" in text


def test_it_goes_on_after_broken_patients_and_names_every_broken_file(tmp_path: Path) -> None:
    folder = write(tmp_path, "SYN_AA_0001")
    (folder / "SYN_AA_0001_1.tif").write_bytes(b"")
    (folder / "SYN_AA_0001_3.tif").write_bytes((folder / "SYN_AA_0001_3.tif").read_bytes()[:300])
    (tmp_path / "SYN_AA_0002").mkdir()
    (tmp_path / "SYN_AA_0003").mkdir()
    (tmp_path / "SYN_AA_0003" / "notes.txt").write_text("hello")
    write(tmp_path, "SYN_AA_0004")
    report = check_dataset(tmp_path)
    assert [(severity, kind) for severity, kind, _ in about(report, "SYN_AA_0001")] == [
        ("error", "files")
    ] * 2
    first, second = (text for _, _, text in about(report, "SYN_AA_0001"))
    assert "SYN_AA_0001_1.tif" in first
    assert "0 bytes" in first
    assert "SYN_AA_0001_3.tif" in second
    assert "is empty" in only(report, "SYN_AA_0002")[2]
    assert "No image" in only(report, "SYN_AA_0003")[2]
    assert [patient.patient for patient in report.patients] == ["SYN_AA_0004"]
    assert (report.folders, report.slices) == (4, 4)
    assert [problem.patient for problem in report.problems] == sorted(p.patient for p in report.problems)


def test_numbers(tmp_path: Path) -> None:
    write(tmp_path, "SYN_AA_0001", [1, 2, 5, 6])
    write(tmp_path, "SYN_AA_0002", [2, 3])
    twice = write(tmp_path, "SYN_AA_0003")
    (twice / "SYN_AA_0003_02.tif").write_bytes((twice / "SYN_AA_0003_3.tif").read_bytes())
    report = check_dataset(tmp_path)
    lacking = "Slice numbers from 1 to 6 lack 3 and 4."
    assert only(report, "SYN_AA_0001") == ("warning", "numbers", lacking)
    assert only(report, "SYN_AA_0002")[2] == "Slice numbers from 1 to 3 lack 1."
    severity, _, text = only(report, "SYN_AA_0003")
    assert severity == "error"
    assert "are both slice 2" in text


def test_sizes_and_dtypes(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path, f"SYN_AA_000{number}")
    write(tmp_path, "SYN_AA_0003", size=24)
    write(tmp_path, "SYN_AA_0004", dtype="uint16")
    mixed = write(tmp_path, "SYN_AA_0005")
    image(mixed, 2, np.ones((8, 8, 3), np.uint8))
    report = check_dataset(tmp_path)
    text = "Slices are 24 x 24 pixels, in most patients 16 x 16."
    assert only(report, "SYN_AA_0003") == ("error", "size", text)
    text = "Slices hold uint16 values, in most patients uint8."
    assert only(report, "SYN_AA_0004") == ("warning", "dtype", text)
    assert only(report, "SYN_AA_0005")[:2] == ("error", "files")


def test_missing_sequences(tmp_path: Path) -> None:
    post, both, blank, one_slice = (write(tmp_path, f"SYN_AA_000{number}") for number in range(1, 5))
    for number in range(1, 5):
        for folder, change in ((post, {2: 1}), (both, {0: 1, 2: 1}), (blank, {0: None})):
            pixels = pixels_of(folder, number)
            for channel, other in change.items():
                pixels[..., channel] = 0 if other is None else pixels[..., other]
            image(folder, number, pixels)
    pixels = pixels_of(one_slice, 2)
    pixels[..., 2] = pixels[..., 1]
    image(one_slice, 2, pixels)
    report = check_dataset(tmp_path)
    text = "The post-contrast sequence equals FLAIR in every slice: it was probably missing."
    assert only(report, "SYN_AA_0001") == ("warning", "sequences", text)
    assert len(about(report, "SYN_AA_0002")) == 2
    assert "pre-contrast sequence is blank" in only(report, "SYN_AA_0003")[2]
    assert about(report, "SYN_AA_0004") == [], "over the volume, not in one slice"
    assert report.errors == ()
    assert report.to_json()["missing_sequences"] == {
        "pre": ["SYN_AA_0002", "SYN_AA_0003"],
        "flair": [],
        "post": ["SYN_AA_0001", "SYN_AA_0002"],
    }


def test_copies_within_and_across_patients(tmp_path: Path) -> None:
    folder = write(tmp_path, "SYN_AA_0001")
    image(folder, 4, pixels_of(folder, 1))
    write(tmp_path, "SYN_AA_0002", seed=7)
    write(tmp_path, "SYN_AA_0003", seed=7)
    blank = write(tmp_path, "SYN_AA_0004")
    other = write(tmp_path, "SYN_AA_0005")
    for place in (blank, other):
        for number in (1, 4):
            image(place, number, np.zeros((SIZE, SIZE, 3), np.uint8))
    report = check_dataset(tmp_path)
    text = "Slices 1 and 4 hold the same pixels as another slice of the patient."
    assert only(report, "SYN_AA_0001") == ("warning", "duplicates", text)
    assert about(report, "SYN_AA_0002") == []
    severity, kind, text = only(report, "SYN_AA_0003")
    assert (severity, kind) == ("error", "duplicates")
    assert "4 slices (1, 2, 3 and 4) are also in SYN_AA_0002" in text
    assert about(report, "SYN_AA_0004") == about(report, "SYN_AA_0005") == [], "blank slices are no copies"


def test_no_tumour_foreign_files_and_several_patients(tmp_path: Path) -> None:
    write(tmp_path, "SYN_AA_0001", tumour=())
    folder = write(tmp_path, "SYN_AA_0002")
    folder.rename(tmp_path / "SYN_AA_0009")
    folder = write(tmp_path, "SYN_AA_0003")
    other = write(tmp_path, "SYN_AA_0004")
    for path in other.iterdir():
        (folder / path.name).write_bytes(path.read_bytes() + b"\0")
    report = check_dataset(tmp_path)
    text = "The masks mark no tumour in any slice."
    assert only(report, "SYN_AA_0001") == ("warning", "tumour", text)
    severity, kind, text = only(report, "SYN_AA_0009")
    assert (severity, kind) == ("warning", "files")
    assert "SYN_AA_0002" in text
    severity, kind, text = only(report, "SYN_AA_0003")
    assert (severity, kind) == ("error", "files")
    assert "2 patients" in text


def test_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a folder"):
        check_dataset(tmp_path / "none")
    with pytest.raises(InputError, match="no patient folders"):
        check_dataset(tmp_path)
