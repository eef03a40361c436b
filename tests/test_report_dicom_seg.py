"""DICOM-SEG out, read back by highdicom and pydicom, and checked by dciodvfy where it is installed."""

from __future__ import annotations

import io
import logging
import shutil
import subprocess
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import dicom_maker as maker
import highdicom
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import MRImageStorage, generate_uid

from brainseg import __version__
from brainseg.io import NamedBytes, find_cases, read_case
from brainseg.io.cases import OWN_RESULT
from brainseg.postprocess import Finding, find
from brainseg.report.dicom_seg import refusal, segmentations_zip
from brainseg.report.formats import formats_of, parse_formats
from brainseg.types import BrainsegError, InputError, Prediction, Study

SHA = "ab" * 32
SHAPE = (10, 40, 48)
SMALL = maker.Geometry(axes=maker.OBLIQUE.axes, spacing=(6.0, 4.0, 4.0))
REFERRER, ACCESSION, STUDY_ID = "SECRET^REFERRER", "SECRET-ACC", "SECRET-STUDY"
VISIT = maker.Visit(
    description="SECRET DESCRIPTION",
    more={
        "ReferringPhysicianName": REFERRER,
        "AccessionNumber": ACCESSION,
        "StudyID": STUDY_ID,
        "PatientComments": "SECRET COMMENT",
        "InstitutionName": "SECRET HOSPITAL",
        "OperatorsName": "SECRET^OPERATOR",
        "PatientAge": "099Y",
        "DeviceSerialNumber": "SECRET-DEVICE",
    },
)


def flair(shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 300, shape).astype(np.uint16)


def series(**options: Any) -> list[Dataset]:
    return list(maker.datasets(flair(), 4, geometry=options.pop("geometry", SMALL), visit=VISIT, **options))


def study_of(members: Mapping[str, bytes]) -> Study:
    (case,) = find_cases([NamedBytes(name, data) for name, data in members.items()])
    return read_case(case)


def of_slices(images: list[Dataset]) -> Study:
    return study_of(maker.files({"A": images}))


def finding(study: Study, model: str = "unet", *, empty: bool = False) -> Finding:
    """A probability that differs from voxel to voxel and whose corner is marked."""
    values = np.random.default_rng(1).random(study.shape).astype(np.float32)
    values[:2] = 0  # empty frames
    values[-1, 0, 0] = 1
    return find(
        Prediction(model, "unet", study.case_id, values * (not empty), 0.6, "all", weights_sha256=SHA)
    )


