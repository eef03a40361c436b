"""Discs made by pydicom and highdicom, against what SimpleITK and highdicom read of them."""

from __future__ import annotations

import io
import logging
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import dicom_maker as maker
import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK
from dicom_maker import FLAIR, OBLIQUE, POST, PRE, Disc, Geometry, Visit
from pydicom.uid import CTImageStorage, SecondaryCaptureImageStorage

import brainseg
from brainseg.io.cases import Case
from brainseg.io.dicom import acquisitions, cases
from brainseg.io.files import NamedBytes, collect
from brainseg.io.series import Role
from brainseg.io.sniff import is_dicom
from brainseg.io.volumes import Acquisition
from brainseg.measure.metrics import dice
from brainseg.sample import SYNTHETIC_GLIOMA
from brainseg.types import InputError

RAS = np.diag([-1.0, -1.0, 1.0])


def named(disc: Mapping[str, bytes]) -> list[NamedBytes]:
    """The disc as `find_cases` is given it."""
    return [NamedBytes(name, data) for name, data in disc.items()]


def only(disc: Mapping[str, bytes]) -> Case:
    """The one case of a disc."""
    (case,), ignored = cases(named(disc))
    assert not ignored
    return case


def taken(case: Case, roles: Mapping[str, Role]) -> Case:
    """The case with these roles and no others."""
    return replace(case, series=tuple(replace(one, role=roles.get(one.key)) for one in case.series))


def decoded(disc: Mapping[str, bytes], key: str = "4", role: Role = "flair") -> Acquisition:
    """One series of a disc."""
    (one,) = acquisitions(taken(only(disc), {key: role}))
    return one


def volume(shape: tuple[int, int, int] = (6, 24, 20), seed: int = 0) -> maker.Volume:
    """Noise with one voxel that is brighter than all others."""
    out = np.random.default_rng(seed).integers(0, 900, shape).astype(np.uint16)
    out[1, 3, 5] = 1000
    return out


@pytest.fixture(scope="module")
def disc() -> Disc:
    return maker.disc()


def test_a_disc_is_one_case_whose_series_are_recognised(disc: Disc) -> None:
    case = only(disc)
    assert case.kind == "dicom"
    assert case.title == "MRI BRAIN"
    assert [(one.key, one.title, one.role) for one in case.series] == [
        ("1", "1: 3-PLANE LOC, 4 slices", None),
        ("3", "3: AX T1, 28 slices", "pre"),
        ("4", "4: AX T2 FLAIR, 28 slices", "flair"),
        ("6", "6: AX T1 POST, 28 slices", "post"),
        ("9", "9: SEG, 1 segment", "mask"),
    ]
    assert all(one.why for one in case.series)
    assert sorted(at for one in case.series for at in one.files) == list(range(len(disc)))


def test_pixels_and_places_are_those_of_the_sample(disc: Disc) -> None:
    pre, flair, post, mask = maker.sample()
    found = list(acquisitions(only(disc)))
    assert [one.info.role for one in found] == ["flair", "pre", "post", "mask"]
    for one, expected in zip(found, (flair, pre, post), strict=False):
        assert np.array_equal(one.pixels, expected)
        assert np.allclose(one.grid.spacing_mm, OBLIQUE.spacing)
        assert one.grid.is_oblique
        assert one.format == "dicom"
        assert one.remarks == ()
        assert len(one.headers) == len(expected)
        assert "PixelData" not in one.headers[0]
    # The segmentation leaves empty slices out and counts from above: in the world it is the same.
    marked = np.argwhere(mask)
    segmented = found[3].grid.voxels(found[0].grid.world(marked))
    assert np.abs(segmented - segmented.round()).max() < 1e-3
    assert found[3].pixels[tuple(segmented.round().astype(int).T)].all()
    assert np.count_nonzero(found[3].pixels) == np.count_nonzero(mask)


def test_headers_follow_the_order_of_the_slices(disc: Disc) -> None:
    flair = next(acquisitions(only(disc)))
    for at, header in enumerate(flair.headers):
        assert np.allclose(flair.grid.world((at, 0, 0)), RAS @ np.array(header.ImagePositionPatient, float))


