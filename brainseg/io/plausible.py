"""What can be read but is hardly meant: said in notes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from brainseg.types import BoolArray, FloatArray


def about_masks(volume: npt.NDArray[Any], reference: BoolArray | None) -> list[str]:
    return []


def about_order(volume: npt.NDArray[Any], numbers: tuple[int, ...]) -> list[str]:
    return []
