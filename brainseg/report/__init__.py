"""Downloads, built in memory: figures, masks and pictures of one study."""

from __future__ import annotations

from brainseg.report.figures import report, to_csv, to_json
from brainseg.report.formats import formats_of, masks_in
from brainseg.report.masks import masks_zip
from brainseg.report.pictures import overlays_zip
from brainseg.report.provenance import safe_name

__all__ = [
    "formats_of",
    "masks_in",
    "masks_zip",
    "overlays_zip",
    "report",
    "safe_name",
    "to_csv",
    "to_json",
]
