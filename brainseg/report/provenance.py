"""What made a file, and how it says so: every download carries its provenance and the notice of its use.

It stands in a JSON field, in a CSV column, in PNG text chunks, in the TIFF ImageDescription tag, and in a
README.txt in every zip.
"""

from __future__ import annotations

import io
import json
import unicodedata
import zipfile
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from brainseg import __version__
from brainseg.postprocess import Finding
from brainseg.types import RESEARCH_USE, Study

_DESCRIPTION_TAG, _SOFTWARE_TAG = 270, 305


def settings(finding: Finding) -> dict[str, Any]:
    """What a mask was made with, as the weights say and as applied."""
    prediction = finding.prediction
    return {
        "architecture": prediction.architecture,
        "weights_sha256": prediction.weights_sha256,
        "threshold": finding.threshold,
        "weights_threshold": prediction.threshold,
        "keep": finding.keep,
        "weights_keep": prediction.keep,
        "tta": prediction.tta,
    }


def provenance(study: Study, findings: Sequence[Finding]) -> dict[str, Any]:
    """What made a file, short enough to be written into a picture."""
    return {
        "research_use": RESEARCH_USE,
        "brainseg_version": __version__,
        "time_utc": now(),
        "case_id": study.case_id,
        "source_sha256": study.source.sha256,
        "models": {f.prediction.model: settings(f) for f in findings},
    }


def png(picture: Image.Image, made_by: dict[str, Any]) -> bytes:
    """A PNG with its provenance, a `provenance`, in text chunks."""
    text = PngInfo()
    text.add_text("Disclaimer", RESEARCH_USE)
    text.add_text("Software", f"brainseg {__version__}")
    text.add_text("Description", json.dumps(made_by))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", pnginfo=text)
    return buffer.getvalue()


def tiff(picture: Image.Image, made_by: dict[str, Any]) -> bytes:
    """A TIFF with its provenance, a `provenance`, in its description."""
    buffer = io.BytesIO()
    tags = {_DESCRIPTION_TAG: json.dumps(made_by), _SOFTWARE_TAG: f"brainseg {__version__}"}
    picture.save(buffer, "TIFF", tiffinfo=tags)
    return buffer.getvalue()


def zipped(study: Study, findings: Sequence[Finding], files: dict[str, bytes], what: str) -> bytes:
    """A zip of files by name, with a README.txt that says what they are and what made them."""
    made_by = json.dumps(provenance(study, findings), indent=2, ensure_ascii=False)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        readme = f"{RESEARCH_USE}\n\n{what}\n\n{made_by}\n"
        archive.writestr("README.txt", readme.encode(errors="replace"))
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def safe_name(text: str) -> str:
    """`text` as one part of a file name on any system: no separators, no control characters, not empty."""
    kept = "".join("_" if c in '/\\:*?"<>|' or unicodedata.category(c)[0] == "C" else c for c in text)
    # File systems allow 255 bytes for a name; what is appended here needs the rest.
    return kept.strip(" .").encode()[:200].decode(errors="ignore").rstrip(" .") or "case"


def names_of(findings: Sequence[Finding]) -> list[str]:
    """The model of each finding as a part of a file name; all differ."""
    names = [safe_name(f.prediction.model) for f in findings]
    # Two names may differ only in characters that a file name cannot hold.
    return [n if names.count(n) == 1 else f"{n}_{i}" for i, n in enumerate(names, 1)]


def check(study: Study, findings: Sequence[Finding]) -> None:
    """Raise ValueError if a finding is of another case or shape, or two bear one model's name."""
    names = [f.prediction.model for f in findings]
    if len(set(names)) < len(names):
        raise ValueError(f"each model may appear once, got {names}")
    for finding in findings:
        if finding.prediction.case_id != study.case_id:
            raise ValueError(f"finding is of case {finding.prediction.case_id!r}, not {study.case_id!r}")
        if finding.mask.shape != study.shape:
            raise ValueError(f"mask is {finding.mask.shape}, slices are {study.shape}")


def now() -> str:
    """The time, ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")
