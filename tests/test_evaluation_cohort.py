"""A cohort: the same figures whatever maps the work, and each row that of its patient alone."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from brainseg.checkpoint import load
from brainseg.evaluation.cohort import Work, evaluate
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
    assert (both.threshold, both.keep, both.seen_in_training) == (pytest.approx(0.45), "largest", True)
    assert mean([one, replace(other, keep="all")]).keep == "all", "half is not most"


def test_another_process_gives_the_same_figures(folders: dict[str, Path], dataset: Path) -> None:
    models = [load(folders[name]) for name in ("unet", "attention_unet")]
    said: list[tuple[str, int, int]] = []
    here = evaluate(models, dataset, ensemble=True, device="cpu", say=lambda *what: said.append(what))
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        there = evaluate(models, dataset, ensemble=True, device="cpu", engine=pool.map)
    assert here == there
    assert said == [("CASE_A", 0, 3), ("CASE_B", 1, 3), ("CASE_C", 2, 3), ("done", 3, 3)]


def test_a_patient_without_masks_is_refused_by_name(folders: dict[str, Path], tmp_path: Path) -> None:
    work = Work([load(folders["unet"])], False, False, False, "cpu")
    with pytest.raises(InputError, match="nobody"):
        work(tmp_path / "nobody")
