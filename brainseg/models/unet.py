"""U-Net and Attention U-Net: one encoder, a chain of decoder nodes."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from brainseg.models.base import Gate, Network
from brainseg.models.blocks import DEPTH, AttentionGate, Encoder, Node, NormKind, check_input, initialise


class UNet(Network):
    """U-Net (Ronneberger 2015, arXiv:1505.04597); with `gated`, Attention U-Net (Oktay 2018,
    arXiv:1804.03999).

    Differences from the papers: padded convolutions, so that logits have the size of the input; a norm after
    each convolution; width 64 is not fixed. The gate is described at `AttentionGate`; unlike Oktay, the
    finest skip is gated too, and the gating signal is the node below, at every level.

    Shape: (B, 3, H, W) float, H and W divisible by 16 -> logits (B, 1, H, W).

    Raises:
        ValueError: from forward, when the input has another shape.
    """

    def __init__(
        self,
        width: int = 32,
        norm: NormKind = "batch",
        dropout: float = 0.0,
        *,
        gated: bool = False,
        gate_norm: bool = False,
    ) -> None:
        super().__init__()
        self.encoder = Encoder(width, norm, dropout)
        self.decoder = nn.ModuleList(
            Node(width * 2**level, 1, width * 2 ** (level + 1), gated, gate_norm, norm, dropout)
            for level in range(DEPTH)
        )
        self.head = nn.Conv2d(width, 1, 1)
        initialise(self, self.head)

    def forward(self, x: Tensor) -> Tensor:
        check_input(x)
        *skips, below = self.encoder(x)
        for level in reversed(range(DEPTH)):
            below = self.decoder[level]([skips[level]], below)
        logits: Tensor = self.head(below)
        return logits

    def gates(self) -> tuple[Gate, ...]:
        """One gate a level, named ``x{level}``."""
        return tuple(
            Gate(f"x{level}", level, cast(AttentionGate, gate).psi[-1])
            for level, node in enumerate(self.decoder)
            for gate in cast(Node, node).gates
        )
