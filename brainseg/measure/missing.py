"""What it costs that a sequence is missing, as measured when the weights were validated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from brainseg.types import CHANNELS, Study, WeightsCard

_TITLES = {"pre": "T1 before contrast", "post": "T1 after contrast"}


def cost_of_missing(study: Study, cards: Mapping[str, WeightsCard]) -> str | None:
    """Dice with FLAIR in place of a sequence, in a sentence; None where none is missing or measured.

    Args:
        study: a sequence is missing where its channel equals FLAIR's.
        cards: of the weights, by the names to print.
    """
    flair = study.slices[..., CHANNELS.index("flair")]
    missing = [
        title for name, title in _TITLES.items() if _equal(study.slices[..., CHANNELS.index(name)], flair)
    ]
    if not missing:
        return None
    asked = missing[0] if len(missing) == 1 else "both"
    costs, patients = [], set()
    for name, card in cards.items():
        without = _at(card.metrics, "missing_sequences", asked, "dice_mean")
        whole = _at(card.metrics, "dice_mean")
        if isinstance(without, float) and isinstance(whole, float):
            costs.append(f"{name} {without:.2f} instead of {whole:.2f}")
            patients.add(_at(card.metrics, "cases"))
    if not costs:
        return None
    many = patients.pop() if len(patients) == 1 else None
    whose = f"the {many} validation patients" if isinstance(many, int) else "the validation patients"
    which = "both T1 sequences" if asked == "both" else asked
    return f"Mean Dice with FLAIR in place of {which}, on {whose}: {', '.join(costs)}."


def _at(metrics: Any, *path: str) -> Any:
    # A card may come from elsewhere.
    for name in path:
        metrics = metrics.get(name) if isinstance(metrics, dict) else None
    return metrics


def _equal(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> bool:
    # Mostly they differ, and one slice tells.
    middle = len(one) // 2
    return np.array_equal(one[middle], other[middle]) and np.array_equal(one, other)