def unpacked(archive: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def made(study: Study, *findings: Finding, keep_identifiers: bool = False) -> dict[str, bytes]:
    """The DICOM files, by what follows the case's name."""
    held = unpacked(segmentations_zip(study, findings, keep_identifiers=keep_identifiers))
    return {
        name.removeprefix(f"{study.case_id}_").removesuffix(".dcm"): data
        for name, data in held.items()
        if name.endswith(".dcm")
    }


def parsed(data: bytes) -> highdicom.seg.Segmentation:
    return highdicom.seg.segread(io.BytesIO(data))


def values_of(dataset: Dataset) -> Iterator[str]:
    for element in dataset.iterall():
        if element.VR != "SQ" and element.keyword != "PixelData":
            yield str(element.value)


def flat_groups(segmentation: Dataset, keyword: str) -> list[Dataset]:
    return [frame[keyword].value[0] for frame in segmentation.PerFrameFunctionalGroupsSequence]


@pytest.fixture(scope="module")
def source() -> list[Dataset]:
    return series(seed=5)


@pytest.fixture(scope="module")
def study(source: list[Dataset]) -> Study:
    return of_slices(source)


@pytest.fixture(scope="module")
def held(study: Study) -> dict[str, bytes]:
    return made(study, finding(study))


# --- where it lies -----------------------------------------------------------------------------------------


def test_every_frame_lies_on_its_slice_and_names_it(
    study: Study, source: list[Dataset], held: dict[str, bytes]
) -> None:
    for data in held.values():
        one = pydicom.dcmread(io.BytesIO(data))
        assert one.NumberOfFrames == len(source), "empty frames are kept"
        by_position = {tuple(image.ImagePositionPatient): image for image in source}
        assert len(by_position) == len(source)
        seen = []
        for frame in one.PerFrameFunctionalGroupsSequence:
            place = tuple(frame.PlanePositionSequence[0].ImagePositionPatient)
            (derived,) = frame.DerivationImageSequence
            (named,) = derived.SourceImageSequence
            assert named.ReferencedSOPInstanceUID == by_position[place].SOPInstanceUID
            assert named.ReferencedSOPClassUID == MRImageStorage
            seen.append(place)
        assert set(seen) == set(by_position)
        shared = one.SharedFunctionalGroupsSequence[0]
        cosines = shared.PlaneOrientationSequence[0].ImageOrientationPatient
        np.testing.assert_allclose(cosines, source[0].ImageOrientationPatient, atol=1e-9)
        measures = shared.PixelMeasuresSequence[0]
        assert measures.PixelSpacing == source[0].PixelSpacing
        assert measures.SliceThickness == source[0].SliceThickness
        assert measures.SpacingBetweenSlices == pytest.approx(6.0, abs=1e-4)
        assert (one.Rows, one.Columns) == SHAPE[1:]


def test_highdicom_reads_back_what_was_found(study: Study, held: dict[str, bytes]) -> None:
    at = finding(study)
    uids = [image.SOPInstanceUID for image in sorted_by_place(study)]
    mask = parsed(held["unet_mask"])
    assert mask.segmentation_type.value == "BINARY"
    back = mask.get_pixels_by_source_instance(uids, assert_missing_frames_are_empty=True)[..., 0]
    # The maker's stack runs to the head with rows to the back: the study's own order.
    np.testing.assert_array_equal(back.astype(bool), at.mask)
    fractional = parsed(held["unet_probability"])
    assert fractional.segmentation_type.value == "FRACTIONAL"
    assert fractional.SegmentationFractionalType == "PROBABILITY"
    values = fractional.get_pixels_by_source_instance(uids)[..., 0]
    np.testing.assert_allclose(values, at.prediction.probability, atol=0.5 / 255 + 1e-6)
    volume = mask.get_volume()
    assert volume.array.sum() == at.mask.sum()
    # A marked corner, by highdicom's own geometry and by ours.
    assert study.affine is not None
    place = (study.affine @ (SHAPE[0] - 1, 0, 0, 1))[:3] * (-1, -1, 1)
    index = volume.map_reference_to_indices(place[np.newaxis])[0]
    np.testing.assert_allclose(index, np.rint(index), atol=1e-3)
    assert volume.array[tuple(np.rint(index).astype(int))] == 1


def sorted_by_place(study: Study) -> list[Dataset]:
    assert study.origin is not None
    return list(study.origin.headers)


@pytest.mark.parametrize("shift", [(1, 0, 0, 0, 0, -1), (0, 1, 0, 0, 0, -1)], ids=["coronal", "sagittal"])
def test_other_planes_go_back_to_their_own(shift: tuple[float, ...]) -> None:
    volume = flair((24, 30, 30))
    geometry = maker.Geometry(axes=shift, spacing=(5.0, 5.0, 5.0))
    images = maker.datasets(volume, 4, geometry=geometry)
    study = of_slices(list(images))
    at = finding(study)
    back = parsed(made(study, at)["unet_mask"])
    uids = [image.SOPInstanceUID for image in sorted_by_place(study)]
    pixels = back.get_pixels_by_source_instance(uids)[..., 0]
    assert pixels.sum() == at.mask.sum()
    # The last slice's first voxel, wherever it went.
    assert study.affine is not None
    assert study.origin is not None
    marked = study.affine @ (study.shape[0] - 1, 0, 0, 1)
    index = np.rint(np.linalg.inv(study.origin.affine) @ marked).astype(int)[:3]
    assert pixels[tuple(index)] == 1


def test_a_missing_slice_has_a_frame_and_no_reference() -> None:
    images = series()
    study = of_slices(images[:4] + images[5:])
    assert study.shape == SHAPE
    one = pydicom.dcmread(io.BytesIO(made(study, finding(study))["unet_mask"]))
    assert one.NumberOfFrames == len(images)
    without = [
        frame.PlanePositionSequence[0].ImagePositionPatient
        for frame in one.PerFrameFunctionalGroupsSequence
        if not frame.get("DerivationImageSequence")
    ]
    assert len(without) == 1
    there = {image.SOPInstanceUID for image in images[:4] + images[5:]}
    assert {
        element.value for element in one.iterall() if element.keyword == "ReferencedSOPInstanceUID"
    } == there
    np.testing.assert_allclose(without[0], images[4].ImagePositionPatient, atol=1e-3)


def test_a_sheared_stack_keeps_its_positions() -> None:
    images = series(geometry=replace(SMALL, shear=1.0))
    study = of_slices(images)
    one = pydicom.dcmread(io.BytesIO(made(study, finding(study))["unet_mask"]))
    places = {tuple(group.ImagePositionPatient) for group in flat_groups(one, "PlanePositionSequence")}
    assert places == {tuple(image.ImagePositionPatient) for image in images}


def test_frames_of_an_enhanced_file_are_named() -> None:
    order = np.random.default_rng(0).permutation(SHAPE[0])
    image = maker.enhanced(flair(), 4, geometry=SMALL, visit=VISIT, order=order.tolist())
    study = study_of({"A/1": maker.as_bytes(image)})
    assert formats_of(study) == ("dicom-seg", "nifti")
    one = pydicom.dcmread(io.BytesIO(made(study, finding(study))["unet_mask"]))
    assert one.NumberOfFrames == SHAPE[0]
    groups = image.PerFrameFunctionalGroupsSequence
    for frame in one.PerFrameFunctionalGroupsSequence:
        named = frame.DerivationImageSequence[0].SourceImageSequence[0]
        assert named.ReferencedSOPInstanceUID == image.SOPInstanceUID
        theirs = groups[int(named.ReferencedFrameNumber) - 1].PlanePositionSequence[0]
        np.testing.assert_allclose(
            frame.PlanePositionSequence[0].ImagePositionPatient, theirs.ImagePositionPatient, atol=1e-6
        )


def test_several_enhanced_files_are_named_by_the_series_alone() -> None:
    # highdicom refers to frames of one multi-frame file, not of several.
    x, y, z = SMALL.position(5)
    rest = replace(SMALL, origin=(x, y, z))
    first = maker.enhanced(flair()[:5], 4, geometry=SMALL, visit=VISIT)
    second = maker.enhanced(flair()[5:], 4, geometry=rest, visit=VISIT)
    second.SOPInstanceUID += "2"
    study = study_of({"A/1": maker.as_bytes(first), "A/2": maker.as_bytes(second)})
    assert study.shape == SHAPE
    one = pydicom.dcmread(io.BytesIO(made(study, finding(study))["unet_mask"]))
    assert one.NumberOfFrames == SHAPE[0]
    named = [
        item.ReferencedSOPInstanceUID for item in one.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    ]
    assert named == [first.SOPInstanceUID, second.SOPInstanceUID]


def test_no_tumour_is_a_whole_file_too(study: Study) -> None:
    one = parsed(made(study, finding(study, empty=True))["unet_mask"])
    assert one.NumberOfFrames == SHAPE[0]
    assert not one.pixel_array.any()


# --- what it says ------------------------------------------------------------------------------------------


def test_it_says_what_made_it(held: dict[str, bytes]) -> None:
    for what, data in held.items():
        one = pydicom.dcmread(io.BytesIO(data))
        assert one.Modality == "SEG"
        assert one.Manufacturer == "brainseg"
        assert one.SoftwareVersions == __version__
        assert "Research use only" in one.SeriesDescription
        assert "Research use only" in one.ContentDescription
        assert what.partition("_")[2] in one.SeriesDescription
        (segment,) = one.SegmentSequence
        assert segment.SegmentAlgorithmType == "AUTOMATIC"
        (category,) = segment.SegmentedPropertyCategoryCodeSequence
        (kind,) = segment.SegmentedPropertyTypeCodeSequence
        (region,) = segment.AnatomicRegionSequence
        codes = [(code.CodeValue, code.CodingSchemeDesignator) for code in (category, kind, region)]
        assert codes == [("49755003", "SCT"), ("108369006", "SCT"), ("12738006", "SCT")]
        (algorithm,) = segment.SegmentationAlgorithmIdentificationSequence
        assert algorithm.AlgorithmName == "brainseg unet"
        assert algorithm.AlgorithmVersion == __version__
        assert f"weights_sha256={SHA}" in algorithm.AlgorithmParameters
        assert "threshold=0.6" in algorithm.AlgorithmParameters


def test_models_are_files_and_series_of_their_own(study: Study) -> None:
    names = ["unet", "a/b", "a:b", "é" * 80]
    held = made(study, *(finding(study, name) for name in names))
    assert list(held)[:3] == ["unet_mask", "unet_probability", "a_b_2_mask"]
    read = [pydicom.dcmread(io.BytesIO(data)) for data in held.values()]
    assert len(read) == 2 * len(names)
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "SeriesNumber"):
        assert len({one[keyword].value for one in read}) == len(read)
    assert all(len(one.SeriesDescription) <= 64 for one in read)


