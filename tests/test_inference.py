"""Study -> Prediction against the same network called by hand."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import brainseg
from brainseg import inference
from brainseg.checkpoint import LoadedModel, save
from brainseg.inference import (
    BATCH,
    Predictor,
    autocast,
    capture_gates,
    choose_device,
    gate_names,
)
from brainseg.models import ARCHITECTURES, build
from brainseg.preprocess import Preprocess, invert
from brainseg.types import (
    Cancelled,
    ModelSpec,
    Prediction,
    Source,
    Study,
    WeightsCard,
    WeightsError,
)

GATED = {"attention_unet": 4, "attention_unetpp": 20}
every_network = pytest.mark.parametrize("architecture", ARCHITECTURES)
gated_network = pytest.mark.parametrize("architecture", GATED)
SLICES = 2 * BATCH + 3
GRID = (37, 29)


@pytest.fixture(autouse=True)
def full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same arithmetic on every processor; bf16 has tests of its own."""
    monkeypatch.setattr(inference, "autocast", lambda _device: nullcontext())


def make_study(count: int = SLICES, height: int = GRID[0], width: int = GRID[1], seed: int = 0) -> Study:
    slices = np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    return Study(slices, "P_7", Source("test", (), ""), tuple(range(1, count + 1)))


def make_model(architecture: str = "unet", *, size: int = 32, **card: Any) -> LoadedModel:
    """Random weights whose probabilities and coefficients spread over 0..1."""
    torch.manual_seed(3)
    spec = ModelSpec(architecture, 4)
    network = build(spec)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = 0.2 * torch.randn(module.num_features)
            nn.init.normal_(module.bias, 0.2, 0.2)
    for _, gate, _ in gate_names(network):
        nn.init.normal_(gate.psi[0].weight, std=1.0)  # type: ignore[arg-type]
        nn.init.zeros_(gate.psi[0].bias)  # type: ignore[arg-type]
    nn.init.normal_(network.head.weight, std=0.7)
    nn.init.zeros_(network.head.bias)  # type: ignore[arg-type]
    fields: dict[str, Any] = {
        "preprocess": {"size": size, "low": 1.0, "high": 99.0},
        "threshold": 0.4,
        "keep": "largest",
        "sha256": "abc",
        "licence": "test",
    }
    return LoadedModel(WeightsCard(name="mine", spec=spec, **{**fields, **card}), network.eval())


def predictor(architecture: str = "unet", **options: Any) -> Predictor:
    return Predictor(make_model(architecture, **options), "cpu")


def by_hand(model: LoadedModel, batch: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """One slice at a time, in plain float32: (S, 3, h, w) -> (S, h, w)."""
    with torch.no_grad():
        planes = [torch.sigmoid(model.network(torch.tensor(image)[None]))[0, 0].numpy() for image in batch]
    return np.stack(planes)


def hooks(network: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules())


# --- probabilities ---


@every_network
def test_same_numbers_as_calling_the_network_by_hand(architecture: str) -> None:
    model, study = make_model(architecture), make_study()
    batch, letterbox = Preprocess(size=32, low=1.0, high=99.0).apply(study)
    expected = invert(by_hand(model, batch), letterbox)
    assert expected.std() > 0.02
    prediction = Predictor(model, "cpu").predict(study)
    assert isinstance(prediction, Prediction)
    assert prediction.probability.shape == study.shape
    assert prediction.probability.dtype == np.float32
    assert 0 <= prediction.probability.min() < prediction.probability.max() <= 1
    np.testing.assert_allclose(prediction.probability, expected, atol=1e-5)
    # Slices differ among themselves, so agreement means they came back in their order.
    assert all(np.abs(expected[0] - other).max() > 1e-3 for other in expected[1:])


@pytest.mark.parametrize("count", [1, BATCH - 1, BATCH, BATCH + 1, 2 * BATCH])
def test_any_number_of_slices(count: int) -> None:
    model, study = make_model(), make_study(count)
    batch, letterbox = model.preprocess.apply(study)
    found = Predictor(model, "cpu").predict(study).probability
    np.testing.assert_allclose(found, invert(by_hand(model, batch), letterbox), atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(250, 197), (197, 250), (33, 90), (16, 16), (64, 1)])