GEOMETRIES = {
    "axial": maker.AXIAL,
    "oblique": OBLIQUE,
    "downwards": Geometry(axes=(1, 0, 0, 0, -1, 0)),
    "sagittal": Geometry(axes=(0, 1, 0, 0, 0, -1), spacing=(1.2, 0.9, 0.7)),
    "coronal": Geometry(axes=(1, 0, 0, 0, 0, -1), spacing=(2.0, 0.5, 1.0)),
    "turned": Geometry(
        axes=tuple(float(x) for x in maker.rotation((60, 20, -110))[:, :2].T.ravel()), spacing=(3.3, 0.8, 1.1)
    ),
}


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
def test_a_marked_voxel_lies_where_simpleitk_and_highdicom_see_it(geometry: Geometry, tmp_path: Path) -> None:
    pixels = volume()
    datasets = maker.datasets(pixels, 4, FLAIR, geometry, seed=7)
    disc = maker.files({"S": datasets}, seed=5)
    found = decoded(disc)
    marked = np.argwhere(found.pixels == 1000)
    assert len(marked) == 1
    ours = found.grid.world(marked[0])

    for name, data in disc.items():
        (tmp_path / name.replace("/", "_")).write_bytes(data)
    names = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path))
    image = SimpleITK.ReadImage(names)
    array = SimpleITK.GetArrayFromImage(image)
    index = [int(i) for i in np.argwhere(array == 1000)[0][::-1]]
    assert np.allclose(ours, RAS @ np.array(image.TransformIndexToPhysicalPoint(index)), atol=1e-3)

    reference = highdicom.get_volume_from_series(
        [pydicom.dcmread(io.BytesIO(data)) for data in disc.values()]
    )
    at = np.argwhere(reference.array == 1000)[0]
    assert np.allclose(ours, RAS @ (reference.affine @ [*at, 1])[:3], atol=1e-3)
    # Every other voxel, too: highdicom may count slices the other way.
    everywhere = np.indices(reference.array.shape).reshape(3, -1).T
    world = (everywhere @ reference.affine[:3, :3].T + reference.affine[:3, 3]) @ RAS
    own = found.grid.voxels(world).round().astype(int)
    assert np.array_equal(found.pixels[tuple(own.T)], reference.array.ravel())


def test_enhanced_and_legacy_converted_multi_frame_are_the_same_volume(disc: Disc) -> None:
    pixels = volume()
    order = np.random.default_rng(1).permutation(len(pixels))
    one = maker.as_bytes(maker.enhanced(pixels, 4, FLAIR, OBLIQUE, order=[int(at) for at in order]))
    found = decoded({"IM0": one})
    singles = decoded(maker.files({"S": maker.datasets(pixels, 4, FLAIR, OBLIQUE)}))
    assert found.info.why.startswith("FLAIR")
    assert np.array_equal(found.pixels, pixels)
    assert np.allclose(found.grid.affine, singles.grid.affine)
    assert len(found.headers) == 1

    legacy = highdicom.legacy.LegacyConvertedEnhancedMRImage(
        legacy_datasets=maker.datasets(pixels, 4, FLAIR, OBLIQUE),
        series_instance_uid="1.2.3.4",
        series_number=4,
        sop_instance_uid="1.2.3.4.5",
        instance_number=1,
    )
    found = decoded({"IM0": maker.as_bytes(legacy)})
    assert np.array_equal(found.pixels, pixels)
    assert np.allclose(found.grid.affine, singles.grid.affine)


def test_enhanced_mr_without_a_description_is_recognised_by_its_times() -> None:
    about = {**FLAIR, "SeriesDescription": ""}
    case = only({"IM0": maker.as_bytes(maker.enhanced(volume(), 4, about))})
    assert case.series[0].role == "flair"
    assert "inversion 2500 ms" in case.series[0].why