def test_slicer_and_ohif_find_the_tags_they_need(source: list[Dataset], held: dict[str, bytes]) -> None:
    first = source[0]
    for data in held.values():
        one = pydicom.dcmread(io.BytesIO(data))
        # 3D Slicer (dcmqi) puts it into a study by these, and into space by the functional groups.
        assert one.StudyInstanceUID == first.StudyInstanceUID
        assert one.FrameOfReferenceUID == first.FrameOfReferenceUID
        assert one.SOPClassUID == "1.2.840.10008.5.1.4.1.1.66.4"
        shared = one.SharedFunctionalGroupsSequence[0]
        assert shared.PlaneOrientationSequence
        assert shared.PixelMeasuresSequence[0].SpacingBetweenSlices
        assert all(len(g.ImagePositionPatient) == 3 for g in flat_groups(one, "PlanePositionSequence"))
        assert len(one.SegmentSequence[0].RecommendedDisplayCIELabValue) == 3
        # OHIF shows it over the one series of ReferencedSeriesSequence, instance by instance.
        (referenced,) = one.ReferencedSeriesSequence
        assert referenced.SeriesInstanceUID == first.SeriesInstanceUID
        named = {item.ReferencedSOPInstanceUID for item in referenced.ReferencedInstanceSequence}
        assert named == {image.SOPInstanceUID for image in source}
        assert shared.SegmentIdentificationSequence[0].ReferencedSegmentNumber == 1
        assert one.SegmentSequence[0].SegmentNumber == 1
        assert one.SegmentSequence[0].SegmentLabel
        assert one.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (Debian's dicom3tools) is missing")
@pytest.mark.parametrize("keep", [False, True], ids=["pseudonym", "identifiers"])
@pytest.mark.parametrize("kind", ["classic", "enhanced", "gap"])
def test_dciodvfy_finds_no_error(kind: str, keep: bool, tmp_path: Path) -> None:
    images = series()
    if kind == "enhanced":
        one = maker.enhanced(flair(), 4, geometry=SMALL, visit=VISIT)
        study = study_of({"A/1": maker.as_bytes(one)})
    else:
        study = of_slices(images if kind == "classic" else images[:4] + images[5:])
    for name, data in made(study, finding(study), keep_identifiers=keep).items():
        path = tmp_path / f"{name}.dcm"
        path.write_bytes(data)
        run = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
        said = run.stdout + run.stderr
        assert "Segmentation" in said
        assert not [line for line in said.splitlines() if line.startswith("Error")], said


# --- whom it names -----------------------------------------------------------------------------------------


def test_no_identifier_leaves_by_default(held: dict[str, bytes]) -> None:
    for data in held.values():
        one = pydicom.dcmread(io.BytesIO(data))
        said = "\n".join(values_of(one))
        for secret in ("SECRET", maker.BIRTH, "20260101", "101010", "099Y"):
            assert secret not in said
            assert secret.encode() not in data.replace(b"1.2.826", b"")
        assert str(one.PatientName).rstrip("^") == one.PatientID
        assert one.PatientID.startswith("study-")
        assert (one.PatientIdentityRemoved, one.PatientBirthDate, one.StudyDate) == ("YES", "", "")
        assert one.DeidentificationMethod


def test_identifiers_are_kept_where_that_is_asked(study: Study) -> None:
    for data in made(study, finding(study), keep_identifiers=True).values():
        one = pydicom.dcmread(io.BytesIO(data))
        assert (one.PatientName, one.PatientID, one.PatientBirthDate) == (
            maker.NAME,
            maker.PATIENT,
            maker.BIRTH,
        )
        assert (one.AccessionNumber, one.StudyID, one.StudyDate) == (ACCESSION, STUDY_ID, "20260101")
        assert one.ReferringPhysicianName == REFERRER
        assert "PatientIdentityRemoved" not in one
        # What no archive files by stays away.
        said = "\n".join(values_of(one))
        assert not [word for word in ("COMMENT", "HOSPITAL", "OPERATOR", "DEVICE") if word in said]


def test_odd_identifiers_are_no_reason_to_fail(caplog: pytest.LogCaptureFixture) -> None:
    more = {"PatientSex": "X", "StudyTime": "", "PatientBirthDate": "", "PatientName": "Müller^Jürgen"}
    visit = replace(VISIT, more={**VISIT.more, **more})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        images = maker.datasets(flair(), 4, geometry=SMALL, visit=visit)
        for image in images:
            image.SpecificCharacterSet = "ISO_IR 100"
        study = of_slices(list(images))
    with caplog.at_level(logging.DEBUG):
        (first, *_) = made(study, finding(study), keep_identifiers=True).values()
    assert "ller" not in caplog.text
    one = pydicom.dcmread(io.BytesIO(first))
    assert one.PatientName == "Müller^Jürgen"
    assert one.PatientSex == ""


# --- what it is not written for ----------------------------------------------------------------------------


@pytest.mark.parametrize("keyword", ["FrameOfReferenceUID", "StudyInstanceUID", "SeriesInstanceUID"])
def test_what_cannot_be_referred_to_is_said_in_a_sentence(study: Study, keyword: str) -> None:
    assert study.origin is not None
    assert refusal(study.origin) is None
    headers = []
    for header in study.origin.headers:
        poorer = Dataset()
        poorer.update({element.tag: element for element in header if element.keyword != keyword})
        headers.append(poorer)
    poor = replace(study, origin=replace(study.origin, headers=tuple(headers)))
    assert formats_of(poor) == ("nifti",)
    with pytest.raises(InputError, match=rf"needs the {keyword} of FLAIR.*choose nifti\."):
        segmentations_zip(poor, [finding(poor)])
    with pytest.raises(BrainsegError, match="choose nifti"):
        parse_formats(poor, ["dicom-seg"])
    assert parse_formats(poor, ["nifti", "png", "nifti"]) == ("nifti", "png")


def test_another_kind_of_object_is_refused(study: Study) -> None:
    assert study.origin is not None
    header = Dataset()
    header.update(study.origin.headers[0])
    header.SOPClassUID = generate_uid()
    assert "one known kind" in str(refusal(replace(study.origin, headers=(header,))))


def test_a_format_must_be_one_of_ours(study: Study) -> None:
    with pytest.raises(BrainsegError, match="--format 'rtstruct' must be one of nifti, dicom-seg, tiff, png"):
        parse_formats(study, ["rtstruct"])


def test_our_own_results_are_set_aside_and_never_a_reference(
    study: Study, source: list[Dataset], held: dict[str, bytes]
) -> None:
    ours = [NamedBytes(f"out/{name}.dcm", data) for name, data in held.items()]
    images = [NamedBytes(name, data) for name, data in maker.files({"A": source}).items()]
    (case,) = find_cases([*images, *ours])
    assert [one.role for one in case.series if one.why == OWN_RESULT] == [None, None]
    again = read_case(case)
    assert again.reference is None
    assert sum(OWN_RESULT in note for note in again.notes) == 1
    key = next(one.key for one in case.series if one.why == OWN_RESULT)
    with pytest.raises(InputError, match=OWN_RESULT):
        read_case(case, roles={key: "mask"})
    with pytest.raises(InputError, match=OWN_RESULT):
        find_cases(ours)
