"""Patients, folds, draws and augmentation."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from brainseg.preprocess import Preprocess, apply_mask
from brainseg.training.config import Augment, Data, RecipeError
from brainseg.training.data import (
    MAX_WORKERS,
    Draw,
    SliceData,
    augmented,
    draws,
    make_loader,
    make_pipeline,
    share,
    workers_beside,
)
from brainseg.types import InputError, Source, Study

FOLDS = Path(__file__).resolve().parent.parent / "recipes" / "lgg_folds.json"
NONE = Augment(**dict.fromkeys(Augment.__dataclass_fields__, 0.0))
GEOMETRIC = replace(NONE, rotate=20.0, scale=0.2, shift=0.05, flip=0.5)
SIZE = 64


def square(size: int = 256) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """A slice with one bright square off the centre, and the mask of that square."""
    mask = np.zeros((size, size), np.uint8)
    mask[size // 3 : size // 2, size // 4 : size // 2] = 1
    image = 0.1 + 0.8 * mask[..., None] * np.ones(3)
    return image.astype(np.float32), mask


def study(case_id: str = "SYN_AA_0001_20000101", slices: int = 4, size: int = SIZE) -> Study:
    """Slices of noise, each a different one; every other has a tumour."""
    rng = np.random.default_rng(slices)
    reference = np.zeros((slices, size, size), bool)
    reference[::2, 10:20, 10:30] = True
    return Study(
        slices=rng.integers(0, 255, (slices, size, size, 3)).astype(np.uint8),
        case_id=case_id,
        source=Source("lgg-tiff", (), ""),
        slice_numbers=tuple(range(1, slices + 1)),
        reference=reference,
    )


def test_slices_that_are_not_square_are_refused() -> None:
    whole = study()
    assert whole.reference is not None
    cut = replace(whole, slices=whole.slices[:, :48], reference=whole.reference[:, :48])
    with pytest.raises(InputError, match=r"SYN_AA_0001_20000101 has slices of 48 x 64 pixels; .* square"):
        SliceData([cut], Preprocess(), NONE)


def test_slices_of_another_size_are_resized_with_their_masks() -> None:
    whole = study()
    assert whole.reference is not None
    data = SliceData([whole], Preprocess(size=32), NONE)
    assert data.images.shape == (len(whole.slices), 32, 32, 3)
    share = whole.reference.mean(axis=(1, 2))
    assert np.abs(data.masks.mean(axis=(1, 2)) - share).max() < 0.05


# --- draws ------------------------------------------------------------------------------------------------


def test_draws_are_a_function_of_seed_and_epoch() -> None:
    tumour = np.arange(50) % 3 == 0
    data = Data(samples_per_epoch=40)
    first = draws(tumour, data, 32, seed=1, epoch=2)
    assert first == draws(tumour, data, 32, seed=1, epoch=2)
    np.random.default_rng(0).random(7)
    assert first != draws(tumour, data, 32, seed=1, epoch=3)
    assert first != draws(tumour, data, 32, seed=2, epoch=2)
    assert {draw.size for draw in first} == {32}
    assert [draw.index for draw in draws(tumour, data, 64, seed=1, epoch=2)] == [d.index for d in first]


@settings(max_examples=50, deadline=None)
@given(
    tumour=st.integers(1, 20),
    free=st.integers(1, 20),
    samples=st.integers(1, 60),
    fraction=st.floats(0, 1),
    epoch=st.integers(0, 3),
)
def test_draws_keep_the_share_of_tumour_and_are_fair(
    tumour: int, free: int, samples: int, fraction: float, epoch: int
) -> None:
    has_tumour = np.arange(tumour + free) < tumour
    data = Data(samples_per_epoch=samples, tumour_fraction=fraction)
    drawn = [draw.index for draw in draws(has_tumour, data, 16, seed=0, epoch=epoch)]
    assert len(drawn) == samples
    assert int(has_tumour[drawn].sum()) == round(samples * fraction)
    times = np.bincount(drawn, minlength=tumour + free)
    for pool in (times[:tumour], times[tumour:]):
        assert pool.max() - pool.min() <= 1, "nobody twice before everybody once"


def test_draws_are_shuffled_and_each_has_a_seed_of_its_own() -> None:
    has_tumour = np.arange(400) < 200
    drawn = draws(has_tumour, Data(samples_per_epoch=200, tumour_fraction=0.5), 16, seed=0, epoch=0)
    first_half = has_tumour[[draw.index for draw in drawn[:100]]].mean()
    assert 0.3 < first_half < 0.7
    assert len({draw.seed for draw in drawn}) == 200


def test_draws_that_cannot_be_met() -> None:
    with pytest.raises(RecipeError, match="tumour_fraction cannot be met"):
        draws(np.zeros(5, bool), Data(samples_per_epoch=4, tumour_fraction=0.5), 16, 0, 0)
    assert len(draws(np.zeros(5, bool), Data(samples_per_epoch=4, tumour_fraction=0.0), 16, 0, 0)) == 4
    assert len(draws(np.ones(5, bool), Data(samples_per_epoch=4, tumour_fraction=1.0), 16, 0, 0)) == 4


# --- augmentation -----------------------------------------------------------------------------------------


def iou(one: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> float:
    return float((one & other).sum() / (one | other).sum())


def test_image_and_mask_move_together() -> None:
    image, mask = square()
    pipeline = make_pipeline(GEOMETRIC, 256, Preprocess())
    moved = []
    for seed in range(40):
        out, out_mask = augmented(pipeline, image, mask, 0.0, seed)
        assert iou(out[..., 1] > 0.5, out_mask > 0) > 0.95
        moved.append(iou(mask > 0, out_mask > 0))
    assert min(moved) < 0.3, "the square did move"
    assert max(moved) < 0.999


@pytest.mark.parametrize(
    "only", ["rotate", "scale", "shift", "flip"], ids=lambda name: f"{name} alone moves both"
)
def test_each_movement_alone(only: str) -> None:
    image, mask = square()
    strength = {"rotate": 20.0, "scale": 0.2, "shift": 0.05, "flip": 1.0}[only]
    pipeline = make_pipeline(replace(NONE, **{only: strength}), 256, Preprocess())
    for seed in range(3):
        out, out_mask = augmented(pipeline, image, mask, 0.0, seed)
        assert iou(out[..., 0] > 0.5, out_mask > 0) > 0.95
        assert not np.array_equal(out_mask, mask)


def test_a_resized_slice_shows_image_and_mask_of_one_place() -> None:
    image, mask = square()
    pipeline = make_pipeline(GEOMETRIC, 96, Preprocess())
    for seed in range(30):
        out, out_mask = augmented(pipeline, image, mask, 0.0, seed)
        assert out.shape == (96, 96, 3)
        assert out_mask.shape == (96, 96)
        assert int(((out[..., 1] > 0.5) != (out_mask > 0)).sum()) < 0.02 * out_mask.size
        assert out_mask.any()


def test_everything_on_keeps_mask_binary_and_image_in_range() -> None:
    rng = np.random.default_rng(0)
    image = rng.random((64, 64, 3), np.float32)
    mask = (rng.random((64, 64)) < 0.3).astype(np.uint8)
    pipeline = make_pipeline(
        replace(Augment(), blur=1.0, noise=1.0, contrast=1.0, gamma=0.9), 48, Preprocess()
    )
    for seed in range(40):
        out, out_mask = augmented(pipeline, image, mask, 0.5, seed)
        assert out.dtype == np.float32
        assert out.min() >= 0
        assert out.max() <= 1
        assert set(np.unique(out_mask)) <= {0, 1}


def test_intensity_leaves_the_mask_alone() -> None:
    image, mask = square(64)
    pipeline = make_pipeline(replace(Augment(), rotate=0.0, scale=0.0, shift=0.0, flip=0.0), 64, Preprocess())
    outs = [augmented(pipeline, image, mask, 0.0, seed) for seed in range(10)]
    assert all(np.array_equal(out_mask, mask) for _, out_mask in outs)
    assert any(not np.allclose(out, image) for out, _ in outs)


def test_equal_seeds_give_equal_pairs_whatever_came_before() -> None:
    image, mask = square(64)
    one, other = make_pipeline(Augment(), 48, Preprocess()), make_pipeline(Augment(), 48, Preprocess())
    expected = [augmented(one, image, mask, 0.5, seed) for seed in range(8)]
    for seed in reversed(range(8)):
        out, out_mask = augmented(other, image, mask, 0.5, seed)
        assert np.array_equal(out, expected[seed][0])
        assert np.array_equal(out_mask, expected[seed][1])
    assert len({out.tobytes() for out, _ in expected}) == 8


def test_a_dropped_channel_becomes_flair() -> None:
    rng = np.random.default_rng(0)
    image = rng.random((32, 32, 3), np.float32)
    before, mask = image.copy(), np.zeros((32, 32), np.uint8)
    pipeline = make_pipeline(NONE, 32, Preprocess())
    dropped: Counter[str] = Counter()
    for seed in range(60):
        out, _ = augmented(pipeline, image, mask, 1.0, seed)
        assert np.array_equal(out[..., 1], image[..., 1])
        same = [np.array_equal(out[..., channel], image[..., 1]) for channel in (0, 2)]
        kept = [np.array_equal(out[..., channel], image[..., channel]) for channel in (0, 2)]
        assert kept == [not gone for gone in same]
        dropped["both" if all(same) else "pre" if same[0] else "post"] += 1
    assert set(dropped) == {"pre", "post", "both"}
    assert min(dropped.values()) > 10
    assert np.array_equal(image, before), "the stored slice is not touched"
    out, _ = augmented(pipeline, image, mask, 0.0, 1)
    assert np.array_equal(out, image)


def test_without_strength_nothing_changes() -> None:
    rng = np.random.default_rng(0)
    image = rng.random((256, 256, 3), np.float32)
    mask = (rng.random((256, 256)) < 0.5).astype(np.uint8)
    pipeline = make_pipeline(NONE, 256, Preprocess())
    for seed in range(5):
        out, out_mask = augmented(pipeline, image, mask, 0.0, seed)
        assert np.array_equal(out, image)
        assert np.array_equal(out_mask, mask)


# --- slices and batches -----------------------------------------------------------------------------------


def test_items_are_the_preprocessed_slices() -> None:
    one = study(slices=5)
    preprocess = Preprocess(size=SIZE)
    data = SliceData([one, study("SYN_BB_0002", slices=2)], preprocess, NONE)
    assert data.has_tumour.tolist() == [True, False, True, False, True, True, False]
    expected, _ = preprocess.apply(one)
    assert one.reference is not None
    for index in (3, 2):
        image, mask = data[Draw(index, SIZE, 0)]
        assert image.shape == (3, SIZE, SIZE)
        assert mask.shape == (1, SIZE, SIZE)
        assert image.dtype == mask.dtype == torch.float32
        torch.testing.assert_close(image, torch.from_numpy(expected[index]), atol=5e-4, rtol=0)
        assert np.array_equal(mask[0].numpy(), one.reference[index])


# Python 3.12 warns where a process with threads forks, as torch's loader does on Linux.
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_batches_do_not_depend_on_workers_or_touch_the_random_state() -> None:
    data = SliceData([study()], Preprocess(size=SIZE), Augment())
    order: list[list[Draw]] = []
    loaders = [make_loader(data, order, workers) for workers in (0, 2)]
    for epoch in (0, 1):
        order[:] = share(draws(data.has_tumour, Data(samples_per_epoch=10), 48, 0, epoch), 2, 0, 1)
        state = torch.get_rng_state()
        alone, helped = (list(loader) for loader in loaders)
        assert torch.equal(torch.get_rng_state(), state), "dropout draws from it"
        assert len(alone) == len(helped) == 5
        for one, other in zip(alone, helped, strict=True):
            assert one[0].shape == (2, 3, 48, 48)
            assert one[1].shape == (2, 1, 48, 48)
            assert torch.equal(one[0], other[0])
            assert torch.equal(one[1], other[1])


def test_processes_share_each_batch() -> None:
    samples = [Draw(index, SIZE, 0) for index in range(12)]
    parts = [share(samples, 6, index, 3) for index in range(3)]
    assert share(samples, 6, 0, 1) == [samples[:6], samples[6:]]
    for batch, whole in enumerate((samples[:6], samples[6:])):
        shares = [part[batch] for part in parts]
        assert [len(one) for one in shares] == [2, 2, 2]
        assert sorted(draw.index for one in shares for draw in one) == [draw.index for draw in whole]


def test_workers_are_beside_a_gpu_alone() -> None:
    assert workers_beside("cpu", 1) == 0
    assert workers_beside("cuda", 10_000) == 1
    assert 1 <= workers_beside("cuda", 1) <= MAX_WORKERS


def headed(case_id: str = "SYN_AA_0001", size: int = 96, slim: float = 0.8) -> Study:
    """Slices with a head that `crop` finds, and a lesion in it."""
    y, x = np.mgrid[:size, :size] - size / 2
    head = (y / (0.42 * size)) ** 2 + (x / (0.42 * slim * size)) ** 2 <= 1
    lesion = (y + 9) ** 2 + (x - 8) ** 2 <= 36
    image = np.where(head, 90 + 20 * np.sin(y / 5), 0) + 60 * lesion
    slices = np.repeat(np.repeat(image[None, ..., None], 3, axis=0), 3, axis=3).astype(np.uint8)
    whole = study(case_id, slices=3, size=size)
    return replace(whole, slices=slices, reference=np.repeat(lesion[None], 3, axis=0))


def test_without_augmentation_training_sees_what_validation_sees() -> None:
    preprocess = Preprocess(size=96, crop=True)
    data = SliceData([headed()], preprocess, NONE)
    expected, letterbox = preprocess.apply(headed())
    image, mask = data[Draw(0, 96, 0)]
    assert image.shape == (3, *preprocess.canvas)
    assert np.corrcoef(image.numpy().ravel(), expected[0].ravel())[0, 1] > 0.97
    reference = headed().reference
    assert reference is not None
    assert iou(mask[0].numpy() > 0, apply_mask(reference, letterbox)[0]) > 0.85


@pytest.mark.parametrize("size", [48, 64, 96])
def test_a_smaller_stage_sees_the_same_crop(size: int) -> None:
    preprocess = Preprocess(size=96, crop=True)
    data = SliceData([headed()], preprocess, NONE)
    image, mask = data[Draw(0, size, 0)]
    rows, columns = replace(preprocess, size=size).canvas
    assert image.shape == (3, rows, columns)
    assert mask.sum() / mask.numel() == pytest.approx(float(data[Draw(0, 96, 0)][1].mean()), rel=0.25)


def test_turned_heads_bring_slice_into_the_crop_not_black() -> None:
    """A full frame of grey stays grey in the corners however it is turned."""
    preprocess = Preprocess(size=96, crop=True)
    data = SliceData([headed()], preprocess, replace(NONE, rotate=10.0))
    data.images[:] = 0.5
    corners = [data[Draw(0, 96, seed)][0][:, [0, 0, -1, -1], [0, -1, 0, -1]] for seed in range(20)]
    assert sum(float((corner > 0.4).float().mean()) for corner in corners) / 20 > 0.9


def test_a_head_wider_than_long_cannot_be_trained_on() -> None:
    lying = headed()
    assert lying.reference is not None
    turned = replace(
        lying, slices=lying.slices.transpose(0, 2, 1, 3), reference=lying.reference.transpose(0, 2, 1)
    )
    with pytest.raises(InputError, match="longer than wide"):
        SliceData([turned], Preprocess(size=96, crop=True), NONE)
