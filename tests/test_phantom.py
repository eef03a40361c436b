"""The synthetic patient: the committed files are sound, and the code makes them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import phantom
import pytest
from PIL import Image

from brainseg.sample import SYNTHETIC_GLIOMA
from brainseg.types import Source, Study

SAMPLE = SYNTHETIC_GLIOMA


def read(folder: Path, suffix: str = "") -> npt.NDArray[np.uint8]:
    return np.stack(
        [
            np.asarray(Image.open(folder / f"{phantom.CASE_ID}_{n}{suffix}.tif"))
            for n in range(1, phantom.SLICES + 1)
        ]
    )


def small_study() -> Study:
    rng = np.random.default_rng(1)
    return Study(
        slices=rng.integers(0, 256, (3, 8, 6, 3), np.uint8),
        case_id="SYNTHETIC_x",
        source=Source("synthetic", (), ""),
        slice_numbers=(1, 2, 10),
        reference=rng.random((3, 8, 6)) > 0.5,
    )


def test_sample_has_the_lgg_layout() -> None:
    slices, masks = read(SAMPLE), read(SAMPLE, "_mask")
    assert slices.shape == (phantom.SLICES, phantom.SIZE, phantom.SIZE, 3)
    assert slices.dtype == masks.dtype == np.uint8
    assert masks.shape == slices.shape[:3]
    assert set(np.unique(masks)) == {0, 255}
    assert len(list(SAMPLE.glob("*.tif"))) == 2 * phantom.SLICES
    assert sum(f.stat().st_size for f in SAMPLE.iterdir()) < 2_500_000


def test_sample_lesion_is_bright_on_flair_and_dark_on_t1() -> None:
    slices, mask = read(SAMPLE), read(SAMPLE, "_mask") > 0
    in_slices = np.flatnonzero(mask.any((1, 2)))
    assert len(in_slices) >= 6
    assert np.all(np.diff(in_slices) == 1)
    # The same region of the other side of the head, which the mirror-symmetric template makes a fair control.
    healthy = mask[:, :, ::-1] & ~mask
    pre, flair, post = (np.median(slices[mask], 0) / np.median(slices[healthy], 0)).tolist()
    assert 1.4 < flair < 2.3
    assert pre < 0.9
    assert post < 0.9


def test_sample_keeps_the_notice_of_the_template() -> None:
    text = (SAMPLE / "README.md").read_text(encoding="utf-8")
    assert "Copyright (C) 1993–2004 Louis Collins" in text
    assert "python benchmarks/phantom.py" in text


def test_code_makes_the_sample() -> None:
    pytest.importorskip("nilearn")
    study = phantom.make_phantom()
    # One grey level is room for another version's rounding, not for another image.
    assert np.abs(study.slices.astype(int) - read(SAMPLE)).max() <= 1
    assert study.reference is not None
    assert np.array_equal(study.reference, read(SAMPLE, "_mask") > 0)
    assert study.slice_numbers == tuple(range(1, phantom.SLICES + 1))
    assert study.spacing_mm == phantom.SPACING_MM
    assert [f.name for f in study.source.files if f.role == "slice"][9] == f"{phantom.CASE_ID}_10.tif"


def test_written_files_read_back_equal_and_repeat_to_the_byte(tmp_path: Path) -> None:
    study = small_study()
    for name in ("a", "b"):
        phantom.write_lgg(study, tmp_path / name)
    names = sorted(f.name for f in (tmp_path / "a").iterdir())
    assert names == sorted(f"SYNTHETIC_x_{n}{m}.tif" for n in (1, 2, 10) for m in ("", "_mask"))
    assert all((tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in names)
    assert study.reference is not None
    for i, n in enumerate(study.slice_numbers):
        stem = tmp_path / "a" / f"SYNTHETIC_x_{n}"
        assert np.array_equal(np.asarray(Image.open(f"{stem}.tif")), study.slices[i])
        assert np.array_equal(np.asarray(Image.open(f"{stem}_mask.tif")), study.reference[i] * np.uint8(255))


def test_what_the_layout_cannot_hold_is_refused(tmp_path: Path) -> None:
    study = small_study()
    for wrong in (replace(study, reference=None), replace(study, slices=study.slices.astype(np.float32))):
        with pytest.raises(ValueError, match="uint8 slices, each with a mask"):
            phantom.write_lgg(wrong, tmp_path)


def test_command_line_writes_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, str]] = []

    def fake(seed: int, case_id: str) -> Study:
        asked.append((seed, case_id))
        return small_study()

    monkeypatch.setattr(phantom, "make_phantom", fake)
    phantom.main([str(tmp_path / "new"), "--seed", "7"])
    assert asked == [(7, phantom.CASE_ID)]
    assert len(list((tmp_path / "new").iterdir())) == 6
