"""Losses against numbers worked out by hand, and against MONAI and scikit-learn."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss
from torch import Tensor

from brainseg.training.losses import Loss, bce, combined, dice, make_loss, tversky

with warnings.catch_warnings():
    # MONAI and what it imports deprecate parts of themselves.
    warnings.simplefilter("ignore")
    from monai.losses import DiceLoss, TverskyLoss

LOSSES: dict[str, Loss] = {
    "bce": bce,
    "dice": dice,
    "tversky": tversky,
    "tversky 0.3 0.7": partial(tversky, alpha=0.3, beta=0.7),
    "combined": combined,
    "combined 0.3 0.7": partial(combined, alpha=0.3, beta=0.7),
    "combined smooth 50": partial(combined, smooth=50.0),
}
REGION = ("dice", "tversky", "tversky 0.3 0.7")
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
region_loss = pytest.mark.parametrize("loss", [LOSSES[name] for name in REGION], ids=REGION)


def logits_of(*probabilities: float) -> Tensor:
    p = torch.tensor(probabilities, dtype=torch.float64).reshape(1, 1, 1, -1)
    return torch.log(p / (1 - p))


def target_of(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).reshape(1, 1, 1, -1)


def random_batch(seed: int, shape: tuple[int, ...] = (4, 1, 6, 5)) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(shape, generator=generator, dtype=torch.float64)
    target = (torch.rand(shape, generator=generator) < 0.3).double()
    target[0] = 0  # one slice without tumour
    return logits, target


# Four pixels: probabilities 0.9 0.5 0.3 0.7, truth 1 0 1 1.
# TP = 0.9 + 0.3 + 0.7 = 1.9, FP = 0.5, FN = 0.1 + 0.7 + 0.3 = 1.1.
BCE_BY_HAND = -(math.log(0.9) + math.log(0.5) + math.log(0.3) + math.log(0.7)) / 4
BY_HAND = {
    "bce": (bce, BCE_BY_HAND),
    # 1 - (2 * 1.9 + 1) / (2.4 + 3 + 1) = 1 - 4.8 / 6.4
    "dice": (dice, 0.25),
    # 1 - (1.9 + 1) / (1.9 + 0.25 + 0.55 + 1) = 1 - 2.9 / 3.7
    "tversky": (tversky, 1 - 2.9 / 3.7),
    # 1 - (1.9 + 1) / (1.9 + 0.2 * 0.5 + 0.6 * 1.1 + 1) = 1 - 2.9 / 3.66
    "tversky 0.2 0.6": (partial(tversky, alpha=0.2, beta=0.6), 1 - 2.9 / 3.66),
    "combined": (combined, (BCE_BY_HAND + 1 - 2.9 / 3.7) / 2),
    "combined 0.2 0.6": (partial(combined, alpha=0.2, beta=0.6), (BCE_BY_HAND + 1 - 2.9 / 3.66) / 2),
    # The same with 10 pixels of smoothing in place of 1.
    "dice smooth 10": (partial(dice, smooth=10), 1 - 13.8 / 15.4),
    "tversky smooth 10": (partial(tversky, smooth=10), 1 - 11.9 / 12.7),
    "combined smooth 10": (partial(combined, smooth=10), (BCE_BY_HAND + 1 - 11.9 / 12.7) / 2),
}


@pytest.mark.parametrize(("loss", "expected"), BY_HAND.values(), ids=BY_HAND)
def test_equals_the_number_worked_out_by_hand(loss: Loss, expected: float) -> None:
    value = loss(logits_of(0.9, 0.5, 0.3, 0.7), target_of(1, 0, 1, 1))
    assert value.shape == ()
    assert value.item() == pytest.approx(expected, rel=1e-12)


def test_bce_by_hand_is_0_59() -> None:
    assert pytest.approx(0.5897888, abs=1e-7) == BCE_BY_HAND


@every_loss
def test_gradient_is_the_derivative(loss: Loss) -> None:
    logits, target = random_batch(0, (2, 1, 3, 4))
    assert torch.autograd.gradcheck(lambda x: loss(x, target), logits.requires_grad_())


@every_loss
def test_batch_is_the_mean_of_its_samples(loss: Loss) -> None:
    logits, target = random_batch(1)
    singly = torch.stack([loss(logits[k : k + 1], target[k : k + 1]) for k in range(len(logits))])
    assert singly.std() > 0.01
    assert loss(logits, target).item() == pytest.approx(singly.mean().item(), rel=1e-12)


@every_loss
def test_the_order_of_pixels_is_of_no_matter(loss: Loss) -> None:
    logits, target = random_batch(2)
    turned = loss(logits.transpose(2, 3).flip(2), target.transpose(2, 3).flip(2))
    assert turned.item() == pytest.approx(loss(logits, target).item(), rel=1e-12)


# --- slices without tumour ---


@every_loss
def test_a_slice_rightly_left_empty_costs_nothing(loss: Loss) -> None:
    value = loss(torch.full((2, 1, 16, 16), -20.0), torch.zeros(2, 1, 16, 16))
    assert 0 <= value.item() < 1e-5


@every_loss
def test_false_positives_on_an_empty_slice_cost_more_and_more(loss: Loss) -> None:
    costs = []
    for count in (0, 1, 5, 50):
        logits = torch.full((1, 1, 256), -20.0)
        logits[..., :count] = 20.0
        costs.append(loss(logits, torch.zeros(1, 1, 256)).item())
    assert all(more > less + 0.01 for less, more in pairwise(costs))


@region_loss
def test_one_false_positive_on_an_empty_slice_by_hand(loss: Loss) -> None:
    """Dice: 1 - 1 / (1 + 1); Tversky: 1 - 1 / (alpha + 1)."""
    logits = torch.full((1, 1, 1, 64), -50.0, dtype=torch.float64)
    logits[..., 7] = 50.0
    expected = {0: 1 / 2, 1: 1 - 1 / 1.5, 2: 1 - 1 / 1.3}[[LOSSES[name] for name in REGION].index(loss)]
    assert loss(logits, torch.zeros_like(logits)).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("loss", [dice, tversky])
def test_more_smoothing_leaves_a_slope_after_the_first_false_positives(loss: Callable[..., Tensor]) -> None:
    """On an empty slice Dice costs 1 - smooth / (count + smooth), Tversky the same of half the count."""
    costs = []
    for smooth in (1.0, 100.0):
        for count in (40, 80):
            logits = torch.full((1, 1, 1024), -50.0)
            logits[..., :count] = 50.0
            costs.append(loss(logits, torch.zeros_like(logits), smooth=smooth).item())
    weight = 1.0 if loss is dice else 0.5
    expected = [1 - s / (weight * count + s) for s in (1.0, 100.0) for count in (40, 80)]
    assert costs == pytest.approx(expected, rel=1e-5)
    assert costs[3] - costs[2] > 5 * (costs[1] - costs[0])


@every_loss
def test_an_empty_slice_pushes_every_pixel_down(loss: Loss) -> None:
    logits = torch.zeros(1, 1, 8, 8, requires_grad=True)
    loss(logits, torch.zeros(1, 1, 8, 8)).backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert (logits.grad > 0).all()


@every_loss
def test_a_full_slice_rightly_filled_costs_nothing(loss: Loss) -> None:
    assert 0 <= loss(torch.full((1, 1, 16, 16), 20.0), torch.ones(1, 1, 16, 16)).item() < 1e-5


# --- relations ---


def test_tversky_at_one_half_is_dice_up_to_the_smoothing() -> None:
    """(TP + 1) / (TP + FP/2 + FN/2 + 1) = (2 TP + 2) / (2 TP + FP + FN + 2): smoothing of 2 instead of 1."""
    logits, target = random_batch(3)
    with_two = DiceLoss(sigmoid=True, smooth_nr=2, smooth_dr=2)(logits, target).item()
    assert tversky(logits, target, 0.5, 0.5).item() == pytest.approx(with_two, rel=1e-12)
    large, truth = random_batch(4, (2, 1, 128, 128))
    assert tversky(large[1:], truth[1:]).item() == pytest.approx(dice(large[1:], truth[1:]).item(), abs=1e-4)


def test_alpha_weighs_false_positives_and_beta_false_negatives() -> None:
    target = target_of(1, 1, 0, 0)
    too_much, too_little = logits_of(0.99, 0.99, 0.9, 0.01), logits_of(0.99, 0.1, 0.01, 0.01)
    cases: tuple[tuple[Tensor, dict[str, Any], dict[str, Any]], ...] = (
        (too_much, {"alpha": 0.8, "beta": 0.2}, {"alpha": 0.2, "beta": 0.8}),
        (too_little, {"alpha": 0.2, "beta": 0.8}, {"alpha": 0.8, "beta": 0.2}),
    )
    for logits, heavy, light in cases:
        assert tversky(logits, target, **heavy) > tversky(logits, target, **light) + 0.05
        assert combined(logits, target, **heavy) > combined(logits, target, **light) + 0.025


@pytest.mark.parametrize(("alpha", "beta"), [(0.5, 0.5), (0.3, 0.7), (0.7, 0.3)])
def test_combined_is_one_half_of_each(alpha: float, beta: float) -> None:
    logits, target = random_batch(5)
    expected = 0.5 * bce(logits, target) + 0.5 * tversky(logits, target, alpha, beta)
    assert torch.equal(combined(logits, target, alpha, beta), expected)


@every_loss
def test_better_is_cheaper(loss: Loss) -> None:
    _, target = random_batch(6)
    costs = [loss(sharp * (2 * target - 1), target).item() for sharp in (-4.0, -1.0, 0.0, 1.0, 4.0)]
    assert costs == sorted(costs, reverse=True)
    assert costs[0] > costs[-1] + 0.2


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sign", [100.0, -100.0])
def test_extreme_logits_stay_finite(loss: Loss, dtype: torch.dtype, sign: float) -> None:
    target = torch.zeros(2, 1, 4, 4, dtype=dtype)
    target[1, :, :2] = 1
    logits = torch.full_like(target, sign).requires_grad_()
    value = loss(logits, target)
    value.backward()
    assert math.isfinite(value.item())
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


# --- others' implementations ---


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("smooth", [1.0, 0.1, 64.0])
def test_dice_equals_monai(seed: int, smooth: float) -> None:
    logits, target = random_batch(seed)
    theirs = DiceLoss(sigmoid=True, smooth_nr=smooth, smooth_dr=smooth)(logits, target).item()
    assert dice(logits, target, smooth).item() == pytest.approx(theirs, rel=1e-12)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("alpha", "beta", "smooth"), [(0.5, 0.5, 1.0), (0.3, 0.7, 1.0), (0.9, 0.1, 64.0)])
def test_tversky_equals_monai(seed: int, alpha: float, beta: float, smooth: float) -> None:
    logits, target = random_batch(seed)
    loss = TverskyLoss(sigmoid=True, alpha=alpha, beta=beta, smooth_nr=smooth, smooth_dr=smooth)
    theirs = loss(logits, target).item()
    assert tversky(logits, target, alpha, beta, smooth).item() == pytest.approx(theirs, rel=1e-12)


def test_bce_equals_scikit_learn() -> None:
    logits, target = random_batch(7)
    each = [
        log_loss(np.asarray(t).ravel(), np.asarray(torch.sigmoid(x)).ravel(), labels=[0, 1])
        for x, t in zip(logits, target, strict=True)
    ]
    assert bce(logits, target).item() == pytest.approx(float(np.mean(each)), rel=1e-9)


# --- by name ---


def test_make_loss_hands_each_loss_the_settings_it_takes() -> None:
    logits, target = random_batch(8)
    expected = {
        "bce": bce(logits, target),
        "dice": dice(logits, target, 7.0),
        "tversky": tversky(logits, target, 0.2, 0.9, 7.0),
        "combined": combined(logits, target, 0.2, 0.9, 7.0),
    }
    for name, value in expected.items():
        assert torch.equal(make_loss(name, 0.2, 0.9, 7.0, False)(logits, target), value), name  # type: ignore[arg-type]


@pytest.mark.parametrize("loss", [dice, tversky, combined])
def test_over_a_batch_the_samples_are_one(loss: Callable[..., Tensor]) -> None:
    """A batch is then what one sample with all its pixels would be."""
    logits, target = random_batch(8)
    whole, truth = logits.reshape(1, 1, -1, logits.shape[-1]), target.reshape(1, 1, -1, target.shape[-1])
    assert torch.allclose(loss(logits, target, batch=True), loss(whole, truth))
    assert not torch.allclose(loss(logits, target, batch=True), loss(logits, target))
