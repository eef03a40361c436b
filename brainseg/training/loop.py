"""The training loop, to be read from top to bottom."""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from brainseg import __version__
from brainseg.checkpoint import initialise_from, load, save
from brainseg.inference import BATCH, probabilities
from brainseg.metrics import dice
from brainseg.models import UNet, UNetPP, build
from brainseg.postprocess import segment
from brainseg.preprocess import Preprocess, invert
from brainseg.training.config import Recipe
from brainseg.training.data import SliceData, batches, draws, read_fold, read_patients
from brainseg.training.losses import make_loss
from brainseg.types import FloatArray, Keep, Study, Undefined, WeightsCard

LICENCE = "cc-by-nc-sa-4.0"
THRESHOLDS = tuple(round(0.20 + 0.05 * step, 2) for step in range(14))
Report = Callable[[str, int, int], None]


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


def train(
    recipe: Recipe,
    recipe_folder: Path,
    data_root: Path,
    out: Path,
    *,
    resume: bool,
    report: Report | None = None,
) -> WeightsCard:
    """Run a recipe; leaves `out`/{metrics.csv, tensorboard, last.pt, weights/} and returns the card.

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
        InputError, RecipeError, WeightsError: before the first step, when data, split or initial weights are unfit.
    """
    torch.manual_seed(recipe.seed)
    accelerator = Accelerator(
        gradient_accumulation_steps=recipe.accumulate,
        mixed_precision=recipe.precision,
        step_scheduler_with_optimizer=False,
    )
    training_ids, validation_ids = read_fold(recipe_folder / recipe.data.split, recipe.data.fold)
    preprocess = Preprocess()
    data = SliceData(read_patients(data_root, training_ids), preprocess, recipe.augment)
    validation = Validation(read_patients(data_root, validation_ids), preprocess)

    network = build(recipe.model)
    if recipe.init:
        initialise_from(network, load(recipe.init).network)
    averaged = AveragedModel(
        network,
        device=accelerator.device,
        multi_avg_fn=get_ema_multi_avg_fn(recipe.optim.ema),
        use_buffers=True,
    )
    heads = Heads(network, recipe.loss.deep_supervision).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(parameter_groups(network, recipe.optim.weight_decay), lr=recipe.optim.lr)
    heads, optimiser = accelerator.prepare(heads, optimiser)
    loss_of = make_loss(recipe.loss.name, recipe.loss.alpha, recipe.loss.beta)
    total = sum(recipe.steps_in(epoch) for epoch in range(recipe.epochs))
    schedule = make_schedule(recipe, optimiser, total)

    progress = Progress()
    last = out / "last.pt"
    card = WeightsCard(
        name=recipe.name,
        spec=recipe.model,
        preprocess=asdict(preprocess),
        threshold=0.5,
        keep="all",
        sha256="",
        licence=LICENCE,
        training_patients=training_ids,
        validation_patients=validation_ids,
        version=__version__,
    )
    if resume and last.is_file():
        state = torch.load(last, map_location=accelerator.device, weights_only=True)
        network.load_state_dict(state["network"])
        averaged.load_state_dict(state["averaged"])
        optimiser.load_state_dict(state["optimiser"])
        schedule.load_state_dict(state["schedule"])
        torch.set_rng_state(state["rng"].cpu())
        progress = Progress(**state["progress"])
    out.mkdir(parents=True, exist_ok=True)

    while progress.epoch < recipe.epochs and progress.since_best < recipe.patience:
        started = time.perf_counter()
        stage = recipe.stage_of(progress.epoch)
        steps = recipe.steps_in(progress.epoch)
        data.order = draws(data.has_tumour, recipe.data, stage.crop, recipe.seed, progress.epoch)
        data.order = data.order[: steps * stage.batch * recipe.accumulate]
        heads.train()
        losses = []
        for images, masks in batches(data, stage.batch, recipe.data.workers):
            images = images.to(accelerator.device, memory_format=torch.channels_last, non_blocking=True)
            masks = masks.to(accelerator.device, non_blocking=True)
            with accelerator.accumulate(heads):
                outputs = heads(images)
                loss = torch.stack([loss_of(logits.float(), masks) for logits in outputs]).mean()
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(heads.parameters(), recipe.optim.clip)
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
            losses.append(loss.detach())
            if accelerator.sync_gradients:
                averaged.update_parameters(network)
                if isinstance(schedule, torch.optim.lr_scheduler.LambdaLR):
                    schedule.step()
                progress.step += 1
                if report and (progress.step % 10 == 0 or progress.step == total):
                    report(f"epoch {progress.epoch + 1}/{recipe.epochs}", progress.step, total)
        progress.epoch += 1
        row = {
            "epoch": progress.epoch,
            "step": progress.step,
            "crop": stage.crop,
            "lr": optimiser.param_groups[0]["lr"],
            "loss": float(torch.stack(losses).mean()),
            "samples_per_second": len(data.order) / (time.perf_counter() - started),
        }
        if progress.epoch % recipe.validate_every == 0 or progress.epoch == recipe.epochs:
            scores = validation.dice(averaged.module, accelerator.device)
            row |= {"dice_mean": float(np.mean(scores)), "dice_median": float(np.median(scores))}
            if isinstance(schedule, torch.optim.lr_scheduler.ReduceLROnPlateau):
                schedule.step(row["dice_mean"])
            progress.since_best += 1
            if row["dice_mean"] > progress.best:
                progress.best, progress.since_best = row["dice_mean"], 0
                card = save(out / "weights", averaged.module, card)
        progress.history.append(row)
        write_logs(out, progress.history)
        state = {
            "network": network.state_dict(),
            "averaged": averaged.state_dict(),
            "optimiser": optimiser.state_dict(),
            "schedule": schedule.state_dict(),
            "rng": torch.get_rng_state(),
            "progress": asdict(progress),
        }
        torch.save(state, last.with_suffix(".tmp"))
        os.replace(last.with_suffix(".tmp"), last)
        if report:
            text = ", ".join(f"{key} {value:.4g}" for key, value in row.items())
            report(text, progress.step, total)
    return finish(out / "weights", validation, accelerator.device)


def parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay on convolution weights; none on norms and biases, which have one dimension."""
    decayed = [p for p in network.parameters() if p.ndim > 1]
    free = [p for p in network.parameters() if p.ndim <= 1]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]


def make_schedule(
    recipe: Recipe, optimiser: torch.optim.Optimizer, total: int
) -> torch.optim.lr_scheduler.LambdaLR | torch.optim.lr_scheduler.ReduceLROnPlateau:
    """The learning rate over a run of `total` optimiser steps."""
    if recipe.optim.schedule == "plateau":
        return torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimiser, mode="max", factor=0.5, patience=recipe.optim.plateau_patience
        )
    warmup = recipe.optim.warmup_steps

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return float(0.5 * (1 + np.cos(np.pi * (step - warmup) / max(1, total - warmup))))

    return torch.optim.lr_scheduler.LambdaLR(optimiser, factor)


class Validation:
    """Validation patients, preprocessed once."""

    def __init__(self, studies: Sequence[Study], preprocess: Preprocess) -> None:
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
