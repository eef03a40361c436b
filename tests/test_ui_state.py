"""What the page shows, without a page."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
from decoder import decode
from decoder import header as header_of

from brainseg.measure import Reading, compare
from brainseg.report import report
from brainseg.types import AttentionMap, Box, Letterbox, Prediction, Source, SourceFile, Study
from brainseg.ui import state
from brainseg.ui.chart import area_chart

SHAPE = (4, 12, 10)


def box(s: slice, h: slice, w: slice) -> np.ndarray:
    mask = np.zeros(SHAPE, np.bool_)
    mask[s, h, w] = True
    return mask


TRUTH = box(slice(1, 3), slice(2, 8), slice(2, 8))
STUDY = Study(
    np.zeros((*SHAPE, 3), np.uint8),
    "case",
    Source(
        "test", (SourceFile("a_3.tif", "slice"), SourceFile("b.txt", "ignored", "not an image")), "e" * 64
    ),
    (3, 4, 5, 7),
    TRUTH,
)


def prediction(name: str, mask: np.ndarray, **changes: object) -> Prediction:
    probability = np.where(mask, 0.8, 0.1).astype(np.float32)
    fields = {"weights_sha256": name * 8, "seconds": 1.25, **changes}
    return Prediction(name, name, "case", probability, 0.5, "all", **fields)  # type: ignore[arg-type]


SHIFTED = prediction("unet", box(slice(1, 3), slice(2, 8), slice(4, 10)))
EXACT = prediction("attention_unet", TRUTH)
NOTHING = prediction("unetpp", np.zeros(SHAPE, np.bool_))


def read(p: Prediction, study: Study = STUDY, threshold: float = 0.5) -> Reading:
    return state.reading_at(study, p, threshold, p.keep)


def test_no_framework_is_loaded() -> None:
    code = (
        "import sys, brainseg.ui.state, brainseg.ui.job; print({'streamlit', 'gradio'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_reading_measures_what_metrics_measure() -> None:
    reading = read(SHIFTED)
    assert reading.metrics == compare(reading.finding.mask, TRUTH, None)
    assert reading.areas == (0, 36, 36, 0)
    assert (reading.largest, reading.worst) == (1, 1)
    assert state.title_of(reading.prediction.architecture) == "U-Net"


def test_threshold_cuts_the_probability() -> None:
    assert sum(read(SHIFTED, threshold=0.05).areas) == np.prod(SHAPE)
    assert sum(read(SHIFTED, threshold=0.9).areas) == 0


def test_without_reference_there_are_no_comparisons() -> None:
    study = replace(STUDY, reference=None)
    reading = read(SHIFTED, study)
    head, rows = state.figure_table([reading])
    assert "Dice" not in head
    assert len(head) == len(rows[0])


def test_table_without_spacing_invents_no_millilitres() -> None:
    head, rows = state.figure_table([read(SHIFTED)])
    row = dict(zip(head, rows[0], strict=True))
    assert row["Tumour voxels"] == "72"
    assert row["Largest slice"] == "4 (place 2 of 4)"
    assert row["Largest area (pixels)"] == "36"
    assert row["Dice"] == "0.667"
    assert "HD95 (voxels)" in row
    assert row["Longest diameter (pixels)"] == "7.8"
    assert not any("ml" in title or "mm" in title for title in head)


def test_table_with_spacing_has_millilitres_and_millimetres() -> None:
    study = replace(STUDY, spacing_mm=(5.0, 1.0, 2.0))
    head, rows = state.figure_table([read(SHIFTED, study)])
    row = dict(zip(head, rows[0], strict=True))
    assert row["Volume (ml)"] == "0.7"
    assert row["Largest area (mm²)"] == "72"
    assert "HD95 (mm)" in row
    assert row["Longest diameter (mm)"] == "13.0"


def test_a_patient_seen_in_training_is_marked_beside_its_dice() -> None:
    head, rows = state.figure_table([read(replace(EXACT, seen_in_training=True))])
    assert rows[0][head.index("Dice")] == "1.000 (seen in training)"


def test_what_cannot_be_computed_gives_its_reason() -> None:
    head, rows = state.figure_table([read(NOTHING)])
    row = dict(zip(head, rows[0], strict=True))
    assert row["Dice"] == "0.000"
    assert row["HD95 (voxels)"] == "not computable: the mask is empty"
    assert row["Largest slice"] == "not computable: the mask is empty"


def test_agreement_of_models() -> None:
    readings = [read(SHIFTED), read(EXACT)]
    assert state.agreement_lines(readings) == [("U-Net", "Attention U-Net", "0.667")]


def test_describe_says_what_is_unknown() -> None:
    words = state.describe(STUDY)
    assert words == ("4 slices of 12 × 10", "spacing unknown", "orientation unknown", "reference mask")
    known = replace(STUDY, spacing_mm=(5.0, 0.9375, 0.9375), orientation="LPS", reference=None)
    assert "5 mm between slices, pixels 0.9375 × 0.9375 mm" in state.describe(known)
    assert "no reference mask" in state.describe(known)


def test_file_table_says_what_was_taken_as_what() -> None:
    assert state.file_table(STUDY)[1] == {"File": "b.txt", "Taken as": "ignored", "Note": "not an image"}


def test_first_slice_is_the_references_largest_else_the_middle() -> None:
    assert state.first_slice(STUDY) == 1
    assert state.first_slice(replace(STUDY, reference=None)) == 2


def test_view_message_carries_masks_figures_and_colours() -> None:
    gate = AttentionMap(
        "x0", 0, np.zeros(SHAPE, np.float16), Letterbox((12, 10), Box(0, 0, 12, 10), (12, 10), (16, 16))
    )
    readings = [read(SHIFTED), read(replace(EXACT, attention=(gate,)))]
    data = state.view_message(STUDY, readings, ["a"], state.Jump(2, 5))
    masks, header = decode(data), header_of(data)
    assert masks.keys() == {"mask0", "mask1"}
    for i, reading in enumerate(readings):
        np.testing.assert_array_equal(masks[f"mask{i}"], reading.finding.mask)
    assert header["study"]["numbers"] == [3, 4, 5, 7]
    assert header["study"]["edges"] is None
    assert header["jump"] == {"slice": 2, "nonce": 5}
    assert header["marks"] == [2, 2, 8, 10]
    first, second = header["models"]
    assert first["columns"] == [
        "Area (pixels)",
        "Dice",
        "IoU",
        "Sensitivity",
        "Precision",
        "HD95 (pixels)",
        "ASSD (pixels)",
    ]
    assert first["rows"][1][:2] == ["36", "0.667"]
    assert first["rows"][0][1] == {"none": "not computable: both masks are empty"}
    assert first["colour"] != second["colour"]
    assert first["dash"] != second["dash"]
    assert header["reference"]["colour"] == "#0072B2"
    assert header["reference"]["rows"] == ["0", "36", "36", "0"]
    assert [g["gate"] for g in second["gates"]] == ["x0"]
    assert first["gates"] == []


def test_view_message_before_any_model() -> None:
    header = header_of(state.view_message(replace(STUDY, reference=None), []))
    assert header["models"] == []
    assert header["marks"] is None
    assert header["blocks"] == {}


def test_a_new_threshold_changes_masks_and_not_the_pack() -> None:
    low, high = read(SHIFTED, threshold=0.05), read(SHIFTED, threshold=0.5)
    assert state.pack_id(STUDY, low.prediction) == state.pack_id(STUDY, high.prediction)
    assert state.view_message(STUDY, [low]) != state.view_message(STUDY, [high])


def test_the_same_slices_under_another_name_have_their_own_key_and_pack() -> None:
    other = replace(STUDY, case_id="other")
    assert state.key_of(STUDY, SHIFTED) != state.key_of(other, SHIFTED)
    assert state.pack_id(STUDY, SHIFTED) != state.pack_id(other, SHIFTED)
    assert "other" not in state.pack_id(other, SHIFTED)


def test_typed_spacing_is_noted_in_the_exports() -> None:
    study = state.with_spacing(STUDY, (5.0, 1.0, 2.0))
    assert study.spacing_mm == (5.0, 1.0, 2.0)
    figures = report(study, [read(SHIFTED, study)])
    assert state.TYPED_SPACING in figures["notes"]


def test_chart_has_a_line_for_each_model_and_the_reference() -> None:
    figure = area_chart(STUDY, [read(SHIFTED), read(EXACT)])
    assert [trace.name for trace in figure.data] == ["Reference", "U-Net", "Attention U-Net"]
    assert list(figure.data[1].x) == [1, 2, 3, 4]
    assert list(figure.data[1].y) == [0, 36, 36, 0]
    assert list(figure.data[1].customdata) == [3, 4, 5, 7]
    assert len({trace.line.dash for trace in figure.data[1:]}) == 2
