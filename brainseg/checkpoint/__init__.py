"""Weights and their cards: `card` reads and writes config.json, `store` a folder, `hub` finds one by name.

`push` puts a folder on the Hugging Face Hub.
"""

from brainseg.checkpoint.card import CONFIG, read_card, write_card
from brainseg.checkpoint.hub import (
    BUNDLED,
    bundled,
    bundled_card,
    bundled_names,
    is_local,
    load,
    pull,
    resolve,
    whereabouts,
)
from brainseg.checkpoint.push import Pushed, check_release, push, state_release
from brainseg.checkpoint.store import README, TENSORS, LoadedModel, initialise_from, save

__all__ = [
    "BUNDLED",
    "CONFIG",
    "README",
    "TENSORS",
    "LoadedModel",
    "Pushed",
    "bundled",
    "bundled_card",
    "bundled_names",
    "check_release",
    "initialise_from",
    "is_local",
    "load",
    "pull",
    "push",
    "read_card",
    "resolve",
    "save",
    "state_release",
    "whereabouts",
    "write_card",
]
