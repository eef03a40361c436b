from __future__ import annotations

import csv
import io
import json
import math
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from PIL import Image

from brainseg import __version__
from brainseg.measure import FIGURES, Reading, compare, compare_slices, measure
from brainseg.models import ARCHITECTURES
from brainseg.overlay import REFERENCE, display_range, rgb, window
from brainseg.postprocess import Finding, find
from brainseg.report import masks_zip, overlays_zip, pictures, report, safe_name, to_csv, to_json
from brainseg.types import RESEARCH_USE, Prediction, Source, SourceFile, Study

SHAPE = (4, 32, 40)
NUMBERS = (3, 4, 5, 10)


def study(case_id: str = "CASE_01", reference: bool = True, **fields: Any) -> Study:
    truth = np.zeros(SHAPE, dtype=bool)
    truth[1:3, 8:20, 10:25] = True
    source = Source(
        "lgg-tiff", (SourceFile("a_3.tif", "slice"), SourceFile("a.csv", "ignored", "a table")), "ab" * 32
    )
    slices = np.random.default_rng(0).integers(0, 200, (*SHAPE, 3), dtype=np.uint8)
    fields = {"notes": ("Orientation unknown.",), **fields}
    return Study(slices, case_id, source, NUMBERS, truth if reference else None, **fields)


def finding(model: str = "unet", case_id: str = "CASE_01", shift: int = 0, **fields: Any) -> Finding:
    probability = np.zeros(SHAPE, dtype=np.float32)
    probability[1:4, 8 + shift : 20 + shift, 10:25] = 0.6
    probability[0, 0, 0] = 0.45
    settings = {"threshold": 0.4, "keep": "largest", "seconds": 1.5, "weights_sha256": "cd" * 32, **fields}
    architecture = model if model in ARCHITECTURES else "unet"
    return find(Prediction(model, architecture, case_id, probability, **settings), threshold=0.5)


FOUR = [finding(name, shift=i) for i, name in enumerate(ARCHITECTURES)]


def read(s: Study, findings: Sequence[Finding]) -> list[Reading]:
    return [measure(s, f) for f in findings]


def table(figures: dict[str, Any]) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(to_csv(figures).decode("utf-8-sig"), newline="")))


def opened(archive: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(archive)) as z:
        assert z.testzip() is None
        return {name: z.read(name) for name in z.namelist()}


def picture(content: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(content))
    image.load()
    return image


def test_report_agrees_with_compare() -> None:
    s = study(spacing_mm=(5.0, 0.5, 0.5))
    assert s.reference is not None
    found = json.loads(to_json(report(s, read(s, FOUR))))
    assert list(found["models"]) == list(ARCHITECTURES)
    for f in FOUR:
        model = found["models"][f.prediction.model]
        whole = compare(f.mask, s.reference, s.spacing_mm)
        assert {k: model[k] for k in FIGURES} == {k: getattr(whole, k) for k in FIGURES}
        assert model["hd95_unit"] == model["assd_unit"] == "mm"
        assert model["tumour_voxels"] == f.mask.sum()
        assert model["volume_ml"] == pytest.approx(f.mask.sum() * 1.25 / 1000)
        assert model["area_per_slice"] == [0, 180, 180, 180]
        within = compare_slices(f.mask, s.reference, s.spacing_mm)
        assert [one["slice"] for one in model["slices"]] == list(NUMBERS)
        assert [one["tumour_voxels"] for one in model["slices"]] == model["area_per_slice"]
        assert [one["dice"] for one in model["slices"]] == [None, *(m.dice for m in within[1:])]
        assert model["slices"][0]["not_computable"]["dice"] == "both masks are empty"
        assert (model["largest_slice"], model["worst_slice"]) == (4, 10)
        assert model["not_computable"] == {}


