"""Discs of DICOM made from arrays, by pydicom and highdicom alone: nothing here uses brainseg's own code."""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import highdicom
import imagecodecs
import numpy as np
import numpy.typing as npt
import pydicom
import tifffile
from highdicom.sr.coding import CodedConcept
from PIL import Image
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.fileset import FileSet
from pydicom.sequence import Sequence as Items
from pydicom.uid import (
    UID,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    MRImageStorage,
    RLELossless,
)

from brainseg.sample import SYNTHETIC_GLIOMA

Volume = npt.NDArray[Any]
Disc = dict[str, bytes]

NAME, BIRTH, PATIENT = "SECRET^PATIENT", "19010203", "MRN-SECRET-77"
"""What must never be found in a message or log."""


def rotation(degrees: Sequence[float]) -> npt.NDArray[np.float64]:
    """About x, then y, then z."""
    a, b, c = np.radians(degrees)
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    about_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return np.asarray(about_z @ about_y @ about_x)


@dataclass(frozen=True)
class Geometry:
    """Where a volume (S, H, W) lies, in DICOM's axes.

    Attributes:
        axes: along a row, then along a column.
        origin: centre of the first voxel, in mm.
        spacing: between slices, rows and columns, in mm.
        shear: mm that each slice is shifted by along a column, against the one before.
    """

    axes: tuple[float, ...] = (1, 0, 0, 0, 1, 0)
    origin: tuple[float, float, float] = (-119.5, -119.5, -60.0)
    spacing: tuple[float, float, float] = (5.0, 0.9375, 0.9375)
    shear: float = 0.0

    @property
    def normal(self) -> npt.NDArray[np.float64]:
        """The direction in which slices follow one another."""
        return np.cross(self.axes[:3], self.axes[3:])

    def position(self, at: float) -> list[float]:
        """Of the first voxel of a slice."""
        step = self.normal * self.spacing[0] + np.asarray(self.axes[3:]) * self.shear
        return [round(float(x), 6) for x in np.asarray(self.origin) + at * step]


AXIAL = Geometry()
_TURN = rotation((12, -7, 9))
OBLIQUE = Geometry(axes=tuple(float(x) for x in np.round([*_TURN[:, 0], *_TURN[:, 1]], 9)))


@dataclass(frozen=True)
class Visit:
    """One study of one patient."""

    patient: str = PATIENT
    study: str = "1.2.826.0.1.3680043.10.1000.1"
    frame: str = "1.2.826.0.1.3680043.10.1000.2"
    description: str = "MRI BRAIN"
    date: str = "20260101"
    more: Mapping[str, Any] = field(default_factory=dict)


FLAIR = {"SeriesDescription": "AX T2 FLAIR", "EchoTime": 120, "RepetitionTime": 9000, "InversionTime": 2500}
PRE = {"SeriesDescription": "AX T1", "EchoTime": 9, "RepetitionTime": 500}
POST = {"SeriesDescription": "AX T1 POST", "EchoTime": 9, "RepetitionTime": 500, "ContrastBolusAgent": "Gd"}


def sample() -> tuple[Volume, Volume, Volume, npt.NDArray[np.bool_]]:
    """Pre, FLAIR and post of the synthetic patient, (28, 256, 256) uint8 each, and the mask."""
    count = len(list(SYNTHETIC_GLIOMA.glob("*_mask.tif")))
    names = [SYNTHETIC_GLIOMA / f"SYNTHETIC_0001_{number}" for number in range(1, count + 1)]
    slices = np.stack([tifffile.imread(f"{name}.tif") for name in names])
    mask = np.stack([tifffile.imread(f"{name}_mask.tif") for name in names]) > 0
    return slices[..., 0], slices[..., 1], slices[..., 2], mask


