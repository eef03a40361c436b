"""U-Net++ and Attention U-Net++: one encoder, a triangle of nested decoder nodes."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from brainseg.models.base import Gate, Network
from brainseg.models.blocks import DEPTH, AttentionGate, Encoder, Node, NormKind, check_input, initialise


class UNetPP(Network):
    """U-Net++ (Zhou 2018/2020, arXiv:1807.10165, arXiv:1912.05074); with `gated`, Attention U-Net++ (Li 2020,
    doi 10.1109/ICIP40778.2020.9190761).

    Node `x[i][j]` at level i sees every earlier node of its level, `x[i][0..j-1]`, and `x[i+1][j-1]` from
    below. `nodes` holds `x[i][j]` under the key ``"i_j"``. Differences from the papers: transposed
    convolution as in U-Net instead of bilinear upsampling; one head shared by the columns (each has the same
    width) instead of one each, so that nothing of the network is left unused outside training; in the gated
    network each skip has its own gate, driven by the node from below.

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
        self.nodes = nn.ModuleDict(
            {
                f"{i}_{j}": Node(width * 2**i, j, width * 2 ** (i + 1), gated, gate_norm, norm, dropout)
                for j in range(1, DEPTH + 1)
                for i in range(DEPTH - j + 1)
            }
        )
        self.head = nn.Conv2d(width, 1, 1)
        initialise(self, self.head)

    def _finest(self, x: Tensor) -> list[Tensor]:
        """The finest row `x[0][1..4]`, each (B, width, H, W)."""
        check_input(x)
        rows = [[feature] for feature in self.encoder(x)]
        for j in range(1, DEPTH + 1):
            for i in range(DEPTH - j + 1):
                rows[i].append(self.nodes[f"{i}_{j}"](rows[i], rows[i + 1][j - 1]))
        return rows[0][1:]

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self._finest(x)[-1])
        return logits

    def deep_logits(self, x: Tensor) -> list[Tensor]:
        """Logits of every column `x[0][1..4]`, shallowest first, each (B, 1, H, W); for training only.

        The last is what `forward` returns.
        """
        return [self.head(column) for column in self._finest(x)]

    def gates(self) -> tuple[Gate, ...]:
        """One gate a skip of each node, named ``x{level}_{column}.skip{index}``."""
        return tuple(
            Gate(f"x{i}_{j}.skip{index}", i, cast(AttentionGate, gate).psi[-1])
            for i in range(DEPTH)
            for j in range(1, DEPTH - i + 1)
            for index, gate in enumerate(cast(Node, self.nodes[f"{i}_{j}"]).gates)
        )
