"""Masks as files that other programs read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from PIL import Image

from brainseg.postprocess import Finding
from brainseg.report.provenance import check, names_of, png, provenance, safe_name, tiff, zipped
from brainseg.types import Study


def masks_zip(study: Study, findings: Sequence[Finding], file_format: Literal["tif", "png"]) -> bytes:
    """A zip of the masks, one file a slice, 0 and 255 uint8, and a README.txt.

    Files are named ``<case>_<slice number>_mask.<file_format>`` as in the LGG data set, in a folder for
    each model when there are several.

    Raises:
        ValueError: if a finding is of another case or shape, or two bear one model's name.
    """
    check(study, findings)
    files = {}
    for folder, finding in zip(_folders(findings), findings, strict=True):
        made_by = provenance(study, [finding])
        for number, mask in zip(study.slice_numbers, finding.mask, strict=True):
            picture = Image.fromarray(mask.astype(np.uint8) * 255)
            name = f"{folder}{safe_name(study.case_id)}_{number}_mask.{file_format}"
            files[name] = tiff(picture, made_by) if file_format == "tif" else png(picture, made_by)
    return zipped(study, findings, files, "Masks: 0 is background, 255 is tumour.")


def _folders(findings: Sequence[Finding]) -> list[str]:
    """A folder for each finding, ending in "/"; nothing for a single one."""
    return [f"{name}/" for name in names_of(findings)] if len(findings) > 1 else [""] * len(findings)
