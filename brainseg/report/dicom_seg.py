"""Masks and probabilities as DICOM segmentations of the input's FLAIR series, written by highdicom."""

from __future__ import annotations

import copy
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import highdicom as hd
import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import (
    UID,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    LegacyConvertedEnhancedMRImageStorage,
    MRImageStorage,
    SecondaryCaptureImageStorage,
)
from pydicom.valuerep import DA, TM, format_number_as_ds

from brainseg import __version__
from brainseg.grid import Grid
from brainseg.io.dicom.headers import items, kind_of, numbers, text, whole
from brainseg.io.quiet import quiet
from brainseg.io.sniff import OWN_MARK
from brainseg.models import ARCHITECTURES
from brainseg.overlay import PREDICTION
from brainseg.postprocess import Finding
from brainseg.report.native import on_origin
from brainseg.report.provenance import check, names_of, safe_name, zipped
from brainseg.types import RESEARCH_USE, InputError, Origin, Study

_MULTI_FRAME = (EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage)
_SOURCES = (MRImageStorage, SecondaryCaptureImageStorage, *_MULTI_FRAME)
_REFERENCES = (
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SOPInstanceUID",
    "FrameOfReferenceUID",
)
# By these an archive files an object with its patient and study.
_TEXTS = (
    *("PatientName", "PatientID", "IssuerOfPatientID", "PatientAge", "PatientIdentityRemoved"),
    *("DeidentificationMethod", "AccessionNumber", "StudyID", "ReferringPhysicianName", "StudyDescription"),
)
# The standard wants these to be there, though they may be empty.
_EMPTY = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID"),
    *("StudyDate", "StudyTime", "ReferringPhysicianName"),
)
_TO_LPS = np.array([-1.0, -1.0, 1.0])
_LONGEST = 64
# In voxels: slices of one stack may lie off its even grid by so much.
_SAME_PLACE = 0.5
_FIRST_SERIES = 9001


def refusal(origin: Origin) -> str | None:
    """Why no segmentation can refer to a DICOM series, a sentence with the remedy; None where one can."""
    lacking = next(
        (key for key in _REFERENCES if any(not text(header, key) for header in origin.headers)), None
    )
    if not origin.headers or lacking:
        return f"DICOM-SEG needs the {lacking or 'headers'} of FLAIR, which its files lack: choose nifti."
    kinds = {kind_of(header) for header in origin.headers}
    if len(kinds) > 1 or not kinds <= set(_SOURCES):
        return "DICOM-SEG needs FLAIR as MR images of one known kind, which it is not: choose nifti."
    if not all(_places(header) for header in origin.headers):
        return "DICOM-SEG needs the position of every frame of FLAIR, which its files lack: choose nifti."
    return None


def segmentations_zip(study: Study, findings: Sequence[Finding], *, keep_identifiers: bool = False) -> bytes:
    """A zip of two DICOM-SEG files for each finding, and a README.txt.

    ``<case>_<model>_mask.dcm`` is binary, ``<case>_<model>_probability.dcm`` fractional (8 bits). Each is a
    series of its own with one segment: viewers show one segmentation a series, and masks of several models
    overlap, which some of them cannot show within one file. There is a frame for each slice of the source,
    empty ones too, which refers to the source's instance where that is; a slice that was missing has its
    frame, and refers to none. RTSTRUCT is not written: no well-kept library makes its contours in memory.

    Args:
        study: from DICOM.
        findings: of it.
        keep_identifiers: copy the patient's name, number, birth date and sex, and the study's date, number
            and physician from the source, so that an archive files the segmentation with its study.
            Without it the patient is a pseudonym, ``study-`` and six letters of the digest of the
            StudyInstanceUID, those fields are empty, and PatientIdentityRemoved says so. The identifiers of
            study, series, instances and frame of reference stay in either case: the references are made
            of them, and who has the source can find it by them.

    Raises:
        InputError: not from DICOM, or as `refusal` says.
        ValueError: if a finding is of another case or shape, or two bear one model's name.
    """
    check(study, findings)
    if study.origin is None or study.origin.format != "dicom":
        raise InputError(f"{study.case_id} is no DICOM, to which DICOM-SEG refers: choose another format.")
    if reason := refusal(study.origin):
        raise InputError(reason)
    # highdicom's and pydicom's warnings repeat values of headers.
    with quiet("pydicom", "highdicom"):
        source = _source(study.origin, keep_identifiers)
        files: dict[str, bytes] = {}
        for name, finding in zip(names_of(findings), findings, strict=True):
            probability, mask = on_origin(study, finding)
            stem = f"{safe_name(study.case_id)}_{name}"
            for what, volume in (("mask", mask.astype(np.uint8)), ("probability", probability)):
                number = _FIRST_SERIES + len(files)
                files[f"{stem}_{what}.dcm"] = _written(source, volume, finding, what, number)
    return zipped(
        study, findings, files, "DICOM segmentations: masks (binary) and probabilities (fractional)."
    )


