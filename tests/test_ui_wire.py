"""What travels to the browser: exact arrays in small messages."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from decoder import decode, header

from brainseg.types import AttentionMap, Box, Letterbox, Prediction, Source, Study
from brainseg.ui.wire import (
    Block,
    attention_pack,
    box_of,
    grey,
    head_box,
    message,
    prediction_pack,
    study_pack,
)

RNG = np.random.default_rng(5)


def study(slices: npt.NDArray[Any], reference: npt.NDArray[np.bool_] | None = None) -> Study:
    numbers = tuple(range(1, len(slices) + 1))
    return Study(slices, "case", Source("test", (), "f" * 64), numbers, reference)


def test_every_coding_gives_the_browser_every_value() -> None:
    shapes = [(3, 7, 5), (1, 1, 1), (2, 1, 9), (2, 9, 1), (4, 32, 32), (0, 4, 4)]
    sent: dict[str, Block] = {}
    for shape in shapes:
        values = RNG.integers(0, 256, shape, dtype=np.uint8)
        sent[f"plane {shape}"] = Block(values, "plane")
        sent[f"raw {shape}"] = Block(values, "raw")
        sent[f"bits {shape}"] = Block(values > 127, "bits")
    received = decode(message({}, sent))
    assert received.keys() == sent.keys()
    for name, block in sent.items():
        np.testing.assert_array_equal(received[name], block.array, err_msg=name)


def test_header_survives_and_blocks_lie_one_after_the_other() -> None:
    blocks = {name: Block(np.zeros((2, 3), np.uint8), "raw") for name in "abc"}
    data = message({"kind": "view", "text": "å ü"}, blocks)
    found = header(data)
    assert found["text"] == "å ü"
    entries = list(found["blocks"].values())
    assert entries[0]["start"] == 0
    assert all(b["start"] == a["start"] + a["size"] for a, b in pairwise(entries))
    assert data.endswith(blocks["c"].encode())


def test_nan_in_a_header_is_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        message({"dice": float("nan")}, {})


def test_8_bit_channels_are_sent_as_they_are() -> None:
    channel = RNG.integers(0, 256, (3, 8, 8), dtype=np.uint8)
    result = grey(channel)
    np.testing.assert_array_equal(result.levels, channel)
    assert (result.scale, result.offset) == (1.0, 0.0)


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.float32])
def test_other_channels_keep_intensities_to_half_a_step(dtype: type[np.generic]) -> None:
    channel: npt.NDArray[Any] = RNG.normal(1000, 100, (3, 20, 20)).astype(dtype)
    result = grey(channel)
    back = result.levels * result.scale + result.offset
    inside = (result.levels > 0) & (result.levels < 255)
    assert inside.mean() > 0.98
    assert np.abs(back - channel)[inside].max() <= result.scale / 2 + 1e-3


def test_grey_stands_constant_and_non_finite_channels() -> None:
    assert grey(np.full((2, 4, 4), 7.0, np.float32)).scale > 0
    channel = np.array([[[np.nan, np.inf, -np.inf, 0.5]]], np.float32)
    assert grey(channel).levels.ravel()[[1, 2]].tolist() == [255, 0]


def test_study_pack_holds_channels_reference_and_colour_maps() -> None:
    slices = RNG.integers(0, 256, (2, 8, 6, 3), dtype=np.uint8)
    reference = RNG.random((2, 8, 6)) > 0.5
    data = study_pack(study(slices, reference))
    arrays = decode(data)
    assert header(data)["kind"] == "pack"
    assert header(data)["id"] == "f" * 64
    assert [c["name"] for c in header(data)["channels"]] == ["pre", "flair", "post"]
    for i, name in enumerate(("pre", "flair", "post")):
        np.testing.assert_array_equal(arrays[name], slices[..., i])
    np.testing.assert_array_equal(arrays["reference"], reference)
    assert arrays["viridis"].shape == arrays["magma"].shape == (256, 3)


def test_study_pack_names_no_patient_and_no_file() -> None:
    secret = Study(
        np.zeros((1, 4, 4, 3), np.uint8), "SMITH_JOHN", Source("test", (), "a" * 64), (1,), notes=("SMITH",)
    )
    assert b"SMITH" not in study_pack(secret)


def test_prediction_pack_rounds_to_steps_of_1_in_255() -> None:
    probability = RNG.random((2, 5, 4)).astype(np.float32)
    prediction = Prediction("unet", "unet", "case", probability, 0.5, "all")
    received = decode(prediction_pack(prediction, "p"))["probability"]
    np.testing.assert_allclose(received / 255, probability, atol=0.5 / 255 + 1e-6)


@pytest.mark.parametrize(
    ("box", "grid"),
    [
        # Scaled to 256 x 128 and padded to 256 x 144: sixteen columns of padding are 6.25 slice pixels.
        (Box(0, 0, 100, 50), [0, 0, 100, 56.25]),
        (Box(20, 10, 60, 30), [20, 10, 60, 33.75]),
        (Box(-10, -5, 120, 60), [-10, -5, 120, 67.5]),
    ],
    ids=["whole slice", "crop", "over the edges"],
)
def test_attention_pack_says_where_the_gates_grid_lies(box: Box, grid: list[float]) -> None:
    letterbox = Letterbox((100, 50), box, (256, 128), (256, 144))
    coefficients = np.zeros((2, 32, 18), np.float16)
    found = header(attention_pack(AttentionMap("x3", 3, coefficients, letterbox), "p"))
    assert found["id"] == "p/x3"
    assert found["grid"] == grid
    assert found["blocks"]["attention"]["shape"] == [2, 32, 18]


def test_attention_pack_keeps_the_gates_own_values() -> None:
    letterbox = Letterbox((8, 8), Box(0, 0, 8, 8), (8, 8), (8, 8))
    coefficients = RNG.random((2, 4, 3)).astype(np.float16)
    received = decode(attention_pack(AttentionMap("x3", 3, coefficients, letterbox), "p"))["attention"]
    np.testing.assert_allclose(received / 255, coefficients, atol=0.5 / 255 + 1e-3)


def test_boxes() -> None:
    mask = np.zeros((3, 10, 12), np.bool_)
    assert box_of(mask) is None
    mask[1, 2:5, 3:9] = True
    mask[2, 7, 1] = True
    assert box_of(mask) == (2, 1, 8, 9)


def test_head_box_ignores_noise_and_keeps_the_head() -> None:
    channel = RNG.integers(0, 8, (4, 100, 100), dtype=np.uint8)
    channel[:, 30:70, 40:80] = 200
    channel[0, 5, 5] = 255
    box = head_box([channel])
    assert box is not None
    top, left, bottom, right = box
    assert 25 <= top <= 30
    assert 35 <= left <= 40
    assert 70 <= bottom <= 75
    assert 80 <= right <= 85


def test_head_box_of_an_empty_volume() -> None:
    assert head_box([np.zeros((2, 8, 8), np.uint8)]) is None
