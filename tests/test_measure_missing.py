from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from brainseg.measure import cost_of_missing
from brainseg.types import ModelSpec, Source, Study, WeightsCard

METRICS = {
    "cases": 19,
    "dice_mean": 0.819,
    "missing_sequences": {
        "T1 before contrast": {"dice_mean": 0.718},
        "T1 after contrast": {"dice_mean": 0.769},
        "both": {"dice_mean": 0.655},
    },
}


def card(metrics: Any) -> WeightsCard:
    return WeightsCard("unet", ModelSpec("unet"), {}, 0.5, "all", "0" * 64, "Apache-2.0", metrics=metrics)


def study(*missing: int) -> Study:
    slices = np.random.default_rng(0).integers(0, 255, (4, 16, 16, 3), dtype=np.uint8)
    for channel in missing:
        slices[..., channel] = slices[..., 1]
    return Study(slices, "a", Source("slices", (), "0" * 64), (1, 2, 3, 4))


@pytest.mark.parametrize(
    ("missing", "sentence"),
    [
        ((0,), "T1 before contrast, on the 19 validation patients: U-Net 0.72 instead of 0.82."),
        ((2,), "T1 after contrast, on the 19 validation patients: U-Net 0.77 instead of 0.82."),
        ((0, 2), "both T1 sequences, on the 19 validation patients: U-Net 0.66 instead of 0.82."),
    ],
)
def test_the_cost_is_the_cards(missing: tuple[int, ...], sentence: str) -> None:
    said = cost_of_missing(study(*missing), {"U-Net": card(METRICS)})
    assert said == f"Mean Dice with FLAIR in place of {sentence}"


def test_several_networks_and_those_of_which_nothing_is_known() -> None:
    cards = {
        "A": card(METRICS),
        "B": card({**METRICS, "cases": 5}),
        "C": card({"missing_sequences": [1], "dice_mean": 0.5}),
        "D": card({}),
    }
    assert cost_of_missing(study(2), cards) == (
        "Mean Dice with FLAIR in place of T1 after contrast, on the validation patients: A 0.77 instead of "
        "0.82, B 0.77 instead of 0.82."
    )
    assert cost_of_missing(study(2), {"D": card({})}) is None


def test_nothing_is_said_where_nothing_is_missing() -> None:
    one = study()
    one.slices[2, ..., 2] = one.slices[2, ..., 1]  # a single slice proves nothing
    assert cost_of_missing(one, {"A": card(METRICS)}) is None
