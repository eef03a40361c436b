"""A data set evaluated: the same figures whoever works, and each row that of its patient alone."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from brainseg import cli
from brainseg.checkpoint import load, save
from brainseg.cohort.processes import processes
from brainseg.evaluation.cohort import evaluate
from brainseg.evaluation.patient import ENSEMBLE, MISSING, evaluate_patient, mean, without
from brainseg.inference import Predictor
from brainseg.io import read_study
from brainseg.measure import compare
from brainseg.postprocess import find
from brainseg.types import InputError, Prediction, Study


@pytest.fixture
def study(dataset: Path) -> Study:
    return read_study(dataset / "CASE_B")


def test_a_row_is_what_measuring_by_hand_gives(folders: dict[str, Path], study: Study) -> None:
    assert study.reference is not None
    predictors = [Predictor(load(folders[name]), "cpu") for name in ("unet", "unetpp")]
    rows = evaluate_patient(predictors, study, ensemble=True, missing_sequences=True)
    assert list(rows) == ["unet", "unetpp", ENSEMBLE]
    found = [predictor.predict(study, attention=False) for predictor in predictors]
    for prediction in [*found, mean(found)]:
        row = rows[prediction.model]
        assert row.metrics == compare(find(prediction).mask, study.reference, None)
        assert list(row.lacking) == list(MISSING)
        assert row.healthy == 0
        assert row.everywhere.voxels.sum() == study.reference.size
    poorer = without(study, ["pre"])
    alone = evaluate_patient(predictors[:1], poorer)["unet"]
    assert rows["unet"].lacking["T1 before contrast"] == alone.metrics
    assert alone.lacking == {}


def test_without_leaves_the_study_alone(study: Study) -> None:
    before = study.slices.copy()
    poorer = without(study, ["post"])
    assert np.array_equal(poorer.slices[..., 2], study.slices[..., 1])
    assert np.array_equal(poorer.slices[..., 0], study.slices[..., 0])
    assert np.array_equal(study.slices, before)


def test_the_mean_of_models() -> None:
    one = Prediction("a", "unet", "case", np.full((1, 2, 2), 0.2, np.float32), 0.4, "largest", seconds=1.0)
    other = replace(one, model="b", probability=np.full((1, 2, 2), 0.6, np.float32), threshold=0.5)
    both = mean([one, replace(other, seen_in_training=True)])
    assert both.probability == pytest.approx(0.4)
    assert both.threshold == pytest.approx(0.45)
    assert (both.keep, both.seen_in_training) == ("largest", True)
    assert mean([one, replace(other, keep="all")]).keep == "all", "half is not most"


def test_another_process_gives_the_same_figures(folders: dict[str, Path], dataset: Path) -> None:
    models = [load(folders[name]) for name in ("unet", "attention_unet")]
    said: list[tuple[str, int, int]] = []
    here = evaluate(models, dataset, ensemble=True, device="cpu", say=lambda *what: said.append(what))
    there = evaluate(models, dataset, ensemble=True, device="cpu", engine=processes(1))
    assert json.dumps(here) == json.dumps(there)
    assert said == [("patients", 0, 3), ('"CASE_A"', 1, 3), ('"CASE_B"', 2, 3), ('"CASE_C"', 3, 3)]


def test_failures_are_listed_and_count_nowhere(
    folders: dict[str, Path], dataset: Path, tmp_path: Path
) -> None:
    models = [load(folders["unet"])]
    whole = evaluate(models, dataset)
    assert whole["failures"] == {}
    shutil.copytree(dataset, tmp_path / "set")
    (tmp_path / "set" / "CASE_B" / "CASE_B_2_mask.tif").unlink()
    result = evaluate(models, tmp_path / "set")
    assert list(result["failures"]) == ["CASE_B"]
    assert "CASE_B has no mask for 1 slice" in result["failures"]["CASE_B"]
    row, before = result["models"]["unet"], whole["models"]["unet"]
    assert row["patients"] == {case: before["patients"][case] for case in ("CASE_A", "CASE_C")}
    dices = [before["patients"][case]["dice"] for case in ("CASE_A", "CASE_C")]
    assert row["dice_mean"] == pytest.approx(sum(dices) / 2)


def test_where_every_patient_fails_the_first_says_why(folders: dict[str, Path], tmp_path: Path) -> None:
    for case in ("second", "first"):
        (tmp_path / case).mkdir()
        (tmp_path / case / "notes.txt").touch()
    with pytest.raises(InputError, match="notes"):
        evaluate([load(folders["unet"])], tmp_path)


def test_the_command_evaluates_by_workers_and_states_no_card_of_a_part(
    folders: dict[str, Path], dataset: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: object) -> tuple[object, str, str]:
        with pytest.raises(SystemExit) as stop:
            cli.main(["evaluate", *map(str, arguments), "--device", "cpu"])
        return stop.value.code, *capfd.readouterr()

    model = load(folders["unet"])
    save(tmp_path / "unet", model.network, model.card)
    shutil.copytree(dataset, tmp_path / "set")
    arguments = [tmp_path / "set", "--model", tmp_path / "unet"]
    _, alone, _ = run(*arguments, "--json")
    code, out, err = run(*arguments, "--json", "--workers", "2")
    assert (code, out, err) == (0, alone, "")
    (tmp_path / "set" / "CASE_B" / "CASE_B_2_mask.tif").unlink()
    code, out, err = run(*arguments)
    assert code == 2
    assert 'failed: "CASE_B": ' in out
    assert err.splitlines()[-1].startswith("error: 1 patient of the data set could not be evaluated")
    code, out, err = run(*arguments, "--json")
    assert (code, list(json.loads(out)["failures"])) == (2, ["CASE_B"])
    card = (tmp_path / "unet" / "config.json").read_bytes()
    code, out, err = run(*arguments, "--validation", "--write-card")
    assert code == 2
    assert "no card is written" in err.splitlines()[-1]
    assert (tmp_path / "unet" / "config.json").read_bytes() == card