@dataclass(frozen=True, eq=False)
class _Source:
    # What highdicom is shown of the source: nothing but what belongs into a segmentation.
    images: tuple[Dataset, ...]
    positions: tuple[hd.PlanePositionSequence, ...]
    orientation: hd.PlaneOrientationSequence
    measures: hd.PixelMeasuresSequence
    anonymous: bool
    # Instances and the number of frames that there are; highdicom refers to all slices or to none, so the
    # missing ones have stand-ins until it is done.
    instances: frozenset[str]
    frames: int


def _written(
    source: _Source,
    volume: npt.NDArray[Any],
    finding: Finding,
    what: str,
    number: int,
) -> bytes:
    prediction = finding.prediction
    name = safe_name(prediction.model)
    binary = what == "mask"
    network = ARCHITECTURES.get(prediction.architecture)
    algorithm = hd.AlgorithmIdentificationSequence(
        name=f"brainseg {name}"[:_LONGEST],
        family=codes.cid7162.ArtificialIntelligence,
        version=__version__,
        source=OWN_MARK,
        parameters={
            "weights_sha256": prediction.weights_sha256,
            "threshold": f"{finding.threshold:g}",
            "keep": finding.keep,
            "flips": "yes" if prediction.tta else "no",
        },
    )
    segment = hd.seg.SegmentDescription(
        segment_number=1,
        segment_label=f"Tumour ({name})"[:_LONGEST],
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.Neoplasm,
        algorithm_type="AUTOMATIC",
        algorithm_identification=algorithm,
        anatomic_regions=[codes.SCT.Brain],
        display_color=hd.color.CIELabColor.from_string(network.colour if network else PREDICTION),
    )
    made = hd.seg.Segmentation(
        source_images=source.images[:1] if _is_multi_frame(source.images[0]) else source.images,
        further_source_images=source.images[1:] if _is_multi_frame(source.images[0]) else None,
        pixel_array=volume,
        segmentation_type="BINARY" if binary else "FRACTIONAL",
        fractional_type=None if binary else "PROBABILITY",
        segment_descriptions=[segment],
        series_instance_uid=hd.UID(),
        series_number=number,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer=OWN_MARK,
        manufacturer_model_name=f"brainseg {prediction.architecture}"[:_LONGEST],
        software_versions=__version__,
        # The weights make one such device differ from another.
        device_serial_number=prediction.weights_sha256 or "unknown",
        content_label="TUMOUR" if binary else "PROBABILITY",
        content_description=RESEARCH_USE,
        series_description=f"Research use only: brainseg {name} {what}"[:_LONGEST],
        plane_positions=source.positions,
        plane_orientation=source.orientation,
        pixel_measures=source.measures,
        omit_empty_frames=False,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        specific_character_set="ISO_IR 192",
    )
    _forget_missing(made, source)
    if source.anonymous:
        made.PatientIdentityRemoved = "YES"
        made.DeidentificationMethod = "brainseg: patient and study not copied, UIDs kept"
    buffer = io.BytesIO()
    made.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _source(origin: Origin, keep_identifiers: bool) -> _Source:
    grid = Grid(origin.affine, origin.shape)
    axes = (grid.directions[:, 2] * _TO_LPS, grid.directions[:, 1] * _TO_LPS)
    first = origin.headers[0]
    stated = _numbers(first, "ImageOrientationPatient", 6, "PlaneOrientationSequence")
    cosines = stated or tuple(float(x) for axis in axes for x in axis)
    # Of a sheared stack, slices lie apart along their normal by less than along the way from one to the next.
    apart = abs(float(np.cross(*axes) @ (grid.affine[:3, 0] * _TO_LPS)))
    thick = _numbers(first, "SliceThickness", 1, "PixelMeasuresSequence")
    spacing = _numbers(first, "PixelSpacing", 2, "PixelMeasuresSequence") or grid.spacing_mm[1:]
    measures = hd.PixelMeasuresSequence(
        pixel_spacing=list(spacing),
        slice_thickness=thick[0] if thick and thick[0] > 0 else apart,
        spacing_between_slices=apart,
    )
    orientation = hd.PlaneOrientationSequence("PATIENT", list(cosines))
    # Where a slice is missing, where it would lie; else where its own header says.
    positions = [tuple(grid.world((at, 0, 0)) * _TO_LPS) for at in range(origin.shape[0])]
    missing = dict(enumerate(positions))
    for header in origin.headers:
        for place in _places(header):
            at = grid.voxels(np.asarray(place) * _TO_LPS)
            index = round(float(at[0]))
            if 0 <= index < len(positions) and np.abs(at - (index, 0, 0)).max() < _SAME_PLACE:
                positions[index] = tuple(place)
                missing.pop(index, None)
    images = [_stand_in(header, orientation, measures, keep_identifiers) for header in origin.headers]
    instances = frozenset(image.SOPInstanceUID for image in images)
    frames = int(images[0].get("NumberOfFrames", 1))
    for place in missing.values():
        if _is_multi_frame(images[0]):
            images[0].PerFrameFunctionalGroupsSequence.append(_frame(place))
            images[0].NumberOfFrames += 1
        else:
            image = copy.deepcopy(images[0])
            image.SOPInstanceUID = hd.UID()
            image.ImagePositionPatient = [format_number_as_ds(x) for x in place]
            images.append(image)
    return _Source(
        images=tuple(images),
        positions=tuple(hd.PlanePositionSequence("PATIENT", list(place)) for place in positions),
        orientation=orientation,
        measures=measures,
        anonymous=not keep_identifiers,
        instances=instances,
        frames=frames,
    )