def test_any_size_of_slices(height: int, width: int) -> None:
    study = make_study(2, height, width)
    prediction = predictor("attention_unet").predict(study)
    assert prediction.probability.shape == (2, height, width)
    assert np.isfinite(prediction.probability).all()
    assert all(item.letterbox.original == (height, width) for item in prediction.attention)


def test_the_card_and_the_study_are_carried_over() -> None:
    model = make_model("unetpp", training_patients=("P_1", "P_7"), validation_patients=("P_8",))
    prediction = Predictor(model, "cpu").predict(make_study(1))
    assert (prediction.model, prediction.architecture, prediction.case_id) == ("mine", "unetpp", "P_7")
    assert (prediction.threshold, prediction.keep) == (0.4, "largest")
    assert prediction.weights_sha256 == "abc"
    assert prediction.tta is False
    assert 0 < prediction.seconds < 60


@pytest.mark.parametrize(
    ("training", "seen"), [((), False), (("P_1", "P_77"), False), (("P_1", "P_7"), True), (("P_7",), True)]
)
def test_a_patient_of_the_training_set_is_marked(training: tuple[str, ...], seen: bool) -> None:
    model = make_model(training_patients=training, validation_patients=("P_7",))
    assert Predictor(model, "cpu").predict(make_study(1)).seen_in_training is seen


@every_network
def test_repeatable_to_the_bit_from_memory_and_from_a_folder(architecture: str, tmp_path: Path) -> None:
    model, study = make_model(architecture), make_study(3)
    save(tmp_path, model.network, model.card)
    loaded = brainseg.load(tmp_path)
    one = Predictor(loaded, "cpu")
    runs = [one.predict(study), one.predict(study), Predictor(brainseg.load(tmp_path), "cpu").predict(study)]
    for run in runs[1:]:
        assert np.array_equal(run.probability, runs[0].probability)
        assert len(run.attention) == len(runs[0].attention)
        for a, b in zip(run.attention, runs[0].attention, strict=True):
            assert np.array_equal(a.coefficients, b.coefficients)


def test_a_network_left_in_training_mode_predicts_in_evaluation_and_is_not_changed() -> None:
    model, study = make_model("attention_unetpp"), make_study(3)
    expected = Predictor(model, "cpu").predict(study).probability
    before = {key: value.clone() for key, value in model.network.state_dict().items()}
    slices = study.slices.copy()
    model.network.train()
    found = Predictor(model, "cpu").predict(study).probability
    assert np.array_equal(found, expected)
    assert all(torch.equal(value, before[key]) for key, value in model.network.state_dict().items())
    assert np.array_equal(study.slices, slices)


def test_attention_changes_no_probability() -> None:
    one, study = predictor("attention_unet"), make_study(3)
    assert np.array_equal(
        one.predict(study, attention=True).probability, one.predict(study, attention=False).probability
    )


# --- flips ---


@every_network
def test_tta_is_the_mean_of_two_passes(architecture: str) -> None:
    model, study = make_model(architecture), make_study(BATCH + 2)
    batch, letterbox = model.preprocess.apply(study)
    straight = by_hand(model, batch)
    mirrored = by_hand(model, np.flip(batch, 3).copy())
    expected = invert((straight + np.flip(mirrored, 2)) / 2, letterbox)
    one = Predictor(model, "cpu")
    prediction = one.predict(study, tta=True)
    assert prediction.tta is True
    assert prediction.probability.dtype == np.float32
    np.testing.assert_allclose(prediction.probability, expected, atol=1e-5)
    plain = one.predict(study)
    assert np.abs(plain.probability - expected).max() > 1e-3
    # The coefficients shown are those of the patient as given, not of the mirror image.
    for a, b in zip(prediction.attention, plain.attention, strict=True):
        assert np.array_equal(a.coefficients, b.coefficients)


# --- progress and cancel ---


def test_progress_starts_at_nothing_and_ends_at_all() -> None:
    calls: list[tuple[int, int]] = []
    predictor().predict(make_study(), progress=lambda done, total: calls.append((done, total)), tta=True)
    assert calls == [(0, SLICES), (BATCH, SLICES), (2 * BATCH, SLICES), (SLICES, SLICES)]


