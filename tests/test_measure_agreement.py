from __future__ import annotations

import numpy as np
import pytest

from brainseg.measure import dice, pairs, votes, votes_sentence, voxels_by_votes
from brainseg.types import BoolArray


def masks(count: int) -> list[BoolArray]:
    return list(np.random.default_rng(0).random((count, 3, 5, 5)) < 0.4)


def test_votes_are_counted_by_voxel() -> None:
    four = masks(4)
    found = votes(four)
    assert found.dtype == np.uint8
    assert np.array_equal(found, np.sum(four, axis=0))
    assert np.array_equal(votes(four[:1]), four[0])
    assert voxels_by_votes(four) == [int((np.sum(four, axis=0) == k).sum()) for k in (1, 2, 3, 4)]
    with pytest.raises(ValueError, match="1 to 255"):
        votes([])
    with pytest.raises(ValueError, match="must be bool"):
        votes([four[0], four[1][:2]])


def test_votes_in_words() -> None:
    a, b = np.zeros((2, 1, 2, 2), dtype=bool)
    assert votes_sentence([a, b]) == "No model marks a voxel."
    a[0, 0], b[0, 0, 0] = True, True
    assert votes_sentence([a, b]) == "Of the 2 voxels that any model marks, both mark 50%."
    assert votes_sentence([a, a, b]) == "Of the 2 voxels that any model marks, all 3 mark 50%."
    in_ml = votes_sentence([a, b], (6.0, 20.0, 10.0))
    assert in_ml == "Of the 2.4 ml that any model marks, both mark 50%."


def test_pairs_hold_dice_of_each_two() -> None:
    three = masks(3)
    found = pairs(three)
    assert list(found) == [(0, 1), (0, 2), (1, 2)]
    assert found[0, 2] == f"{dice(three[0], three[2]):.3f}"
    empty = np.zeros_like(three[0])
    assert pairs([empty, empty]) == {(0, 1): "not computable: both masks are empty"}