def test_a_dicomdir_disc_from_a_folder_and_a_zip(tmp_path: Path) -> None:
    datasets = maker.datasets(volume((6, 32, 32)), 4)
    maker.write_disc(tmp_path / "CD", maker.files({"S": datasets}))
    folder = collect(tmp_path / "CD")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for file in (tmp_path / "CD").rglob("*"):
            if file.is_file():
                archive.write(file, file.relative_to(tmp_path))
    (tmp_path / "disc.zip").write_bytes(packed.getvalue())
    zipped = collect(tmp_path / "disc.zip")
    for files in (folder, zipped):
        there = [file for file in files if is_dicom(file.head(400))]
        assert len(there) == 7
        (case,), ignored = cases(there)
        assert len(case.files) == 6
        assert [file.note for file in ignored] == [
            "the index of a disc (DICOMDIR); the files that it lists were read themselves"
        ]
        assert np.array_equal(next(acquisitions(case)).pixels, volume((6, 32, 32)))


def test_two_studies_of_one_patient_are_two_cases_told_apart_without_a_date() -> None:
    first = Visit(study="1.2.3.1", date="20250101", description="MRI BRAIN")
    later = Visit(study="1.2.3.2", date="20260101", description="MRI BRAIN")
    disc = maker.files(
        {
            "B": maker.datasets(volume(), 4, FLAIR, visit=later),
            "A": maker.datasets(volume(), 4, FLAIR, visit=first),
        }
    )
    found, ignored = cases(named(disc))
    assert not ignored
    assert [case.title for case in found] == [
        "MRI BRAIN (study 1 of 2 in time)",
        "MRI BRAIN (study 2 of 2 in time)",
    ]
    assert [case.files[0].name[0] for case in found] == ["A", "B"]
    assert len({case.case_id for case in found}) == 2


def test_studies_of_two_patients_and_one_study_number_for_both() -> None:
    one, other = Visit(patient="P1"), Visit(patient="P2")
    disc = maker.files(
        {"A": maker.datasets(volume(), 4, visit=one), "B": maker.datasets(volume(), 4, visit=other)}
    )
    found, _ = cases(named(disc))
    assert [case.title for case in found] == ["MRI BRAIN (patient 1)", "MRI BRAIN (patient 2)"]
    assert found[1].case_id == f"{found[0].case_id}-2"


def test_case_ids_name_nobody_and_stay_the_same(disc: Disc) -> None:
    case = only(disc)
    assert case.case_id == only(dict(reversed(disc.items()))).case_id
    assert case.case_id.startswith("study-")
    assert len(case.case_id) == 12
    for secret in (maker.NAME, maker.PATIENT, maker.BIRTH, "20260101", Visit().study):
        assert secret not in repr((case.case_id, case.title, case.series))


def test_a_segmentation_stored_as_a_study_of_its_own_comes_to_its_images() -> None:
    images = maker.datasets(volume(), 4)
    seg = maker.segmentation(images, {"Tumour": volume() > 800}, 9)
    # The element itself is the images' own.
    del seg.StudyInstanceUID
    seg.StudyInstanceUID = "1.2.3.77"
    disc = {**maker.files({"S": images}), "SEG": maker.as_bytes(seg)}
    assert [one.role for one in only(disc).series] == ["flair", "mask"]


def test_a_ct_and_a_report_are_set_aside_by_name() -> None:
    ct = maker.datasets(volume(), 2, {"SeriesDescription": "CT HEAD", "Modality": "CT"}, kind=CTImageStorage)
    report = maker.datasets(volume()[:1], 8, {"Modality": "SR"}, kind=pydicom.uid.ComprehensiveSRStorage)[0]
    document = maker.datasets(volume()[:1], 7, {"Modality": "DOC"}, kind=pydicom.uid.EncapsulatedPDFStorage)[
        0
    ]
    contours = maker.datasets(
        volume()[:1], 9, {"Modality": "RTSTRUCT"}, kind=pydicom.uid.RTStructureSetStorage
    )[0]
    for one in (report, document, contours):
        for keyword in ("PixelData", "Rows", "Columns"):
            del one[keyword]
    disc = maker.files(
        {"A": ct, "B": maker.datasets(volume(), 4), "C": [report], "D": [document], "E": [contours]}
    )
    case = only(disc)
    assert {one.key: (one.role, one.why) for one in case.series if one.key != "4"} == {
        "2": (None, "a CT, not an MRI"),
        "7": (None, "Encapsulated PDF (no images)"),
        "8": (None, "Comprehensive SR (no images)"),
        "9": (
            None,
            "contours of radiotherapy (RTSTRUCT), which are not read: export them as DICOM-SEG or NIfTI",
        ),
    }
    assert np.array_equal(next(acquisitions(case)).pixels, volume())
    with pytest.raises(InputError, match=r"^Series 2 \(\"A/I000000\"\) is a CT, not an MRI: choose a series"):
        list(acquisitions(taken(case, {"2": "flair"})))
    found, ignored = cases(named(maker.files({"A": ct})))
    assert found == []
    assert {file.note for file in ignored} == {"a CT, not an MRI"}


