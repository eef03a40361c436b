"""NIfTI out, read back by nibabel and SimpleITK: in the input's own grid, with its header's geometry."""

from __future__ import annotations

import gzip
import io
import zipfile
from pathlib import Path
from typing import Any

import dicom_maker
import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from heads import ORDERS, affine_of, head, lesion, name_of, nifti, patient, read

from brainseg.grid import to_origin
from brainseg.io import NamedBytes, find_cases, read_case
from brainseg.io.cases import OWN_RESULT
from brainseg.postprocess import Finding, find
from brainseg.report.formats import formats_of
from brainseg.report.nifti import nifti_zip
from brainseg.types import InputError, Prediction, Source, Study

SHAPE = (40, 44, 24)
STRAIGHT = affine_of()
GRIDS = {
    "LPS": affine_of(),
    "RAS, oblique": affine_of((0, 1, 2), (1, 1, 1), tilt=17.0),
    "sagittal, thin": affine_of((1, 2, 0), (-1, -1, 1), (1.5, 1.5, 2.0), (100, 90, 70)),
    "coronal, oblique": affine_of((0, 2, 1), (-1, -1, 1), (2.0, 2.0, 4.0), (64, 60, 44), tilt=9.0),
}
SHAPES = {"sagittal, thin": (100, 90, 70), "coronal, oblique": (64, 60, 44)}


def finding(study: Study, model: str = "unet", probability: Any = None, **fields: Any) -> Finding:
    """Of the mask that came with the study, or of another probability."""
    if probability is None:
        assert study.reference is not None
        probability = np.where(study.reference, 0.9, 0.1)
    values = np.asarray(probability, np.float32)
    return find(
        Prediction(model, "unet", study.case_id, values, 0.5, "all", weights_sha256="ab" * 32, **fields)
    )


