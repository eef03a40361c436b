"""MetaImage and NRRD, as SimpleITK writes them, from memory; and what must not be read."""

from __future__ import annotations

import os
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from heads import LESION_MM, ORDERS, affine_of, centre_mm, head, lesion, name_of, nifti, read
from hypothesis import given, settings
from hypothesis import strategies as st

from brainseg.grid import to_origin
from brainseg.io import NamedBytes, find_cases
from brainseg.types import InputError, Study

SMALL = (7, 9, 6)
VALUES = np.random.default_rng(0).permutation(np.arange(1, 379)).reshape(SMALL).astype(np.int16)


def picture(values: np.ndarray, affine: np.ndarray) -> sitk.Image:
    """(i, j, k) with a NIfTI affine, as SimpleITK has it."""
    image = sitk.GetImageFromArray(values.T if values.ndim == 3 else values.transpose(2, 1, 0, 3))
    lps = np.diag((-1.0, -1.0, 1.0)) @ affine[:3]
    spacing = np.linalg.norm(lps[:, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:, 3].tolist())
    return image


def written(image: sitk.Image, folder: Path, name: str, packed: bool = False) -> list[NamedBytes]:
    """The file, and the one beside it that holds its voxels."""
    sitk.WriteImage(image, str(folder / name), packed)
    return [NamedBytes(f"P/{path.name}", path.read_bytes()) for path in sorted(folder.iterdir())]


def refusal(files: list[NamedBytes]) -> str:
    with pytest.raises(InputError) as caught:
        read(files)
    return str(caught.value)


@pytest.mark.parametrize("suffix", ["mha", "mhd", "nrrd"])
@pytest.mark.parametrize("packed", [False, True])
def test_formats(suffix: str, packed: bool, tmp_path: Path) -> None:
    affine = affine_of(spacing=(1, 1, 5), shape=SMALL, tilt=9)
    study = read(written(picture(VALUES, affine), tmp_path, f"flair.{suffix}", packed))
    assert np.array_equal(to_origin(study.slices[..., 1], study).T, VALUES)
    assert study.origin is not None
    np.testing.assert_allclose(study.origin.affine[:, [2, 1, 0, 3]], affine, atol=1e-4)
    assert study.origin.format == ("nrrd" if suffix == "nrrd" else "metaimage")
    assert study.orientation == "LPS"


@pytest.mark.parametrize("tilt", [0.0, 13.0], ids=["straight", "oblique"])
@pytest.mark.parametrize("suffix", ["mha", "nrrd"])
def test_every_voxel_stays_in_its_place(suffix: str, tilt: float, tmp_path: Path) -> None:
    for order in ORDERS:
        folder = tmp_path / name_of(order)
        folder.mkdir()
        spacing = tuple(5.0 if axis == 2 else 1.0 for axis in order[0])
        affine = affine_of(*order, spacing, SMALL, tilt)
        image = picture(VALUES, affine)
        study = read(written(image, folder, f"flair.{suffix}"))
        assert study.affine is not None
        flair = study.slices[..., 1]
        for voxel in ((0, 0, 0), (6, 0, 5), (2, 7, 3)):
            ours = study.affine @ (*np.argwhere(flair == VALUES[voxel])[0], 1)
            theirs = image.TransformIndexToPhysicalPoint(voxel)
            np.testing.assert_allclose(ours[:3] * (-1, -1, 1), theirs, atol=1e-3)
        assert np.array_equal(to_origin(flair, study).T, VALUES)


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"])
def test_types_of_voxels(dtype: str, tmp_path: Path) -> None:
    values = (VALUES % 120).astype(dtype)
    study = read(written(picture(values, affine_of(spacing=(1, 1, 5), shape=SMALL)), tmp_path, "flair.mha"))
    assert np.array_equal(to_origin(study.slices[..., 1], study).T, values)
    assert study.slices.dtype == np.dtype(dtype)


