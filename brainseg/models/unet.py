"""U-Net and Attention U-Net: one encoder, a chain of decoder nodes."""

from __future__ import annotations

from torch import Tensor, nn

from brainseg.models.blocks import Encoder, Node, NormKind, check_input, initialise


class UNet(nn.Module):
    """U-Net (Ronneberger 2015, arXiv:1505.04597); with `gated`, Attention U-Net (Oktay 2018,
    arXiv:1804.03999).

    Differences from the papers: padded convolutions, so that logits have the size of the input; a norm after
    each convolution; width 64 is not fixed. The gate is described at `AttentionGate`; unlike Oktay, the
    finest skip is gated too, and the gating signal is the node below, at every level.

    Shape: (B, in_channels, H, W) float, H and W divisible by 2**depth -> logits (B, 1, H, W).

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
        in_channels: int = 3,
        depth: int = 4,
    ) -> None:
        super().__init__()
        self.in_channels, self.depth = in_channels, depth
        self.encoder = Encoder(in_channels, width, depth, norm, dropout)
        self.decoder = nn.ModuleList(
            Node(width * 2**level, 1, width * 2 ** (level + 1), gated, norm, dropout)
            for level in range(depth)
        )
        self.head = nn.Conv2d(width, 1, 1)
        initialise(self, self.head)

    def forward(self, x: Tensor) -> Tensor:
        check_input(x, self.in_channels, self.depth)
        *skips, below = self.encoder(x)
        for level in reversed(range(self.depth)):
            below = self.decoder[level]([skips[level]], below)
        logits: Tensor = self.head(below)
        return logits