@pytest.mark.parametrize("after", [0, 1, 2])
def test_cancel_stops_before_the_next_batch(after: int) -> None:
    one = predictor("attention_unet")
    answers = iter([False] * after + [True])
    calls: list[int] = []
    passes: list[int] = []
    handle = one.network.register_forward_pre_hook(lambda _m, inputs: passes.append(len(inputs[0])))
    with pytest.raises(Cancelled, match="stopped"):
        one.predict(
            make_study(), progress=lambda done, _: calls.append(done), cancelled=lambda: next(answers)
        )
    handle.remove()
    assert passes == [BATCH] * after
    assert calls == [BATCH * k for k in range(after + 1)]
    assert hooks(one.network) == 0
    assert one.predict(make_study(1)).probability.shape == (1, *GRID)  # and is ready for the next


def test_not_cancelled_runs_to_the_end_asking_before_each_batch() -> None:
    asked: list[None] = []

    def cancelled() -> bool:
        asked.append(None)
        return False

    assert predictor().predict(make_study(), cancelled=cancelled).probability.shape == (SLICES, *GRID)
    assert len(asked) == 3


# --- attention ---


def gates_by_hand(model: LoadedModel, image: np.ndarray[Any, Any]) -> dict[str, Tensor]:
    """Path of each Sigmoid submodule -> what came out of it for one slice."""
    seen: dict[str, Tensor] = {}

    def keep(path: str) -> Callable[[nn.Module, Any, Tensor], None]:
        return lambda _module, _inputs, out: seen.update({path: out[0, 0].clone()})

    handles = [
        module.register_forward_hook(keep(path))
        for path, module in model.network.named_modules()
        if isinstance(module, nn.Sigmoid)
    ]
    with torch.no_grad():
        model.network(torch.tensor(image)[None])
    for handle in handles:
        handle.remove()
    return seen


NAMED = {
    "attention_unet": {f"x{i}": f"decoder.{i}.gates.0.psi.1" for i in range(4)},
    "attention_unetpp": {
        f"x{i}_{j}.skip{k}": f"nodes.{i}_{j}.gates.{k}.psi.1"
        for j in range(1, 5)
        for i in range(5 - j)
        for k in range(j)
    },
}


@gated_network
def test_every_gate_is_reported_as_captured_by_hand(architecture: str) -> None:
    model, study = make_model(architecture), make_study(BATCH + 1)
    prediction = Predictor(model, "cpu").predict(study)
    assert len(prediction.attention) == GATED[architecture]
    assert {item.gate for item in prediction.attention} == NAMED[architecture].keys()
    levels = [item.level for item in prediction.attention]
    assert levels == sorted(levels)  # finest first
    assert {level: levels.count(level) for level in range(4)} == (
        {0: 1, 1: 1, 2: 1, 3: 1} if architecture == "attention_unet" else {0: 10, 1: 6, 2: 3, 3: 1}
    )
    batch, letterbox = model.preprocess.apply(study)
    hand = [gates_by_hand(model, image) for image in batch]
    for item in prediction.attention:
        assert item.level == int(item.gate[1])
        assert item.letterbox == letterbox
        assert item.coefficients.dtype == np.float16
        step = 2 ** (item.level + 1)
        assert item.coefficients.shape == (
            len(batch),
            letterbox.padded[0] // step,
            letterbox.padded[1] // step,
        )
        assert 0 <= item.coefficients.min() < item.coefficients.max() <= 1
        expected = np.stack([gates[NAMED[architecture][item.gate]].numpy() for gates in hand])
        np.testing.assert_allclose(item.coefficients, expected, atol=1e-3)
    assert np.std([item.coefficients.mean() for item in prediction.attention]) > 0.01


@every_network
def test_no_attention_where_there_are_no_gates_or_none_is_wanted(architecture: str) -> None:
    one = predictor(architecture)
    assert one.predict(make_study(1), attention=False).attention == ()
    assert len(one.predict(make_study(1)).attention) == GATED.get(architecture, 0)


@gated_network
def test_hooks_are_gone_afterwards_and_after_an_error(architecture: str) -> None:
    one = predictor(architecture)
    one.predict(make_study(1))
    assert hooks(one.network) == 0

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        one.predict(make_study(), progress=fail)
    assert hooks(one.network) == 0
    with capture_gates(one.network):
        assert hooks(one.network) == GATED[architecture]
    assert hooks(one.network) == 0
    one.network.head.register_forward_hook(fail)
    with pytest.raises(KeyboardInterrupt):
        one.predict(make_study())
    assert hooks(one.network) == 1


