"""What the rest of the house may rely on in every network, whatever its topology."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class Gate:
    """One attention gate of a network.

    Attributes:
        name: of the gate inside its network, for instance ``"x1_3.skip0"``; no two gates share one.
        level: resolution level of the gated skip, 0 the finest.
        coefficients: the submodule whose output, (B, 1, h, w) in 0..1, is the gate's coefficients; a forward
            hook reads them, so that no network keeps state or flags for it.
    """

    name: str
    level: int
    coefficients: nn.Module


class Network(nn.Module):
    """A segmentation network: three channels in, one map of logits out.

    A subclass takes ``width``, ``norm`` and ``dropout`` by name (see `brainseg.types.ModelSpec`), and also
    ``gated`` and ``gate_norm`` where its row in `brainseg.models.catalogue` says that it is gated; it writes
    `forward`, and overrides `deep_logits` and `gates` where it has more than one output or any gate.

    Shape: (B, 3, H, W) float, H and W divisible by 16 -> logits (B, 1, H, W).
    """

    if TYPE_CHECKING:

        def __call__(self, x: Tensor) -> Tensor: ...

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, 1, H, W).

        Raises:
            ValueError: if `x` is not (B, 3, H, W) with H and W divisible by 16.
        """
        raise NotImplementedError(f"{type(self).__name__} does not write forward")

    def deep_logits(self, x: Tensor) -> list[Tensor]:
        """Logits of every output that training may supervise, each (B, 1, H, W); the last is `forward`'s."""
        return [self(x)]

    def gates(self) -> tuple[Gate, ...]:
        """The attention gates, finest level first; none unless overridden."""
        return ()
