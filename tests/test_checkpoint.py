"""A weights folder written, read, damaged in every way, and fetched from a Hub that is not there."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import pickle
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

import brainseg
from brainseg import checkpoint
from brainseg.checkpoint import (
    BUNDLED,
    CONFIG,
    TENSORS,
    bundled,
    hub,
    initialise_from,
    load,
    read_card,
    resolve,
    save,
    write_card,
)
from brainseg.inference import Predictor
from brainseg.models import ARCHITECTURES, build
from brainseg.models.base import Network
from brainseg.postprocess import find
from brainseg.preprocess import Preprocess
from brainseg.sample import SYNTHETIC_GLIOMA
from brainseg.types import ModelSpec, Source, Study, WeightsCard, WeightsError

ROOT = Path(__file__).resolve().parent.parent
every_network = pytest.mark.parametrize("architecture", ARCHITECTURES)


def card_of(spec: ModelSpec) -> WeightsCard:
    return WeightsCard(
        name="tester",
        spec=spec,
        preprocess={"size": 64, "low": 0.5, "high": 99.5},
        threshold=0.35,
        keep="largest",
        sha256="",
        licence="CC-BY-NC-SA-4.0",
        training_patients=("P_1", "P_2", "Pätient 3"),
        validation_patients=("P_4",),
        metrics={"protocol": "by patient", "dice_mean": 0.8125, "patients": {"P_4": {"dice": 0.8125}}},
        version="9.9",
    )


def trained(spec: ModelSpec, seed: int = 0) -> Network:
    """A network whose norms and running statistics are no longer where they started."""
    torch.manual_seed(seed)
    network = build(spec)
    for parameter in network.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, 0.5, 0.3)
    network.train()
    for _ in range(2):
        network(torch.rand(2, 3, 32, 32))
    return network.eval()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound U-Net of width 4."""
    spec = ModelSpec("unet", 4)
    save(tmp_path / "tester", trained(spec), card_of(spec))
    return tmp_path / "tester"


def amend(folder: Path, **values: Any) -> None:
    path = folder / CONFIG
    raw = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**raw, **values}), encoding="utf-8")


def put_tensors(folder: Path, data: bytes) -> None:
    """Other tensors under a sha256 that fits them."""
    (folder / TENSORS).write_bytes(data)
    amend(folder, sha256=hashlib.sha256(data).hexdigest())


def complaint(name: str | Path) -> str:
    """The message of the WeightsError: one sentence on one line."""
    with pytest.raises(WeightsError) as caught:
        load(name)
    message = str(caught.value)
    assert "\n" not in message
    assert ". " not in message.replace(str(name), "")
    return message


# --- there and back ---


@every_network
@pytest.mark.parametrize(("norm", "width"), [("batch", 4), ("group", 16)])
def test_save_load_save_gives_the_same_bytes_and_logits(
    tmp_path: Path, architecture: str, norm: str, width: int
) -> None:
    spec = ModelSpec(architecture, width, norm, dropout=0.1)  # type: ignore[arg-type]
    network = trained(spec)
    one, two = tmp_path / "deep" / "one", tmp_path / "two"
    card = save(one, network, card_of(spec))
    assert {path.name for path in one.iterdir()} == {CONFIG, TENSORS}
    first = load(one)
    assert save(two, first.network, first.card) == card == first.card
    for file in (CONFIG, TENSORS):
        assert (one / file).read_bytes() == (two / file).read_bytes()
    x = torch.rand(2, 3, 32, 48)
    with torch.no_grad():
        logits = first.network(x)
        assert torch.equal(logits, load(two).network(x))
        # The reference: the same network with its convolutions rounded to half precision by hand.
        state = network.state_dict()
        network.load_state_dict({k: v.half().float() if v.ndim == 4 else v for k, v in state.items()})
        assert torch.equal(logits, network(x))
    assert logits.std() > 0


@every_network
def test_a_loaded_network_is_ready_for_use(tmp_path: Path, architecture: str) -> None:
    spec = ModelSpec(architecture, 4, dropout=0.2)
    save(tmp_path, trained(spec), card_of(spec))
    generator = torch.random.get_rng_state()
    network = load(str(tmp_path)).network
    assert torch.equal(torch.random.get_rng_state(), generator)  # loading draws no random numbers
    assert not any(module.training for module in network.modules())
    for key, value in network.state_dict().items():
        assert value.device.type == "cpu"
        assert value.dtype == (torch.int64 if key.endswith("num_batches_tracked") else torch.float32)
    assert all(parameter.requires_grad for parameter in network.parameters())  # training may start from here