def _forget_missing(made: hd.seg.Segmentation, source: _Source) -> None:
    """Take the references to slices that are not there out again."""
    for frame in made.PerFrameFunctionalGroupsSequence:
        # Of several multi-frame files, which highdicom may not match, a frame has none.
        for derived in frame.get("DerivationImageSequence", ()):
            for named in derived.SourceImageSequence:
                uid, number = named.ReferencedSOPInstanceUID, int(named.get("ReferencedFrameNumber", 1))
                added = uid == source.images[0].SOPInstanceUID and number > source.frames
                if added or uid not in source.instances:
                    frame.DerivationImageSequence = []
    holders: list[tuple[Dataset, str]] = [(made, "SourceImageSequence")]
    holders += [(series, "ReferencedInstanceSequence") for series in made.ReferencedSeriesSequence]
    for holder, keyword in holders:
        kept = [one for one in items(holder, keyword) if one.ReferencedSOPInstanceUID in source.instances]
        setattr(holder, keyword, kept)


def _frame(place: Sequence[float]) -> Dataset:
    out = Dataset()
    out.PlanePositionSequence = hd.PlanePositionSequence("PATIENT", list(place))
    return out


def _stand_in(
    header: Dataset,
    orientation: hd.PlaneOrientationSequence,
    measures: hd.PixelMeasuresSequence,
    keep_identifiers: bool,
) -> Dataset:
    """A dataset with what highdicom needs of a source image, and with nothing else that the source holds."""
    out = Dataset()
    out.SOPClassUID = kind_of(header)
    for keyword in _REFERENCES:
        setattr(out, keyword, UID(text(header, keyword)))
    for keyword in _EMPTY:
        setattr(out, keyword, "")
    if keep_identifiers:
        _identify(out, header)
    else:
        digest = hashlib.sha256(text(header, "StudyInstanceUID").encode()).hexdigest()
        out.PatientID = f"study-{digest[:6]}"
        # A family name and no more.
        out.PatientName = f"{out.PatientID}^"
    out.Modality = "MR"
    out.PositionReferenceIndicator = ""
    out.Rows, out.Columns = whole(header, "Rows"), whole(header, "Columns")
    if text(header, "LossyImageCompression") == "01":
        out.LossyImageCompression = "01"
        for keyword in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
            if keyword in header:
                setattr(out, keyword, header.get(keyword))
    places = _places(header)
    if _is_multi_frame(out):
        shared = Dataset()
        shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = orientation, measures
        out.SharedFunctionalGroupsSequence = [shared]
        out.PerFrameFunctionalGroupsSequence = [_frame(place) for place in places]
        out.NumberOfFrames = len(places)
    else:
        out.ImagePositionPatient = [format_number_as_ds(x) for x in places[0]]
        out.ImageOrientationPatient = orientation[0].ImageOrientationPatient
        out.PixelSpacing = measures[0].PixelSpacing
        out.SliceThickness = measures[0].SliceThickness
        out.SpacingBetweenSlices = measures[0].SpacingBetweenSlices
    return out


def _identify(out: Dataset, header: Dataset) -> None:
    for keyword in _TEXTS:
        # A person's name is a value of several parts, and one text.
        value = header.get(keyword)
        if value is not None and str(value):
            setattr(out, keyword, str(value))
    for keyword, kind in (("PatientBirthDate", DA), ("StudyDate", DA), ("StudyTime", TM)):
        # highdicom refuses what is no date.
        try:
            setattr(out, keyword, kind(text(header, keyword)))
        except ValueError:
            continue
    sex = text(header, "PatientSex").upper()
    out.PatientSex = sex if sex in ("M", "F", "O") else ""


def _is_multi_frame(dataset: Dataset) -> bool:
    return kind_of(dataset) in _MULTI_FRAME


def _places(header: Dataset) -> list[tuple[float, ...]]:
    """Positions of a header's frames in DICOM's axes, in their order; none where one is unknown."""
    if not _is_multi_frame(header):
        own = numbers(header, "ImagePositionPatient", 3)
        return [own] if own else []
    shared = items(header, "SharedFunctionalGroupsSequence")
    found = [
        next(
            (
                place
                for group in (frame, *shared)
                for one in items(group, "PlanePositionSequence")
                if (place := numbers(one, "ImagePositionPatient", 3))
            ),
            None,
        )
        for frame in items(header, "PerFrameFunctionalGroupsSequence")
    ]
    return [place for place in found if place] if all(found) else []


def _numbers(header: Dataset, keyword: str, count: int, group: str) -> tuple[float, ...] | None:
    """Of a slice's header, or what all frames share."""
    inside = [
        one for shared in items(header, "SharedFunctionalGroupsSequence") for one in items(shared, group)
    ]
    return next((v for one in (*inside, header) if (v := numbers(one, keyword, count))), None)
