"""The four networks, written from scratch: two topologies times `gated`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from brainseg.models.unet import UNet
from brainseg.models.unetpp import UNetPP
from brainseg.types import ModelSpec, WeightsError

__all__ = ["ARCHITECTURES", "Architecture", "UNet", "UNetPP", "build"]


@dataclass(frozen=True)
class Architecture:
    """One of the four networks: how it is shown, how it is built, where it comes from."""

    title: str
    make: Callable[..., UNet | UNetPP]
    gated: bool
    paper: str


ARCHITECTURES = {
    "unet": Architecture("U-Net", UNet, False, "Ronneberger 2015, arXiv:1505.04597"),
    "attention_unet": Architecture(
        "Attention U-Net", partial(UNet, gated=True), True, "Oktay 2018, arXiv:1804.03999"
    ),
    "unetpp": Architecture("U-Net++", UNetPP, False, "Zhou 2018, arXiv:1807.10165; 2020, arXiv:1912.05074"),
    "attention_unetpp": Architecture(
        "Attention U-Net++", partial(UNetPP, gated=True), True, "Li 2020, doi 10.1109/ICIP40778.2020.9190761"
    ),
}


def build(spec: ModelSpec) -> UNet | UNetPP:
    """The network a spec describes, freshly initialised.

    Raises:
        WeightsError: if the architecture is not one of `ARCHITECTURES`.
    """
    if spec.architecture not in ARCHITECTURES:
        raise WeightsError(
            f"architecture {spec.architecture!r} is not known; choose one of {', '.join(ARCHITECTURES)}"
        )
    return ARCHITECTURES[spec.architecture].make(
        width=spec.width, norm=spec.norm, dropout=spec.dropout, gate_norm=spec.gate_norm
    )
