"""Volumes on any grids become one study, and results go back to the files' own grid."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from heads import LESION_MM, Matrix, affine_of, centre_mm, head, lesion, nifti, patient, read
from scipy.spatial.transform import Rotation

from brainseg.grid import Grid, to_origin
from brainseg.io import NamedBytes, find_cases
from brainseg.io.volume_files import acquisitions
from brainseg.io.volumes import SLICE_MM, Acquisition, assemble
from brainseg.types import InputError, Study

SHAPE = (40, 44, 24)


def refusal(files: list[NamedBytes], **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        read(files, **options)
    return str(caught.value)


def noted(study: Study, *words: str) -> bool:
    return any(all(word in note for word in words) for note in study.notes)


# --- sequences on other grids ------------------------------------------------------------------------------


@pytest.mark.parametrize("tilt", [0.0, 14.0])
def test_sequences_on_other_grids_come_to_flairs_place(tilt: float) -> None:
    affine = affine_of()
    other_shape = (90, 30, 40)
    other = affine_of((1, 2, 0), (1, -1, 1), (2.0, 5.0, 4.0), other_shape, tilt)
    post = head(other, other_shape, 150.0)
    study = read(patient(affine, SHAPE, t1ce=nifti(post, other)))
    expected = read(patient(affine, SHAPE)).slices[..., 2]
    inside = study.slices[..., 2] > 0
    difference = np.abs(study.slices[..., 2] - expected)[inside & (expected > 0)]
    assert np.median(difference) < 3
    assert np.percentile(difference, 90) < 20  # the other grid is coarse and its head has edges
    assert np.corrcoef(study.slices[..., 2].ravel(), expected.ravel())[0, 1] > 0.97
    assert study.slices.dtype == np.float32
    assert noted(study, 'Post-contrast ("P01_t1ce.nii") has another grid than FLAIR', "world space")
    assert np.array_equal(study.slices[..., 1], read(patient(affine, SHAPE)).slices[..., 1])


def test_the_same_grid_in_another_order_is_the_same_grid() -> None:
    affine = affine_of()
    turned = affine_of((2, 0, 1), (1, 1, -1), (6.0, 4.0, 4.0), (24, 40, 44))
    study = read(patient(affine, SHAPE, t1ce=nifti(head(turned, (24, 40, 44), 150.0), turned)))
    assert np.array_equal(study.slices, read(patient(affine, SHAPE)).slices)
    assert study.slices.dtype == np.int16
    assert not noted(study, "another grid")


def test_thin_planes_of_a_t1_are_averaged_into_flairs_thick_slices() -> None:
    affine = affine_of()
    thin_shape = (40, 44, 144)
    thin = affine_of(spacing=(4.0, 4.0, 1.0), shape=thin_shape)
    values = np.random.default_rng(0).integers(0, 1000, thin_shape).astype(np.int16)
    study = read(patient(affine, SHAPE, t1=nifti(values, thin)))
    expected = values.reshape(40, 44, 24, 6).mean(-1).T
    np.testing.assert_allclose(study.slices[..., 0], expected, rtol=1e-5)


def test_what_a_sequence_does_not_cover_is_said() -> None:
    affine = affine_of()
    half = affine_of()
    half[:3, 3] += half[:3, 2] * 12
    study = read(patient(affine, SHAPE, t1=nifti(head(half, (40, 44, 12)), half)))
    assert noted(study, "Pre-contrast", "covers 50% of FLAIR")
    assert not study.slices[:12, ..., 0].any()
    far = affine_of()
    far[:3, 3] += 1000
    assert '"P01_t1.nii" lies elsewhere in the world' in refusal(
        patient(affine, SHAPE, t1=nifti(head(affine, SHAPE), far))
    )


def test_a_missing_sequence_is_stood_in_for_by_flair() -> None:
    study = read(patient(affine_of(), SHAPE, t1=None, t1ce=None))
    assert np.array_equal(study.slices[..., 0], study.slices[..., 1])
    assert np.array_equal(study.slices[..., 2], study.slices[..., 1])
    for title in ("Pre-contrast", "Post-contrast"):
        assert noted(study, f"{title} was not given: FLAIR was used in its place")


def test_a_blank_sequence_is_said_and_a_blank_flair_refused() -> None:
    blank = nifti(np.zeros(SHAPE, np.int16), affine_of())
    assert noted(read(patient(affine_of(), SHAPE, t1=blank)), "Pre-contrast is blank in every slice")
    assert '"P01_flair.nii" is blank' in refusal(patient(affine_of(), SHAPE, flair=blank))


def test_flair_is_needed() -> None:
    message = refusal(patient(affine_of(), SHAPE, flair=None))
    assert message.startswith("No FLAIR was recognised")
    assert '"P01_t1.nii" (by its name)' in message
    study = read(patient(affine_of(), SHAPE, flair=None), roles={"P01_t1.nii": "flair"})
    assert noted(study, "Pre-contrast was not given")


# --- cutting into axial slices -----------------------------------------------------------------------------


FINE = 1.65
VIEWS: dict[str, tuple[Matrix, tuple[int, ...], str]] = {
    "isotropic": (affine_of(spacing=(FINE,) * 3, shape=(86, 104, 90)), (86, 104, 90), "thin-sliced"),
    "isotropic, oblique": (
        affine_of((1, 2, 0), (1, -1, 1), (FINE,) * 3, (104, 90, 86), 12),
        (104, 90, 86),
        "thin-sliced",
    ),
    "sagittal": (
        affine_of((1, 2, 0), (1, -1, 1), (FINE, FINE, 5.0), (104, 90, 30)),
        (104, 90, 30),
        "sagittal",
    ),
    "coronal": (affine_of((0, 2, 1), (-1, 1, 1), (FINE, FINE, 4.5), (86, 90, 40)), (86, 90, 40), "coronal"),
}


@cache
def cut(name: str) -> Study:
    affine, shape, _ = VIEWS[name]
    return read(patient(affine, shape))


@pytest.mark.parametrize("name", VIEWS)
def test_thin_volumes_are_cut_into_slices_the_networks_know(name: str) -> None:
    affine, shape, word = VIEWS[name]
    study = cut(name)
    assert study.spacing_mm is not None
    between, rows, columns = study.spacing_mm
    assert between == pytest.approx(SLICE_MM, abs=0.5)
    assert rows == pytest.approx(columns)
    assert 20 <= len(study.slices) <= 88
    assert study.orientation == "LPS"
    assert noted(study, f"FLAIR is {word}", "cut into axial slices of 4.95 mm", "each the mean of 3 planes")
    assert study.reference is not None
    np.testing.assert_allclose(centre_mm(study, study.reference), LESION_MM, atol=0.8)
    # The brightest spot of FLAIR is where the lesion is.
    flair = study.slices[..., 1]
    np.testing.assert_allclose(centre_mm(study, flair > 0.85 * flair.max()), LESION_MM, atol=1.5)
    volume = study.reference.sum() * np.prod(study.spacing_mm)
    own = lesion(affine, shape).sum() * abs(np.linalg.det(affine[:3, :3]))
    assert volume == pytest.approx(own, rel=0.05)
    assert noted(study, "lies on another grid", f"{own / 1000:.4g} ml there")


@pytest.mark.parametrize("name", VIEWS)
def test_results_go_back_to_the_volumes_own_grid(name: str) -> None:
    affine, shape, _ = VIEWS[name]
    study = cut(name)
    assert study.reference is not None
    back = to_origin(study.reference.astype(np.float32), study)
    assert back.shape == shape[::-1]
    assert back.dtype == np.float32
    assert 0 <= back.min() <= back.max() <= 1
    ours, theirs = back.T >= 0.5, lesion(affine, shape) == 1
    assert 2 * (ours & theirs).sum() / (ours.sum() + theirs.sum()) > 0.93  # 5 mm slices of a ball of 32 mm
    # A constant stays constant up to the edges: nothing is dimmed there.
    ones = to_origin(np.ones(study.shape, np.float32), study)
    np.testing.assert_allclose(ones, 1, atol=1e-5)


def test_a_slice_is_the_mean_of_its_planes() -> None:
    shape = (20, 22, 31)
    affine = affine_of((0, 1, 2), (-1, -1, 1), (4.0, 4.0, 1.25), shape)
    values = np.random.default_rng(0).integers(0, 1000, shape).astype(np.int16)
    study = read([NamedBytes("P/flair.nii", nifti(values, affine))])
    assert study.spacing_mm == pytest.approx((5.0, 4.0, 4.0))
    assert len(study.slices) == 8  # seven of four planes, and three planes over
    np.testing.assert_allclose(study.slices[2, ..., 1], values[..., 8:12].mean(-1).T, rtol=1e-6)
    np.testing.assert_allclose(study.slices[7, ..., 1], values[..., 28:].mean(-1).T, rtol=1e-6)


def test_slices_of_a_known_thickness_stay_as_they_are() -> None:
    for thickness in (1.8, 3.0, 7.0):
        affine = affine_of(spacing=(4.0, 4.0, thickness))
        study = read(patient(affine, SHAPE))
        assert study.spacing_mm == pytest.approx((thickness, 4, 4))
        assert study.slices.dtype == np.int16
        assert study.notes == ()


def test_too_much_is_refused_before_it_is_made() -> None:
    affine = affine_of(spacing=(0.011, 90.0, 5.0), shape=(3, 4, 5))
    assert "more than" in refusal(
        [NamedBytes("P/flair.nii", nifti(np.arange(60, dtype="i2").reshape(3, 4, 5), affine))]
    )


# --- masks -------------------------------------------------------------------------------------------------


def test_labels_are_united_and_it_is_said() -> None:
    affine = affine_of()
    labels = lesion(affine, SHAPE) + lesion(affine, SHAPE, 8.0) * 3
    assert set(np.unique(labels)) == {0, 1, 4}
    files = patient(affine, SHAPE, seg=nifti(labels, affine))
    study = read(files)
    assert study.reference is not None
    assert noted(study, "holds the labels 1 and 4", "united")
    assert np.array_equal(to_origin(study.reference, study).T, labels > 0)
    core = read(files, roles={"P01_seg.nii#4": "mask"})
    assert core.reference is not None
    assert np.array_equal(to_origin(core.reference, core).T, labels == 4)
    assert "has no label 7" in refusal(files, roles={"P01_seg.nii#7": "mask"})


def test_a_mask_of_floats_is_a_mask_if_its_values_are_labels() -> None:
    affine = affine_of()
    study = read(patient(affine, SHAPE, seg=nifti(lesion(affine, SHAPE).astype(np.float32), affine)))
    assert study.reference is not None
    assert study.reference.any()
    grey = nifti(head(affine, SHAPE), affine)
    assert '"P01_seg.nii" is taken as a mask, but holds' in refusal(patient(affine, SHAPE, seg=grey))
    half = nifti(lesion(affine, SHAPE) * np.float32(0.5), affine)
    assert "labels are few whole numbers" in refusal(patient(affine, SHAPE, seg=half))


def test_a_mask_on_its_own_grid_lies_where_it_was_drawn() -> None:
    affine = affine_of()
    own_shape = (60, 50, 44)
    own = affine_of((2, 1, 0), (1, 1, -1), (2.0, 2.0, 2.0), own_shape, 10.0)
    own[:3, 3] += LESION_MM  # as editors crop them
    study = read(patient(affine, SHAPE, seg=nifti(lesion(own, own_shape), own)))
    assert study.reference is not None
    np.testing.assert_allclose(centre_mm(study, study.reference), LESION_MM, atol=1.0)
    assert noted(study, 'The mask "P01_seg.nii" lies on another grid', "ml there and")


def test_a_mask_elsewhere_in_the_world_is_refused() -> None:
    affine = affine_of()
    far = affine_of()
    far[:3, 3] += 500
    marked = lesion(affine, SHAPE)
    assert "marks nothing inside FLAIR" in refusal(patient(affine, SHAPE, seg=nifti(marked, far)))
    near = affine_of()
    near[:3, 3] += (-45, 0, 0)
    assert noted(read(patient(affine, SHAPE, seg=nifti(marked, near))), "lies outside FLAIR and was left out")
    assert noted(read(patient(affine, SHAPE, seg=nifti(0 * marked, affine))), "marks no tumour")


def test_a_mask_without_orientation_lies_where_flair_does_if_it_has_its_size() -> None:
    affine = affine_of()
    image = bytearray(nifti(lesion(affine, SHAPE), affine))
    image[252:256] = bytes(4)  # qform_code, sform_code
    study = read(patient(affine, SHAPE, seg=bytes(image)))
    assert study.reference is not None
    assert np.array_equal(to_origin(study.reference, study).T, lesion(affine, SHAPE) == 1)
    assert noted(study, '"P01_seg.nii" was taken to lie where FLAIR does')
    smaller = bytearray(nifti(np.ones((4, 5, 6), np.uint8), affine))
    smaller[252:256] = bytes(4)
    assert "their sizes differ" in refusal(patient(affine, SHAPE, seg=bytes(smaller)))


# --- frames of reference and registration ------------------------------------------------------------------


def acquired(files: list[NamedBytes], **frames: str) -> tuple[Any, list[Acquisition]]:
    [case] = find_cases(files)
    return case, [replace(one, frame=frames.get(one.info.role or "")) for one in acquisitions(case)]


def test_frames_of_reference_must_be_one() -> None:
    files = patient(affine_of(), SHAPE)
    case, series = acquired(files, flair="1", pre="1", post="2", mask="1")
    with pytest.raises(InputError, match=r"t1ce\.nii.*different frames of reference.*--register"):
        assemble(case, series)
    case, series = acquired(files, flair="1", pre="1", post="1", mask="2")
    with pytest.raises(InputError, match=r"seg\.nii.*different frames of reference"):
        assemble(case, series)
    case, series = acquired(files, flair="1", mask="1")
    assert assemble(case, series).reference is not None


@pytest.fixture(scope="module")
def moved() -> list[NamedBytes]:
    """A post-contrast T1, and a mask drawn on it, of a head that turned and shifted."""
    affine, shape = affine_of(shape=(40, 46, 26)), (40, 46, 26)
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("xyz", (5, -3, 6), degrees=True).as_matrix()
    turn[:3, 3] = (9, -6, 4)
    return patient(
        affine,
        shape,
        t1ce=nifti(head(affine, shape, 150.0), turn @ affine),
        seg=nifti(lesion(affine, shape), turn @ affine),
    )


def test_a_rigid_registration_brings_it_back(moved: list[NamedBytes]) -> None:
    case, series = acquired(moved, flair="1", pre="1", post="2", mask="2")
    study = assemble(case, series, register=True)
    assert noted(
        study, 'Post-contrast ("P01_t1ce.nii") was moved onto FLAIR by a rigid registration', "degrees"
    )
    assert study.reference is not None
    np.testing.assert_allclose(centre_mm(study, study.reference), LESION_MM, atol=1.5)
    plain = read(patient(affine_of(shape=(40, 46, 26)), (40, 46, 26)))
    assert np.corrcoef(study.slices[..., 2].ravel(), plain.slices[..., 2].ravel())[0, 1] > 0.97
    assert read(moved).source.sha256 != study.source.sha256


# --- what is said of files ---------------------------------------------------------------------------------


def test_files_have_roles_and_the_digest_is_of_what_was_used() -> None:
    affine = affine_of()
    files = [*patient(affine, SHAPE), NamedBytes("P01/P01_t2.nii", nifti(head(affine, SHAPE), affine))]
    study = read(files)
    roles = {file.name: (file.role, file.note) for file in study.source.files}
    assert roles["P01_flair.nii"] == ("slice", "FLAIR: by its name")
    assert roles["P01_seg.nii"] == ("mask", "mask: named as a mask")
    assert roles["P01_t2.nii"][0] == "ignored"
    assert noted(study, '"P01_t2.nii" was set aside: T2 is none of the three')
    assert study.source.format == "nifti"
    assert read(patient(affine, SHAPE)).source.sha256 == study.source.sha256
    swapped = read(files, roles={"P01_t1.nii": "post", "P01_t1ce.nii": "pre"})
    assert swapped.source.sha256 != study.source.sha256
    assert np.array_equal(swapped.slices[..., 0], study.slices[..., 2])


def test_stated_spacing_and_order_are_not_used_and_it_is_said() -> None:
    study = read(patient(affine_of(), SHAPE), spacing_mm=(1, 1, 1), channels=["post", "flair", "pre"])
    assert study.spacing_mm == pytest.approx((6, 4, 4))
    assert noted(study, "The stated spacing was not used")
    assert noted(study, "The stated channel order was not used")


def test_a_study_knows_its_place() -> None:
    study = read(patient(affine_of(tilt=8.0), SHAPE))
    assert study.affine is not None
    grid = Grid(study.affine, study.shape)
    assert study.spacing_mm == grid.spacing_mm
    assert study.slice_numbers == tuple(range(1, 25))
    with pytest.raises(ValueError, match="spacing"):
        replace(study, spacing_mm=(1.0, 1.0, 1.0))
    with pytest.raises(ValueError, match="orientation"):
        replace(study, orientation="RPS")
    with pytest.raises(ValueError, match="origin"):
        replace(study, affine=None)