def test_formats_mix_and_a_mask_keeps_its_own_grid(tmp_path: Path) -> None:
    affine, shape = affine_of(), (40, 44, 24)
    own = affine_of((1, 0, 2), (1, 1, 1), (2.0, 2.0, 2.0), (40, 40, 40))
    own[:3, 3] += LESION_MM + 0.3  # no voxel lies in the middle between two
    files = written(picture(lesion(own, (40, 40, 40)), own), tmp_path, "mask.nrrd")
    study = read([*files, NamedBytes("P/flair.nii", nifti(head(affine, shape), affine))])
    assert study.reference is not None
    np.testing.assert_allclose(centre_mm(study, study.reference), LESION_MM, atol=1.0)


# --- segmentations of 3D Slicer ----------------------------------------------------------------------------


def segmentation(layers: int, folder: Path) -> list[NamedBytes]:
    """Two segments: side by side in one layer, or overlapping in two."""
    affine, shape = affine_of(), (40, 44, 24)
    inner, outer = lesion(affine, shape, 8.0), lesion(affine, shape)
    values = outer + inner if layers == 1 else np.stack([outer, inner], axis=-1)
    image = picture(values, affine)
    for index, (name, value) in enumerate((("oedema", 1), ("core", 2 if layers == 1 else 1))):
        image.SetMetaData(f"Segment{index}_Name", name)
        image.SetMetaData(f"Segment{index}_LabelValue", str(value))
        image.SetMetaData(f"Segment{index}_Layer", str(0 if layers == 1 else index))
    files = written(image, folder, "Segmentation.seg.nrrd")
    return [*files, NamedBytes("P/flair.nii", nifti(head(affine, shape), affine))]


@pytest.mark.parametrize("layers", [1, 2])
def test_segments_are_listed_chosen_or_united(layers: int, tmp_path: Path) -> None:
    files = segmentation(layers, tmp_path)
    [case] = find_cases(files)
    mask = next(one for one in case.series if one.role == "mask")
    assert mask.segments == ((1, "oedema"), (2, "core"))
    affine, shape = affine_of(), (40, 44, 24)
    inner, outer = lesion(affine, shape, 8.0) == 1, lesion(affine, shape) == 1

    def marked(**roles: str) -> np.ndarray:
        study = read(files, roles={f"Segmentation.seg.nrrd#{label}": "mask" for label in roles.values()})
        assert study.reference is not None
        return to_origin(study.reference, study).T

    assert np.array_equal(marked(), outer)
    assert np.array_equal(marked(one="2"), inner)
    assert np.array_equal(marked(one="1"), outer if layers == 2 else outer & ~inner)
    assert any("oedema" in note and "united" in note for note in read(files).notes)


# --- what must not be read ---------------------------------------------------------------------------------


@cache
def plain(suffix: str) -> bytes:
    with TemporaryDirectory() as folder:
        image = picture(VALUES, affine_of(spacing=(1, 1, 5), shape=SMALL))
        kind = "mhd" if suffix == "raw" else suffix
        sitk.WriteImage(image, f"{folder}/flair.{kind}")
        return Path(folder, f"flair.{suffix}").read_bytes()


@pytest.mark.parametrize(
    "where", [b"/etc/hostname", b"../flair.raw", b"LIST", b"slice%03d.raw 1 6 1", b"C:\\secret\\x.raw", b""]
)
def test_a_header_leads_to_no_other_file_of_the_machine(where: bytes) -> None:
    for suffix in ("mha", "mhd"):
        head = plain("mhd").replace(b"flair.raw", where)
        message = refusal([NamedBytes(f"P/flair.{suffix}", head), NamedBytes("P/flair.raw", bytes(756))])
        assert "voxels" in message
        for first in (b"ElementDataFile : ", b"  ElementDataFile = "):
            twice = plain("mha").replace(b"ElementType", first + where + b"\nElementType")
            assert "voxels" in refusal([NamedBytes(f"P/flair.{suffix}", twice)])


