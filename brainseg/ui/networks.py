"""The bundled weights as every face uses them: their cards, and one loaded network each for all sessions."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from functools import cache

from brainseg import checkpoint
from brainseg.inference import Predictor
from brainseg.types import Prediction, Study, WeightsCard, WeightsError

ASK_AGAIN_S = 30.0
"""A Hub that did not answer is asked again after this time: a face looks at the cards with each click."""

_not_answered: dict[str, tuple[float, str]] = {}


def installed() -> tuple[dict[str, WeightsCard], dict[str, str]]:
    """Cards of the bundled weights, and a sentence for each that is damaged or out of reach, both by name."""
    cards: dict[str, WeightsCard] = {}
    damaged: dict[str, str] = {}
    for name in checkpoint.bundled_names():
        asked, sentence = _not_answered.get(name, (0.0, ""))
        if sentence and time.monotonic() - asked < ASK_AGAIN_S:
            damaged[name] = sentence
            continue
        try:
            cards[name] = checkpoint.bundled_card(name)
        except WeightsError as error:
            damaged[name] = str(error)
            if not checkpoint.is_local(name):
                _not_answered[name] = time.monotonic(), str(error)
    return cards, damaged


def fetch() -> None:
    """Fetch the bundled weights that are not here yet, before a page opens and not while somebody waits.

    Raises:
        WeightsError: if the Hub is out of reach.
    """
    for name in checkpoint.bundled_names():
        if not checkpoint.is_local(name):
            checkpoint.resolve(name)


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
