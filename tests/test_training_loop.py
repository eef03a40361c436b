"""The training loop on a tiny data set: it learns, survives being killed, refuses what would mislead."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from brainseg.checkpoint import load, save
from brainseg.models import build
from brainseg.preprocess import Preprocess
from brainseg.training import loop
from brainseg.training.config import Augment, Data, LossChoice, Optim, Recipe, RecipeError, Stage
from brainseg.types import BrainsegError, InputError, ModelSpec, WeightsCard, WeightsError

SIZE = 64
PATIENTS = [f"SYN_{place}_{number:04d}_20000101" for place in ("AA", "BB") for number in (1, 2)]
"""Of the data set in conftest.py; the first one is for validation."""


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Networks this small are slower on two threads; sums in one order everywhere."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tiny(**changes: Any) -> Recipe:
    """Two stages, three epochs of three steps, with all that could break a resumed run switched on."""
    recipe = Recipe(
        name="tiny",
        model=ModelSpec("attention_unet", width=4, dropout=0.2),
        stages=(Stage(size=32, epochs=2, batch=2), Stage(size=64, epochs=1, batch=2)),
        preprocess=Preprocess(size=SIZE),
        data=Data(split="folds.json", samples_per_epoch=6),
        optim=Optim(lr=3e-3, warmup_steps=2, ema=0.5),
    )
    return replace(recipe, **changes)


def run(recipe: Recipe, lgg: Path, out: Path, *, resume: bool = False) -> WeightsCard:
    return loop.train(recipe, lgg, lgg, out, resume=resume)


def tensors(value: Any, key: str = "") -> dict[str, Tensor]:
    """Every tensor of a checkpoint, by its path."""
    if isinstance(value, Tensor):
        return {key: value}
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return {name: one for k, item in items for name, one in tensors(item, f"{key}/{k}").items()}


def same(one: Path, other: Path) -> None:
    """Two runs ended alike, bit for bit."""
    assert (one / "weights/model.safetensors").read_bytes() == (
        other / "weights/model.safetensors"
    ).read_bytes()
    assert (one / "weights/config.json").read_bytes() == (other / "weights/config.json").read_bytes()
    states = [torch.load(out / "last.pt", weights_only=True) for out in (one, other)]
    found = [tensors(state) for state in states]
    assert found[0].keys() == found[1].keys()
    assert len(found[0]) > 100
    for key, tensor in found[0].items():
        assert torch.equal(tensor, found[1][key]), key
    assert states[0]["schedule"] == states[1]["schedule"]
    rows = [[without_time(row) for row in state["progress"]["history"]] for state in states]
    assert rows[0] == rows[1]
    assert [without_time(row) for row in metrics(one)] == [without_time(row) for row in metrics(other)]


def without_time(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != "samples_per_second"}


def metrics(out: Path) -> list[dict[str, str]]:
    with (out / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def trained(out: Path) -> dict[str, Tensor]:
    state: dict[str, Tensor] = torch.load(out / "last.pt", weights_only=True)["network"]
    return state


class KilledError(Exception):
    """Stands for a kill inside this process."""


def kill_at(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, call: int, *, after: bool) -> None:
    """Raise before or after the given call, from 1, of a function."""
    original: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call and not after:
            raise KilledError
        value = original(*args, **kwargs)
        if calls == call:
            raise KilledError
        return value

    monkeypatch.setattr(owner, name, wrapped)


# --- what a run leaves ------------------------------------------------------------------------------------


def test_a_run_learns_and_leaves_all_it_promises(lgg: Path, tmp_path: Path) -> None:
    out = tmp_path / "runs" / "tiny"
    recipe = tiny(
        model=ModelSpec("unet", width=8),
        stages=(Stage(32, 2, 2), Stage(64, 6, 2)),
        data=Data(split="folds.json", samples_per_epoch=12, tumour_fraction=0.75),
        optim=Optim(lr=1e-2, warmup_steps=2, ema=0.5),
    )
    said: list[tuple[str, int, int]] = []
    card = loop.train(recipe, lgg, lgg, out, resume=False, say=lambda *args: said.append(args))

    rows = metrics(out)
    assert [int(row["epoch"]) for row in rows] == list(range(1, 9))
    assert [int(row["step"]) for row in rows] == list(range(6, 49, 6))
    assert [int(row["size"]) for row in rows] == [32] * 2 + [64] * 6
    assert float(rows[-1]["loss"]) < 0.6 * float(rows[0]["loss"])
    assert float(rows[-1]["dice_mean"]) > 0.6
    assert float(rows[-1]["lr"]) == 0
    assert any((out / "tensorboard").iterdir())
    assert not list(out.rglob("*.tmp"))

    frozen = json.loads((out / "recipe.json").read_text())
    assert frozen.pop("training_patients") == PATIENTS[1:]
    assert frozen.pop("validation_patients") == PATIENTS[:1]
    assert frozen == json.loads(json.dumps(asdict(recipe)))

    model = load(out / "weights")
    assert model.card == card
    assert card.training_patients == tuple(PATIENTS[1:])
    assert card.validation_patients == tuple(PATIENTS[:1])
    assert model.preprocess == Preprocess(size=SIZE)
    assert card.name == "tiny"
    assert 0 < card.threshold < 1

    assert said[0][1:] == (0, 48)
    assert said[-1][1:] == (48, 48)
    assert all(total == 48 for _, _, total in said)
    assert [done for _, done, _ in said] == sorted(done for _, done, _ in said)


def test_tensorboard_holds_the_rows(lgg: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import (  # noqa: PLC0415 - slow to import
        EventAccumulator,
    )

    run(tiny(), lgg, tmp_path)
    found = {}
    # One file an epoch.
    for path in (tmp_path / "tensorboard").iterdir():
        board = EventAccumulator(str(path)).Reload()
        assert {"loss", "lr", "dice_mean"} <= set(board.Tags()["scalars"])
        (event,) = board.Scalars("loss")
        found[event.step] = event.value
    assert found == {
        int(row["epoch"]): pytest.approx(float(row["loss"]), rel=1e-5) for row in metrics(tmp_path)
    }


def test_equal_recipes_give_equal_runs_and_other_seeds_others(lgg: Path, tmp_path: Path) -> None:
    run(tiny(), lgg, tmp_path / "one")
    torch.rand(5)
    run(tiny(), lgg, tmp_path / "two")
    same(tmp_path / "one", tmp_path / "two")
    run(tiny(seed=1), lgg, tmp_path / "three")
    assert not torch.equal(
        trained(tmp_path / "one")["head.weight"], trained(tmp_path / "three")["head.weight"]
    )


def test_precision_may_differ_between_runs_of_one_process(lgg: Path, tmp_path: Path) -> None:
    for precision in ("bf16", "no", "bf16"):
        run(tiny(precision=precision), lgg, tmp_path / f"{precision}{len(list(tmp_path.iterdir()))}")
    same(tmp_path / "bf160", tmp_path / "bf162")
    assert not torch.equal(
        trained(tmp_path / "bf160")["head.weight"], trained(tmp_path / "no1")["head.weight"]
    )


# --- killed and resumed -----------------------------------------------------------------------------------

PLATEAU = tiny(
    optim=Optim(lr=3e-3, schedule="plateau", plateau_patience=0, ema=0.5),
    data=Data(split="folds.json", samples_per_epoch=8),
    accumulate=2,
    stages=(Stage(size=32, epochs=3, batch=2),),
)


@pytest.mark.parametrize(
    ("recipe", "name", "call", "after"),
    [
        (tiny(), "train_epoch", 1, False),
        (tiny(), "dice", 1, True),
        (tiny(precision="no"), "save", 2, True),
        (tiny(), "write_logs", 2, True),
        (tiny(), "finish", 1, False),
        (PLATEAU, "write_logs", 3, False),
    ],
    ids=lambda value: str(value) if isinstance(value, (str, int)) else "",
)
def test_a_run_that_failed_between_epochs_goes_on(
    recipe: Recipe,
    name: str,
    call: int,
    after: bool,
    lgg: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        kill_at(patch, loop, name, call, after=after)
        with pytest.raises(KilledError):
            run(recipe, lgg, tmp_path / "killed")
    run(recipe, lgg, tmp_path / "killed", resume=True)
    run(recipe, lgg, tmp_path / "whole")
    same(tmp_path / "killed", tmp_path / "whole")


def test_a_run_that_failed_in_every_epoch_goes_on(
    lgg: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In an epoch of four micro-batches, in the first, the second and the third epoch, and while it ends."""
    for owner, name, call in ((loop.Heads, "forward", 3), (loop.Heads, "forward", 6)):
        with monkeypatch.context() as patch:
            kill_at(patch, owner, name, call, after=True)
            with pytest.raises(KilledError):
                run(PLATEAU, lgg, tmp_path / "killed", resume=True)
    for name, call, after in (("train_epoch", 2, True), ("write_logs", 1, True)):
        with monkeypatch.context() as patch:
            kill_at(patch, loop, name, call, after=after)
            with pytest.raises(KilledError):
                run(PLATEAU, lgg, tmp_path / "killed", resume=True)
    run(PLATEAU, lgg, tmp_path / "killed", resume=True)
    run(PLATEAU, lgg, tmp_path / "whole")
    same(tmp_path / "killed", tmp_path / "whole")