def datasets(
    volume: Volume,
    number: int,
    about: Mapping[str, Any] = FLAIR,
    geometry: Geometry = AXIAL,
    visit: Visit = Visit(),
    *,
    kind: UID = MRImageStorage,
    seed: int | None = None,
) -> list[FileDataset]:
    """One dataset a slice, uncompressed, with pixels in 16 bits; `seed` shuffles the instance numbers."""
    numbers = np.arange(1, len(volume) + 1)
    if seed is not None:
        np.random.default_rng(seed).shuffle(numbers)
    out = []
    for at, pixels in enumerate(volume):
        dataset = _new(kind, f"{visit.study}.{number}.{at + 1}")
        _describe(dataset, number, about, visit)
        dataset.InstanceNumber = int(numbers[at])
        dataset.ImagePositionPatient = geometry.position(at)
        dataset.ImageOrientationPatient = list(geometry.axes)
        dataset.PixelSpacing = list(geometry.spacing[1:])
        dataset.SliceThickness = geometry.spacing[0]
        dataset.SpacingBetweenSlices = geometry.spacing[0]
        set_pixels(dataset, pixels)
        for keyword, value in about.items():
            setattr(dataset, keyword, value)
        out.append(dataset)
    return out


def set_pixels(dataset: Dataset, pixels: Volume) -> None:
    """(H, W) or (N, H, W) integers as native pixels."""
    array = pixels if pixels.dtype.itemsize == 2 else pixels.astype(np.uint16)
    dataset.Rows, dataset.Columns = array.shape[-2:]
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.PixelRepresentation = int(array.dtype.kind == "i")
    dataset.PixelData = array.astype(array.dtype.newbyteorder("<")).tobytes()
    dataset["PixelData"].VR = "OW"


def enhanced(
    volume: Volume,
    number: int,
    about: Mapping[str, Any] = FLAIR,
    geometry: Geometry = AXIAL,
    visit: Visit = Visit(),
    *,
    order: Sequence[int] | None = None,
) -> FileDataset:
    """One enhanced multi-frame MR; `order` gives the slice that each frame holds."""
    order = list(range(len(volume))) if order is None else list(order)
    dataset = _new(EnhancedMRImageStorage, f"{visit.study}.{number}.1")
    _describe(dataset, number, about, visit)
    for keyword in ("EchoTime", "RepetitionTime", "InversionTime"):
        dataset.pop(keyword, None)
    shared = Dataset()
    shared.PlaneOrientationSequence = Items([_with(ImageOrientationPatient=list(geometry.axes))])
    shared.PixelMeasuresSequence = Items(
        [
            _with(
                PixelSpacing=list(geometry.spacing[1:]),
                SliceThickness=geometry.spacing[0],
                SpacingBetweenSlices=geometry.spacing[0],
            )
        ]
    )
    shared.MRTimingAndRelatedParametersSequence = Items([_with(RepetitionTime=about["RepetitionTime"])])
    shared.MREchoSequence = Items([_with(EffectiveEchoTime=about["EchoTime"])])
    if "InversionTime" in about:
        shared.MRModifierSequence = Items([_with(InversionTimes=about["InversionTime"])])
    dataset.SharedFunctionalGroupsSequence = Items([shared])
    dataset.PerFrameFunctionalGroupsSequence = Items(
        [
            _with(
                PlanePositionSequence=Items([_with(ImagePositionPatient=geometry.position(at))]),
                FrameContentSequence=Items([_with(StackID="1", InStackPositionNumber=int(at) + 1)]),
            )
            for at in order
        ]
    )
    dataset.NumberOfFrames = len(order)
    set_pixels(dataset, volume[order])
    return dataset


def segmentation(
    images: Sequence[Dataset],
    masks: Mapping[str, npt.NDArray[np.bool_]],
    number: int,
    *,
    kind: str = "BINARY",
    values: Volume | None = None,
) -> Dataset:
    """A DICOM-SEG by highdicom of masks (S, H, W) in the order of `images`; one segment a mask.

    `values` are the pixels in place of the masks', for a fractional one.
    """
    tumour = CodedConcept("108369006", "SCT", "Neoplasm")
    segments = [
        highdicom.seg.SegmentDescription(
            segment_number=at,
            segment_label=name,
            segmented_property_category=CodedConcept("49755003", "SCT", "Morphologically Abnormal Structure"),
            segmented_property_type=tumour,
            algorithm_type="MANUAL",
        )
        for at, name in enumerate(masks, 1)
    ]
    pixels = np.stack(list(masks.values()), axis=-1).astype(np.uint8) if values is None else values
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return highdicom.seg.Segmentation(
            source_images=list(images),
            pixel_array=pixels,
            segmentation_type=kind,
            segment_descriptions=segments,
            series_instance_uid=f"{images[0].StudyInstanceUID}.{number}",
            series_number=number,
            sop_instance_uid=f"{images[0].StudyInstanceUID}.{number}.1",
            instance_number=1,
            manufacturer="a",
            manufacturer_model_name="b",
            software_versions="1",
            device_serial_number="1",
            series_description="SEG",
        )