@gated_network
def test_capture_hands_out_plain_tensors(architecture: str) -> None:
    network = make_model(architecture).network
    with capture_gates(network) as seen:
        network(torch.rand(2, 3, 32, 48))
    assert len(seen) == GATED[architecture]
    for value in seen.values():
        assert value.shape[:2] == (2, 1)
        assert value.dtype == torch.float32
        assert not value.requires_grad
    kept = {key: value.clone() for key, value in seen.items()}
    network(torch.rand(2, 3, 32, 48))
    assert all(torch.equal(value, kept[key]) for key, value in seen.items())


def test_passes_of_another_thread_are_not_recorded() -> None:
    """One network kept in memory may serve two visitors at once."""
    network = make_model("attention_unet").network
    x = torch.rand(1, 3, 32, 32)
    with capture_gates(network) as seen:
        network(x)
        mine = {key: value.clone() for key, value in seen.items()}
        other = threading.Thread(target=lambda: network(torch.rand(2, 3, 48, 64)))
        other.start()
        other.join()
    assert all(torch.equal(value, mine[key]) for key, value in seen.items())


# --- devices and precision ---


@pytest.mark.parametrize("name", ["nonsense", "", "meta", "hpu", "privateuseone", "cuda:99", "cuda:-1"])
def test_an_unknown_device_is_one_sentence(name: str) -> None:
    with pytest.raises(WeightsError) as caught:
        Predictor(make_model(), name)
    assert str(caught.value) == f"device {name!r} is not available here; use auto or cpu"


def test_auto_takes_the_best_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_device("cpu") == torch.device("cpu")
    for cuda, mps, expected in ((True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda cuda=cuda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda mps=mps: mps)
        assert choose_device() == torch.device(expected)


def test_bf16_where_the_processor_multiplies_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for native in (True, False):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda native=native: native)
        with autocast(torch.device("cpu")):
            assert torch.is_autocast_enabled("cpu") is native
            assert torch.get_autocast_dtype("cpu") == torch.bfloat16
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    assert isinstance(autocast(torch.device("cuda")), nullcontext)
    assert isinstance(autocast(torch.device("mps")), nullcontext)


@every_network
def test_bf16_agrees_with_float32(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """bf16 keeps 8 bits: probabilities within 0.05 everywhere and within 0.005 on average."""
    one, study = predictor(architecture), make_study(4)
    exact = one.predict(study)
    monkeypatch.setattr(inference, "autocast", lambda device: torch.autocast(device.type, torch.bfloat16))
    rough = one.predict(study)
    assert rough.probability.dtype == np.float32
    difference = np.abs(rough.probability - exact.probability)
    assert 0 < difference.max() < 0.05
    assert difference.mean() < 0.005
    for a, b in zip(rough.attention, exact.attention, strict=True):
        assert a.coefficients.dtype == np.float16
        assert np.abs(a.coefficients.astype(np.float32) - b.coefficients.astype(np.float32)).mean() < 0.01


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@every_network
def test_the_gpu_agrees_with_the_cpu(architecture: str) -> None:
    study = make_study()
    cpu = predictor(architecture).predict(study)
    gpu = Predictor(make_model(architecture), "cuda").predict(study)
    np.testing.assert_allclose(gpu.probability, cpu.probability, atol=5e-3)
    for a, b in zip(gpu.attention, cpu.attention, strict=True):
        np.testing.assert_allclose(a.coefficients, b.coefficients, atol=1e-2)


def test_two_predictors_do_not_share_what_they_saw() -> None:
    """Interleaved, as when one page serves two visitors."""
    a, b = make_model("attention_unet"), make_model("attention_unetpp")
    studies = [make_study(BATCH + 1, seed=seed) for seed in (1, 2)]
    alone = [Predictor(model, "cpu").predict(s) for model, s in zip((a, b), studies, strict=True)]
    inner: list[Prediction] = []

    def visit(done: int, _total: int) -> None:
        if done == BATCH:
            inner.append(Predictor(b, "cpu").predict(studies[1]))

    outer = Predictor(a, "cpu").predict(studies[0], progress=visit)
    for found, expected in zip((outer, inner[0]), alone, strict=True):
        assert np.array_equal(found.probability, expected.probability)
        assert [item.gate for item in found.attention] == [item.gate for item in expected.attention]
