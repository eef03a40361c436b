"""The training loop, to be read from top to bottom."""

from __future__ import annotations

import csv
import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from brainseg import __version__
from brainseg.checkpoint import initialise_from, load, save
from brainseg.inference import BATCH, probabilities
from brainseg.io.text import listed, plural
from brainseg.metrics import dice
from brainseg.models import UNet, UNetPP, build
from brainseg.postprocess import segment
from brainseg.preprocess import Preprocess, invert
from brainseg.training.config import Recipe, RecipeError
from brainseg.training.data import SliceData, batches, draws, read_fold, read_patients
from brainseg.training.losses import make_loss
from brainseg.types import (
    BrainsegError,
    FloatArray,
    InputError,
    Keep,
    Study,
    Undefined,
    WeightsCard,
)

LICENCE = "cc-by-nc-sa-4.0"
THRESHOLDS = tuple(round(0.20 + 0.05 * step, 2) for step in range(14))
Report = Callable[[str, int, int], None]
Schedule = LambdaLR | ReduceLROnPlateau


class Heads(nn.Module):
    """The network as training sees it: a list of logits, one for each column under deep supervision."""

    def __init__(self, network: UNet | UNetPP, deep: bool) -> None:
        super().__init__()
        self.network = network
        self.deep = deep

    def forward(self, x: Tensor) -> list[Tensor]:
        if self.deep:
            assert isinstance(self.network, UNetPP)
            return self.network.deep_logits(x)
        return [self.network(x)]


@dataclass
class Progress:
    """Where a run stands; saved with each checkpoint."""

    epoch: int = 0
    step: int = 0
    best: float = -1.0
    since_best: int = 0
    history: list[dict[str, float]] = field(default_factory=list)