def test_secondary_captures_are_pictures_unless_they_lie_somewhere() -> None:
    colour = maker.datasets(volume()[:1], 5, kind=SecondaryCaptureImageStorage)[0]
    colour.SamplesPerPixel, colour.PhotometricInterpretation, colour.PlanarConfiguration = 3, "RGB", 0
    screen = maker.datasets(volume()[:1], 6, {"SeriesDescription": "T1"}, kind=SecondaryCaptureImageStorage)[
        0
    ]
    del screen.ImagePositionPatient
    placed = maker.datasets(volume(), 7, {"SeriesDescription": "FLAIR"}, kind=SecondaryCaptureImageStorage)
    case = only(maker.files({"A": [colour], "B": [screen], "C": placed, "D": maker.datasets(volume(), 4)}))
    whys = {one.key: (one.role, one.why) for one in case.series}
    assert whys["5"] == (None, "a picture in colour, not a scan")
    assert whys["6"] == (None, "a secondary capture (a picture of a screen), not a scan")
    assert whys["7"] == (None, "FLAIR by its description; series 4 was taken")
    assert whys["4"][0] == "flair"


def test_of_several_series_of_a_kind_one_is_taken_and_the_others_say_so() -> None:
    sagittal = GEOMETRIES["sagittal"]
    derived = {**FLAIR, "ImageType": ["DERIVED", "SECONDARY", "MPR"]}
    pixels = volume((9, 24, 20))
    case = only(
        maker.files(
            {
                "A": maker.datasets(pixels, 3, {**FLAIR, "SeriesDescription": "SAG FLAIR"}, sagittal),
                "B": maker.datasets(pixels, 4, FLAIR),
                "C": maker.datasets(pixels, 5, {**FLAIR, "SeriesDescription": "AX FLAIR REPEAT"}),
                "D": maker.datasets(pixels, 6, derived),
                "E": maker.datasets(pixels, 7, PRE),
                "F": maker.datasets(pixels, 8, PRE),
                "G": maker.datasets(
                    pixels, 9, {**POST, "SeriesDescription": "COR T1 POST"}, GEOMETRIES["coronal"]
                ),
                "H": maker.datasets(pixels, 10, POST),
            }
        )
    )
    assert {one.key: one.role for one in case.series if one.role} == {"5": "flair", "7": "pre", "10": "post"}
    assert case.series[0].why == "FLAIR by its description; series 5 was taken"


def test_series_of_one_number_get_keys_of_their_own() -> None:
    one, other = maker.datasets(volume(), 4, FLAIR), maker.datasets(volume(), 4, PRE)
    for dataset in other:
        dataset.SeriesInstanceUID = "1.2.3.99"
        dataset.SOPInstanceUID += ".9"
    unnumbered = maker.datasets(volume(), 5, POST)
    for dataset in unnumbered:
        del dataset.SeriesNumber
    case = only(maker.files({"A": one, "B": other, "C": unnumbered}))
    assert [(one.key, one.role) for one in case.series] == [("4", "flair"), ("4b", "pre"), ("0", "post")]
    assert [found.info.key for found in acquisitions(case)] == ["4", "4b", "0"]


