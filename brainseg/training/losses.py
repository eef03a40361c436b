"""BCE, Dice, Tversky and Combined losses on logits: computed for each sample, then averaged; or, the region
losses with `batch`, once over all samples together.

All take logits (B, 1, H, W) float and a target of the same shape with values 0 or 1, and return a scalar.
The region losses are ``1 - (overlap + smooth) / (size + smooth)``: the smoothing, in pixels, makes a slice
without tumour cost 0 when nothing is predicted, and cost more with every false positive. With one pixel that
cost is nearly 1 after a few false positives and flat from there; with more pixels a slope is left to follow.
With `batch`, a slice without tumour counts by its false positives among the tumour of the others.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

LossName = Literal["bce", "dice", "tversky", "combined"]
Loss = Callable[[Tensor, Tensor], Tensor]


def bce(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy, the mean over pixels of each sample, then over samples."""
    return F.binary_cross_entropy_with_logits(logits, target, reduction="none").flatten(1).mean(1).mean()


def tversky(
    logits: Tensor,
    target: Tensor,
    alpha: float = 0.5,
    beta: float = 0.5,
    smooth: float = 1.0,
    batch: bool = False,
) -> Tensor:
    """1 - Tversky index (Salehi 2017, arXiv:1706.05721), TP / (TP + alpha FP + beta FN).

    Args:
        logits: (B, 1, H, W).
        target: (B, 1, H, W), 0 or 1.
        alpha: weight of false positives.
        beta: weight of false negatives.
        smooth: pixels added to overlap and size.
        batch: sum over the samples before dividing.
    """
    probability, truth = (_samples(x, batch) for x in (torch.sigmoid(logits), target))
    tp = (probability * truth).sum(1)
    fp = (probability * (1 - truth)).sum(1)
    fn = ((1 - probability) * truth).sum(1)
    return (1 - (tp + smooth) / (tp + alpha * fp + beta * fn + smooth)).mean()


def dice(logits: Tensor, target: Tensor, smooth: float = 1.0, batch: bool = False) -> Tensor:
    """1 - soft Dice (Milletari 2016, arXiv:1606.04797), 2 TP / (2 TP + FP + FN)."""
    probability, truth = (_samples(x, batch) for x in (torch.sigmoid(logits), target))
    overlap = 2 * (probability * truth).sum(1)
    size = probability.sum(1) + truth.sum(1)
    return (1 - (overlap + smooth) / (size + smooth)).mean()


def combined(
    logits: Tensor,
    target: Tensor,
    alpha: float = 0.5,
    beta: float = 0.5,
    smooth: float = 1.0,
    batch: bool = False,
) -> Tensor:
    """1/2 BCE + 1/2 Tversky."""
    return 0.5 * bce(logits, target) + 0.5 * tversky(logits, target, alpha, beta, smooth, batch)


def _samples(x: Tensor, batch: bool) -> Tensor:
    """A row for each sample, or one for all of them."""
    return x.reshape(1, -1) if batch else x.flatten(1)


def make_loss(name: LossName, alpha: float, beta: float, smooth: float, batch: bool) -> Loss:
    """The loss a recipe names; `alpha` and `beta` reach Tversky and Combined alone."""
    losses: dict[LossName, Loss] = {
        "bce": bce,
        "dice": partial(dice, smooth=smooth, batch=batch),
        "tversky": partial(tversky, alpha=alpha, beta=beta, smooth=smooth, batch=batch),
        "combined": partial(combined, alpha=alpha, beta=beta, smooth=smooth, batch=batch),
    }
    return losses[name]