def test_report_holds_diameters_and_where_they_lie() -> None:
    s = study(spacing_mm=(5.0, 0.5, 0.5))
    found = report(s, read(s, [finding()]))["models"]["unet"]
    # From the left edge of 12 rows and 15 columns to the right one.
    assert found["longest_diameter"] == pytest.approx(0.5 * math.hypot(15, 11))
    assert found["diameter_product"] == pytest.approx(
        found["longest_diameter"] * found["perpendicular_diameter"]
    )
    assert (found["longest_diameter_unit"], found["diameter_product_unit"]) == ("mm", "mm²")
    where = found["diameters"]
    assert (where["slice"], where["lesions"]) == (4, 1)
    assert {row for row, _ in where["longest"]} == {8, 19}
    assert {column for _, column in where["longest"]} == {9.5, 24.5}
    [start, end] = where["perpendicular"]
    assert math.dist(start, end) == pytest.approx(found["perpendicular_diameter"] / 0.5)
    row = table(report(s, read(s, [finding()])))[0]
    assert float(row["longest_diameter"]) == found["longest_diameter"]
    assert (row["longest_diameter_unit"], row["diameter_product_unit"]) == ("mm", "mm²")
    assert row["assd_unit"] == "mm"


def test_report_states_its_provenance() -> None:
    found = report(study(), read(study(), [finding(tta=True, seen_in_training=True)]))
    assert found["research_use"] == RESEARCH_USE
    assert found["brainseg_version"] == __version__
    assert abs((datetime.now(UTC) - datetime.fromisoformat(found["time_utc"])).total_seconds()) < 60
    assert found["case_id"] == "CASE_01"
    assert found["source"]["sha256"] == "ab" * 32
    assert found["source"]["files"][1] == {"name": "a.csv", "role": "ignored", "note": "a table"}
    assert found["notes"] == ["Orientation unknown."]
    assert found["shape"] == list(SHAPE)
    model = found["models"]["unet"]
    assert (model["threshold"], model["weights_threshold"]) == (0.5, 0.4)
    assert (model["keep"], model["weights_keep"]) == ("largest", "largest")
    assert (model["tta"], model["seen_in_training"], model["seconds"]) == (True, True, 1.5)
    assert model["weights_sha256"] == "cd" * 32


def test_unknown_spacing_gives_voxels_and_no_volume() -> None:
    found = report(study(), read(study(), [finding()]))
    model = found["models"]["unet"]
    assert found["spacing_mm"] is None
    assert model["volume_ml"] is None
    assert model["not_computable"] == {"volume_ml": "the spacing is unknown"}
    assert model["tumour_voxels"] == 540
    assert model["hd95_unit"] == model["assd_unit"] == "voxels"
    assert (model["longest_diameter_unit"], model["diameter_product_unit"]) == ("pixels", "pixels²")


def test_without_a_reference() -> None:
    found = report(study(reference=False), read(study(reference=False), [finding()]))
    model = found["models"]["unet"]
    assert found["reference_voxels"] is None
    assert [model[name] for name in FIGURES] == [None] * 6
    assert {model["not_computable"][name] for name in FIGURES} == {"no reference mask was given"}
    assert model["worst_slice"] is None
    assert model["slices"][1]["tumour_voxels"] == model["slices"][1]["area"] == 180
    assert model["slices"][1]["not_computable"]["dice"] == "no reference mask was given"
    for row in table(found):
        assert row["dice"] == "not computable: no reference mask was given"


def test_missed_lesion_in_json_and_csv() -> None:
    missed = find(finding().prediction, threshold=0.99)
    found = report(study(), read(study(), [missed]))
    model = found["models"]["unet"]
    assert model["dice"] == 0.0
    assert model["hd95"] is None
    assert model["not_computable"]["hd95"] == "the mask is empty"
    assert model["largest_slice"] is None
    row = table(found)[0]
    assert row["dice"] == "0.0"
    assert row["hd95"] == "not computable: the mask is empty"


def test_agreement_counts_voxels_by_votes() -> None:
    found = report(study(), read(study(), FOUR))["agreement"]
    votes = np.sum([f.mask for f in FOUR], axis=0)
    assert found == {"voxels_by_votes": [int((votes == k).sum()) for k in (1, 2, 3, 4)]}
    assert report(study(), read(study(), FOUR[:1]))["agreement"] is None