def test_two_echoes_of_one_series_are_two_volumes() -> None:
    short, long = (
        maker.datasets(
            volume(seed=seed), 4, {"SeriesDescription": "PD T2", "EchoTime": echo, "RepetitionTime": 4000}
        )
        for seed, echo in ((0, 15), (1, 90))
    )
    for dataset in long:
        dataset.SOPInstanceUID += ".2"
    case = only(maker.files({"A": [*short, *long]}))
    assert [one.key for one in case.series] == ["4.1", "4.2"]
    (first,), (second,) = (acquisitions(taken(case, {key: "flair"})) for key in ("4.1", "4.2"))
    found = {int(one.headers[0].EchoTime): one.pixels for one in (first, second)}
    assert np.array_equal(found[15], volume(seed=0))
    assert np.array_equal(found[90], volume(seed=1))


def test_volumes_over_time_are_set_aside_by_name() -> None:
    members = []
    for at in range(6):
        moment = maker.datasets(volume(seed=at), 4, {**FLAIR, "TemporalPositionIdentifier": at + 1})
        for dataset in moment:
            dataset.SOPInstanceUID += f".{at}"
        members += moment
    case = only(maker.files({"A": members}))
    (one,) = case.series
    assert one.role is None
    assert one.why == "it holds 6 volumes of the same place, over time or by diffusion: choose another"
    with pytest.raises(InputError, match=r"^Series 4 \(\"A/I000000\"\) holds 6 volumes"):
        list(acquisitions(taken(case, {"4": "flair"})))


def test_slices_in_three_directions_are_three_volumes_and_in_many_none() -> None:
    directions = [maker.rotation((0, 0, angle)) @ maker.rotation((90, 0, 0)) for angle in range(0, 180, 20)]
    members = []
    for at, turn in enumerate(directions):
        geometry = Geometry(axes=tuple(float(x) for x in turn[:, :2].T.ravel()))
        some = maker.datasets(volume()[:2], 4, FLAIR, geometry)
        for dataset in some:
            dataset.SOPInstanceUID += f".{at}"
        members.append(some)
    case = only(maker.files({"A": [dataset for some in members[:3] for dataset in some]}))
    assert [one.key for one in case.series] == ["4.1", "4.2", "4.3"]
    assert [one.role for one in case.series].count("flair") == 1
    case = only(maker.files({"A": [dataset for some in members for dataset in some]}))
    (one,) = case.series
    assert one.role is None
    assert one.why.startswith("it holds slices in 9 directions or sizes, so that they make no volume")


def test_a_missing_slice_is_left_blank_and_said() -> None:
    datasets = maker.datasets(volume((9, 24, 20)), 4)
    found = decoded(maker.files({"A": datasets[:3] + datasets[4:]}))
    assert found.remarks == (
        "Series 4 lacks 1 slice after slice 3, which were left blank: no tumour is found there.",
    )
    assert np.array_equal(np.delete(found.pixels, 3, 0), np.delete(volume((9, 24, 20)), 3, 0))
    assert (found.pixels[3] == 0).all()
    assert len(found.headers) == 8
    assert np.isclose(found.grid.spacing_mm[0], 5)


def test_irregular_distances_are_refused_and_the_rest_is_offered() -> None:
    datasets = maker.datasets(volume(), 4)
    for at, dataset in enumerate(datasets):
        dataset.ImagePositionPatient = [0, 0, float(at**2) + 0.3 * at]
    case = only(maker.files({"A": datasets, "B": maker.datasets(volume(), 5, PRE)}))
    assert [one.role for one in case.series] == [None, "pre"]
    assert case.series[0].why == (
        "it has slices at irregular distances, from 1.3 to 9.3 mm: export the series again"
    )


def test_a_series_without_positions_is_refused_by_name() -> None:
    datasets = maker.datasets(volume(), 4)
    for dataset in datasets:
        del dataset.ImagePositionPatient
    (one,) = only(maker.files({"A": datasets})).series
    assert one.role is None
    assert one.why == "it does not say where its slices lie: export it again as DICOM"


def test_copies_of_slices_are_taken_once_and_different_ones_refused() -> None:
    datasets = maker.datasets(volume(), 4)
    copied = maker.files({"A": datasets, "B": datasets[2:4]})
    found = decoded(copied)
    assert np.array_equal(found.pixels, volume())
    assert found.remarks == ("Series 4 holds 2 slices twice; each was taken once.",)
    other = maker.datasets(volume(seed=1), 4)[2]
    other.SOPInstanceUID = "1.2.3.4.5.6"
    with pytest.raises(
        InputError,
        match=r'^"A/I\d+" and "B/I000000" of series 4 are different slices in one place, .* leave one out\.$',
    ):
        decoded(maker.files({"A": datasets, "B": [other]}))


