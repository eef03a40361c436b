"""The parts all four networks are made of: norm, ConvBlock, AttentionGate, Node."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NormKind = Literal["batch", "group"]

CHANNELS_IN = 3
"""Pre, FLAIR and post."""
DEPTH = 4
"""Halvings from the finest level to the coarsest."""
GROUPS = 16
"""Groups of GroupNorm (Wu & He 2018, arXiv:1803.08494)."""


def norm(kind: NormKind, channels: int) -> nn.Module:
    """A normalisation layer over `channels` feature channels.

    Raises:
        ValueError: if `kind` is unknown, or `channels` cannot be cut into 16 groups.
    """
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    if kind == "group":
        if channels % GROUPS:
            raise ValueError(f"norm 'group' needs channels divisible by {GROUPS}, not {channels}")
        return GroupNorm(GROUPS, channels)
    raise ValueError(f"norm must be 'batch' or 'group', not {kind!r}")


class GroupNorm(nn.GroupNorm):
    """`nn.GroupNorm`, computed in the layout it is fast in and returned in the layout it came in.

    The convolutions are quick with channels last, where the backward pass of PyTorch's GroupNorm is slow on
    the CPU.
    """

    def forward(self, input: Tensor) -> Tensor:
        last = input.is_contiguous(memory_format=torch.channels_last)
        out = super().forward(input.contiguous())
        return out.contiguous(memory_format=torch.channels_last) if last else out


class ConvBlock(nn.Sequential):
    """Twice convolution 3x3, norm, ReLU; then dropout of whole channels.

    The double convolution of Ronneberger 2015 (arXiv:1505.04597), padded so that the size stays,
    with a norm after each convolution, which the paper of 2015 did not have yet.

    Shape: (B, in_channels, H, W) -> (B, out_channels, H, W).
    """

    def __init__(self, in_channels: int, out_channels: int, kind: NormKind, dropout: float) -> None:
        super().__init__(
            # No bias: the norm that follows has its own.
            nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
            norm(kind, out_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            norm(kind, out_channels),
            nn.ReLU(inplace=True),
            nn.Dropout2d(dropout),
        )


class AttentionGate(nn.Module):
    """Additive attention gate of Oktay 2018 (arXiv:1804.03999, figure 2).

    The skip is brought to the grid of the coarser gating signal by a 2x2 convolution of stride 2, both are
    projected, added, rectified and squeezed to one coefficient a position; the coefficients are resampled
    to the skip's grid and multiply it. The paper follows with one more convolution and norm on the gated
    skip; we leave that out, so that a gated network differs from its ungated twin in the gate alone.
    `psi` ends in a Sigmoid submodule whose output, (B, 1, h, w) in 0..1, a forward hook can read. With
    `normed` its one channel is normalised over the slice before that, as the authors' own code does over the
    batch: the coefficients then use their range, where they would else settle near 1.

    Shape: skip (B, skip_channels, 2h, 2w), below (B, below_channels, h, w) -> (B, skip_channels, 2h, 2w).
    """

    def __init__(self, skip_channels: int, below_channels: int, normed: bool) -> None:
        super().__init__()
        inner = max(skip_channels // 2, 1)
        self.theta = nn.Conv2d(skip_channels, inner, 2, stride=2, bias=False)
        self.phi = nn.Conv2d(below_channels, inner, 1)
        # One group: sixteen cannot share one channel.
        norms = [nn.GroupNorm(1, 1)] if normed else []
        self.psi = nn.Sequential(nn.Conv2d(inner, 1, 1), *norms, nn.Sigmoid())

    def forward(self, skip: Tensor, below: Tensor) -> Tensor:
        coefficients: Tensor = self.psi(F.relu(self.theta(skip) + self.phi(below)))
        return skip * F.interpolate(coefficients, scale_factor=2, mode="bilinear", align_corners=False)


class Node(nn.Module):
    """One decoder node: upsample `below`, gate the skips by it if asked, concatenate, convolve.

    Shape: skips, each (B, skip_channels, 2h, 2w), and below (B, below_channels, h, w)
    -> (B, out_channels, 2h, 2w).
    """

    def __init__(
        self,
        skip_channels: int,
        skip_count: int,
        below_channels: int,
        gated: bool,
        gate_norm: bool,
        kind: NormKind,
        dropout: float,
    ) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(below_channels, skip_channels, 2, stride=2)
        self.gates = nn.ModuleList(
            AttentionGate(skip_channels, below_channels, gate_norm) for _ in range(skip_count if gated else 0)
        )
        self.block = ConvBlock((skip_count + 1) * skip_channels, skip_channels, kind, dropout)

    def forward(self, skips: Sequence[Tensor], below: Tensor) -> Tensor:
        if self.gates:
            skips = [gate(skip, below) for gate, skip in zip(self.gates, skips, strict=True)]
        out: Tensor = self.block(torch.cat([*skips, self.up(below)], dim=1))
        return out


class Encoder(nn.Module):
    """The contracting path shared by the four networks: five levels, halving by max pooling.

    Shape: (B, 3, H, W) -> list over levels k of (B, width * 2**k, H / 2**k, W / 2**k).
    """

    def __init__(self, width: int, kind: NormKind, dropout: float) -> None:
        super().__init__()
        channels = [CHANNELS_IN, *(width * 2**level for level in range(DEPTH + 1))]
        self.levels = nn.ModuleList(
            ConvBlock(before, after, kind, dropout) for before, after in pairwise(channels)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        features = []
        for level, block in enumerate(self.levels):
            x = block(F.max_pool2d(x, 2) if level else x)
            features.append(x)
        return features


def check_input(x: Tensor) -> None:
    """Raise ValueError unless `x` is (B, 3, H, W) with H and W divisible by 16."""
    step = 2**DEPTH
    if x.ndim != 4 or x.shape[1] != CHANNELS_IN or x.shape[2] % step or x.shape[3] % step:
        raise ValueError(
            f"input must be (B, {CHANNELS_IN}, H, W) with H and W divisible by {step}, not {tuple(x.shape)}"
        )


def initialise(network: nn.Module, head: nn.Conv2d, prior: float = 0.01) -> None:
    """Kaiming initialisation (He 2015, arXiv:1502.01852) of every convolution, in place.

    The head starts at the share of tumour pixels, `prior`, so that the first steps are not spent on
    learning that nearly everything is background; a gate without a norm starts nearly open (0.88), as its
    ungated twin, one with a norm around 0.5.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in network.modules():
        if isinstance(module, AttentionGate):
            last = module.psi[0]
            assert isinstance(last, nn.Conv2d)
            assert last.bias is not None
            nn.init.normal_(last.weight, std=0.1)
            nn.init.constant_(last.bias, 2.0)
    nn.init.normal_(head.weight, std=0.01)
    assert head.bias is not None
    nn.init.constant_(head.bias, math.log(prior / (1 - prior)))
