"""A weights folder <-> network and card.

A folder holds config.json (the card), model.safetensors and README.md, exactly what a Hub model repository
holds. Only safetensors are read, and only when their sha256 is the one the card states.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import safetensors.torch
import torch

from brainseg.checkpoint.card import CONFIG, read_card, write_card
from brainseg.fields import readable
from brainseg.files import atomic_write
from brainseg.models import ARCHITECTURES, build
from brainseg.models.base import Network
from brainseg.preprocess import Preprocess
from brainseg.types import WeightsCard, WeightsError

TENSORS = "model.safetensors"
README = "README.md"
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A network in evaluation mode with the card of its weights."""

    card: WeightsCard
    network: Network

    @property
    def preprocess(self) -> Preprocess:
        """The preprocessing the network was trained with."""
        return Preprocess(**self.card.preprocess)


def read_folder(folder: str | Path) -> LoadedModel:
    """Load the weights of a folder.

    Raises:
        WeightsError: if they are missing, damaged, or of another network than the card says.
    """
    folder = Path(folder)
    card = read_card(folder)
    path = folder / TENSORS
    if not path.is_file():
        raise WeightsError(f"{path} is missing; get the weights folder again")
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    if digest != card.sha256:
        raise WeightsError(
            f"{path} is not the file its card describes (sha256 {digest[:12]}, expected {card.sha256[:12]}); "
            "it is damaged or was changed: get the weights folder again"
        )
    try:
        state = safetensors.torch.load(data)
    except Exception as error:
        raise WeightsError(
            f"{path} is not a readable safetensors file; get the weights folder again"
        ) from error
    try:
        # Shapes without memory: the card may ask for more than there is, the file cannot.
        with torch.device("meta"):
            network = build(card.spec)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise WeightsError(
            f"{folder / CONFIG} describes a network that cannot be built; get the weights folder again"
        ) from error
    own = network.state_dict()
    wrong = sorted(own.keys() ^ state.keys()) or sorted(
        key for key in own if own[key].shape != state[key].shape
    )
    wrong = wrong or sorted(key for key in own if not _same_kind(own[key], state[key]))
    if wrong:
        raise WeightsError(
            f"{path} does not fit {ARCHITECTURES[card.spec.architecture].title} of width {card.spec.width} "
            f"({len(wrong)} tensors differ, first {readable(wrong[0])}); these are weights of another network"
        )
    network.to_empty(device="cpu").load_state_dict(state)
    # After the copy: a double may be finite and too large for a float.
    endless = [key for key, value in network.state_dict().items() if not torch.isfinite(value).all()]
    if endless:
        raise WeightsError(
            f"{path} holds values that are not numbers (NaN or infinity, first in {endless[0]}); "
            "get the weights folder again"
        )
    return LoadedModel(card, network.eval())


def _same_kind(own: torch.Tensor, given: torch.Tensor) -> bool:
    return given.dtype in (_FLOATS if own.is_floating_point() else (torch.int64,))


def save(folder: str | Path, network: Network, card: WeightsCard) -> WeightsCard:
    """Write model.safetensors and config.json; returns the card with the sha256 filled in.

    Convolution weights are stored in fp16; norms, biases and running statistics, tiny and sensitive, stay
    fp32. A network loaded from a folder and saved again gives the same bytes.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        key: (value.half() if value.ndim > 1 else value).detach().cpu().contiguous()
        for key, value in network.state_dict().items()
    }
    data = safetensors.torch.save(state, metadata={"format": "pt"})
    with atomic_write(folder / TENSORS) as file:
        file.write(data)
    card = replace(card, sha256=hashlib.sha256(data).hexdigest())
    write_card(folder, card)
    return card


def initialise_from(network: Network, source: Network) -> int:
    """Copy every tensor of `source` that `network` holds under the same name and shape.

    Returns:
        How many tensors were copied.
    """
    own = network.state_dict()
    shared: dict[str, torch.Tensor] = {
        key: value
        for key, value in source.state_dict().items()
        if key in own and own[key].shape == value.shape
    }
    network.load_state_dict(own | shared)
    return len(shared)
