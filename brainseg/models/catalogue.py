"""The only list of networks. A network is one file beside this one and one row here.

Reading the list loads no torch, so that pages, tables and pictures may name, colour and describe a network
without it; `build` does.
"""

from __future__ import annotations

from dataclasses import dataclass
from pkgutil import resolve_name
from typing import TYPE_CHECKING

from brainseg.types import ModelSpec, WeightsError

if TYPE_CHECKING:
    from brainseg.models.base import Network


@dataclass(frozen=True)
class Architecture:
    """One network: how it is shown, how it is built, where it comes from.

    Attributes:
        title: as people write it.
        paper: first author, year, and identifier.
        network: where its class is, ``"module:Class"``, a `brainseg.models.base.Network`.
        colour: its hue in pictures and charts, ``"#RRGGBB"``.
        dash: its line style, lengths of dash and gap in pixels; empty for a solid line.
        gated: the class has gates, and is built with ``gated=True`` and `ModelSpec.gate_norm`.
        nested: `Network.deep_logits` gives more than one map, so that training may supervise them.
    """

    title: str
    paper: str
    network: str
    colour: str
    dash: tuple[int, ...]
    gated: bool = False
    nested: bool = False


# Okabe and Ito's eight colours leave three once black, the reference and TP/FP/FN are taken, and the third,
# reddish purple, turns into mid-grey for deuteranopes: invisible on a brain. So the ungated pair keeps orange
# and yellow, and the gated pair is violet and mint, found by maximising the smallest CIEDE2000 difference to
# each other, to the reserved colours and to greys under normal vision and three kinds of colour blindness.
ARCHITECTURES = {
    "unet": Architecture(
        title="U-Net",
        paper="Ronneberger 2015, arXiv:1505.04597",
        network="brainseg.models.unet:UNet",
        colour="#E69F00",
        dash=(),
    ),
    "attention_unet": Architecture(
        title="Attention U-Net",
        paper="Oktay 2018, arXiv:1804.03999",
        network="brainseg.models.unet:UNet",
        colour="#AA66FF",
        dash=(8, 4),
        gated=True,
    ),
    "unetpp": Architecture(
        title="U-Net++",
        paper="Zhou 2018, arXiv:1807.10165; 2020, arXiv:1912.05074",
        network="brainseg.models.unetpp:UNetPP",
        colour="#F0E442",
        dash=(2, 3),
        nested=True,
    ),
    "attention_unetpp": Architecture(
        title="Attention U-Net++",
        paper="Li 2020, doi 10.1109/ICIP40778.2020.9190761",
        network="brainseg.models.unetpp:UNetPP",
        colour="#BBFFBB",
        dash=(8, 3, 2, 3),
        gated=True,
        nested=True,
    ),
}


def build(spec: ModelSpec) -> Network:
    """The network a spec describes, freshly initialised.

    Raises:
        WeightsError: if the architecture is not one of `ARCHITECTURES`.
        ValueError: if the network cannot have that width, norm or dropout.
    """
    if spec.architecture not in ARCHITECTURES:
        raise WeightsError(
            f"architecture {spec.architecture!r} is not known; choose one of {', '.join(ARCHITECTURES)}"
        )
    row = ARCHITECTURES[spec.architecture]
    options = {"gated": True, "gate_norm": spec.gate_norm} if row.gated else {}
    network: Network = resolve_name(row.network)(
        width=spec.width, norm=spec.norm, dropout=spec.dropout, **options
    )
    return network
