"""What people and scanners write, and what it means."""

from __future__ import annotations

import pytest

from brainseg.io.dicom.recognise import Facts, recognise

GRADIENT = frozenset({"GR"})
# As descriptions stand in hospitals and public collections of brain MRI.
DESCRIPTIONS = {
    "flair": [
        "AX T2 FLAIR",
        "AX FLAIR",
        "T2 FLAIR AXIAL",
        "FLAIR_LongTR",
        "t2_tirm_tra_dark-fluid",
        "t2_spc_da-fl_sag_p2_iso",
        "3D FLAIR CUBE",
        "Sag CUBE T2FLAIR",
        "FLAIR tra KM",
        "AX FLAIR POST",
        "ax flair+c",
        "T2W_FLAIR",
        "t2_space_dark-fluid_sag_p3_iso",
        "AXIAL FLAIR RF2_150",
        "AX FLAIR ASSET",
        "PRE-OP AX FLAIR",
    ],
    "pre": [
        "AX T1",
        "AX T1 PRE",
        "T1 AXIAL WITHOUT CONTRAST",
        "Ax T1 W/O",
        "t1_se_tra",
        "T1W_SE tra nativ",
        "AX T1 FLAIR",
        "SAG T1",
        "t1_mprage_sag_p2_iso",
        "AXIAL T1 PRE-GD",
        "ax t1 noncontrast",
        "Ax T1 NON CON",
        "T1 pre contrast",
        "3D T1 MPRAGE ohne KM",
        "AX T1 unenhanced",
        "T1-axial",
        "AX T1 POST-OP",
        "AX T1 FA 15",
        "BRAVO T1 pre gad",
    ],
    "post": [
        "AX T1 POST",
        "AX T1 POST GAD",
        "T1 AXIAL WITH CONTRAST",
        "AX T1+C",
        "Ax T1 +GD",
        "t1_mprage_tra+KM",
        "T1 C+",
        "AX T1 CE",
        "T1W_SE tra KM",
        "SAG T1 POST FSPGR",
        "3D T1 POST-CONTRAST",
        "AX T1 SE Gd",
        "T1CE",
        "t1c",
        "T1Gd",
        "AX T1 post gadovist",
        "AXIAL T1 GD-DTPA",
        "AX T1 W CONTRAST",
        "T1 FLAIR POST",
        "PRE-OP STEALTH T1 POST",
    ],
    None: [
        "3-PLANE LOC",
        "LOCALIZER",
        "Survey",
        "AAHScout",
        "AX T2",
        "t2_tse_tra",
        "AX T2 FSE",
        "AX PD",
        "AX GRE T2*",
        "SAG STIR",
        "AX DWI",
        "ep2d_diff_3scan_trace_p2",
        "ADC",
        "Apparent Diffusion Coefficient (mm2/s)",
        "AX DTI 25 DIR",
        "SWI_Images",
        "SWAN",
        "PERFUSION",
        "ep2d_perf_p2",
        "rCBV map",
        "ASL CBF",
        "3D TOF MRA",
        "MRV",
        "AX T1 MAP",
        "T1 SUBTRACTION",
        "FLAIR MIP",
        "MR SPECTROSCOPY",
        "SAG T1 C SPINE",
        "AX T1 DCE",
        "fMRI BOLD",
        "T1 PRE AND POST",
        "AX T1 W/WO",
        "AX T1 WITH AND WITHOUT CONTRAST",
        "ASSET CALIBRATION",
        "T1 MAPPING",
        "",
        "HEAD",
    ],
}


@pytest.mark.parametrize(
    ("description", "role"), [(text, role) for role, texts in DESCRIPTIONS.items() for text in texts]
)
def test_descriptions(description: str, role: str | None) -> None:
    guess = recognise(Facts(description))
    assert guess.role == role, guess
    assert guess.why


@pytest.mark.parametrize(
    ("facts", "role", "why"),
    [
        (Facts("AX T1", agent="Gadavist"), "post", "agent"),
        (Facts("AX T1", agent="NONE"), "pre", "no contrast agent"),
        (Facts("AX T1 PRE", agent="Gadavist"), "pre", "description"),
        (Facts("AX T1 FLAIR", echo_ms=9, inversion_ms=750), "pre", "description"),
        (Facts("AX T1 FLAIR", echo_ms=120), "flair", "description"),
        (Facts("", contrast="FLUID_ATTENUATED"), "flair", "contrast that its header names"),
        (Facts("", contrast="T1", agent="named"), "post", "agent"),
        (Facts("", contrast="T2"), None, "T2"),
        (Facts("", echo_ms=120, repetition_ms=9000, inversion_ms=2500), "flair", "inversion 2500 ms"),
        (Facts("", echo_ms=9, repetition_ms=500), "pre", "echo 9 ms"),
        (
            Facts("", echo_ms=3, repetition_ms=2300, inversion_ms=900, scanning=frozenset({"GR"})),
            "pre",
            "echo",
        ),
        (Facts("", echo_ms=20, repetition_ms=700, scanning=frozenset({"GR"})), None, "not recognised"),
        (Facts("", echo_ms=100, repetition_ms=4000), None, "weighted by T2 by its times"),
        (Facts("", echo_ms=20, repetition_ms=3000), None, "not recognised"),
        (Facts("AX FLAIR", image_type=("DERIVED", "PRIMARY", "ADC")), None, "diffusion"),
        (Facts("AX FLAIR", b_value=1000.0), None, "diffusion"),
        (Facts("AX FLAIR", b_value=0.0), "flair", "description"),
        (Facts("AX FLAIR", image_type=("ORIGINAL", "PRIMARY", "LOCALIZER")), None, "a localizer"),
        (Facts("AX T1", image_type=("ORIGINAL", "PRIMARY", "P", "ND")), None, "phase"),
        (Facts("ep2d", image_type=("ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC")), None, "a Siemens mosaic"),
        (Facts("AX T1", scanning=frozenset({"EP"})), None, "echo-planar"),
        (Facts("FLAIR EPI", scanning=frozenset({"EP"})), "flair", "description"),
        (Facts("T1 pre and post contrast"), None, "before and of after"),
        (Facts("", sequence_name="*ep_b1000t"), None, "diffusion"),
    ],
)
def test_attributes(facts: Facts, role: str | None, why: str) -> None:
    guess = recognise(facts)
    assert guess.role == role, guess
    assert why in guess.why