def test_csv_repeats_the_report() -> None:
    s = study(spacing_mm=(5.0, 0.5, 0.5))
    found = report(s, read(s, FOUR))
    rows = table(found)
    assert len(rows) == 4 * (1 + SHAPE[0])
    assert to_csv(found).startswith(b"\xef\xbb\xbfcase_id,")
    for row in rows:
        assert None not in row
        assert row["research_use"] == RESEARCH_USE
        assert row["weights_sha256"] == "cd" * 32
        assert row["threshold"] == "0.5"
        assert row["brainseg_version"] == __version__
        assert row["time_utc"] == found["time_utc"]
        assert row["spacing_mm"] == "5 x 0.5 x 0.5"
    for name, model in found["models"].items():
        mine = [row for row in rows if row["model"] == name]
        assert [row["scope"] for row in mine] == ["patient", *["slice"] * SHAPE[0]]
        assert [float(mine[0][k]) for k in (*FIGURES, "volume_ml")] == [
            model[k] for k in (*FIGURES, "volume_ml")
        ]
        assert [row["slice"] for row in mine] == ["", *map(str, NUMBERS)]
        assert [int(row["tumour_voxels"]) for row in mine[1:]] == model["area_per_slice"]
        assert mine[1]["dice"] == "not computable: both masks are empty"


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"),
        ("-2", "'-2"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "' =1"),
        ("\r\n=1", "'  =1"),
        ("＝1", "'＝1"),
        ("a;=1", "a;'=1"),
        ('a",=1', "a\",'=1"),
        ("a-b=c", "a-b=c"),
        ('Ünï, "x"', 'Ünï, "x"'),
    ],
)
def test_csv_runs_no_formula(text: str, cell: str) -> None:
    s = study(case_id=text)
    s = replace(s, source=replace(s.source, format=text), notes=(text,))
    rows = table(report(s, read(s, [finding(model=text, case_id=text)])))
    assert {row[k] for row in rows for k in ("case_id", "model", "source_format", "notes")} == {cell}


def test_masks_of_one_model_lie_at_the_top() -> None:
    f = finding()
    files = opened(masks_zip(study(), [f], "tif"))
    assert set(files) == {"README.txt", *(f"CASE_01_{n}_mask.tif" for n in NUMBERS)}
    for number, mask in zip(NUMBERS, f.mask, strict=True):
        image = picture(files[f"CASE_01_{number}_mask.tif"])
        assert (image.format, image.mode) == ("TIFF", "L")
        assert np.array_equal(np.asarray(image), mask * np.uint8(255))
        description = json.loads(image.tag_v2[270])  # type: ignore[attr-defined]
        assert_provenance(description, ["unet"])


def test_masks_of_several_models_lie_in_folders() -> None:
    files = opened(masks_zip(study(), FOUR, "png"))
    assert set(files) == {
        "README.txt",
        *(f"{m}/CASE_01_{n}_mask.png" for m in ARCHITECTURES for n in NUMBERS),
    }
    for f in FOUR:
        image = picture(files[f"{f.prediction.model}/CASE_01_5_mask.png"])
        assert np.array_equal(np.asarray(image), f.mask[2] * np.uint8(255))
        assert_png_text(image, [f.prediction.model])


def test_folders_of_models_whose_names_differ_in_a_slash_stay_apart() -> None:
    files = opened(masks_zip(study(), [finding("me/net"), finding("me:net")], "png"))
    assert len(files) == 1 + 2 * SHAPE[0]
    assert {name.split("/")[0] for name in files} == {"README.txt", "me_net_1", "me_net_2"}


def assert_provenance(found: dict[str, Any], models: Sequence[str]) -> None:
    assert found["research_use"] == RESEARCH_USE
    assert found["brainseg_version"] == __version__
    assert found["case_id"] == "CASE_01"
    assert found["source_sha256"] == "ab" * 32
    assert list(found["models"]) == list(models)
    for model in found["models"].values():
        assert (model["weights_sha256"], model["threshold"]) == ("cd" * 32, 0.5)


def assert_png_text(image: Image.Image, models: Sequence[str]) -> None:
    text = image.text  # type: ignore[attr-defined]
    assert text["Disclaimer"] == RESEARCH_USE
    assert text["Software"] == f"brainseg {__version__}"
    assert_provenance(json.loads(text["Description"]), models)


@pytest.mark.parametrize("archive", [masks_zip(study(), FOUR, "tif"), overlays_zip(study(), FOUR)])
def test_readme_in_every_zip(archive: bytes) -> None:
    text = opened(archive)["README.txt"].decode()
    assert text.startswith(RESEARCH_USE)
    assert_provenance(json.loads(text[text.index("{") :]), list(ARCHITECTURES))


