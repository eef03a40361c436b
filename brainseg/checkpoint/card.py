"""The card of a weights folder: config.json <-> `WeightsCard`."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, fields
from pathlib import Path

from brainseg import __version__
from brainseg.fields import FieldError, build, is_folder_name, read_at_most, short
from brainseg.files import atomic_write
from brainseg.models import ARCHITECTURES
from brainseg.preprocess import MULTIPLE, Preprocess
from brainseg.types import WeightsCard, WeightsError

CONFIG = "config.json"
_MOST_BYTES = 4 * 2**20
_SHA256 = re.compile("[0-9a-f]{64}")
_VERSION = re.compile(r"(\d{1,6})\.(\d{1,6})\.(\d{1,6})")


def read_card(folder: str | Path) -> WeightsCard:
    """Read config.json of a weights folder.

    Raises:
        WeightsError: if it is missing or not a card.
    """
    path = Path(folder) / CONFIG
    again = "get the weights folder again"
    raw: object = None
    try:
        raw = json.loads(read_at_most(path, _MOST_BYTES))
        card = _card(raw)
    except FileNotFoundError as error:
        raise WeightsError(f"{path} is missing; this is not a weights folder") from error
    except FieldError as error:
        if newer := _newer(raw):
            raise WeightsError(
                f"{path} was written by brainseg {newer}, which knows more than this {__version__} "
                f"({error}); pip install --upgrade brainseg-lgg"
            ) from error
        raise WeightsError(f"{path} is not a brainseg weights card ({error}); {again}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is not a brainseg weights card; {again}") from error
    if card.spec.architecture not in ARCHITECTURES:
        raise WeightsError(
            f"{path} names architecture {short(card.spec.architecture)}, which is not one of "
            f"{', '.join(ARCHITECTURES)}; get other weights or a newer brainseg"
        )
    return card


def _newer(raw: object) -> str:
    """The version that wrote a card, where it is newer than this one; else empty."""
    version = raw.get("version") if isinstance(raw, dict) else None
    if not isinstance(version, str) or not (stated := _VERSION.fullmatch(version)):
        return ""
    own = _VERSION.match(__version__)
    assert own is not None
    return version if [int(n) for n in stated.groups()] > [int(n) for n in own.groups()] else ""


def _card(raw: object) -> WeightsCard:
    card = build(WeightsCard, raw)
    preprocess = build(Preprocess, card.preprocess, "preprocess.")
    figures = card.metrics
    shares = {key: figures.get(key) for key in ("dice_mean", "dice_median")}
    rules = [
        # Marking patients seen in training must not be lost with the list.
        *(
            (isinstance(raw, dict) and key in raw, f"{key} is missing")
            for key in ("training_patients", "validation_patients")
        ),
        (is_folder_name(card.name), "name must be good for a folder, without slashes"),
        (_SHA256.fullmatch(card.sha256) is not None, "sha256 must be 64 hexadecimal digits"),
        (card.spec.width > 0, "spec.width must be above 0"),
        (0 <= card.spec.dropout < 1, "spec.dropout must lie in 0..1, below 1"),
        (preprocess.size % MULTIPLE == 0, f"preprocess.size must be divisible by {MULTIPLE}"),
        (0 <= card.threshold <= 1, "threshold must lie in 0..1"),
        (0.01 <= card.temperature <= 100, "temperature must lie in 0.01..100"),
        *(
            (value is None or _is_share(value), f"metrics.{key} must lie in 0..1")
            for key, value in shares.items()
        ),
        (
            type(figures.get("cases", 0)) is int and figures.get("cases", 0) >= 0,
            "metrics.cases must be a number of patients",
        ),
    ]
    for holds, sentence in rules:
        if not holds:
            raise FieldError(sentence)
    return card


def _is_share(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1


def write_card(folder: str | Path, card: WeightsCard) -> None:
    """Write config.json of a weights folder."""
    ordered = {field.name: asdict(card)[field.name] for field in fields(card)}
    with atomic_write(Path(folder) / CONFIG) as file:
        file.write((json.dumps(ordered, indent=2, ensure_ascii=False) + "\n").encode())