KILLER = """
import os, signal, sys
from pathlib import Path

import torch

torch.set_num_threads(1)
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
# Else each child would import them for itself.
import albumentations, torch.utils.tensorboard
from accelerate.optimizer import AcceleratedOptimizer
from test_training_loop import PLATEAU, run, tiny

def die_at(owner, name, call):
    original, calls = getattr(owner, name), 0
    def wrapped(*args, **kwargs):
        nonlocal calls
        calls += 1
        value = original(*args, **kwargs)
        if calls == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return value
    setattr(owner, name, wrapped)

def forked(act):
    child = os.fork()
    if child == 0:
        act()
        os._exit(0)
    return os.waitpid(child, 0)[1]

lgg, out = Path(sys.argv[1]), Path(sys.argv[2])
for name, recipe, owner, method, call in (
    ("middle", tiny(), AcceleratedOptimizer, "step", 5),
    ("saving", tiny(), torch, "save", 2),
    ("plateau", PLATEAU, AcceleratedOptimizer, "step", 7),
):
    def killed():
        die_at(owner, method, call)
        run(recipe, lgg, out / name)
    print(name, forked(killed), forked(lambda: run(recipe, lgg, out / name, resume=True)), flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_run_killed_by_the_system_goes_on(lgg: Path, tmp_path: Path) -> None:
    """SIGKILL in the middle of an epoch and of writing a checkpoint, then resumed in another process."""
    result = subprocess.run(
        [sys.executable, "-c", KILLER, str(lgg), str(tmp_path)],
        cwd=Path(__file__).parent,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parent.parent)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    kill = int(signal.SIGKILL)
    assert result.stdout.split() == [
        "middle",
        f"{kill}",
        "0",
        "saving",
        f"{kill}",
        "0",
        "plateau",
        f"{kill}",
        "0",
    ]
    run(tiny(), lgg, tmp_path / "whole")
    same(tmp_path / "middle", tmp_path / "whole")
    same(tmp_path / "saving", tmp_path / "whole")
    run(PLATEAU, lgg, tmp_path / "whole_plateau")
    same(tmp_path / "plateau", tmp_path / "whole_plateau")


def test_resuming_a_run_that_has_ended_changes_nothing(lgg: Path, tmp_path: Path) -> None:
    first = run(tiny(), lgg, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert run(tiny(), lgg, tmp_path, resume=True) == first
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_resume_without_a_checkpoint_starts(lgg: Path, tmp_path: Path) -> None:
    run(tiny(), lgg, tmp_path / "one", resume=True)
    run(tiny(), lgg, tmp_path / "two")
    same(tmp_path / "one", tmp_path / "two")


# --- refusals ---------------------------------------------------------------------------------------------


def sentence(caught: pytest.ExceptionInfo[BrainsegError]) -> str:
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_a_folder_with_a_run_is_not_overwritten(lgg: Path, tmp_path: Path) -> None:
    run(tiny(), lgg, tmp_path)
    before = (tmp_path / "last.pt").read_bytes()
    with pytest.raises(RecipeError) as caught:
        run(tiny(seed=1), lgg, tmp_path)
    assert "add --resume" in sentence(caught)
    assert "another --out" in sentence(caught)
    assert (tmp_path / "last.pt").read_bytes() == before
    assert json.loads((tmp_path / "recipe.json").read_text())["seed"] == 0


def test_another_recipe_does_not_resume_a_run(lgg: Path, tmp_path: Path) -> None:
    run(tiny(), lgg, tmp_path)
    other = tiny(augment=Augment(rotate=5.0), seed=3)
    with pytest.raises(RecipeError) as caught:
        run(other, lgg, tmp_path, resume=True)
    assert "differs in augment.rotate and seed;" in sentence(caught)
    with pytest.raises(RecipeError, match="stages"):
        run(tiny(stages=(Stage(32, 3, 2),)), lgg, tmp_path, resume=True)

    split = json.loads((lgg / "folds.json").read_text())["folds"]
    (tmp_path / "folds.json").write_text(json.dumps({"folds": [split[1][:1], split[0] + split[1][1:]]}))
    with pytest.raises(RecipeError, match="differs in training_patients and validation_patients;"):
        loop.train(tiny(), tmp_path, lgg, tmp_path, resume=True)

    (tmp_path / "recipe.json").write_text("{")
    with pytest.raises(RecipeError, match=r"recipe\.json is damaged or missing"):
        run(tiny(), lgg, tmp_path, resume=True)
    (tmp_path / "recipe.json").unlink()
    with pytest.raises(RecipeError, match=r"recipe\.json is damaged or missing"):
        run(tiny(), lgg, tmp_path, resume=True)


@pytest.mark.parametrize("damage", ["cut", "text", "empty", "other"])
def test_a_damaged_checkpoint(damage: str, lgg: Path, tmp_path: Path) -> None:
    run(tiny(), lgg, tmp_path)
    last = tmp_path / "last.pt"
    if damage == "other":
        state = torch.load(last, weights_only=True)
        state["network"].popitem()
        torch.save(state, last)
    else:
        content = last.read_bytes()
        last.write_bytes({"cut": content[: len(content) // 2], "text": b"hello", "empty": b""}[damage])
    with pytest.raises(RecipeError) as caught:
        run(tiny(), lgg, tmp_path, resume=True)
    assert "last.pt is damaged or of another network; delete it" in sentence(caught)


@pytest.mark.parametrize("call", [1, 5])
def test_a_loss_that_is_no_number_stops_the_run(
    call: int, lgg: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = loop.Heads.forward, 0

    def broken(self: loop.Heads, x: Tensor) -> list[Tensor]:
        nonlocal calls
        calls += 1
        return [logits * (float("nan") if calls == call else 1.0) for logits in original(self, x)]

    monkeypatch.setattr(loop.Heads, "forward", broken)
    with pytest.raises(BrainsegError) as caught:
        run(tiny(), lgg, tmp_path)
    epoch, step = (1, 1) if call == 1 else (2, 5)
    assert f"not finite in epoch {epoch}, step {step};" in sentence(caught)
    assert len(metrics(tmp_path)) == 1 if call == 5 else not (tmp_path / "last.pt").exists()


def test_what_is_unfit_is_said_before_the_first_step(lgg: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a folder"):
        loop.train(tiny(), lgg, lgg / "none", tmp_path / "a", resume=False)
    with pytest.raises(InputError, match="is not a split"):
        loop.train(tiny(), tmp_path, lgg, tmp_path / "b", resume=False)
    with pytest.raises(InputError, match="has folds 0 to 1"):
        run(tiny(data=Data(split="folds.json", fold=2)), lgg, tmp_path / "c")
    (tmp_path / "file").touch()
    with pytest.raises(RecipeError, match="cannot be written"):
        run(tiny(), lgg, tmp_path / "file")
    with pytest.raises(RecipeError, match="cannot be written"):
        run(tiny(), lgg, tmp_path / "file" / "below")
    # An attempt that came to nothing does not stand in the way of the next.
    run(tiny(), lgg, tmp_path / "a")


def test_validation_patients_without_any_tumour(lgg: Path, tmp_path: Path) -> None:
    from brainseg.io import read_study  # noqa: PLC0415

    study = read_study(lgg / PATIENTS[0])
    blank = replace(study, reference=np.zeros(study.shape, bool))
    with pytest.raises(InputError, match="no validation patient has tumour"):
        loop.Validation([blank], Preprocess(size=SIZE))
    loop.Validation([blank, study], Preprocess(size=SIZE))


# --- optimisation -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("pieces", [2, 4])
def test_accumulated_micro_batches_equal_the_full_batch(
    pieces: int, lgg: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GroupNorm, which sees one sample at a time; BatchNorm sees the batch, so there they must differ.

    With plain gradient descent: Adam divides each gradient by its own size, so that where one is nothing but
    rounding its step is as long as any other.
    """
    monkeypatch.setattr(torch.optim, "AdamW", torch.optim.SGD)

    def weights(norm: str, accumulate: int) -> dict[str, Tensor]:
        recipe = tiny(
            model=ModelSpec("unet", width=16, norm=norm),  # type: ignore[arg-type]
            stages=(Stage(32, 2, 4 // accumulate),),
            data=Data(split="folds.json", samples_per_epoch=8),
            optim=Optim(lr=0.1, warmup_steps=2, ema=0.5),
            accumulate=accumulate,
            precision="no",
        )
        run(recipe, lgg, tmp_path / f"{norm}{accumulate}")
        assert [int(row["step"]) for row in metrics(tmp_path / f"{norm}{accumulate}")] == [2, 4]
        return trained(tmp_path / f"{norm}{accumulate}")

    whole, parts = weights("group", 1), weights("group", pieces)
    worst = max(float((whole[key] - parts[key]).abs().max()) for key in whole)
    assert worst < 1e-5
    if pieces == 2:
        whole, parts = weights("batch", 1), weights("batch", pieces)
        assert max(float((whole[key] - parts[key]).abs().max()) for key in whole) > 1e-5


def test_early_stopping(lgg: Path, tmp_path: Path) -> None:
    """A learning rate of next to nothing: the first validation stays the best."""
    recipe = tiny(
        stages=(Stage(32, 10, 2),),
        data=Data(split="folds.json", samples_per_epoch=2),
        optim=Optim(lr=1e-12, ema=0.0, warmup_steps=0),
        validate_every=2,
        patience=2,
        model=ModelSpec("unet", width=4),
    )
    run(recipe, lgg, tmp_path)
    rows = metrics(tmp_path)
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [bool(row["dice_mean"]) for row in rows] == [False, True] * 3
    run(recipe, lgg, tmp_path, resume=True)
    assert len(metrics(tmp_path)) == 6, "a run that has stopped stays stopped"


def test_the_last_epoch_is_always_validated(lgg: Path, tmp_path: Path) -> None:
    run(tiny(validate_every=2), lgg, tmp_path)
    assert [bool(row["dice_mean"]) for row in metrics(tmp_path)] == [False, True, True]


def test_schedules() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))

    def made(optim: Optim) -> tuple[torch.optim.Optimizer, loop.Schedule]:
        optimiser = torch.optim.AdamW([parameter], lr=optim.lr)
        return optimiser, loop.make_schedule(tiny(optim=optim), optimiser, 12)

    optimiser, schedule = made(Optim(lr=1.0, warmup_steps=4))
    rates = []
    for _ in range(12):
        rates.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()  # type: ignore[call-arg]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates[8] == pytest.approx(0.5)
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert optimiser.param_groups[0]["lr"] == pytest.approx(0)

    optimiser, schedule = made(Optim(lr=1.0, schedule="plateau", plateau_patience=1))
    assert isinstance(schedule, torch.optim.lr_scheduler.ReduceLROnPlateau)
    seen = []
    for dice in (0.1, 0.2, 0.2, 0.2, 0.2, 0.3):
        schedule.step(dice)
        seen.append(optimiser.param_groups[0]["lr"])
    assert seen == [1.0, 1.0, 1.0, 0.5, 0.5, 0.5]


