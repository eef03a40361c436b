"""A weights folder <-> network and card.

A folder holds config.json (the card), model.safetensors and README.md, exactly what a Hub model repository
holds. Only safetensors are read, and only when their sha256 is the one the card states.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import safetensors.torch
import torch

from brainseg.fields import FieldError, is_folder_name, read_at_most, readable, short
from brainseg.fields import build as build_fields
from brainseg.files import atomic_write
from brainseg.models import ARCHITECTURES, UNet, UNetPP, build
from brainseg.preprocess import MULTIPLE, Preprocess
from brainseg.types import WeightsCard, WeightsError

CONFIG, TENSORS = "config.json", "model.safetensors"
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_MOST_BYTES = 4 * 2**20
_SHA256 = re.compile("[0-9a-f]{64}")
BUNDLED = Path(__file__).resolve().parent.parent / "weights"


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A network in evaluation mode with the card of its weights."""

    card: WeightsCard
    network: UNet | UNetPP

    @property
    def preprocess(self) -> Preprocess:
        """The preprocessing the network was trained with."""
        return Preprocess(**self.card.preprocess)


def bundled() -> dict[str, WeightsCard]:
    """Cards of the weights that come with the repository, in the order of `ARCHITECTURES`.

    Raises:
        WeightsError: if a bundled card is damaged.
    """
    return {name: read_card(BUNDLED / name) for name in ARCHITECTURES if (BUNDLED / name / CONFIG).is_file()}


def load(name: str | Path) -> LoadedModel:
    """Load weights by bundled name (`unet`, ...), folder, or Hub id (`owner/name` or `owner/name@revision`).

    Raises:
        WeightsError: if they are missing, damaged, or of another network than the card says.
    """
    folder = resolve(name)
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


def is_local(name: str | Path) -> bool:
    """Whether `name` is a bundled name or a folder here, not a Hub id."""
    return str(name) in ARCHITECTURES or Path(name).is_dir()


def resolve(name: str | Path) -> Path:
    """The local folder of a bundled name, a folder or a Hub id, downloading the last if needed.

    Raises:
        WeightsError: if there is no such thing, or the Hub cannot be reached.
    """
    if str(name) in ARCHITECTURES:
        folder = BUNDLED / str(name)
        if not folder.is_dir():
            raise WeightsError(
                f"bundled weights {name!r} are not installed at {folder}; run from a clone of the repository"
            )
        return folder
    path = Path(name)
    if path.is_dir():
        return path
    if str(name).count("/") == 1 and not path.is_absolute() and not str(name).startswith("."):
        return _download(str(name))
    raise WeightsError(
        f"no weights {str(name)!r}: give one of {', '.join(ARCHITECTURES)}, a weights folder, or a Hub id "
        "owner/name"
    )


def _download(hub_id: str) -> Path:
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - slow to import, seldom needed

    repo, _, revision = hub_id.partition("@")
    try:
        return Path(
            snapshot_download(repo, revision=revision or None, allow_patterns=[CONFIG, TENSORS, "README.md"])
        )
    except Exception as error:
        raise WeightsError(
            f"weights {hub_id!r} are neither a folder nor within reach on the Hub; check the name and "
            "the network connection"
        ) from error


def read_card(folder: Path) -> WeightsCard:
    """Read config.json of a weights folder.

    Raises:
        WeightsError: if it is missing or not a card.
    """
    path = folder / CONFIG
    again = "get the weights folder again"
    try:
        card = _card(json.loads(read_at_most(path, _MOST_BYTES)))
    except FileNotFoundError as error:
        raise WeightsError(f"{path} is missing; this is not a weights folder") from error
    except FieldError as error:
        raise WeightsError(f"{path} is not a brainseg weights card ({error}); {again}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is not a brainseg weights card; {again}") from error
    if card.spec.architecture not in ARCHITECTURES:
        raise WeightsError(
            f"{path} names architecture {short(card.spec.architecture)}, which is not one of "
            f"{', '.join(ARCHITECTURES)}; get other weights or a newer brainseg"
        )
    return card


def _card(raw: object) -> WeightsCard:
    card = build_fields(WeightsCard, raw)
    preprocess = build_fields(Preprocess, card.preprocess, "preprocess.")
    figures = card.metrics
    shares = {key: figures.get(key) for key in ("dice_mean", "dice_median")}
    rules = [
        # Marking patients seen in training must not be lost with the list.
        *(
            (isinstance(raw, dict) and key in raw, f"{key} is missing")
            for key in ("training_patients", "validation_patients")
        ),
        (is_folder_name(card.name), "name must be good for a folder, without slashes"),
        (_SHA256.fullmatch(card.sha256) is not None, "sha256 must be 64 hexadecimal digits"),
        (card.spec.width > 0, "spec.width must be above 0"),
        (0 <= card.spec.dropout < 1, "spec.dropout must lie in 0..1, below 1"),
        (preprocess.size % MULTIPLE == 0, f"preprocess.size must be divisible by {MULTIPLE}"),
        (0 <= card.threshold <= 1, "threshold must lie in 0..1"),
        (0.01 <= card.temperature <= 100, "temperature must lie in 0.01..100"),
        *(
            (value is None or _is_share(value), f"metrics.{key} must lie in 0..1")
            for key, value in shares.items()
        ),
        (
            type(figures.get("cases", 0)) is int and figures.get("cases", 0) >= 0,
            "metrics.cases must be a number of patients",
        ),
    ]
    for holds, sentence in rules:
        if not holds:
            raise FieldError(sentence)
    return card


def _is_share(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1


def write_card(folder: Path, card: WeightsCard) -> None:
    """Write config.json of a weights folder."""
    ordered = {field.name: asdict(card)[field.name] for field in fields(card)}
    with atomic_write(folder / CONFIG) as file:
        file.write((json.dumps(ordered, indent=2, ensure_ascii=False) + "\n").encode())


def save(folder: Path, network: UNet | UNetPP, card: WeightsCard) -> WeightsCard:
    """Write model.safetensors and config.json; returns the card with the sha256 filled in.

    Convolution weights are stored in fp16; norms, biases and running statistics, tiny and sensitive, stay
    fp32. A network loaded from a folder and saved again gives the same bytes.
    """
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


def initialise_from(network: UNet | UNetPP, source: UNet | UNetPP) -> int:
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
