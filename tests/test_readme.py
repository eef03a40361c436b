"""What README.md and the model cards state is what config.json of the weights holds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from brainseg.checkpoint import BUNDLED, bundled, load
from brainseg.evaluation.model_card import model_card
from brainseg.models import ARCHITECTURES
from brainseg.training.config import read_recipe

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
RECIPES = ROOT / "recipes"


def row(title: str) -> list[str]:
    """Cells of the line of the table of figures that begins with this title."""
    line = next(line for line in README.splitlines() if line.startswith(f"| {title} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_figures_of_the_readme_are_those_of_the_cards(name: str) -> None:
    metrics = bundled()[name].metrics
    stated = [f"{metrics[key]:.3f}" for key in ("dice_mean", "dice_median", "dice_std")]
    stated += [str(metrics["missed"]), f"{metrics['hd95_mean']:.1f}"]
    assert row(ARCHITECTURES[name].title)[2:] == stated
    card = (BUNDLED / name / "README.md").read_text(encoding="utf-8")
    assert card == model_card(bundled()[name])


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_cards_keep_training_and_validation_apart(name: str) -> None:
    card = bundled()[name]
    assert card.training_patients
    assert not set(card.training_patients) & set(card.validation_patients)
    assert set(card.metrics["patients"]) == set(card.validation_patients)
    assert not any(figures["seen_in_training"] for figures in card.metrics["patients"].values())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_weights_are_no_worse_than_the_second_set(name: str) -> None:
    metrics = bundled()[name].metrics
    assert metrics["dice_mean"] >= 0.80
    assert metrics["dice_median"] >= 0.84
    assert metrics["missed"] == 0
    assert (BUNDLED / name / "model.safetensors").stat().st_size <= 20e6


def test_the_ensemble_of_the_readme_is_that_of_the_evaluation() -> None:
    found = json.loads((ROOT / "benchmarks/results/evaluation.json").read_bytes())["models"]["ensemble"]
    stated = [f"{found[key]:.3f}" for key in ("dice_mean", "dice_median", "dice_std")]
    assert row("Ensemble of the four")[2:] == [*stated, str(found["missed"]), f"{found['hd95_mean']:.1f}"]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_what_training_started_from_is_in_the_repository(name: str) -> None:
    """`init` of a card is a weights folder here, the same to the byte, and the one its recipe names."""
    recipe = read_recipe(RECIPES / f"{name}.toml")
    card = bundled()[name]
    if not recipe.init:
        assert card.init == ""
        return
    beside = RECIPES / recipe.init
    start = load(beside if beside.is_dir() else recipe.init).card
    assert card.init == f"{recipe.init}@{start.sha256}"
    assert not set(start.training_patients) & set(card.validation_patients)
    assert recipe.model == card.spec
