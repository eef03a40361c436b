"""Which formats of masks a study allows, and the files of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from brainseg.postprocess import Finding
from brainseg.report.masks import masks_zip
from brainseg.types import BrainsegError, Study

# The libraries of NIfTI and DICOM are loaded for studies of theirs alone.
# ruff: noqa: PLC0415

MaskFormat = Literal["nifti", "dicom-seg", "tiff", "png"]

FOLDERS: dict[MaskFormat, str] = {
    "nifti": "nifti",
    "dicom-seg": "dicom_seg",
    "tiff": "masks",
    "png": "masks_png",
}
"""The folder of results that each format goes to."""

_NAMES = {"nifti": "NIfTI", "metaimage": "MetaImage", "nrrd": "NRRD"}


def formats_of(study: Study) -> tuple[MaskFormat, ...]:
    """The input's own format: DICOM-SEG and NIfTI for DICOM, NIfTI for volumes, TIFF for slices.

    NIfTI alone for DICOM that a segmentation cannot refer to (`why_not`), and for MetaImage and NRRD.
    """
    if study.origin is None:
        return ("tiff",)
    return ("nifti",) if why_not(study, "dicom-seg") else ("dicom-seg", "nifti")


def why_not(study: Study, mask_format: MaskFormat) -> str | None:
    """Why a study allows no masks in a format, a sentence with the remedy; None where it does."""
    if mask_format in ("tiff", "png"):
        return None
    if mask_format == "dicom-seg":
        origin = study.origin
        if origin is None or origin.format != "dicom":
            came = "slices" if origin is None else _NAMES[origin.format]
            return (
                f"DICOM-SEG refers to the DICOM series that it was made from, and {study.case_id} came as "
                f"{came}: choose another --format."
            )
        from brainseg.report.dicom_seg import refusal

        return refusal(origin)
    if study.origin is None:
        return (
            f"NIfTI says where voxels lie, which the files of {study.case_id} do not: choose --format tiff "
            "or png."
        )
    return None


def parse_formats(study: Study, names: Sequence[str]) -> tuple[MaskFormat, ...]:
    """The formats asked for, each once; `formats_of` where none is.

    Raises:
        BrainsegError: not the name of a format, or one that the study does not allow.
    """
    out: list[MaskFormat] = []
    for name in names:
        known = next((one for one in get_args(MaskFormat) if one == name), None)
        if known is None:
            raise BrainsegError(f"--format {name!r} must be one of {', '.join(get_args(MaskFormat))}")
        if reason := why_not(study, known):
            raise BrainsegError(reason)
        out.append(known)
    return tuple(dict.fromkeys(out)) or formats_of(study)


def masks_in(
    study: Study, findings: Sequence[Finding], mask_format: MaskFormat, *, keep_identifiers: bool = False
) -> bytes:
    """A zip of the masks in a format, with a README.txt.

    Args:
        study: that allows it.
        findings: of it, one or more.
        mask_format: which.
        keep_identifiers: as `brainseg.report.dicom_seg.segmentations_zip`; nothing to the other formats.

    Raises:
        InputError: the study does not allow it.
        ValueError: as `masks_zip`.
    """
    if mask_format == "nifti":
        from brainseg.report.nifti import nifti_zip

        return nifti_zip(study, findings)
    if mask_format == "dicom-seg":
        from brainseg.report.dicom_seg import segmentations_zip

        return segmentations_zip(study, findings, keep_identifiers=keep_identifiers)
    return masks_zip(study, findings, "tif" if mask_format == "tiff" else "png")
