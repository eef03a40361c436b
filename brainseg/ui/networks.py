"""The bundled weights as every face uses them: their cards, and one loaded network each for all sessions."""

from __future__ import annotations

import gc
from collections.abc import Callable
from functools import cache

from brainseg import checkpoint
from brainseg.inference import Predictor
from brainseg.types import Prediction, Study, WeightsCard, WeightsError


def installed() -> tuple[dict[str, WeightsCard], dict[str, str]]:
    """Cards of the bundled weights, and a sentence for each that is damaged, both by name."""
    cards: dict[str, WeightsCard] = {}
    damaged: dict[str, str] = {}
    for name in checkpoint.bundled_names():
        try:
            cards[name] = checkpoint.bundled_card(name)
        except WeightsError as error:
            damaged[name] = str(error)
    return cards, damaged


def predict(
    name: str,
    study: Study,
    *,
    tta: bool,
    progress: Callable[[int, int], None],
    cancelled: Callable[[], bool],
) -> Prediction:
    """Run bundled weights over a study."""
    card = checkpoint.bundled_card(name)
    return _predictor(name, card.sha256).predict(study, tta=tta, progress=progress, cancelled=cancelled)


def keep_out_of_collections() -> None:
    """Tell the garbage collector that what is loaded by now lives as long as the process.

    The libraries make some hundred thousand objects, and a full collection walks them all while every
    session waits.
    """
    gc.collect()
    gc.freeze()


@cache
def _predictor(name: str, _sha256: str) -> Predictor:
    # Weights, not patients: these may be shared by every session. The digest makes new files load anew.
    predictor = Predictor(checkpoint.load(name))
    keep_out_of_collections()
    return predictor