def test_convolutions_are_stored_in_half_precision_and_the_rest_is_not(folder: Path) -> None:
    state = safetensors.torch.load_file(folder / TENSORS)
    counts = dict.fromkeys((torch.float16, torch.float32, torch.int64), 0)
    for key, value in state.items():
        expected = torch.float16 if value.ndim == 4 else torch.float32
        if key.endswith("num_batches_tracked"):
            expected = torch.int64
        assert value.dtype == expected, key
        counts[value.dtype] += 1
    assert counts[torch.float16] == 9 * 2 + 4 + 1  # 9 blocks of two, 4 upsamplings, the head
    assert (folder / TENSORS).stat().st_size < 2.3 * sum(value.numel() for value in state.values())


def test_the_card_survives(folder: Path) -> None:
    card = read_card(folder)
    sha256 = hashlib.sha256((folder / TENSORS).read_bytes()).hexdigest()
    assert card == replace(card_of(ModelSpec("unet", 4)), sha256=sha256)
    assert card.training_patients == ("P_1", "P_2", "Pätient 3")
    assert load(folder).preprocess == Preprocess(size=64, low=0.5, high=99.5)
    raw = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    assert list(raw) == list(asdict(card))
    assert "Pätient 3" in (folder / CONFIG).read_text(encoding="utf-8")
    write_card(folder, replace(card, threshold=0.5))
    assert load(folder).card == replace(card, threshold=0.5)


def test_saving_leaves_the_network_as_it_was(tmp_path: Path) -> None:
    spec = ModelSpec("attention_unet", 4)
    network = trained(spec).train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    save(tmp_path, network, card_of(spec))
    assert network.training
    for key, value in network.state_dict().items():
        assert value.dtype == before[key].dtype
        assert torch.equal(value, before[key])


def test_initialise_from_copies_what_fits() -> None:
    source, target = trained(ModelSpec("unet", 4), seed=1), trained(ModelSpec("attention_unet", 4), seed=2)
    gates = {key: value.clone() for key, value in target.state_dict().items() if ".gates." in key}
    assert initialise_from(target, source) == len(source.state_dict())
    state = target.state_dict()
    assert all(torch.equal(state[key], value) for key, value in source.state_dict().items())
    assert all(torch.equal(state[key], value) for key, value in gates.items())
    wider = trained(ModelSpec("unet", 8))
    # Only what has no width fits: the head's one bias and the counters of 18 batch norms.
    assert initialise_from(wider, source) == 1 + 18


# --- damage ---


def truncate(folder: Path) -> None:
    data = (folder / TENSORS).read_bytes()
    (folder / TENSORS).write_bytes(data[: len(data) // 2])


def change_a_byte(folder: Path) -> None:
    data = bytearray((folder / TENSORS).read_bytes())
    data[-100] ^= 1
    (folder / TENSORS).write_bytes(data)


def empty(folder: Path) -> None:
    (folder / TENSORS).write_bytes(b"")


def remove_tensors(folder: Path) -> None:
    (folder / TENSORS).unlink()


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (truncate, "is not the file its card describes"),
        (change_a_byte, "is not the file its card describes"),
        (empty, "is not the file its card describes"),
        (remove_tensors, "is missing"),
        (lambda folder: put_tensors(folder, b"not safetensors at all"), "not a readable safetensors file"),
        (lambda folder: put_tensors(folder, b""), "not a readable safetensors file"),
        (
            lambda folder: put_tensors(folder, (folder / TENSORS).read_bytes()[:5000]),
            "not a readable safetensors file",
        ),
    ],
)
def test_damaged_tensors(folder: Path, damage: Callable[[Path], None], says: str) -> None:
    damage(folder)
    message = complaint(folder)
    assert message.startswith(str(folder / TENSORS))
    assert says in message
    assert message.endswith("get the weights folder again")


def edit(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        raw = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        change(raw)
        (folder / CONFIG).write_text(json.dumps(raw), encoding="utf-8")

    return damage


def write(data: bytes) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / CONFIG).write_bytes(data)

    return damage


def put(raw: dict[str, Any], key: str, value: object, table: str = "") -> None:
    (raw[table] if table else raw)[key] = value


