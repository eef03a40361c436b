"""The command line: output, JSON, exit codes, and one sentence for each mistake."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import dicom_maker
import numpy as np
import pytest
import tifffile
from heads import affine_of, patient
from huggingface_hub import ModelCard
from PIL import Image

import brainseg
from brainseg import cli
from brainseg.checkpoint import load, save, write_card
from brainseg.inference import Predictor
from brainseg.measure import compare
from brainseg.models import ARCHITECTURES
from brainseg.postprocess import cut
from brainseg.types import RESEARCH_USE

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            cli.main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        assert isinstance(stop.value.code, int)
        return stop.value.code, out, err

    return call


def models_of(folders: dict[str, Path]) -> list[object]:
    return [part for folder in folders.values() for part in ("--model", folder)]


def test_predict_json_holds_the_figures_of_the_python_interface(
    run: Run, folders: dict[str, Path], dataset: Path
) -> None:
    code, out, err = run("predict", dataset / "CASE_A", *models_of(folders), "--json")
    assert (code, err) == (0, "")
    figures = json.loads(out)
    assert figures["research_use"] == RESEARCH_USE
    assert list(figures["models"]) == list(ARCHITECTURES)
    study = brainseg.read_study(dataset / "CASE_A")
    assert study.reference is not None
    for name, folder in folders.items():
        prediction = Predictor(load(folder)).predict(study)
        mask = cut(prediction.probability, 0.5, "all")
        metrics = compare(mask, study.reference, None)
        row = figures["models"][name]
        assert 0 < row["tumour_voxels"] == mask.sum()
        assert row["dice"] == pytest.approx(metrics.dice)
        assert row["hd95"] == pytest.approx(metrics.hd95)
        assert row["volume_ml"] is None
        assert row["area_per_slice"] == mask.sum(axis=(1, 2)).tolist()
        assert row["seen_in_training"] is True


def test_folder_zip_and_files_give_the_same_figures(
    run: Run, folders: dict[str, Path], dataset: Path, tmp_path: Path
) -> None:
    files = sorted((dataset / "CASE_B").iterdir())
    with zipfile.ZipFile(tmp_path / "patient.zip", "w") as archive:
        for file in files:
            archive.write(file, f"somewhere/{file.name}")
    results = []
    for source in ([dataset / "CASE_B"], [tmp_path / "patient.zip"], files):
        code, out, _ = run("predict", *source, "--model", folders["unetpp"], "--json")
        assert code == 0
        figures = json.loads(out)
        results.append((figures["case_id"], figures["source"]["sha256"], figures["models"]["unetpp"]["dice"]))
    assert results[0] == results[1] == results[2]


def test_predict_prints_a_table_areas_and_the_notice(
    run: Run, folders: dict[str, Path], dataset: Path
) -> None:
    code, out, err = run("predict", dataset / "CASE_B", "--model", folders["unet"])
    assert code == 0
    assert "spacing unknown" in out
    assert RESEARCH_USE in out
    assert "unet: slices [3/3]" in err
    assert " ml " not in out


def test_spacing_turns_voxels_into_millilitres(run: Run, folders: dict[str, Path], dataset: Path) -> None:
    arguments = ["predict", dataset / "CASE_B", "--model", folders["unet"], "--json"]
    _, out, _ = run(*arguments, "--spacing", "5,0.5,0.5")
    row = json.loads(out)["models"]["unet"]
    assert row["volume_ml"] == pytest.approx(row["tumour_voxels"] * 5 * 0.5 * 0.5 / 1000)
    assert row["hd95_unit"] == "mm"


def test_a_series_can_be_chosen_and_volumes_know_their_spacing(
    run: Run, folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "P01"
    folder.mkdir()
    files = [file for file in patient(affine_of()) if "_t1.nii" not in file.name]
    for file in [*files, replace(files[0], name="P01/P01_flair_again.nii")]:
        (tmp_path / file.name).write_bytes(file.data)
    command = ["predict", str(folder), "--model", str(next(iter(folders.values()))), "--spacing", "1,1,1"]
    code, _, error = run(*command)
    assert code == 2
    assert "--sequence flair=P01_flair.nii" in error
    code, out, _ = run(*command, "--sequence", "flair=P01_flair_again.nii", "--sequence", "none=P01_seg.nii")
    assert code == 0
    assert "spacing 6 x 4 x 4 mm" in out
    assert "The stated spacing was not used" in out
    assert "Spacing was given by the user" not in out
    assert "No reference mask was given" in out


def test_what_a_missing_sequence_costs_is_printed(
    run: Run, folders: dict[str, Path], dataset: Path, tmp_path: Path
) -> None:
    folder, images = tmp_path / "unet", tmp_path / "CASE_B"
    shutil.copytree(folders["unet"], folder)
    metrics = {"dice_mean": 0.8, "cases": 2, "missing_sequences": {"T1 after contrast": {"dice_mean": 0.7}}}
    write_card(folder, replace(load(folder).card, metrics=metrics))
    shutil.copytree(dataset / "CASE_B", images)
    whole = run("predict", images, "--model", folder)[1]
    for path in images.glob("CASE_B_?.tif"):
        slices = tifffile.imread(path)
        slices[..., 2] = slices[..., 1]
        tifffile.imwrite(path, slices, photometric="rgb")
    without = run("predict", images, "--model", folder)[1]
    cost = "in place of T1 after contrast, on the 2 validation patients: unet 0.70 instead of 0.80."
    assert "Mean Dice" not in whole
    assert cost in " ".join(without.split())


def test_out_holds_masks_overlays_json_and_csv(
    run: Run, folders: dict[str, Path], dataset: Path, tmp_path: Path
) -> None:
    out = tmp_path / "made" / "here"
    code, _, _ = run("predict", dataset / "CASE_B", "--model", folders["unet"], "--out", out)
    assert code == 0
    figures = json.loads((out / "CASE_B.json").read_text())
    masks = [np.asarray(Image.open(out / "masks" / f"CASE_B_{number}_mask.tif")) for number in (1, 2, 3)]
    assert [int((mask > 0).sum()) for mask in masks] == figures["models"]["unet"]["area_per_slice"]
    assert len(list((out / "overlays").glob("*.png"))) == 3
    with (out / "CASE_B.csv").open(encoding="utf-8-sig", newline="") as file:
        assert len(list(csv.DictReader(file))) == 4


def test_out_has_the_inputs_own_format_unless_another_is_asked(
    run: Run, folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "P01"
    folder.mkdir()
    for file in patient(affine_of()):
        (tmp_path / file.name).write_bytes(file.data)
    command = ["predict", folder, "--model", folders["unet"], "--out", tmp_path / "out"]
    code, _, _ = run(*command)
    assert code == 0
    out = tmp_path / "out"
    assert {path.name for path in out.iterdir() if path.is_dir()} == {"nifti", "overlays"}
    assert {path.name.rpartition("_")[2] for path in (out / "nifti").glob("*.nii.gz")} == {
        "mask.nii.gz",
        "probability.nii.gz",
    }
    code, _, _ = run(*command, "--format", "tiff", "--format", "png")
    assert code == 0
    assert list((out / "masks").glob("*.tif"))
    assert list((out / "masks_png").glob("*.png"))
    for more, said in (
        (["--format", "dicom-seg"], "came as NIfTI"),
        (["--format", "rtstruct"], "must be one of nifti, dicom-seg, tiff, png"),
        (["--keep-identifiers"], "is for DICOM-SEG"),
    ):
        code, _, error = run(*command, *more)
        assert code == 2
        assert said in error
        assert error.count("\n") == 1
    code, _, error = run(*command[:-2], "--format", "nifti")
    assert code == 2
    assert "add --out" in error


def test_dicom_goes_back_as_segmentations_without_a_name_unless_asked(
    run: Run, folders: dict[str, Path], tmp_path: Path
) -> None:
    flair = np.random.default_rng(0).integers(0, 300, (8, 40, 40)).astype(np.uint16)
    for name, data in dicom_maker.files({"A": dicom_maker.datasets(flair, 4)}).items():
        (tmp_path / "disc" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "disc" / name).write_bytes(data)
    out = tmp_path / "out"
    command = ["predict", tmp_path / "disc", "--model", folders["unet"], "--out", out]
    for more, expected in (([], False), (["--keep-identifiers"], True)):
        code, _, _ = run(*command, *more)
        assert code == 0
        assert {path.name for path in out.iterdir() if path.is_dir()} == {"dicom_seg", "nifti", "overlays"}
        held = [path.read_bytes() for path in (out / "dicom_seg").glob("*.dcm")]
        assert [dicom_maker.PATIENT.encode() in data for data in held] == [expected] * 2
        others = [path for path in out.rglob("*") if path.is_file() and path.suffix != ".dcm"]
        assert not [path for path in others if dicom_maker.PATIENT.encode() in path.read_bytes()]


def test_evaluate_json_keeps_its_shape_and_counts_what_is_not_computable(
    run: Run, folders: dict[str, Path], dataset: Path
) -> None:
    code, out, err = run("evaluate", dataset, *models_of(folders), "--ensemble", "--json")
    assert (code, err) == (0, "")
    rows = json.loads(out)["models"]
    assert list(rows) == [*ARCHITECTURES, "ensemble"]
    for name, row in rows.items():
        patients = row["patients"]
        assert list(patients) == ["CASE_A", "CASE_B", "CASE_C"]
        dices = [p["dice"] for p in patients.values() if p["dice"] is not None]
        assert row["dice_mean"] == pytest.approx(np.mean(dices))
        assert row["dice_median"] == pytest.approx(np.median(dices))
        assert row["dice_std"] == pytest.approx(np.std(dices))
        assert set(patients["CASE_A"]) >= {"dice", "iou", "sensitivity", "precision", "hd95"}
        assert patients["CASE_A"]["seen_in_training"] is True
        assert patients["CASE_B"]["seen_in_training"] is False, name


def test_evaluate_and_predict_agree(run: Run, folders: dict[str, Path], dataset: Path) -> None:
    _, out, _ = run("evaluate", dataset, "--model", folders["attention_unet"], "--json")
    dice = json.loads(out)["models"]["attention_unet"]["patients"]["CASE_B"]["dice"]
    _, out, _ = run("predict", dataset / "CASE_B", "--model", folders["attention_unet"], "--json")
    assert json.loads(out)["models"]["attention_unet"]["dice"] == dice


def test_validation_takes_the_patients_of_the_card_and_the_table_tells_training_ones(
    run: Run, folders: dict[str, Path], dataset: Path
) -> None:
    _, out, _ = run("evaluate", dataset, "--model", folders["unet"], "--validation", "--json")
    assert list(json.loads(out)["models"]["unet"]["patients"]) == ["CASE_B", "CASE_C"]
    _, out, _ = run("evaluate", dataset, "--model", folders["unet"])
    assert "1 of these patients were seen in training" in " ".join(out.split())


def test_validation_patients_that_are_missing_are_an_error(
    run: Run, folders: dict[str, Path], dataset: Path, tmp_path: Path
) -> None:
    shutil.copytree(dataset / "CASE_B", tmp_path / "part" / "CASE_B")
    code, _, err = run("evaluate", tmp_path / "part", "--model", folders["unet"], "--validation")
    assert code == 2
    assert "CASE_C" in err


def test_a_slice_without_a_mask_is_not_scored_as_free_of_tumour(
    run: Run, folders: dict[str, Path], dataset: Path, tmp_path: Path
) -> None:
    shutil.copytree(dataset / "CASE_B", tmp_path / "part" / "CASE_B")
    (tmp_path / "part" / "CASE_B" / "CASE_B_2_mask.tif").unlink()
    code, _, err = run("evaluate", tmp_path / "part", "--model", folders["unet"])
    assert code == 2
    assert "has no mask for 1 slice" in err


def test_a_renamed_folder_does_not_hide_a_training_patient(
    run: Run, folders: dict[str, Path], dataset: Path, tmp_path: Path
) -> None:
    shutil.copytree(dataset / "CASE_A", tmp_path / "part" / "somebody")
    _, out, _ = run("evaluate", tmp_path / "part", "--model", folders["unet"], "--json")
    assert json.loads(out)["models"]["unet"]["patients"]["somebody"]["seen_in_training"] is True


def test_what_is_not_computable_says_why(run: Run, folders: dict[str, Path], dataset: Path) -> None:
    _, out, _ = run("evaluate", dataset, "--model", folders["unet"], "--json")
    row = json.loads(out)["models"]["unet"]["patients"]["CASE_C"]
    assert row["sensitivity"] is None
    assert row["not_computable"]["sensitivity"] == "the reference is empty"
    _, out, _ = run("predict", dataset / "CASE_C", "--model", folders["unet"])
    assert "not computable: the reference is empty" in out


def test_write_card_states_what_evaluate_prints(
    run: Run, folders: dict[str, Path], dataset: Path, tmp_path: Path
) -> None:
    model = load(folders["unet"])
    save(tmp_path / "unet", model.network, replace(model.card, init="other@" + "ab" * 32))
    arguments = ["evaluate", dataset, "--model", tmp_path / "unet", "--write-card", "--json"]
    code, _, err = run(*arguments)
    assert code == 2
    assert "--validation" in err
    code, out, _ = run(*arguments, "--validation")
    assert code == 0
    row = json.loads(out)["models"]["unet"]
    card = load(tmp_path / "unet").card
    assert card.metrics["dice_mean"] == row["dice_mean"]
    text = (tmp_path / "unet" / "README.md").read_text()
    assert f"| {row['dice_mean']:.3f} | {row['dice_median']:.3f} |" in text
    assert "starting from the weights other (sha256 abababababab)" in text
    stated: Any = ModelCard(text).data
    assert (stated.license, stated.model_name) == ("cc-by-nc-sa-4.0", "unet")
    assert [one.metric_value for one in stated.eval_results] == [
        round(row[key], 3) for key in ("dice_mean", "dice_median")
    ]
    assert stated.eval_results[0].metric_args == {"protocol": card.metrics["protocol"]}
    assert RESEARCH_USE in text

    lacking = row["missing_sequences"]
    for sequences in ("T1 before contrast", "T1 after contrast", "both"):
        assert f"| {sequences} | {lacking[sequences]['dice_mean']:.3f} |" in text
    assert f"of {row['healthy_slices']['slices']} slices without tumour" in text
    assert f"{row['calibration']['ece']:.4f} over all voxels" in text


def test_missing_sequences_are_scored_as_for_a_patient_without_them(
    run: Run, folders: dict[str, Path], dataset: Path, tmp_path: Path
) -> None:
    shutil.copytree(dataset / "CASE_B", tmp_path / "whole" / "CASE_B")
    shutil.copytree(dataset / "CASE_B", tmp_path / "flair" / "CASE_B")
    for path in (tmp_path / "flair" / "CASE_B").glob("CASE_B_?.tif"):
        flair = tifffile.imread(path)[..., 1]
        tifffile.imwrite(path, np.stack([flair] * 3, axis=-1), photometric="rgb")
    rows = []
    for name in ("whole", "flair"):
        arguments = ["evaluate", tmp_path / name, "--model", folders["unet"], "--missing-sequences", "--json"]
        rows.append(json.loads(run(*arguments)[1])["models"]["unet"])
    whole, flair = rows
    assert whole["dice_mean"] != flair["dice_mean"]
    assert whole["missing_sequences"]["both"]["dice_mean"] == flair["dice_mean"]
    assert {row["dice_mean"] for row in flair["missing_sequences"].values()} == {flair["dice_mean"]}
    _, out, _ = run(*arguments[:-1])
    assert "with FLAIR in place of" in out
    assert "T1 after contrast" in out


def test_healthy_slices_are_those_without_tumour_in_the_reference(
    run: Run, folders: dict[str, Path], dataset: Path
) -> None:
    _, out, _ = run("evaluate", dataset, "--model", folders["unet"], "--json")
    found = json.loads(out)["models"]["unet"]["healthy_slices"]
    slices, false = 0, []
    for case in ("CASE_A", "CASE_B", "CASE_C"):
        _, out, _ = run("predict", dataset / case, "--model", folders["unet"], "--json")
        areas = json.loads(out)["models"]["unet"]["area_per_slice"]
        for number, area in enumerate(areas, 1):
            if not tifffile.imread(dataset / case / f"{case}_{number}_mask.tif").any():
                slices += 1
                false += [area] if area else []
    assert (found["slices"], found["with_false_positives"]) == (slices, len(false))
    assert found["median_false_pixels"] == (np.median(false) if false else 0)


def test_data_check_counts_and_fails_on_errors(run: Run, dataset: Path, tmp_path: Path) -> None:
    code, out, _ = run("data", "check", dataset)
    assert code == 0
    assert "3 patients, 9 slices, 6 with tumour" in out
    shutil.copytree(dataset, tmp_path / "all")
    (tmp_path / "all" / "CASE_B" / "CASE_B_2_mask.tif").unlink()
    code, out, err = run("data", "check", tmp_path / "all", "--json")
    assert code == 2
    assert any(problem["patient"] == "CASE_B" for problem in json.loads(out)["problems"])
    assert err.startswith("error: ")


def test_models_lists_the_four_networks(run: Run) -> None:
    code, out, _ = run("models", "--json")
    assert code == 0
    rows = json.loads(out)["models"]
    assert list(rows) == list(ARCHITECTURES)
    code, out, _ = run("models")
    assert code == 0
    assert "Attention U-Net++" in out


def test_python_dash_m_is_the_same_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "brainseg", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == f"brainseg {brainseg.__version__}"


def bad_inputs(tmp_path: Path) -> dict[str, Path]:
    made = {"empty folder": tmp_path / "empty", "missing": tmp_path / "nowhere"}
    made["empty folder"].mkdir()
    made["text as tif"] = tmp_path / "notes.tif"
    made["text as tif"].write_text("not an image")
    made["zero bytes"] = tmp_path / "zero_1.tif"
    made["zero bytes"].touch()
    made["not a zip"] = tmp_path / "patient.zip"
    made["not a zip"].write_bytes(b"PK\x03\x04 broken")
    made["truncated"] = tmp_path / "cut_1.tif"
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(made["truncated"], compression="tiff_deflate")
    made["truncated"].write_bytes(made["truncated"].read_bytes()[:60])
    return made


@pytest.mark.parametrize(
    "what", ["empty folder", "missing", "text as tif", "zero bytes", "not a zip", "truncated"]
)
def test_bad_input_is_one_sentence_and_exit_2(
    run: Run, folders: dict[str, Path], tmp_path: Path, what: str
) -> None:
    path = bad_inputs(tmp_path)[what]
    code, out, err = run("predict", path, "--model", folders["unet"])
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 1
    assert path.name in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["predict", "{A}", "--model", "nonsense"], "nonsense"),
        (["predict", "{A}"], "--model"),
        (["predict", "{A}", "--model", "{W}", "--device", "cuda:99"], "cuda:99"),
        (["predict", "{A}", "--model", "{W}", "--spacing", "5"], "--spacing"),
        (["predict", "{A}", "--model", "{W}", "--sequence", "4"], "ROLE=KEY"),
        (["predict", "{A}", "--model", "{W}", "--sequence", "t2=4"], "ROLE=KEY"),
        (["predict", "{A}", "--model", "{W}", "--sequence", "flair=4"], "neither series"),
        (["predict", "{A}", "--model", "{W}", "--register"], "neither series"),
        (["predict", "{A}", "--model", "{W}", "--model", "{W}"], "give each once"),
        (["predict", "{D}", "--model", "{W}"], "CASE_B"),
        (["evaluate", "{D}", "--model", "{W}", "--ensemble"], "--ensemble"),
        (["evaluate", "{D}", "--model", "{W}", "--write-card", "--tta"], "without flips"),
        (["evaluate", "{D}/none", "--model", "{W}"], "none"),
        (["train", "nowhere.toml", "--data", "{D}"], "nowhere.toml"),
        (["data", "check", "{D}/none"], "none"),
        (["predict", "--nonsense"], "nonsense"),
        (["nonsense"], "nonsense"),
    ],
)
def test_mistakes_are_one_sentence_and_exit_2(
    run: Run, folders: dict[str, Path], dataset: Path, arguments: list[str], part: str
) -> None:
    places = {"A": dataset / "CASE_A", "D": dataset, "W": folders["unet"]}
    code, _, err = run(*(argument.format(**places) for argument in arguments))
    assert code == 2
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 1
    assert part in err


def test_damaged_weights_are_named(run: Run, folders: dict[str, Path], dataset: Path, tmp_path: Path) -> None:
    model = load(folders["unet"])
    save(tmp_path / "w", model.network, model.card)
    tensors = tmp_path / "w" / "model.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-10])
    code, _, err = run("predict", dataset / "CASE_A", "--model", tmp_path / "w")
    assert code == 2
    assert "model.safetensors" in err


def test_several_patients_need_a_choice(run: Run, folders: dict[str, Path], dataset: Path) -> None:
    code, out, _ = run("predict", dataset, "--case", "CASE_C", "--model", folders["unet"], "--json")
    assert code == 0
    assert json.loads(out)["case_id"] == "CASE_C"


def test_out_never_mixes_two_runs_and_is_checked_first(
    run: Run, folders: dict[str, Path], dataset: Path, tmp_path: Path
) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "earlier.json").touch()
    (tmp_path / "file").touch()
    for out in ("used", "file", "file/below"):
        code, printed, err = run(
            "predict", dataset / "CASE_B", "--model", folders["unet"], "--out", tmp_path / out
        )
        assert (code, printed) == (2, "")
        assert "--out" in err
        assert "slices" not in err, "no network has run"
    (tmp_path / "empty").mkdir()
    code, _, _ = run("predict", dataset / "CASE_B", "--model", folders["unet"], "--out", tmp_path / "empty")
    assert code == 0
    assert (tmp_path / "empty" / "CASE_B.json").is_file()


def test_a_full_disk_leaves_nothing_half_written(
    run: Run, folders: dict[str, Path], dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("brainseg.report.overlays_zip", full)
    code, _, err = run(
        "predict", dataset / "CASE_B", "--model", folders["unet"], "--out", tmp_path / "made" / "here"
    )
    assert code == 2
    assert "No space left" in err
    assert not (tmp_path / "made").exists()


def test_names_of_users_are_no_markup(
    run: Run, folders: dict[str, Path], dataset: Path, tmp_path: Path
) -> None:
    name = "A[bold]x [link=y"
    shutil.copytree(dataset / "CASE_B", tmp_path / "set" / name)
    for file in (tmp_path / "set" / name).iterdir():
        file.rename(file.with_name(file.name.replace("CASE_B", name)))
    model = load(folders["unet"])
    save(tmp_path / "w", model.network, replace(model.card, name="[red]net[nothing]"))
    code, out, err = run("predict", tmp_path / "set" / name, "--model", tmp_path / "w")
    assert (code, "Traceback" in err) == (0, False)
    assert name in out
    assert "[red]net[nothing]" in out
    code, out, _ = run("evaluate", tmp_path / "set", "--model", tmp_path / "w")
    assert code == 0
    assert "[red]net[nothing]" in out
    (tmp_path / "set" / name / f"{name}_2_mask.tif").unlink()
    code, out, _ = run("data", "check", tmp_path / "set")
    assert code == 2
    assert name in out
