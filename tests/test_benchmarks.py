"""The scripts in benchmarks/ run, and docs/RESULTS.md is what they and the cards say; nothing is timed."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy import stats

from brainseg.training.config import read_recipe

ROOT = Path(__file__).resolve().parent.parent


def script(path: str) -> ModuleType:
    """A script of the repository as a module."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["ablations.toml", "recipe.toml"])
def test_every_variant_of_the_ablations_is_a_valid_recipe(name: str) -> None:
    spec = tomllib.loads((ROOT / "benchmarks" / name).read_text())
    recipe = ROOT / "benchmarks" / spec["recipe"]
    made = [read_recipe(recipe, [*spec["common"], *changes]) for changes in spec["variants"].values()]
    assert len(set(map(str, made))) == len(made), "no two variants are the same"
    assert set(spec["against"]) | set(spec["against"].values()) <= set(spec["variants"])


def test_an_ablation_trains_scores_and_is_not_repeated(
    lgg: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ablations = script("benchmarks/ablations.py")
    (lgg / "recipe.toml").write_text(
        'name = "tiny"\nmodel = {architecture = "unet", width = 4}\npreprocess = {size = 32}\n'
        'data = {split = "folds.json", samples_per_epoch = 4}\n'
        "stages = [{size = 32, epochs = 1, batch = 2}]\n"
    )
    (lgg / "ablations.toml").write_text(
        'recipe = "recipe.toml"\nseeds = [0, 1]\nfolds = [0]\ncommon = ["validate_every=1"]\n'
        "[against]\n[variants]\n"
        '"as the recipe" = []\n"BCE + none" = ["loss.name=bce"]\n'
    )
    monkeypatch.setattr(ablations, "RESULTS", tmp_path / "results")
    ablations.main(lgg, lgg / "ablations.toml", tmp_path / "runs")
    found = json.loads((tmp_path / "results/ablations.json").read_bytes())
    assert [(run["variant"], run["seed"]) for run in found["runs"]] == [
        ("as the recipe", 0), ("as the recipe", 1), ("BCE + none", 0), ("BCE + none", 1),
    ]  # fmt: skip
    assert all(set(run["dice"]) == {"plain", "flips"} for run in found["runs"])

    def never(*_: object, **__: object) -> None:
        raise AssertionError("a finished run was trained again")

    monkeypatch.setattr(ablations, "train", never)
    ablations.main(lgg, lgg / "ablations.toml", tmp_path / "runs")


def test_training_speed_is_printed_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    speed = script("benchmarks/train_speed.py")
    monkeypatch.setattr(speed, "RESULTS", tmp_path / "speed.json")
    speed.main(rounds=1, width=4, size=32, batch=2, as_json=True)
    rows = json.loads((tmp_path / "speed.json").read_bytes())["rows"]
    assert len(rows) >= 4 * 3 + 2
    assert all(row["slices_per_second"] > 0 and row["gflop_per_slice"] > 0 for row in rows)
    assert all(row["against_plain"] == 1 for row in rows if row["way"].startswith("plain"))
    assert "MONAI" in capsys.readouterr().out


def test_flops_are_those_of_a_convolution_known_by_hand() -> None:
    speed = script("benchmarks/train_speed.py")
    network = speed.nn.Conv2d(3, 5, 3, padding=1, bias=False)
    forward = 2 * 3 * 5 * 9 * 16 * 16
    found = speed.flops(network, speed.Sizes(width=0, size=16, batch=1, steps=1))
    assert found == 2 * forward, "forward, and the gradient of the weights; the input needs none"


def run_of(values: Any, seed: int) -> dict[str, Any]:
    return {
        "seed": seed,
        "fold": 0,
        "dice": {"plain": {f"p{n}": float(value) for n, value in enumerate(values)}},
    }


def test_differences_are_paired_by_patient() -> None:
    results = script("docs/results.py")
    rng = np.random.default_rng(0)
    one, other = rng.random((2, 2, 12))
    gap, error = results.paired(
        [run_of(v, s) for s, v in enumerate(one)], [run_of(v, s) for s, v in enumerate(other)]
    )
    expected = stats.ttest_rel(one.mean(0), other.mean(0))
    assert gap / error == pytest.approx(expected.statistic)
    alone, _ = results.paired([run_of(one[0], 0)], [run_of(v, s) for s, v in enumerate(other)])
    assert alone == pytest.approx((one[0] - other[0]).mean()), "only seeds that both have are compared"


def test_results_are_what_the_script_writes() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "docs/results.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