@dataclass(eq=False)
class Run:
    """What changes while a recipe runs: all of it is in a checkpoint."""

    network: UNet | UNetPP
    averaged: AveragedModel
    optimiser: torch.optim.Optimizer
    schedule: Schedule
    progress: Progress = field(default_factory=Progress)

    def save(self, path: Path) -> None:
        """Write a checkpoint; a kill in between leaves the one before."""
        state = {
            "network": self.network.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state_all(),
            "progress": asdict(self.progress),
        }
        torch.save(state, path.with_suffix(".tmp"))
        os.replace(path.with_suffix(".tmp"), path)

    def restore(self, path: Path) -> None:
        """Take over a checkpoint.

        Raises:
            RecipeError: if it is damaged or of another network.
        """
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            self.network.load_state_dict(state["network"])
            self.averaged.load_state_dict(state["averaged"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.schedule.load_state_dict(state["schedule"])
            torch.set_rng_state(state["rng"])
            torch.cuda.set_rng_state_all(state.get("cuda_rng", []))
            self.progress = Progress(**state["progress"])
        # The unpickler raises almost anything on damaged bytes.
        except Exception as error:
            raise RecipeError(
                f"{path} is damaged or of another network; delete it to start again, or choose another --out"
            ) from error


def train(
    recipe: Recipe,
    recipe_folder: Path,
    data_root: Path,
    out: Path,
    *,
    resume: bool,
    report: Report | None = None,
) -> WeightsCard:
    """Run a recipe and return the card.

    Leaves `out`/{recipe.json, metrics.csv, tensorboard/, last.pt, weights/}.

    An epoch ends with an atomic checkpoint. A run killed at any moment and resumed goes back to the last one
    and gives the same weights as a run that was never killed, bit for bit on the CPU.

    Args:
        recipe: what to do.
        recipe_folder: the split's path is relative to it.
        data_root: folder of patient folders.
        out: folder of this run.
        resume: go on from `out`/last.pt if it is there.
        report: called with (sentence, steps done, steps in all) as the run goes on.

    Raises:
        InputError, RecipeError, WeightsError: before the first step, when data, split, initial weights or
            `out` are unfit.
        BrainsegError: when the loss or its gradient stops being a finite number.
    """
    training_ids, validation_ids = read_fold(recipe_folder / recipe.data.split, recipe.data.fold)
    total = sum(recipe.steps_in(epoch) for epoch in range(recipe.epochs))
    if report:
        report(f"reading {len(training_ids) + len(validation_ids)} patients", 0, total)
    torch.manual_seed(recipe.seed)
    data = SliceData(read_patients(data_root, training_ids), recipe.preprocess, recipe.augment)
    validation = Validation(read_patients(data_root, validation_ids), recipe.preprocess)
    begin(out, recipe, training_ids, validation_ids, resume=resume)

    # Accelerate keeps the precision for the whole process, where an earlier run may have set another.
    AcceleratorState._reset_state()
    accelerator = Accelerator(
        gradient_accumulation_steps=recipe.accumulate,
        mixed_precision=recipe.precision,
        step_scheduler_with_optimizer=False,
    )
    network, seen, origin = make_network(recipe, training_ids, validation_ids)
    averaged = AveragedModel(
        network,
        device=accelerator.device,
        multi_avg_fn=get_ema_multi_avg_fn(recipe.optim.ema),  # type: ignore[no-untyped-call]
        use_buffers=True,
    )
    heads = Heads(network, recipe.loss.deep_supervision).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(parameter_groups(network, recipe.optim.weight_decay), lr=recipe.optim.lr)
    heads, optimiser = accelerator.prepare(heads, optimiser)
    run = Run(network, averaged, optimiser, make_schedule(recipe, optimiser, total))
    if resume and (out / "last.pt").is_file():
        run.restore(out / "last.pt")
    progress = run.progress
    card = WeightsCard(
        name=recipe.name,
        spec=recipe.model,
        preprocess=asdict(recipe.preprocess),
        threshold=0.5,
        keep="all",
        sha256="",
        licence=LICENCE,
        training_patients=seen,
        validation_patients=validation_ids,
        version=__version__,
        init=origin,
    )

    while progress.epoch < recipe.epochs and progress.since_best < recipe.patience:
        started = time.perf_counter()
        stage = recipe.stage_of(progress.epoch)
        data.order = draws(data.has_tumour, recipe.data, stage.size, recipe.seed, progress.epoch)
        data.order = data.order[: recipe.steps_in(progress.epoch) * stage.batch * recipe.accumulate]
        loss = train_epoch(
            recipe, run, accelerator, heads, batches(data, stage.batch, recipe.data.workers), total, report
        )
        progress.epoch += 1
        row = {
            "epoch": progress.epoch,
            "step": progress.step,
            "size": stage.size,
            "lr": optimiser.param_groups[0]["lr"],
            "loss": loss,
            "samples_per_second": len(data.order) / (time.perf_counter() - started),
        }
        if progress.epoch % recipe.validate_every == 0 or progress.epoch == recipe.epochs:
            scores = validation.dice(averaged.module, accelerator.device)
            row |= {"dice_mean": float(np.mean(scores)), "dice_median": float(np.median(scores))}
            if isinstance(run.schedule, ReduceLROnPlateau):
                run.schedule.step(row["dice_mean"])
            progress.since_best += 1
            if row["dice_mean"] > progress.best:
                progress.best, progress.since_best = row["dice_mean"], 0
                save(out / "weights", cast("UNet | UNetPP", averaged.module), card)
        progress.history.append(row)
        write_logs(out, progress.history)
        run.save(out / "last.pt")
        if report:
            report(", ".join(f"{key} {value:.4g}" for key, value in row.items()), progress.step, total)
    return finish(out / "weights", validation, accelerator.device)


def train_epoch(
    recipe: Recipe,
    run: Run,
    accelerator: Accelerator,
    heads: nn.Module,
    pairs: Iterable[tuple[Tensor, Tensor]],
    total: int,
    report: Report | None,
) -> float:
    """One pass over `pairs` of images (B, 3, h, w) and masks (B, 1, h, w); returns the mean loss."""
    loss_of = make_loss(recipe.loss.name, recipe.loss.alpha, recipe.loss.beta, recipe.loss.smooth)
    progress = run.progress
    heads.train()
    losses = []
    for pair in pairs:
        images = pair[0].to(accelerator.device, memory_format=torch.channels_last, non_blocking=True)
        masks = pair[1].to(accelerator.device, non_blocking=True)
        with accelerator.accumulate(heads):
            loss = torch.stack([loss_of(logits.float(), masks) for logits in heads(images)]).mean()
            losses.append(loss.detach())
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                norm = accelerator.clip_grad_norm_(heads.parameters(), recipe.optim.clip)
                if not torch.isfinite(loss + norm):
                    raise BrainsegError(
                        f"the loss or its gradient is not finite in epoch {progress.epoch + 1}, step "
                        f"{progress.step + 1}; lower optim.lr, or use precision no"
                    )
            # Accelerate lets these two pass until the last micro-batch of a step.
            run.optimiser.step()
            run.optimiser.zero_grad(set_to_none=True)
        if accelerator.sync_gradients:
            run.averaged.update_parameters(run.network)
            if isinstance(run.schedule, LambdaLR):
                run.schedule.step()
            progress.step += 1
            if report and (progress.step % 10 == 0 or progress.step == total):
                report(f"epoch {progress.epoch + 1}/{recipe.epochs}", progress.step, total)
    return float(torch.stack(losses).mean())


def begin(
    out: Path, recipe: Recipe, training_ids: Sequence[str], validation_ids: Sequence[str], *, resume: bool
) -> None:
    """Write the recipe as it stands, overrides and patients included, to `out`/recipe.json.

    Raises:
        RecipeError: if `out` holds a run, and `resume` is not asked for or the run had another recipe; or if
            it cannot be written.
    """
    frozen = out / "recipe.json"
    settings = asdict(recipe) | {"training_patients": training_ids, "validation_patients": validation_ids}
    text = json.dumps(settings, indent=1) + "\n"
    if (out / "last.pt").is_file():
        if not resume:
            raise RecipeError(f"{out} holds a run; add --resume to go on with it, or choose another --out")
        changed = _changed(frozen, text)
        if changed:
            raise RecipeError(
                f"{out} was begun with another recipe, which differs in {listed(changed)}; "
                "go on with the same one, or choose another --out"
            )
    try:
        out.mkdir(parents=True, exist_ok=True)
        frozen.with_suffix(".tmp").write_text(text, encoding="utf-8")
        os.replace(frozen.with_suffix(".tmp"), frozen)
    except OSError as error:
        raise RecipeError(f"{out} cannot be written ({error.strerror}); choose another --out") from error


def _changed(frozen: Path, text: str) -> list[str]:
    """Keys whose values differ, less those that leave the weights as they are."""

    def flat(value: Any, key: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            return {key: value}
        items = [flat(item, f"{key}.{name}" if key else name) for name, item in value.items()]
        return {name: item for part in items for name, item in part.items() if name != "data.workers"}

    try:
        before, now = flat(json.loads(frozen.read_bytes()), ""), flat(json.loads(text), "")
    except (OSError, ValueError) as error:
        raise RecipeError(
            f"{frozen} is damaged or missing, so that nothing says what this run was; choose another --out"
        ) from error
    return [key for key in before | now if before.get(key) != now.get(key)]


def make_network(
    recipe: Recipe, training_ids: Sequence[str], validation_ids: Sequence[str]
) -> tuple[UNet | UNetPP, tuple[str, ...], str]:
    """The network to train, the patients it or its initial weights will have seen, and those weights' origin.

    Raises:
        RecipeError: if the initial weights were trained on validation patients, or hold nothing that fits.
        WeightsError: if they cannot be read.
    """
    network = build(recipe.model)
    if not recipe.init:
        return network, tuple(training_ids), ""
    # Building a second network must not shift the random numbers that dropout draws.
    with torch.random.fork_rng():
        start = load(recipe.init)
    leaked = [patient for patient in validation_ids if patient in start.card.training_patients]
    if leaked:
        raise RecipeError(
            f"init {recipe.init} was trained on {plural(len(leaked), 'validation patient')}, "
            f"first {leaked[0]}; choose the fold it was trained on, or other weights"
        )
    if initialise_from(network, start.network) == 0:
        raise RecipeError(
            f"init {recipe.init} has no tensor that fits this network; choose others or leave it out"
        )
    seen = tuple(sorted({*training_ids, *start.card.training_patients}))
    return network, seen, f"{start.card.name}@{start.card.sha256}"


def parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay on convolution weights; none on norms and biases, which have one dimension."""
    decayed = [p for p in network.parameters() if p.ndim > 1]
    free = [p for p in network.parameters() if p.ndim <= 1]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]


def make_schedule(recipe: Recipe, optimiser: torch.optim.Optimizer, total: int) -> Schedule:
    """The learning rate over a run of `total` optimiser steps."""
    if recipe.optim.schedule == "plateau":
        return ReduceLROnPlateau(optimiser, mode="max", factor=0.5, patience=recipe.optim.plateau_patience)
    warmup = recipe.optim.warmup_steps

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return float(0.5 * (1 + np.cos(np.pi * (step - warmup) / max(1, total - warmup))))

    return LambdaLR(optimiser, factor)


class Validation:
    """Validation patients, preprocessed once.

    Raises:
        InputError: if none of them has tumour.
    """

    def __init__(self, studies: Sequence[Study], preprocess: Preprocess) -> None:
        if not any(study.reference is not None and study.reference.any() for study in studies):
            raise InputError("no validation patient has tumour; choose another data.fold or another split")
        self.references = [study.reference for study in studies]
        self.inputs = [preprocess.apply(study) for study in studies]

    def predict(self, network: nn.Module, device: torch.device) -> list[FloatArray]:
        """Probabilities (S, H, W) of each patient, without flips."""
        network.eval()
        out = []
        for images, geometry in self.inputs:
            parts = [
                probabilities(network, images[n : n + BATCH], device) for n in range(0, len(images), BATCH)
            ]
            out.append(invert(np.concatenate(parts), geometry))
        return out

    def dice(self, network: nn.Module, device: torch.device) -> list[float]:
        """Volumetric Dice of each patient at threshold 0.5; patients where it is not computable left out."""
        return self.score(self.predict(network, device), 0.5, "all")

    def score(self, predicted: Sequence[FloatArray], threshold: float, keep: Keep) -> list[float]:
        """Volumetric Dice of each patient at an operating point."""
        found = []
        for probability, reference in zip(predicted, self.references, strict=True):
            assert reference is not None
            value = dice(segment(probability, threshold, keep), reference)
            if not isinstance(value, Undefined):
                found.append(value)
        return found


def finish(folder: Path, validation: Validation, device: torch.device) -> WeightsCard:
    """Choose threshold and post-processing of the best weights on the validation patients; write the card."""
    model = load(folder)
    predicted = validation.predict(model.network.to(device, memory_format=torch.channels_last), device)  # type: ignore[call-overload]
    points: list[tuple[float, float, Keep]] = [
        (float(np.mean(validation.score(predicted, threshold, keep))), threshold, keep)
        for keep in ("all", "largest")
        for threshold in THRESHOLDS
    ]
    # Among equals, the point nearest to 0.5, and no post-processing rather than some.
    _, threshold, keep = max(points, key=lambda point: (point[0], -abs(point[1] - 0.5), point[2] == "all"))
    return save(folder, model.network, replace(model.card, threshold=threshold, keep=keep))


def write_logs(out: Path, history: Sequence[dict[str, float]]) -> None:
    """metrics.csv and TensorBoard events, written anew, so that a resumed run leaves no rows twice."""
    names = list(dict.fromkeys(key for row in history for key in row))
    temporary = out / "metrics.tmp"
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(history)
    os.replace(temporary, out / "metrics.csv")
    from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - slow to import

    row = history[-1]
    with SummaryWriter(str(out / "tensorboard"), purge_step=int(row["epoch"])) as board:
        for key, value in row.items():
            board.add_scalar(key, value, int(row["epoch"]))
