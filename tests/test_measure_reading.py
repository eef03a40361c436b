"""One reading: right figures, and the same on the page, in the exports and in the evaluation."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from brainseg.measure import (
    FIGURES,
    NO_REFERENCE,
    SEEN,
    Diameters,
    Measurement,
    Reading,
    compare,
    compare_slices,
    diameters,
    figures_to_json,
    measure,
    table,
)
from brainseg.postprocess import find
from brainseg.types import BoolArray, Prediction, Source, Spacing, Study, Undefined

SHAPE = (4, 12, 10)


def box(rows: slice) -> BoolArray:
    mask = np.zeros(SHAPE, dtype=bool)
    mask[1:3, rows, 2:8] = True
    mask[2, 0, 0] = True
    return mask


TRUTH, MASK = box(slice(2, 8)), box(slice(4, 10))
STUDY = Study(np.zeros((*SHAPE, 3), np.uint8), "case", Source("test", (), "e" * 64), (3, 4, 5, 7), TRUTH)


def read(study: Study = STUDY, mask: BoolArray = MASK, seen: bool = False) -> Reading:
    probability = np.where(mask, 0.8, 0.1).astype(np.float32)
    return measure(
        study,
        find(Prediction("unet", "unet", "case", probability, 0.5, "all", (), 1.25, seen_in_training=seen)),
    )


def by_key(figures: tuple[Measurement, ...]) -> dict[str, Measurement]:
    found = {figure.key: figure for figure in figures}
    assert len(found) == len(figures)
    return found


@pytest.mark.parametrize("spacing", [None, (5.0, 1.0, 2.0)])
def test_figures_are_those_of_metrics_and_size(spacing: Spacing | None) -> None:
    reading = read(replace(STUDY, spacing_mm=spacing))
    whole, within = compare(MASK, TRUTH, spacing), compare_slices(MASK, TRUTH, spacing)
    figures = by_key(reading.figures)
    assert reading.metrics == whole
    assert {key: figures[key].value for key in FIGURES} == {key: getattr(whole, key) for key in FIGURES}
    for one, metrics in zip(reading.slices, within, strict=True):
        assert {f.key: f.value for f in one[1:]} == {key: getattr(metrics, key) for key in FIGURES}
    assert figures["tumour_voxels"].value == MASK.sum() == sum(reading.areas)
    assert figures["hd95"].unit == figures["assd"].unit == whole.hd95_unit
    across = diameters(MASK, spacing)
    assert isinstance(across, Diameters)
    assert reading.diameters == across
    assert figures["longest_diameter"].value == across.longest.length
    assert figures["perpendicular_diameter"].value == across.perpendicular.length
    assert figures["diameter_product"].value == across.product
    assert figures["longest_diameter"].unit == ("pixels" if spacing is None else "mm")
    assert figures["diameter_product"].unit == ("pixels²" if spacing is None else "mm²")
    assert (reading.largest, figures["largest_slice"].value) == (2, 5)
    assert figures["largest_area"].text == ("37" if spacing is None else "74")
    assert [one[0].value for one in reading.slices] == [
        a * (1 if spacing is None else 2) for a in reading.areas
    ]
    assert figures["volume_ml"].value == (
        Undefined("the spacing is unknown") if spacing is None else pytest.approx(73 * 10 / 1000)
    )


def test_without_spacing_and_reference_there_is_no_column_for_them() -> None:
    head, rows = table([read(replace(STUDY, reference=None))])
    assert dict(zip(head, rows[0], strict=True)) == {
        "Tumour voxels": "73",
        "Largest slice": "5 (place 3 of 4)",
        "Largest area (pixels)": "37",
        "Longest diameter (pixels)": "7.8 (largest of 2)",
        "Perpendicular diameter (pixels)": "7.8",
        "Diameter product (pixels²)": "61",
        "Threshold": "0.50",
        "Seconds": "1.2",
    }
    known = replace(STUDY, spacing_mm=(5.0, 1.0, 2.0))
    head, rows = table([read(known), read(known, TRUTH)])
    assert {"Volume (ml)", "Largest area (mm²)", "Longest diameter (mm)", "Diameter product (mm²)"} <= set(
        head
    )
    assert {"Dice", "HD95 (mm)", "ASSD (mm)"} <= set(head)
    assert not [heading for heading in head if "pixels" in heading or "(voxels" in heading]
    assert [len(row) for row in rows] == [len(head)] * 2
    assert table([]) == ([], [])


def test_a_missed_lesion_keeps_its_columns_and_says_why() -> None:
    head, rows = table([read(mask=np.zeros(SHAPE, dtype=bool))])
    row = dict(zip(head, rows[0], strict=True))
    assert row["Dice"] == "0.000"
    empty = "not computable: the mask is empty"
    assert row["HD95 (voxels)"] == row["ASSD (voxels)"] == row["Largest slice"] == empty
    assert row["Longest diameter (pixels)"] == row["Perpendicular diameter (pixels)"] == empty
    assert row["Diameter product (pixels²)"] == empty


def test_slices_counted_from_one_have_no_second_number() -> None:
    assert by_key(read(replace(STUDY, slice_numbers=(1, 2, 3, 4))).figures)["largest_slice"].text == "3"


def test_diameters_of_several_lesions_are_those_of_the_largest() -> None:
    several = by_key(read().figures)["longest_diameter"]
    assert several.remark == "largest of 2"
    alone = MASK.copy()
    alone[2, 0, 0] = False
    one = by_key(read(mask=alone).figures)["longest_diameter"]
    assert (one.value, one.remark) == (several.value, "")


def test_dice_alone_bears_the_mark_of_training() -> None:
    marked = [f.key for f in read(seen=True).figures if SEEN in f.text]
    assert marked == ["dice"]
    assert not [f for f in read(replace(STUDY, reference=None), seen=True).figures if SEEN in f.text]


def test_json_holds_values_units_and_reasons() -> None:
    row = figures_to_json(read(mask=np.zeros(SHAPE, dtype=bool)).figures)
    json.dumps(row, allow_nan=False)
    assert row["dice"] == 0.0
    assert row["hd95"] is None
    assert row["hd95_unit"] == "voxels"
    assert row["assd_unit"] == "voxels"
    assert row["longest_diameter_unit"] == "pixels"
    assert row["diameter_product_unit"] == "pixels²"
    assert row["not_computable"]["diameter_product"] == "the mask is empty"
    assert "volume_ml_unit" not in row
    assert row["not_computable"]["hd95"] == "the mask is empty"
    assert row["not_computable"]["volume_ml"] == "the spacing is unknown"
    with pytest.raises(ValueError, match="finite"):
        figures_to_json([Measurement("dice", "Dice", math.nan)])


def test_same_keys_for_every_study() -> None:
    bare = read(replace(STUDY, reference=None))
    assert [f.key for f in bare.figures] == [f.key for f in read().figures]
    assert by_key(bare.figures)["dice"].value == NO_REFERENCE
    assert bare.metrics is None
    assert bare.worst is None


def test_text_of_a_figure() -> None:
    figure = Measurement("x", "Title", 12345.678, "mm", 1)
    assert (figure.heading, figure.text) == ("Title (mm)", "12,345.7")
    assert replace(figure, unit="", remark="why").heading == "Title"
    assert replace(figure, remark="why").text == "12,345.7 (why)"
    assert replace(figure, value=Undefined("so")).text == "not computable: so"


def test_what_does_not_belong_together_is_refused() -> None:
    reading = read()
    with pytest.raises(ValueError, match="of case"):
        measure(replace(STUDY, case_id="other"), reading.finding)
    with pytest.raises(ValueError, match="mask is"):
        measure(STUDY, replace(reading.finding, mask=np.zeros((1, 2, 2), dtype=bool)))