def test_a_sheared_stack_is_kept_and_said() -> None:
    geometry = Geometry(shear=1.0)
    found = decoded(maker.files({"A": maker.datasets(volume(), 4, FLAIR, geometry)}))
    (remark,) = found.remarks
    assert remark.startswith("Series 4 is a sheared stack, whose slices are shifted by 11 degrees")
    assert np.allclose(found.grid.world((3, 0, 0)), RAS @ np.array(geometry.position(3)))


def test_a_single_slice_has_its_thickness() -> None:
    found = decoded(maker.files({"A": maker.datasets(volume()[:1], 4)}))
    assert np.isclose(found.grid.spacing_mm[0], 5)


def test_a_grey_series_is_no_mask_and_a_binary_one_is() -> None:
    disc = maker.files({"A": maker.datasets(volume(), 4), "B": maker.datasets((volume() > 800) * 3, 5)})
    case = only(disc)
    with pytest.raises(InputError, match=r'^Series 4 \("A/I000000"\) holds grey values, so it is no mask'):
        list(acquisitions(taken(case, {"4": "mask"})))
    (found,) = acquisitions(taken(case, {"5": "mask"}))
    assert np.array_equal(found.pixels, (volume() > 800) * 3)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda data: data[:-200], r'"A/I000000" of series 4 is cut short, it lacks pixels'),
        (lambda data: data[:132], r'"A/I000000" of series 4 is not a DICOM image'),
    ],
)
def test_a_file_that_changed_since_it_was_listed(spoil: object, sentence: str) -> None:
    disc = maker.files({"A": maker.datasets(volume(), 4)})
    case = only(disc)
    files = list(case.files)
    assert callable(spoil)
    files[0] = NamedBytes(files[0].name, spoil(files[0].data))
    with pytest.raises(InputError, match=f"^{sentence}"):
        list(acquisitions(replace(case, files=tuple(files))))


def test_nothing_of_a_header_is_logged_or_warned(
    disc: Disc, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    damaged = {name: data.replace(b"1.2.826.0.1", b"1.2.826/0.1") for name, data in disc.items()}
    found, _ = cases(named(damaged))
    for case in found:
        list(acquisitions(taken(case, {"4": "flair"})))
    out, err = capfd.readouterr()
    assert caplog.text == out == err == ""


def test_headers_hold_nothing_private_and_can_be_sent_to_another_process() -> None:
    dataset = maker.datasets(volume()[:1], 4)[0]
    dataset.add_new(0x00291010, "OB", b"private")
    found = decoded({"A": maker.as_bytes(dataset)})
    (header,) = found.headers
    assert 0x00291010 not in header
    assert header.PatientID == maker.PATIENT
    assert pickle.loads(pickle.dumps(header)) == header


def test_the_disc_is_segmented_as_the_slices_are(disc: Disc, tmp_path: Path) -> None:
    maker.write_disc(tmp_path / "CD", disc)
    slices, scan = brainseg.read_study(SYNTHETIC_GLIOMA), brainseg.read_study(tmp_path / "CD")
    assert scan.case_id.startswith("study-")
    assert scan.spacing_mm == pytest.approx(OBLIQUE.spacing)
    assert scan.orientation == "LPS"
    assert np.array_equal(scan.slices, slices.slices)
    assert scan.reference is not None
    assert slices.reference is not None
    assert np.array_equal(scan.reference, slices.reference)
    predictor = brainseg.Predictor(brainseg.load("unet"), "cpu")
    found = [brainseg.find(predictor.predict(study, attention=False)).mask for study in (slices, scan)]
    figures = [dice(mask, slices.reference) for mask in found]
    assert all(isinstance(figure, float) and figure > 0.5 for figure in figures)
    assert figures[0] == pytest.approx(figures[1], abs=0.01)
