"""Weights and their cards: `card` reads and writes config.json, `store` a folder, `hub` finds one by name."""

from brainseg.checkpoint.card import CONFIG, read_card, write_card
from brainseg.checkpoint.hub import BUNDLED, bundled, bundled_card, bundled_names, is_local, load, resolve
from brainseg.checkpoint.store import TENSORS, LoadedModel, initialise_from, save

__all__ = [
    "BUNDLED",
    "CONFIG",
    "TENSORS",
    "LoadedModel",
    "bundled",
    "bundled_card",
    "bundled_names",
    "initialise_from",
    "is_local",
    "load",
    "read_card",
    "resolve",
    "save",
    "write_card",
]