NOT_JSON: dict[str, bytes] = {
    "empty": b"",
    "cut": b'{"name": "unet", "spec": {"archi',
    "not utf-8": b'{"name": "\xff\xfe"}',
    "nested without end": b"[" * 100_000,
    "a number without end": b'{"threshold": ' + b"1" * 5000 + b"}",
}


@pytest.mark.parametrize("data", NOT_JSON.values(), ids=NOT_JSON)
def test_config_that_is_no_json(folder: Path, data: bytes) -> None:
    (folder / CONFIG).write_bytes(data)
    assert (
        complaint(folder) == f"{folder / CONFIG} is not a brainseg weights card; get the weights folder again"
    )


def deep(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"a": value}
    return value


DAMAGED_CARDS: dict[str, tuple[Callable[[Path], None], str]] = {
    "a list": (write(b"[1, 2]"), "the whole must be a table"),
    "null": (write(b"null"), "the whole must be a table"),
    "too long": (write(b" " * (4 * 2**20 + 1)), "it holds more than 4 MB"),
    "another program's": (write(b'{"model_type": "bert", "hidden_size": 768}'), "unknown key model_type"),
    "no threshold": (edit(lambda raw: raw.pop("threshold")), "threshold is missing"),
    "no spec": (edit(lambda raw: raw.pop("spec")), "spec is missing"),
    "no patients": (edit(lambda raw: raw.pop("training_patients")), "training_patients is missing"),
    "a key too many": (edit(lambda raw: raw.update(colour="blue")), "unknown key colour"),
    "a near key": (edit(lambda raw: raw.update(tresholds=1)), "did you mean threshold"),
    "a spec key too many": (edit(lambda raw: raw["spec"].update(depth=4)), "unknown key spec.depth"),
    "preprocess without sense": (edit(lambda raw: raw["preprocess"].update(low=99.9)), "makes no sense"),
    "preprocess too large": (edit(lambda raw: raw["preprocess"].update(size=10**9)), "makes no sense"),
    "preprocess unknown": (edit(lambda raw: raw["preprocess"].update(mean=0)), "unknown key preprocess.mean"),
    "metrics deep": (edit(lambda raw: raw.update(metrics=deep(100))), "metrics must not hold more than"),
    **{
        f"{key} {value!r}"[:40]: (edit(partial(put, key=key, value=value)), says)
        for key, value, says in [
            ("name", 3, "name must be str, not 3"),
            ("name", "", "name must be good for a folder"),
            ("name", "[/x]", "name must be good for a folder"),
            ("name", "..", "name must be good for a folder"),
            ("name", "a\x1b[2J", "name must be one line"),
            ("name", "\ud800", "name must be one line"),
            ("spec", [1], "spec must be a table"),
            ("preprocess", 1, "preprocess must be a table"),
            ("preprocess", {"size": 100}, "preprocess.size must be divisible by 16"),
            ("threshold", 50, "threshold must lie in 0..1"),
            ("threshold", "0.5", "threshold must be float"),
            ("threshold", float("nan"), "threshold must be a finite number"),
            ("threshold", 10**400, "threshold must be float, not 1000"),
            ("threshold", True, "threshold must be float"),
            ("keep", "biggest", "keep must be one of all, largest"),
            ("keep", ["all"], "keep must be one of all, largest"),
            ("sha256", None, "sha256 must be str"),
            ("sha256", "0" * 63, "sha256 must be 64 hexadecimal digits"),
            ("licence", {}, "licence must be str"),
            ("training_patients", "P_1, P_2", "training_patients must be a list"),
            ("validation_patients", None, "validation_patients must be a list"),
            ("validation_patients", ["P", 1], "validation_patients[1] must be str"),
            ("metrics", [], "metrics must be a table"),
            ("metrics", {"dice_mean": "high"}, "metrics.dice_mean must lie in 0..1"),
            ("metrics", {"dice_median": 1.5}, "metrics.dice_median must lie in 0..1"),
            ("metrics", {"cases": [19]}, "metrics.cases must be a number of patients"),
            ("metrics", {"hd95": [float("inf")]}, "each value in metrics must be a finite number"),
            ("version", 1, "version must be str"),
            ("init", None, "init must be str"),
            ("temperature", 0, "temperature must lie in 0.01..100"),
            ("temperature", 1e-300, "temperature must lie in 0.01..100"),
        ]
    },
    **{
        f"spec.{key} {value!r}": (
            edit(partial(put, table="spec", key=key, value=value)),
            says,
        )
        for key, value, says in [
            ("architecture", ["unet"], "spec.architecture must be str"),
            ("norm", "layer", "spec.norm must be one of batch, group"),
            ("width", "4", "spec.width must be int"),
            ("width", 4.5, "spec.width must be int"),
            ("width", None, "spec.width must be int"),
            ("width", -4, "spec.width must be above 0"),
            ("width", 2**64, "spec.width must fit into 64 bits"),
            ("dropout", 1.5, "spec.dropout must lie in 0..1, below 1"),
            ("gate_norm", 1, "spec.gate_norm must be bool"),
        ]
    },
}