def test_weight_decay_spares_norms_and_biases() -> None:
    network = build(ModelSpec("attention_unetpp", width=4))
    decayed, free = loop.parameter_groups(network, 0.1)
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.1, 0.0)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    assert len(decayed["params"]) + len(free["params"]) == len(names)
    assert {names[id(p)].rsplit(".", 1)[1] for p in decayed["params"]} == {"weight"}
    assert all(p.ndim == 4 for p in decayed["params"])


def test_the_averaged_weights_are_the_ones_kept(lgg: Path, tmp_path: Path) -> None:
    recipe = tiny(optim=Optim(lr=3e-3, warmup_steps=0, ema=0.9), validate_every=3)
    run(recipe, lgg, tmp_path)
    state = torch.load(tmp_path / "last.pt", weights_only=True)
    kept = load(tmp_path / "weights").network.state_dict()
    for key, value in kept.items():
        averaged = state["averaged"][f"module.{key}"]
        if value.ndim > 1:
            assert torch.equal(value, averaged.half().float()), key
            assert not torch.equal(averaged, state["network"][key]), key
        else:
            assert torch.equal(value, averaged), key


def test_the_moving_average_looks_back_no_further_than_there_are_steps() -> None:
    values = np.random.default_rng(0).normal(size=40)
    expected = values[0]
    for step, value in enumerate(values[1:], 1):
        decay = min(0.6, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    network = torch.nn.Linear(1, 1, bias=False)
    averaged = AveragedModel(network, multi_avg_fn=loop.moving_average(0.6))
    for value in values:
        torch.nn.init.constant_(network.weight, float(value))
        averaged.update_parameters(network)
    assert averaged.module.weight.item() == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("architecture", ["unetpp", "attention_unetpp"])
def test_deep_supervision_trains_every_column(architecture: str, lgg: Path, tmp_path: Path) -> None:
    weights = []
    for deep in (True, False):
        recipe = tiny(
            model=ModelSpec(architecture, width=4),
            stages=(Stage(32, 1, 2),),
            loss=LossChoice(deep_supervision=deep),
        )
        run(recipe, lgg, tmp_path / str(deep))
        weights.append(trained(tmp_path / str(deep)))
    deep_one, plain = weights
    assert deep_one.keys() == plain.keys(), "training-only: nothing extra is stored"
    assert not torch.equal(deep_one["nodes.0_1.block.0.weight"], plain["nodes.0_1.block.0.weight"])
    x = torch.rand(2, 3, 32, 32)
    network = build(ModelSpec(architecture, width=4))
    assert len(loop.Heads(network, deep=True)(x)) == 4
    assert len(loop.Heads(network, deep=False)(x)) == 1


# --- initial weights --------------------------------------------------------------------------------------


def initial(folder: Path, spec: ModelSpec, patients: tuple[str, ...]) -> Path:
    torch.manual_seed(5)
    card = WeightsCard(
        name="start",
        spec=spec,
        preprocess={"size": SIZE},
        threshold=0.5,
        keep="all",
        sha256="",
        licence="none",
        training_patients=patients,
    )
    save(folder, build(spec), card)
    return folder


def test_init_takes_over_what_fits(lgg: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = initial(tmp_path / "start", ModelSpec("unet", width=4), (PATIENTS[1], "SYN_CC_0009"))
    seen: dict[str, Tensor] = {}

    def look(_recipe: Recipe, run: loop.Run, *_: Any) -> float:
        seen.update({key: value.clone() for key, value in run.network.state_dict().items()})
        return 0.0

    monkeypatch.setattr(loop, "train_epoch", look)
    recipe = tiny(model=ModelSpec("attention_unet", width=4), init=str(before), stages=(Stage(32, 1, 2),))
    card = run(recipe, lgg, tmp_path / "out")
    start = load(before).network.state_dict()
    assert all(torch.equal(seen[key], value) for key, value in start.items())
    assert len(seen) > len(start), "the gates are new"
    assert card.training_patients == (*PATIENTS[1:], "SYN_CC_0009"), "what it has seen, it has seen"

    fresh: dict[str, Tensor] = dict(seen)
    run(replace(recipe, init=""), lgg, tmp_path / "fresh")
    gates = [key for key in seen if ".gates." in key]
    assert gates
    assert all(torch.equal(seen[key], fresh[key]) for key in gates), "the rest is as without init"


def test_init_may_lie_beside_the_recipe(lgg: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    initial(tmp_path / "beside" / "start", ModelSpec("unet", width=4), (PATIENTS[1],))
    (tmp_path / "beside" / "folds.json").write_bytes((lgg / "folds.json").read_bytes())
    monkeypatch.setattr(loop, "train_epoch", lambda *_: 0.0)
    recipe = tiny(model=ModelSpec("attention_unet", width=4), init="start", stages=(Stage(32, 1, 2),))
    card = loop.train(recipe, tmp_path / "beside", lgg, tmp_path / "out", resume=False)
    assert card.init == f"start@{load(tmp_path / 'beside' / 'start').card.sha256}"


def test_init_that_would_mislead_or_does_not_fit(lgg: Path, tmp_path: Path) -> None:
    leaking = initial(tmp_path / "leaking", ModelSpec("unet", width=4), tuple(PATIENTS[:2]))
    with pytest.raises(RecipeError) as caught:
        run(tiny(init=str(leaking)), lgg, tmp_path / "a")
    assert f"was trained on 1 validation patient, first {PATIENTS[0]}" in sentence(caught)
    with pytest.raises(WeightsError, match="no weights"):
        run(tiny(init="nothing here"), lgg, tmp_path / "b")


# --- several processes ------------------------------------------------------------------------------------

RECIPE = """
name = "tiny"
precision = "no"
accumulate = 2
model = {architecture = "attention_unet", width = 16, norm = "group"}
preprocess = {size = 64}
data = {split = "folds.json", samples_per_epoch = 8}
optim = {lr = 3e-3, warmup_steps = 2, ema = 0.5}
stages = [{size = 32, epochs = 2, batch = 2}, {size = 64, epochs = 1, batch = 4}]
"""


def launch(
    processes: int, lgg: Path, out: Path, *options: str, cpu: str = "1"
) -> subprocess.CompletedProcess[str]:
    """`brainseg train` in one or more processes on the CPU; accelerate launches GPUs by the same torchrun."""
    recipe = lgg / "tiny.toml"
    recipe.write_text(RECIPE)
    command = ["-m", "brainseg", "train", str(recipe), "--data", str(lgg), "--out", str(out), *options]
    if processes > 1:
        command = [*f"-m torch.distributed.run --standalone --nproc_per_node {processes}".split(), *command]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": cpu}
    return subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, env=environment, timeout=300, check=False
    )


def test_two_processes_give_the_result_of_one(lgg: Path, tmp_path: Path) -> None:
    """Same global batch, gradients averaged by gloo: equal up to the order of sums."""
    for processes in (1, 2):
        done = launch(processes, lgg, tmp_path / str(processes))
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("weights in") == 1, "one process speaks for all"
    one, two = (torch.load(tmp_path / n / "last.pt", weights_only=True) for n in ("1", "2"))
    # Adam divides gradients by their size, rounding included where there is little else: compare its
    # averages of the gradients, which are linear in them. Gradients of one half alone differ by their size.
    means = [
        torch.cat([parameter["exp_avg"].flatten() for parameter in run["optimiser"]["state"].values()])
        for run in (one, two)
    ]
    assert torch.linalg.norm(means[1] - means[0]) < 0.03 * torch.linalg.norm(means[0])
    rows = [one["progress"]["history"], two["progress"]["history"]]
    assert [row["step"] for row in rows[0]] == [row["step"] for row in rows[1]] == [2, 4, 5]
    for alone, shared in zip(*rows, strict=True):
        assert shared["loss"] == pytest.approx(alone["loss"], rel=1e-4)
        assert shared["dice_mean"] == pytest.approx(alone["dice_mean"], abs=0.02)
    cards = [json.loads((tmp_path / n / "weights/config.json").read_bytes()) for n in ("1", "2")]
    assert cards[0].keys() == cards[1].keys()
    assert cards[0]["keep"] == cards[1]["keep"]


def test_several_processes_refuse_what_would_differ(lgg: Path, tmp_path: Path) -> None:
    for override, says in (
        ("model.norm=batch", "BatchNorm over several processes needs CUDA devices"),
        ("stages=[{size=32, epochs=1, batch=3}]", "a batch of 3 cannot be shared by 2 processes"),
    ):
        done = launch(2, lgg, tmp_path, "--set", override)
        assert done.returncode != 0
        assert says in done.stderr
        assert not (tmp_path / "recipe.json").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is found without being told")
def test_processes_that_do_not_know_of_each_other_are_refused(lgg: Path, tmp_path: Path) -> None:
    done = launch(2, lgg, tmp_path, cpu="0")
    assert done.returncode != 0
    assert "these processes would each train alone" in done.stderr
    assert not (tmp_path / "recipe.json").exists()


def test_what_the_first_process_refuses_all_refuse(lgg: Path, tmp_path: Path) -> None:
    (tmp_path / "last.pt").write_bytes(b"a run")
    done = launch(2, lgg, tmp_path)
    assert done.returncode != 0
    assert done.stderr.count("holds a run; add --resume") == 2