def as_bytes(dataset: Dataset, syntax: UID = ExplicitVRLittleEndian) -> bytes:
    """The file, its pixels in a transfer syntax; the dataset itself stays as it was."""
    file = Dataset()
    for element in dataset:
        file[element.tag] = copy.copy(element)
    file.file_meta = FileMetaDataset()
    file.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    file.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    if syntax in (RLELossless, JPEG2000Lossless, JPEGLSLossless):
        file.compress(syntax, generate_instance_uid=False)
    elif syntax.is_encapsulated:
        frames = np.frombuffer(dataset.PixelData, np.uint16).reshape(-1, dataset.Rows, dataset.Columns)
        file.PixelData = encapsulate([_encoded(frame, syntax) for frame in frames])
        file["PixelData"].VR = "OB"
        file["PixelData"].is_undefined_length = True
        if syntax == JPEGBaseline8Bit:
            file.BitsAllocated = file.BitsStored = 8
            file.HighBit = 7
        if syntax in (JPEGBaseline8Bit, JPEGExtended12Bit):
            file.LossyImageCompression = "01"
    elif not syntax.is_little_endian:
        file.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
    file.file_meta.TransferSyntaxUID = syntax
    stream = io.BytesIO()
    little, implicit = syntax.is_little_endian, syntax.is_implicit_VR
    pydicom.dcmwrite(stream, file, implicit_vr=implicit, little_endian=little, enforce_file_format=True)
    return stream.getvalue()


def files(
    series: Mapping[str, Sequence[Dataset]], syntax: UID = ExplicitVRLittleEndian, *, seed: int = 0
) -> Disc:
    """Files without suffix, ``IMAGES/S04/I000017``, numbered in an order that says nothing."""
    out: Disc = {}
    for folder, members in series.items():
        numbers = np.random.default_rng(seed).permutation(len(members))
        for at, dataset in zip(numbers, members, strict=True):
            out[f"{folder}/I{at:06d}"] = as_bytes(dataset, syntax)
    return dict(sorted(out.items()))