def overlay(s: Study, findings: Sequence[Finding], number: int) -> Image.Image:
    return picture(opened(overlays_zip(s, findings))[f"CASE_01_{number}_overlay.png"])


def test_overlay_shows_models_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "OPACITY", 1.0)
    image = overlay(study(), FOUR, 4)
    assert_png_text(image, list(ARCHITECTURES))
    zoom = 256 // 40
    width = 40 * zoom
    assert image.width == 4 * width
    pixels = np.asarray(image)[16 : 16 + 32 * zoom]
    for i, (name, row) in enumerate(ARCHITECTURES.items()):
        panel = pixels[:, i * width : (i + 1) * width][::zoom, ::zoom]
        assert panel[14, 15].tolist() == list(rgb(row.colour)), name
        assert panel[8, 12].tolist() == list(rgb(REFERENCE)), "the reference is outlined"


def test_overlay_without_reference_lets_the_image_through() -> None:
    s = study(reference=False)
    panel = np.asarray(overlay(s, [finding()], 4))[16::6, ::6][:32, :40]
    assert panel[8, 12].tolist() == list(rgb(ARCHITECTURES["unet"].colour))
    low, high = display_range(s.slices[..., 1])
    grey = window(s.slices[1, ..., 1], low, high)
    colour = np.array(rgb(ARCHITECTURES["unet"].colour))
    inside = np.rint(0.6 * grey[10:18, 12:23, None] + 0.4 * colour)
    assert np.abs(panel[10:18, 12:23] - inside).max() <= 1
    assert np.array_equal(panel[22:30, :10], np.repeat(grey[22:30, :10, None], 3, axis=-1))


def test_a_very_large_picture_is_reduced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "_MOST_PIXELS", 50_000)
    monkeypatch.setattr(pictures, "OPACITY", 1.0)
    image = overlay(study(), FOUR, 4)
    assert image.size == (4 * 120, 96 + 5 * 16)
    colour = image.getpixel((15 * 3 + 1, 16 + 14 * 3 + 1))
    assert colour == rgb(ARCHITECTURES["unet"].colour)


def test_overlays_zip_holds_every_slice() -> None:
    files = opened(overlays_zip(study(), FOUR[:2]))
    assert set(files) == {"README.txt", *(f"CASE_01_{n}_overlay.png" for n in NUMBERS)}
    assert len({content for name, content in files.items() if name.endswith("png")}) == len(NUMBERS)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("CASE_01", "CASE_01"),
        ("../../etc/passwd", "_.._etc_passwd"),
        ("C:\\x", "C__x"),
        ("..", "case"),
        ("", "case"),
        ("a\nb\0", "a_b_"),
        ("Ünï 患者", "Ünï 患者"),
        ("\udcff", "_"),
        ("患" * 99, "患" * 66),
    ],
)
def test_safe_name(text: str, name: str) -> None:
    assert safe_name(text) == name


@pytest.mark.parametrize("case_id", ["../up", "Ünï 患者 1", "\udcff", "a\nb", ""])
def test_any_case_name_can_be_exported(case_id: str) -> None:
    s, f = study(case_id=case_id), finding(case_id=case_id)
    figures = report(s, read(s, [f]))
    assert json.loads(to_json(figures))["case_id"] == case_id
    assert len(table(figures)) == 1 + SHAPE[0]
    for archive in (masks_zip(s, [f], "tif"), masks_zip(s, [f], "png"), overlays_zip(s, [f])):
        files = opened(archive)
        assert len(files) == 1 + SHAPE[0]
        assert not any("/" in name or "\\" in name for name in files)


def test_what_does_not_belong_together_is_refused() -> None:
    with pytest.raises(ValueError, match="of case"):
        report(study(), read(study(), [finding(case_id="CASE_02")]))
    with pytest.raises(ValueError, match="once"):
        report(study(), read(study(), [finding(), finding()]))
    with pytest.raises(ValueError, match="mask is"):
        masks_zip(study(), [replace(finding(), mask=np.zeros((1, 2, 2), dtype=bool))], "png")
    with pytest.raises(ValueError, match="at least one"):
        overlays_zip(study(), [])
    with pytest.raises(ValueError, match="JSON"):
        to_json({"x": float("nan")})