@pytest.mark.parametrize(("damage", "says"), DAMAGED_CARDS.values(), ids=DAMAGED_CARDS)
def test_damaged_card(folder: Path, damage: Callable[[Path], None], says: str) -> None:
    damage(folder)
    message = complaint(folder)
    assert message.startswith(f"{folder / CONFIG} is not a brainseg weights card (")
    assert message.endswith("); get the weights folder again")
    assert says in message
    assert len(message) < len(str(folder)) + 300


def test_config_is_a_folder(folder: Path) -> None:
    (folder / CONFIG).unlink()
    (folder / CONFIG).mkdir()
    assert "is not a brainseg weights card" in complaint(folder)


def test_missing_card(folder: Path) -> None:
    (folder / CONFIG).unlink()
    assert complaint(folder) == f"{folder / CONFIG} is missing; this is not a weights folder"


def test_unknown_architecture_is_named_with_the_known(folder: Path) -> None:
    edit(lambda raw: raw["spec"].update(architecture="transformer"))(folder)
    message = complaint(folder)
    assert str(folder / CONFIG) in message
    assert "'transformer'" in message
    assert all(name in message for name in ARCHITECTURES)


@pytest.mark.parametrize("spec", [{"norm": "group", "width": 8}, {"width": 2**62}])
def test_a_spec_no_network_can_have(folder: Path, spec: dict[str, Any]) -> None:
    edit(lambda raw: raw["spec"].update(spec))(folder)
    assert complaint(folder).startswith(f"{folder / CONFIG} describes a network that cannot be built; ")


@pytest.mark.parametrize(
    ("spec", "title"),
    [
        (ModelSpec("attention_unet", 4), "Attention U-Net"),  # tensors missing
        (ModelSpec("unetpp", 4), "U-Net++"),
        (ModelSpec("unet", 8), "U-Net of width 8"),  # the same names, other shapes
        (ModelSpec("unet", 2), "U-Net of width 2"),
        (ModelSpec("unet", 16, "group"), "U-Net of width 16"),
        # Far more than any memory: refused by shape before anything is allocated.
        (ModelSpec("unet", 1 << 20), f"U-Net of width {1 << 20}"),
    ],
)
def test_sound_tensors_of_another_network(folder: Path, spec: ModelSpec, title: str) -> None:
    amend(folder, spec=asdict(spec))
    message = complaint(folder)
    assert message.startswith(f"{folder / TENSORS} does not fit {title}")
    assert message.endswith("these are weights of another network")


def test_one_tensor_too_many(folder: Path) -> None:
    state = safetensors.torch.load_file(folder / TENSORS)
    put_tensors(folder, safetensors.torch.save({**state, "extra": torch.zeros(1)}))
    assert "1 tensors differ, first extra" in complaint(folder)
    put_tensors(folder, safetensors.torch.save({**state, "a\nb" + "x" * 1000: torch.zeros(1)}))
    assert "1 tensors differ, first a?bxxx" in complaint(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_tensors_of_no_numbers_under_a_right_digest(folder: Path, value: float, dtype: torch.dtype) -> None:
    state = safetensors.torch.load_file(folder / TENSORS)
    key = next(key for key, tensor in state.items() if tensor.ndim == 4)
    state[key] = state[key].to(dtype)
    state[key][0] = value
    put_tensors(folder, safetensors.torch.save(state))
    assert f"values that are not numbers (NaN or infinity, first in {key})" in complaint(folder)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64, torch.float8_e4m3fn])
def test_tensors_of_another_kind_of_number(folder: Path, dtype: torch.dtype) -> None:
    state = safetensors.torch.load_file(folder / TENSORS)
    state["head.weight"] = state["head.weight"].to(torch.float32).abs().to(dtype)
    put_tensors(folder, safetensors.torch.save(state))
    assert "1 tensors differ, first head.weight" in complaint(folder)