def unpacked(archive: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def images(study: Study, *findings: Finding) -> dict[str, Any]:
    """What nibabel reads, by what follows the case's name."""
    held = unpacked(nifti_zip(study, findings))
    return {
        name.removeprefix(f"{study.case_id}_").removesuffix(".nii.gz"): nib.Nifti1Image.from_bytes(
            gzip.decompress(data)
        )
        if int.from_bytes(gzip.decompress(data)[:4], "little") == 348
        else nib.Nifti2Image.from_bytes(gzip.decompress(data))
        for name, data in held.items()
        if name.endswith(".nii.gz")
    }


@pytest.mark.parametrize("grid", GRIDS)
def test_the_mask_comes_back_on_the_inputs_own_grid(grid: str, tmp_path: Path) -> None:
    affine, shape = GRIDS[grid], SHAPES.get(grid, SHAPE)
    truth = lesion(affine, shape)
    study = read(patient(affine, shape))
    held = images(study, finding(study))
    mask, probability = held["unet_mask"], held["unet_probability"]
    source = nib.Nifti1Image.from_bytes(nifti(truth, affine))
    for image in (mask, probability):
        assert image.shape == shape
        np.testing.assert_array_equal(image.affine, source.affine)
        for name in ("sform", "qform"):
            ours, ours_code = getattr(image, f"get_{name}")(coded=True)
            theirs, code = getattr(source, f"get_{name}")(coded=True)
            assert ours_code == code
            assert (ours is None) == (theirs is None)
            np.testing.assert_array_equal(ours, theirs)
    assert mask.get_data_dtype() == np.uint8
    assert probability.get_data_dtype() == np.float32
    ours, theirs = np.asarray(mask.dataobj), truth
    assert set(np.unique(ours)) == {0, 1}
    overlap = 2 * (ours & theirs).sum() / (ours.sum() + theirs.sum())
    # Thin slices are cut thick for the networks, and lose a little at the lesion's ends.
    assert overlap == 1 if study.shape == shape[::-1] else overlap > 0.85
    values = np.asarray(probability.dataobj)
    assert 0 <= values.min() <= values.max() <= 1
    np.testing.assert_array_equal(ours, values >= 0.5)
    # SimpleITK sees it where it sees the mask that was given; patient left is +x there.
    paths = tmp_path / "ours.nii", tmp_path / "theirs.nii"
    paths[0].write_bytes(mask.to_bytes())
    paths[1].write_bytes(nifti(truth, affine))
    centres = []
    for path in paths:
        statistics = sitk.LabelShapeStatisticsImageFilter()
        statistics.Execute(sitk.ReadImage(str(path)))
        centres.append(np.array(statistics.GetCentroid(1)))
    assert centres[0][0] > 15
    np.testing.assert_allclose(centres[0], centres[1], atol=1.0)


@pytest.mark.parametrize("order", ORDERS[::7], ids=name_of)
@pytest.mark.parametrize("tilt", [0.0, 13.0], ids=["straight", "oblique"])
def test_a_marked_corner_stays_in_its_corner(
    order: tuple[tuple[int, ...], tuple[int, ...]], tilt: float
) -> None:
    shape = (26, 30, 28)
    affine = affine_of(*order, (5.0, 5.0, 5.0), shape, tilt)
    corner = np.zeros(shape, np.uint8)
    corner[0, 0, 0] = corner[0, 0, 1] = corner[0, 1, 0] = 1
    study = read(
        [
            NamedBytes("P/P_flair.nii", nifti(head(affine, shape), affine)),
            NamedBytes("P/P_seg.nii", nifti(corner, affine)),
        ]
    )
    np.testing.assert_array_equal(np.asarray(images(study, finding(study))["unet_mask"].dataobj), corner)


def test_the_threshold_is_applied_on_the_inputs_grid() -> None:
    shape = (60, 60, 60)
    affine = affine_of((0, 1, 2), (-1, -1, 1), (2.0, 2.0, 1.0), shape)
    study = read(patient(affine, shape))
    assert study.shape != shape[::-1], "thin slices were cut thick"
    values = np.random.default_rng(0).random(study.shape)
    at = finding(study, probability=values)
    held = images(study, at)
    back = np.asarray(to_origin(at.prediction.probability, study)).T
    np.testing.assert_allclose(np.asarray(held["unet_probability"].dataobj), back, atol=1e-6)
    np.testing.assert_array_equal(np.asarray(held["unet_mask"].dataobj), back >= 0.5)


def test_codes_units_and_kind_of_header_are_the_sources() -> None:
    image = nib.Nifti2Image(head(STRAIGHT, SHAPE), STRAIGHT)
    image.header.set_sform(STRAIGHT, code=4)
    shifted = STRAIGHT.copy()
    shifted[:3, 3] += 0.25
    image.header.set_qform(shifted, code=2)
    image.header.set_xyzt_units("mm", "sec")
    image.header["descrip"] = b"SECRET PATIENT"
    image.header["aux_file"] = b"SECRET"
    image.header["intent_name"] = b"SECRET"
    study = read(
        [
            NamedBytes("P/P_flair.nii", image.to_bytes()),
            NamedBytes("P/P_seg.nii", nifti(lesion(STRAIGHT, SHAPE), STRAIGHT)),
        ]
    )
    made = images(study, finding(study))["unet_mask"]
    assert isinstance(made, nib.Nifti2Image)
    assert (int(made.header["sform_code"]), int(made.header["qform_code"])) == (4, 2)
    np.testing.assert_array_equal(made.get_sform(), image.get_sform())
    np.testing.assert_array_equal(made.get_qform(), image.get_qform())
    assert made.header.get_xyzt_units() == ("mm", "sec")
    assert b"SECRET" not in made.to_bytes()


def test_metres_stay_metres() -> None:
    metres = STRAIGHT.copy()
    metres[:3] /= 1000
    image = nib.Nifti1Image(head(STRAIGHT, SHAPE), metres)
    image.header.set_xyzt_units("meter")
    image = nib.Nifti1Image.from_bytes(image.to_bytes())
    study = read([NamedBytes("P/P_flair.nii", image.to_bytes())])
    made = images(study, finding(study, probability=np.zeros(study.shape)))["unet_mask"]
    assert made.header.get_xyzt_units()[0] == "meter"
    np.testing.assert_array_equal(made.affine, image.affine)
    np.testing.assert_array_equal(made.header.get_zooms(), image.header.get_zooms())


def test_a_header_that_knows_no_sides_gets_none() -> None:
    image = nib.Nifti1Image(head(STRAIGHT, SHAPE), None)
    image.header.set_zooms((4.0, 4.0, 6.0))
    study = read([NamedBytes("P/P_flair.nii", image.to_bytes())])
    assert study.orientation is None
    made = images(study, finding(study, probability=np.zeros(study.shape)))["unet_mask"]
    assert (int(made.header["sform_code"]), int(made.header["qform_code"])) == (0, 0)
    np.testing.assert_allclose(made.header.get_zooms(), image.header.get_zooms())


def test_metaimage_comes_back_as_nifti_in_the_same_place(tmp_path: Path) -> None:
    affine = GRIDS["RAS, oblique"]
    path = tmp_path / "P_flair.nii"
    path.write_bytes(nifti(head(affine, SHAPE), affine))
    theirs = sitk.ReadImage(str(path))
    sitk.WriteImage(theirs, str(tmp_path / "P_flair.mha"))
    study = read([NamedBytes("P/P_flair.mha", (tmp_path / "P_flair.mha").read_bytes())])
    assert formats_of(study) == ("nifti",)
    made = images(study, finding(study, probability=np.zeros(study.shape)))["unet_mask"]
    (tmp_path / "ours.nii").write_bytes(made.to_bytes())
    ours = sitk.ReadImage(str(tmp_path / "ours.nii"))
    np.testing.assert_allclose(ours.GetOrigin(), theirs.GetOrigin(), atol=1e-3)
    np.testing.assert_allclose(ours.GetDirection(), theirs.GetDirection(), atol=1e-5)
    np.testing.assert_allclose(made.affine, affine, atol=1e-3)
    assert (int(made.header["sform_code"]), int(made.header["qform_code"])) == (1, 1)


@pytest.mark.parametrize("shear", [0.0, 1.5], ids=["oblique", "gantry"])
def test_dicom_comes_back_in_ras_with_the_code_of_the_scanner(shear: float) -> None:
    geometry = dicom_maker.Geometry(axes=dicom_maker.OBLIQUE.axes, spacing=(6.0, 3.5, 3.0), shear=shear)
    flair = np.random.default_rng(0).integers(0, 300, (12, 40, 44)).astype(np.uint16)
    members = dicom_maker.files({"A": dicom_maker.datasets(flair, 4, geometry=geometry)})
    (case,) = find_cases([NamedBytes(name, data) for name, data in members.items()])
    study = read_case(case)
    assert formats_of(study) == ("dicom-seg", "nifti")
    values = np.zeros(study.shape)
    values[3, 5, 7] = 1
    made = images(study, finding(study, probability=values))["unet_mask"]
    assert made.header.get_xyzt_units()[0] == "mm"
    assert int(made.header["sform_code"]) == 1
    # A qform cannot hold a sheared grid, and one that disagreed would be worse than none.
    assert int(made.header["qform_code"]) == (0 if shear else 1)
    # By the standard's formula (C.7.6.2.1.1), then from LPS to RAS+.
    axes = np.array(geometry.axes)
    (at,) = np.argwhere(np.asarray(made.dataobj))
    column, row, slice_ = at
    place = np.array(geometry.position(slice_)) + axes[:3] * 3.0 * column + axes[3:] * 3.5 * row
    np.testing.assert_allclose((made.affine @ (*at, 1))[:3], place * (-1, -1, 1), atol=2e-3)
    assert study.affine is not None
    np.testing.assert_allclose((study.affine @ (3, 5, 7, 1))[:3], place * (-1, -1, 1), atol=2e-3)


def test_files_say_what_they_are_and_name_no_patient() -> None:
    study = read(patient(STRAIGHT))
    findings = [finding(study, "unet"), finding(study, "a/b"), finding(study, "a:b")]
    held = unpacked(nifti_zip(study, findings))
    names = [f"P01_{m}_{what}.nii.gz" for m in ("unet", "a_b_2", "a_b_3") for what in ("mask", "probability")]
    assert list(held) == ["README.txt", *(name.replace("P01", study.case_id) for name in names)]
    for image in images(study, *findings).values():
        description = bytes(image.header["descrip"]).decode()
        assert description.startswith("brainseg ")
        assert "research use only" in description
        assert study.case_id not in description
    again = unpacked(nifti_zip(study, findings))
    assert {k: v for k, v in again.items() if k != "README.txt"} == {
        k: v for k, v in held.items() if k != "README.txt"
    }


def test_our_own_results_are_set_aside_and_never_a_reference() -> None:
    files = patient(STRAIGHT, mask=False)
    study = read(patient(STRAIGHT))
    ours = [
        NamedBytes(f"{Path(files[0].name).parent}/{name}", data)
        for name, data in unpacked(nifti_zip(study, [finding(study)])).items()
    ]
    again = read([*files, *ours])
    assert again.reference is None
    assert sum(OWN_RESULT in note for note in again.notes) == 1
    with pytest.raises(InputError) as caught:
        find_cases(ours)
    assert OWN_RESULT in str(caught.value)


def test_slices_have_no_place_for_it() -> None:
    study = Study(np.zeros((2, 8, 8, 3), np.uint8), "C", Source("png", (), "a" * 64), (1, 2))
    with pytest.raises(InputError, match="say where their voxels lie"):
        nifti_zip(study, [finding(study, probability=np.zeros(study.shape))])