def disc(
    geometry: Geometry = OBLIQUE,
    visit: Visit = Visit(),
    syntax: UID = ExplicitVRLittleEndian,
    *,
    with_segmentation: bool = True,
) -> Disc:
    """The synthetic patient as a hospital's disc: a localizer, T1, FLAIR, T1 after contrast, and its mask."""
    pre, flair, post, mask = sample()
    images = datasets(flair, 4, FLAIR, geometry, visit, seed=1)
    localizer = {"SeriesDescription": "3-PLANE LOC", "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}
    members: dict[str, Sequence[Dataset]] = {
        "DICOM/S01": datasets(flair[::9, ::4, ::4], 1, localizer, geometry, visit),
        "DICOM/S03": datasets(pre, 3, PRE, geometry, visit, seed=2),
        "DICOM/S04": images,
        "DICOM/S06": datasets(post, 6, POST, geometry, visit, seed=3),
    }
    out = files(members, syntax)
    if with_segmentation:
        out["DICOM/S09/I000000"] = as_bytes(segmentation(images, {"Tumour": mask}, 9))
    return out


LATER = Visit(study="1.2.826.0.1.3680043.10.1000.9", frame="1.2.826.0.1.3680043.10.1000.92", date="20260401")


def two_studies() -> Disc:
    """A small disc of two studies; the later has no T1 after contrast, and one before in another frame.

    Its segmentation has two segments, oedema below and enhancing tumour above the middle slice.
    """
    pre, flair, post, mask = (volume[::2, ::4, ::4] for volume in sample())
    small = Geometry(OBLIQUE.axes, spacing=(10.0, 3.75, 3.75))
    localizer = {"SeriesDescription": "3-PLANE LOC", "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}
    elsewhere = Visit(study=LATER.study, frame=f"{LATER.frame}1", date=LATER.date)
    images = datasets(flair, 4, FLAIR, small, LATER)
    out = files(
        {
            "DICOM/A1": datasets(flair[::9], 1, localizer, small),
            "DICOM/A3": datasets(pre, 3, PRE, small),
            "DICOM/A4": datasets(flair, 4, FLAIR, small),
            "DICOM/A6": datasets(post, 6, POST, small),
            "DICOM/B4": images,
            "DICOM/B5": datasets(pre, 5, PRE, small, elsewhere),
        }
    )
    upper = mask.copy()
    upper[: len(mask) // 2] = False
    segments = {"Oedema": mask & ~upper, "Enhancing tumour": upper}
    out["DICOM/B9/I000000"] = as_bytes(segmentation(images, segments, 9))
    return out


def write_disc(folder: Path, members: Mapping[str, bytes]) -> None:
    """The files as a DICOMDIR disc by pydicom, with a viewer and its icons beside."""
    index = FileSet()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for data in members.values():
            index.add(_read(data))
        index.write(folder)
        index._stage["t"].cleanup()
    (folder / "VIEWER" / "icons").mkdir(parents=True)
    (folder / "AUTORUN.INF").write_text("[autorun]\n")
    (folder / "VIEWER" / "viewer.exe").write_bytes(b"MZ" + bytes(100))
    for number in range(3):
        Image.fromarray(np.full((16, 16, 3), 40 * number, np.uint8)).save(
            folder / "VIEWER" / "icons" / f"toolbar_{number}.png"
        )


def _read(data: bytes) -> FileDataset:
    return pydicom.dcmread(io.BytesIO(data))


def _new(kind: UID, uid: str) -> FileDataset:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, preamble=b"\0" * 128, file_meta=meta)
    dataset.SOPClassUID, dataset.SOPInstanceUID = kind, uid
    return dataset


def _describe(dataset: Dataset, number: int, about: Mapping[str, Any], visit: Visit) -> None:
    values: dict[str, Any] = {
        "PatientName": NAME,
        "PatientID": visit.patient,
        "PatientBirthDate": BIRTH,
        "PatientSex": "O",
        "AccessionNumber": "",
        "StudyID": "1",
        "ReferringPhysicianName": "",
        "Manufacturer": "a",
        "StudyInstanceUID": visit.study,
        "SeriesInstanceUID": f"{visit.study}.{number}",
        "FrameOfReferenceUID": visit.frame,
        "PositionReferenceIndicator": "",
        "StudyDescription": visit.description,
        "StudyDate": visit.date,
        "StudyTime": "101010",
        "SeriesNumber": number,
        "InstanceNumber": 1,
        "Modality": "MR",
        "ImageType": ["ORIGINAL", "PRIMARY", "M"],
        "ScanningSequence": "SE",
        "SequenceVariant": "SK",
        "ScanOptions": "",
        "MRAcquisitionType": "2D",
        "PatientPosition": "HFS",
        "EchoTrainLength": 1,
        **visit.more,
        **about,
    }
    for keyword, value in values.items():
        setattr(dataset, keyword, value)


def _with(**values: Any) -> Dataset:
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


def _encoded(frame: Volume, syntax: UID) -> bytes:
    if syntax in (JPEGLossless, JPEGLosslessSV1):
        # Selection value 1 alone predicts from the left.
        predictor = 1 if syntax == JPEGLosslessSV1 else 6
        return bytes(imagecodecs.jpeg8_encode(frame, lossless=True, predictor=predictor, bitspersample=16))
    if syntax == JPEGExtended12Bit:
        return bytes(imagecodecs.jpeg8_encode(frame, level=98, bitspersample=12))
    if syntax == HTJ2KLossless:
        return bytes(imagecodecs.htj2k_encode(frame, reversible=True))
    if syntax == JPEGBaseline8Bit:
        return bytes(imagecodecs.jpeg8_encode(frame.astype(np.uint8), level=95))
    raise ValueError(f"{syntax.name} cannot be encoded here")