def test_finite_weights_that_give_no_numbers(folder: Path) -> None:
    state = safetensors.torch.load_file(folder / TENSORS)
    variance = next(key for key in state if key.endswith("running_var"))
    state[variance] = -state[variance].abs() - 1
    put_tensors(folder, safetensors.torch.save(state))
    slices = np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3), np.uint8)
    study = Study(slices, "P", Source("png", (), ""), (1, 2))
    with pytest.raises(WeightsError, match="the weights 'tester' give values that are not numbers"):
        Predictor(load(folder), "cpu").predict(study)


# --- nothing is ever unpickled ---


class Payload:
    """Writes a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_a_pickle_is_refused_unopened(folder: Path, tmp_path: Path) -> None:
    trap = tmp_path / "executed"
    data = pickle.dumps(Payload(trap))
    pickle.loads(data)
    assert trap.exists()  # the payload works
    trap.unlink()
    put_tensors(folder, data)
    for other in ("model.pt", "pytorch_model.bin"):
        (folder / other).write_bytes(data)
    assert "not a readable safetensors file" in complaint(folder)
    put_tensors(folder, torch_file(Payload(trap)))
    assert "not a readable safetensors file" in complaint(folder)
    assert not trap.exists()


def torch_file(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def test_the_code_that_reads_weights_knows_no_pickle() -> None:
    folder = Path(checkpoint.__file__).parent
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.py"))]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    imported = {
        name
        for node in nodes
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        )
    }
    assert not imported & {"pickle", "dill", "joblib", "shelve"}
    calls = {ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call)}
    assert "torch.load" not in calls
    assert "safetensors.torch.load" in calls


# --- names ---


@pytest.mark.parametrize("name", ["vnet", "no such folder", "/no/such/folder", "./no/such", "a/b/c", "U-Net"])
def test_unknown_name_lists_what_there_is(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub, "fetch", None)  # must not be asked
    message = complaint(name)
    assert message.startswith(
        f"no weights {name!r}: give one of unet, attention_unet, unetpp, attention_unetpp"
    )
    assert "a weights folder, or a Hub id owner/name" in message


def test_a_file_is_not_a_weights_folder(folder: Path) -> None:
    assert complaint(folder / TENSORS).startswith(f"no weights {str(folder / TENSORS)!r}")


def test_bundled_names_come_first_and_from_the_repository(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "BUNDLED", tmp_path / "weights")
    for name in ("unetpp", "unet"):  # not in the order of ARCHITECTURES
        spec = ModelSpec(name, 2)
        save(tmp_path / "weights" / name, trained(spec), replace(card_of(spec), name=name))
    (tmp_path / "weights" / "attention_unet").mkdir()
    (tmp_path / "weights" / "other").mkdir()
    cards = bundled()
    assert list(cards) == ["unet", "unetpp"]
    assert [card.name for card in cards.values()] == ["unet", "unetpp"]
    assert resolve("unet") == tmp_path / "weights" / "unet"
    assert brainseg.load("unetpp").card == cards["unetpp"]
    assert "is missing; this is not a weights folder" in complaint("attention_unet")
    (tmp_path / "weights" / "unet" / CONFIG).write_text("{", encoding="utf-8")
    with pytest.raises(WeightsError, match="not a brainseg weights card"):
        bundled()


# --- the weights that come with the repository ---

INSTALLED = [name for name in ARCHITECTURES if (BUNDLED / name).is_dir()]


def test_all_four_are_bundled() -> None:
    assert tuple(INSTALLED) == tuple(ARCHITECTURES)


@pytest.mark.parametrize("name", INSTALLED)
def test_bundled_weights_find_the_lesion_of_the_sample(name: str) -> None:
    model = load(name)
    card = model.card
    assert card.name == name
    assert card.spec.architecture == name
    assert (BUNDLED / name / TENSORS).stat().st_size <= 20 * 1000**2
    assert (BUNDLED / name / "README.md").is_file()
    assert card.licence
    assert card.training_patients
    assert not set(card.training_patients) & set(card.validation_patients)
    assert all(value.isfinite().all() for value in floats(model.network))
    study = brainseg.read_study(SYNTHETIC_GLIOMA)
    assert study.reference is not None
    prediction = brainseg.Predictor(model, "cpu").predict(study, attention=False)
    mask = find(prediction).mask
    overlap = 2 * int((mask & study.reference).sum()) / int(mask.sum() + study.reference.sum())
    assert overlap > 0.5


def floats(network: Network) -> list[Tensor]:
    return [value for value in network.state_dict().values() if value.is_floating_point()]
