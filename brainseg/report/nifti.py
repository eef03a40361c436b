"""Masks and probabilities as NIfTI on the grid that the input's FLAIR had, written by nibabel."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from brainseg import __version__
from brainseg.grid import Grid
from brainseg.io.sniff import OWN_MARK
from brainseg.postprocess import Finding
from brainseg.report.native import on_origin
from brainseg.report.provenance import check, names_of, safe_name, zipped
from brainseg.types import Affine, InputError, Origin, Study

# What of a header places the voxels; its texts may name a patient, so nothing else is taken from it.
_GEOMETRY = (
    *("sform_code", "srow_x", "srow_y", "srow_z"),
    *("qform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    "xyzt_units",
)
_SCANNER = 1
_DESCRIPTION = 79
# Sines of angles between axes: rounding in a header makes no grid sheared.
_UPRIGHT = 1e-4


def nifti_zip(study: Study, findings: Sequence[Finding]) -> bytes:
    """A zip of a mask and a probability for each finding, ``<case>_<model>_mask.nii.gz``, and a README.txt.

    Masks are uint8, 0 and 1; probabilities float32. Both lie on the grid of the input's FLAIR, in its voxel
    order. Of a NIfTI input sform, qform, their codes and the units are the source header's own, its texts are
    not: they may name a patient. Of other input sform and qform hold the affine in RAS+ mm with the code for
    scanner coordinates; a sheared grid, which a qform cannot hold, has the sform alone. The description says
    what made the file and that it is for research use only.

    Raises:
        InputError: the study's files know no space.
        ValueError: if a finding is of another case or shape, or two bear one model's name.
    """
    check(study, findings)
    if study.origin is None:
        raise InputError("NIfTI needs files that say where their voxels lie: choose another format.")
    files = {}
    for name, finding in zip(names_of(findings), findings, strict=True):
        probability, mask = on_origin(study, finding)
        stem = f"{safe_name(study.case_id)}_{name}"
        for what, volume in (("mask", mask.astype(np.uint8)), ("probability", probability)):
            description = f"{OWN_MARK} {__version__}, research use only: {what} of {name}"
            files[f"{stem}_{what}.nii.gz"] = _nifti(volume, study, study.origin, description)
    return zipped(
        study, findings, files, "Masks (0 and 1) and probabilities (0 to 1) on the grid of the input's FLAIR."
    )


def _nifti(volume: npt.NDArray[Any], study: Study, origin: Origin, description: str) -> bytes:
    source = origin.headers[0] if origin.format == "nifti" and origin.headers else None
    large = source is not None and source.sizeof_hdr == nib.Nifti2Header.sizeof_hdr
    header = (nib.Nifti2Header if large else nib.Nifti1Header)()
    header.set_data_dtype(volume.dtype)
    header.set_data_shape(volume.shape[::-1])
    if source is None:
        _place(header, origin, known=study.orientation is not None)
    else:
        _copy(source, header)
    # NIfTI-1 holds bytes; a name in other letters shall not stop the export.
    header["descrip"] = description.encode("ascii", "replace")[:_DESCRIPTION]
    image = (nib.Nifti2Image if large else nib.Nifti1Image)(volume.T, None, header)
    # Without a time in it, equal results are equal files.
    return gzip.compress(image.to_bytes(), mtime=0)


def _copy(source: Any, header: Any) -> None:
    for field in _GEOMETRY:
        header[field] = source[field]
    # The sign of the first tells the qform's handedness; lengths are stored as they were.
    header["pixdim"][:4] = source["pixdim"][:4]


def _place(header: Any, origin: Origin, *, known: bool) -> None:
    # From (column, row, slice, 1), as NIfTI counts.
    affine: Affine = origin.affine[:, [2, 1, 0, 3]]
    header.set_xyzt_units("mm")
    header.set_zooms(Grid(origin.affine, origin.shape).spacing_mm[::-1])
    if not known:
        return
    header.set_sform(affine, code=_SCANNER)
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    if np.allclose(directions.T @ directions, np.eye(3), atol=_UPRIGHT):
        header.set_qform(affine, code=_SCANNER)
