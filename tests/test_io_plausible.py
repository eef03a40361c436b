"""Masks that mark too much and slices out of order are said; real ones are not spoken of."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from brainseg.io.plausible import about_masks, about_order

SLICES, SIDE = 24, 64
NUMBERS = tuple(range(1, SLICES + 1))
Pixels = npt.NDArray[Any]


def head(slices: int = SLICES) -> Pixels:
    """(S, H, W, 3): a head whose inside changes smoothly from slice to slice, in the dark."""
    rows, columns = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    volume = np.zeros((slices, SIDE, SIDE, 3), np.uint8)
    for n, place in enumerate(np.linspace(0, 1, slices)):
        inside = rows**2 + columns**2 < (0.5 + 0.3 * np.sin(2.5 * place + 0.3)) ** 2
        folds = 1 + np.sin(9 * rows + 8 * place) * np.cos(7 * columns - 5 * place)
        volume[n] = (inside * (60 + 60 * folds))[..., np.newaxis]
    return volume


def disc(radius: float, slices: int = SLICES) -> npt.NDArray[np.bool_]:
    rows, columns = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    mask = np.zeros((slices, SIDE, SIDE), np.bool_)
    mask[slices // 2] = rows**2 + columns**2 < radius**2
    return mask


def test_a_tumour_is_not_spoken_of() -> None:
    assert about_masks(head(), disc(0.3), NUMBERS) == []
    assert about_masks(head(), disc(0.0), NUMBERS) == []
    assert about_masks(head(), None, NUMBERS) == []
    assert about_masks(np.zeros_like(head()), disc(0.3), NUMBERS) == []


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
@pytest.mark.parametrize("offset", [0, 50])
def test_inverted_masks_are_said(dtype: Any, offset: int) -> None:
    volume = head().astype(dtype) + dtype(offset)
    for mask in (~disc(0.3), ~disc(0.0), head()[..., 0] > 0):
        (note,) = about_masks(volume, mask, NUMBERS)
        assert "black and white are probably exchanged" in note
    assert about_masks(volume, disc(0.3), NUMBERS) == []


def test_inverted_masks_of_the_tumour_slices_alone_are_said() -> None:
    chosen = slice(SLICES // 2, SLICES // 2 + 1)
    (note,) = about_masks(head()[chosen], ~disc(0.3)[chosen], NUMBERS[chosen])
    assert "exchanged" in note


def test_more_tumour_than_was_trained_on_is_said() -> None:
    (note,) = about_masks(head(), disc(0.6), NUMBERS)
    assert "slice 13" in note
    wide = np.repeat(disc(0.35)[SLICES // 2][np.newaxis], SLICES, 0)
    (note,) = about_masks(head(), wide, NUMBERS)
    assert "more than in any" in note


def test_order_is_not_spoken_of() -> None:
    assert about_order(head(), NUMBERS) == []
    assert about_order(head()[::-1], NUMBERS) == []
    assert about_order(head()[:4], NUMBERS[:4]) == []
    noise = np.random.default_rng(0).integers(0, 256, head().shape, np.uint8)
    assert about_order(noise, NUMBERS) == []
    assert about_order(np.zeros_like(head()), NUMBERS) == []


@pytest.mark.parametrize("top", [1e308, 3e38, 1e-320])
def test_values_at_the_ends_of_floating_point(top: float) -> None:
    volume = head() / 255.0 * top
    volume[0, 0, 0] = -top
    about_order(volume, NUMBERS)
    about_masks(volume, disc(0.3), NUMBERS)
    about_order(np.full_like(volume, top), NUMBERS)


@pytest.mark.parametrize("kind", ["as text", "every other", "random"])
def test_an_order_that_jumps_is_said(kind: str) -> None:
    given = {
        "as text": sorted(range(SLICES), key=lambda n: str(n + 1)),
        "every other": [*range(0, SLICES, 2), *range(1, SLICES, 2)],
        "random": np.random.default_rng(0).permutation(SLICES).tolist(),
    }[kind]
    (note,) = about_order(head()[given], NUMBERS)
    assert note.startswith("Slices jump, for instance from ")
    blank = np.concatenate([head()[given], np.zeros_like(head()[:3])])
    assert about_order(blank, tuple(range(1, SLICES + 4))) == [note]