def test_a_nrrd_leads_to_no_other_file_of_the_machine() -> None:
    for line in (b"data file: /etc/hostname", b"datafile: x.raw", b"Data File: LIST"):
        head = plain("nrrd").replace(b"encoding: raw", b"encoding: raw\n" + line)
        assert line in head
        assert "voxels in another file" in refusal([NamedBytes("P/flair.nrrd", head)])
    both = [NamedBytes("P/flair.nhdr", plain("nhdr")), NamedBytes("P/flair.raw", plain("raw"))]
    assert "save it as one .nrrd file" in refusal(both)


def test_voxels_that_were_not_given() -> None:
    assert '"flair.raw", which was not given: add it' in refusal([NamedBytes("P/flair.mhd", plain("mhd"))])


def test_damaged_and_cut_files() -> None:
    for suffix in ("mha", "nrrd"):
        data = plain(suffix)
        assert "damaged or cut short" in refusal([NamedBytes(f"P/flair.{suffix}", data[:-100])])
        assert f'"flair.{suffix}" cannot be used' in refusal([NamedBytes(f"P/flair.{suffix}", data[:60])])


def test_absurd_sizes_are_refused_before_memory_is_asked_for() -> None:
    huge = plain("mha").replace(b"DimSize = 7 9 6", b"DimSize = 32000 32000 32000")
    assert "beyond the limit" in refusal([NamedBytes("P/flair.mha", huge)])
    huge = plain("nrrd").replace(b"sizes: 7 9 6", b"sizes: 32000 32000 32000")
    assert "beyond the limit" in refusal([NamedBytes("P/flair.nrrd", huge)])


def test_without_orientation_nothing_is_guessed() -> None:
    lines = plain("mha").split(b"\n")
    bare = b"\n".join(line for line in lines if not line.startswith(b"TransformMatrix"))
    assert "does not say how it lies in the patient" in refusal([NamedBytes("P/flair.mha", bare)])
    bare = plain("nrrd").replace(b"space: left-posterior-superior\n", b"space dimension: 3\n")
    assert "does not say how it lies in the patient" in refusal([NamedBytes("P/flair.nrrd", bare)])


def test_without_the_library_one_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    files = [NamedBytes("P/flair.mha", plain("mha"))]
    assert "pip install 'brainseg-lgg[itk]'" in refusal(files)
    affine = affine_of(spacing=(1, 1, 5), shape=SMALL)
    study = read([NamedBytes("P/flair.nii", nifti(VALUES, affine)), NamedBytes("P/t1.mha", plain("mha"))])
    assert any('"t1.mha" was set aside: it needs SimpleITK' in note for note in study.notes)


def test_without_files_in_memory_nothing_is_written_to_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    assert "convert it to NIfTI" in refusal([NamedBytes("P/flair.mha", plain("mha"))])


def test_no_descriptor_stays_open() -> None:
    files = [NamedBytes("P/flair.mha", plain("mha"))]
    read(files)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        read(files)
        refusal([NamedBytes("P/flair.mha", plain("mha")[:-100])])
    assert len(os.listdir("/proc/self/fd")) == before


def study_or_sentence(files: list[NamedBytes]) -> Study | None:
    try:
        return read(files)
    except InputError:
        return None


@settings(max_examples=120, deadline=None, derandomize=True)
@given(
    st.sampled_from(["mha", "nrrd"]),
    st.lists(st.tuples(st.integers(0, 420), st.binary(min_size=1, max_size=6)), min_size=1, max_size=4),
)
def test_any_header_is_a_study_or_one_sentence(suffix: str, changes: list[tuple[int, bytes]]) -> None:
    data = bytearray(plain(suffix))
    for at, new in changes:
        data[at : at + len(new)] = new
    study_or_sentence([NamedBytes(f"P/flair.{suffix}", bytes(data))])
