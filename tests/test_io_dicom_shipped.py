"""Every DICOM file that pydicom ships (highdicom ships none), and the right answer to each."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data.data_manager import DATA_ROOT

from brainseg.io.dicom import acquisitions, cases
from brainseg.io.files import NamedBytes
from brainseg.types import InputError

ROOT = Path(DATA_ROOT)

NO_DICOM = "it is not a DICOM image, or is damaged: copy or export it again"
NO_PIXELS = "MR Image without pixels"
CUT = "it is cut short before its pixels: copy or export it again"
INDEX = "the index of a disc (DICOMDIR); the files that it lists were read themselves"
COLOUR = "a picture in colour, not a scan"
SCREEN = "a secondary capture (a picture of a screen), not a scan"
OTHER, CT, NM = "another kind of image, not an MRI", "a CT, not an MRI", "a scintigram, not an MRI"
ULTRASOUND, RADIOGRAPH = "ultrasound, not an MRI", "a radiograph, not an MRI"
DOSE, PLAN, ION = "RT Dose, not an MRI", "RT Plan (no images)", "RT Ion Plan (no images)"
PALETTE, REPORT = "Color Palette (no images)", "Basic Text SR (no images)"
SEGMENTS = "a segmentation, whose images were not given"

REFUSED = {
    "charset_files/chr*.dcm": OTHER,
    "charset_files/chrJapMulti*.dcm": CUT,
    "charset_files/chrKoreanMulti.dcm": CUT,
    "charset_files/chrSQ*.dcm": NO_PIXELS,
    "palettes/*.dcm": PALETTE,
    "test_files/693_J2KI.dcm": CT,
    "test_files/CT_small.dcm": CT,
    "test_files/ExplVR_BigEnd.dcm": ULTRASOUND,
    "test_files/ExplVR_*NoMeta.dcm": ION,
    "test_files/GDCMJ2K_TextGBR.dcm": COLOUR,
    "test_files/J2K_pixelrep_mismatch.dcm": CT,
    "test_files/JPEG*.dcm": NM,
    "test_files/JPEGLS*.dcm": SCREEN,
    "test_files/JPGExtended.dcm": NM,
    "test_files/SC_*.dcm": OTHER,
    "test_files/SC_jpeg_no_color_transform*.dcm": COLOUR,
    "test_files/SC_rgb_jls_*.dcm": COLOUR,
    "test_files/SC_rgb_jpeg_app14_dcmd.dcm": COLOUR,
    "test_files/UN_sequence.dcm": "CT Image without pixels",
    "test_files/badVR.dcm": DOSE,
    "test_files/dicomdirtests/77654033/CR*/*": RADIOGRAPH,
    "test_files/dicomdirtests/77654033/CT*/*": CT,
    "test_files/dicomdirtests/98892001/CT*/*": CT,
    "test_files/dicomdirtests/DICOMDIR*": INDEX,
    "test_files/dicomdirtests/TINY_ALPHA/DICOMDIR": INDEX,
    "test_files/dicomdirtests/TINY_ALPHA/PT000000/ST000000/SE000000/*": CT,
    "test_files/empty_charset_LEI.dcm": NO_DICOM,
    "test_files/examples_jpeg2k.dcm": ULTRASOUND,
    "test_files/examples_palette.dcm": ULTRASOUND,
    "test_files/examples_rgb_color.dcm": ULTRASOUND,
    "test_files/examples_ybr_color.dcm": ULTRASOUND,
    "test_files/image_dfl.dcm": OTHER,
    "test_files/liver*1frame.dcm": SEGMENTS,
    "test_files/meta_missing_tsyntax.dcm": NO_DICOM,
    "test_files/nested_priv_SQ.dcm": NO_DICOM,
    # It begins with a byte too many.
    "test_files/no_meta.dcm": NO_DICOM,
    "test_files/no_meta_group_length.dcm": "RT Image without pixels",
    "test_files/priv_SQ.dcm": NO_PIXELS,
    "test_files/reportsi*.dcm": REPORT,
    "test_files/rtdose*.dcm": DOSE,
    "test_files/rtplan*.dcm": PLAN,
    "test_files/rtstruct.dcm": (
        "contours of radiotherapy (RTSTRUCT), which are not read: export them as DICOM-SEG or NIfTI"
    ),
    "test_files/test-SR.dcm": "Comprehensive SR (no images)",
    "test_files/waveform_ecg.dcm": "12-lead ECG Waveform (no images)",
}
T2 = "weighted by T2 by its times (echo 240 ms, repetition 4000 ms), for which the networks have no channel"
# Key, role and reason of an MRI's series.
READ = {
    "test_files/MR_*.dcm": ("1", None, T2),
    "test_files/examples_overlay.dcm": (
        "18",
        "post",
        "T1 by its description, after contrast by the agent that its header names",
    ),
    "test_files/dicomdirtests/98892003/MR1/*": ("1", None, "a localizer"),
    "test_files/dicomdirtests/98892003/MR2/*": ("2", None, "a localizer"),
    "test_files/dicomdirtests/98892003/MR700/*": ("700", None, "a series of vessels"),
}
NOT_DICOM = {".py", ".pyc", ".json", ".md", ".txt", ".dump", ".icc", ".gz"}


def matching(pattern: str) -> list[Path]:
    return [path for path in sorted(ROOT.glob(pattern)) if path.suffix not in NOT_DICOM]


def table(answers: dict[str, object]) -> dict[Path, object]:
    """Files and answers; a later pattern overrules one before."""
    return {path: answer for pattern, answer in answers.items() for path in matching(pattern)}


def test_the_tables_name_every_file_and_no_pattern_in_vain() -> None:
    for pattern in (*REFUSED, *READ):
        assert matching(pattern), pattern
    there = {path for path in ROOT.rglob("*") if path.is_file() and path.suffix not in NOT_DICOM}
    named = table({**REFUSED, **READ}).keys()
    assert {path.name for path in there - named} <= {"README"}


def test_what_is_refused_and_why() -> None:
    found = {}
    for path, answer in table(dict(REFUSED)).items():
        made, ignored = cases([NamedBytes(path.name, path.read_bytes())])
        notes = {file.note for file in ignored}
        if made or notes != {answer}:
            found[path.name] = (made, notes, answer)
    assert not found


@pytest.mark.parametrize("path", table(dict(READ)), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_is_read(path: Path) -> None:
    (case,), ignored = cases([NamedBytes(path.name, path.read_bytes())])
    (series,) = case.series
    assert not ignored
    assert (series.key, series.role, series.why) == table(dict(READ))[path]
    chosen = replace(case, series=(replace(series, role="flair"),))
    if path.name == "MR_truncated.dcm":
        with pytest.raises(InputError, match=r"^\"MR_truncated.dcm\" of series 1 is cut short"):
            list(acquisitions(chosen))
        return
    (found,) = acquisitions(chosen)
    original = path.parent / ("MR_small.dcm" if path.name.startswith("MR_") else path.name)
    assert np.array_equal(found.pixels[0], pydicom.dcmread(original).pixel_array)


def test_the_disc_that_pydicom_ships() -> None:
    folder = ROOT / "test_files" / "dicomdirtests"
    files = [
        NamedBytes(str(path.relative_to(folder)), path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".txt" and "TINY_ALPHA" not in path.parts
    ]
    found, ignored = cases(files)
    assert [(case.title, [one.key for one in case.series]) for case in found] == [
        ("Brain (study 1 of 3 in time)", ["1", "2.1", "2.2", "2.3"]),
        ("Brain-MRA (study 2 of 3 in time)", ["1", "2.1", "2.2", "2.3", "700"]),
        ("Carotids (study 3 of 3 in time)", ["1", "2"]),
    ]
    assert {file.note for file in ignored} == {INDEX, CT, RADIOGRAPH}
    # Projections of vessels, from all around.
    vessels = replace(found[1].series[-1], role="flair")
    with pytest.raises(InputError, match=r"^Series 700 .* holds slices in 7 directions or sizes"):
        list(acquisitions(replace(found[1], series=(vessels,))))
