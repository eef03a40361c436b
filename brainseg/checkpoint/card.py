"""The card of a weights folder: config.json <-> `WeightsCard`."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, fields
from pathlib import Path
from typing import get_args

from brainseg.files import atomic_write
from brainseg.models import ARCHITECTURES
from brainseg.preprocess import Preprocess
from brainseg.types import Keep, ModelSpec, WeightsCard, WeightsError

CONFIG = "config.json"


def read_card(folder: str | Path) -> WeightsCard:
    """Read config.json of a weights folder.

    Raises:
        WeightsError: if it is missing or not a card.
    """
    path = Path(folder) / CONFIG
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        spec = ModelSpec(**raw.pop("spec"))
        for key in ("training_patients", "validation_patients"):
            if not isinstance(raw[key], list):
                raise TypeError(f"{key} must be a list")
            raw[key] = tuple(raw[key])
        card = WeightsCard(spec=spec, **raw)
        Preprocess(**card.preprocess)
        if (
            not isinstance(card.sha256, str)
            or not 0 <= card.threshold <= 1
            or card.keep not in get_args(Keep)
            or not 0 < card.temperature < math.inf
        ):
            raise ValueError("sha256, threshold, keep or temperature is out of range")
        known = card.spec.architecture in ARCHITECTURES
    except FileNotFoundError as error:
        raise WeightsError(f"{path} is missing; this is not a weights folder") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise WeightsError(f"{path} is not a brainseg weights card; get the weights folder again") from error
    if not known:
        raise WeightsError(
            f"{path} names architecture {card.spec.architecture!r}, which is not one of "
            f"{', '.join(ARCHITECTURES)}; get other weights or a newer brainseg"
        )
    return card


def write_card(folder: str | Path, card: WeightsCard) -> None:
    """Write config.json of a weights folder."""
    ordered = {field.name: asdict(card)[field.name] for field in fields(card)}
    with atomic_write(Path(folder) / CONFIG) as file:
        file.write((json.dumps(ordered, indent=2, ensure_ascii=False) + "\n").encode())
