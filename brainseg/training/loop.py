"""The training loop, to be read from top to bottom."""

from __future__ import annotations

import csv
import io
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
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau
from torch.optim.swa_utils import AveragedModel

from brainseg import __version__
from brainseg.checkpoint import initialise_from, load, read_card, save
from brainseg.datasets.lgg import LICENCE, read_fold, read_patients
from brainseg.evaluation.calibration import fit_temperature
from brainseg.files import atomic_write
from brainseg.inference import BATCH, probabilities
from brainseg.io.text import listed, plural
from brainseg.measure import dice
from brainseg.models import build
from brainseg.models.base import Network
from brainseg.postprocess import cut
from brainseg.preprocess import Preprocess, invert
from brainseg.training.config import Recipe, RecipeError
from brainseg.training.data import Draw, SliceData, draws, make_loader, share, workers_beside
from brainseg.training.losses import make_loss
from brainseg.types import (
    BrainsegError,
    Figure,
    FloatArray,
    InputError,
    Keep,
    Say,
    Study,
    Undefined,
    WeightsCard,
)

THRESHOLDS = tuple(round(0.20 + 0.05 * step, 2) for step in range(14))
Schedule = LambdaLR | ReduceLROnPlateau


class Heads(nn.Module):
    """The network as training sees it: a list of logits, one for each column under deep supervision."""

    def __init__(self, network: Network, deep: bool) -> None:
        super().__init__()
        self.network = network
        self.deep = deep

    def forward(self, x: Tensor) -> list[Tensor]:
        if self.deep:
            return self.network.deep_logits(x)
        return [self.network(x)]


@dataclass
class Position:
    """Where a run stands; saved with each checkpoint."""

    epoch: int = 0
    step: int = 0
    best: float = -1.0
    since_best: int = 0
    history: list[dict[str, float]] = field(default_factory=list)


@dataclass(eq=False)
class Run:
    """What changes while a recipe runs: all of it is in a checkpoint."""

    network: Network
    averaged: AveragedModel
    optimiser: torch.optim.Optimizer
    schedule: Schedule
    progress: Position = field(default_factory=Position)

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
        with atomic_write(path) as file:
            torch.save(state, file)

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
            torch.cuda.set_rng_state_all(state.get("cuda_rng", [])[: torch.cuda.device_count()])
            self.progress = Position(**state["progress"])
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
    say: Say | None = None,
) -> WeightsCard:
    """Run a recipe and return the card.

    Leaves `out`/{recipe.json, metrics.csv, tensorboard/, last.pt, weights/}.

    An epoch ends with an atomic checkpoint. A run killed at any moment and resumed goes back to the last one
    and gives the same weights as a run that was never killed, bit for bit on the CPU. Of several processes,
    started by accelerate or torchrun, each calls this once.

    Args:
        recipe: what to do.
        recipe_folder: the paths of split and initial weights are relative to it.
        data_root: folder of patient folders.
        out: folder of this run.
        resume: go on from `out`/last.pt if it is there.
        say: called with (sentence, steps done, steps in all) as the run goes on.

    Raises:
        InputError, RecipeError, WeightsError: before the first step, when data, split, initial weights or
            `out` are unfit.
        BrainsegError: when the loss or its gradient stops being a finite number.
    """
    training_ids, validation_ids = read_fold(recipe_folder / recipe.data.split, recipe.data.fold)
    total = sum(recipe.steps_in(epoch) for epoch in range(recipe.epochs))
    # Accelerate keeps the precision for the whole process, where an earlier run may have set another.
    AcceleratorState._reset_state()
    accelerator = Accelerator(
        gradient_accumulation_steps=recipe.accumulate,
        mixed_precision=recipe.precision,
        step_scheduler_with_optimizer=False,
    )
    check_processes(recipe, accelerator)
    first = accelerator.is_main_process
    say = say if first else None
    if say:
        say(f"reading {len(training_ids) + len(validation_ids)} patients", 0, total)
    torch.manual_seed(recipe.seed)
    data = SliceData(read_patients(data_root, training_ids), recipe.preprocess, recipe.augment)
    validation = Validation(read_patients(data_root, validation_ids), recipe.preprocess)
    begin_together(out, recipe, training_ids, validation_ids, resume=resume, first=first)

    network, seen, origin = make_network(recipe, recipe_folder, training_ids, validation_ids)
    run, heads = make_run(recipe, network, accelerator, total)
    if resume and (out / "last.pt").is_file():
        run.restore(out / "last.pt")
    progress = run.progress
    if len(set(gather_object([progress.epoch]))) > 1:
        raise RecipeError(f"{out} must be one folder that the processes of all machines see")
    card = make_card(recipe, seen, validation_ids, origin)
    order: list[list[Draw]] = []
    beside = int(os.environ.get("LOCAL_WORLD_SIZE", accelerator.num_processes))
    loader = make_loader(data, order, workers_beside(accelerator.device.type, beside))

    while progress.epoch < recipe.epochs and progress.since_best < recipe.patience:
        started = time.perf_counter()
        stage = recipe.stage_of(progress.epoch)
        samples = draws(data.has_tumour, recipe.data, stage.size, recipe.seed, progress.epoch)
        samples = samples[: recipe.steps_in(progress.epoch) * stage.batch * recipe.accumulate]
        order[:] = share(samples, stage.batch, accelerator.process_index, accelerator.num_processes)
        if not first:
            seed_process(recipe.seed, progress.epoch, accelerator.process_index)
        loss = train_epoch(recipe, run, accelerator, heads, loader, total, say)
        progress.epoch += 1
        row = {
            "epoch": progress.epoch,
            "step": progress.step,
            "size": stage.size,
            "lr": run.optimiser.param_groups[0]["lr"],
            "loss": loss,
            "samples_per_second": len(samples) / (time.perf_counter() - started),
        }
        if progress.epoch % recipe.validate_every == 0 or progress.epoch == recipe.epochs:
            row |= validate(run, validation, accelerator)
            if first and progress.since_best == 0:
                save(out / "weights", cast("Network", run.averaged.module), card)
        progress.history.append(row)
        if first:
            write_logs(out, progress.history)
            run.save(out / "last.pt")
        if say:
            say(", ".join(f"{key} {value:.4g}" for key, value in row.items()), progress.step, total)
    if first:
        finish(out / "weights", validation, accelerator.device)
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return read_card(out / "weights")


def validate(run: Run, validation: Validation, accelerator: Accelerator) -> dict[str, float]:
    """Score the averaged weights; tells the schedule, and counts validations since the best one."""
    scores = validation.dice(run.averaged.module, accelerator)
    mean = float(np.mean(scores))
    if isinstance(run.schedule, ReduceLROnPlateau):
        run.schedule.step(mean)
    better = mean > run.progress.best
    run.progress.best = mean if better else run.progress.best
    run.progress.since_best = 0 if better else run.progress.since_best + 1
    return {"dice_mean": mean, "dice_median": float(np.median(scores))}


def make_run(recipe: Recipe, network: Network, accelerator: Accelerator, total: int) -> tuple[Run, nn.Module]:
    """What a recipe's run starts with, and the network as training sees it, on the accelerator's device."""
    if accelerator.num_processes > 1:
        network = cast("Network", nn.SyncBatchNorm.convert_sync_batchnorm(network))
    averaged = AveragedModel(
        network,
        device=accelerator.device,
        multi_avg_fn=moving_average(recipe.optim.ema),
        use_buffers=True,
    )
    heads = Heads(network, recipe.loss.deep_supervision).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(parameter_groups(network, recipe.optim.weight_decay), lr=recipe.optim.lr)
    heads, optimiser = accelerator.prepare(heads, optimiser)
    return Run(network, averaged, optimiser, make_schedule(recipe, optimiser, total)), heads


def moving_average(decay: float) -> Callable[[Any, Any, Any], None]:
    """Exponential moving average for `AveragedModel`, over fewer steps while there were few.

    A decay of 0.998 looks back some 500 steps; before that many were made, it would hold on to the random
    start.
    """

    @torch.no_grad()
    def update(averaged: Any, current: Any, count: Any) -> None:
        done = int(count)
        weight = 1 - min(decay, (1 + done) / (10 + done))
        if averaged[0].is_floating_point():
            torch._foreach_lerp_(averaged, current, weight)
        else:
            for mean, value in zip(averaged, current, strict=True):
                mean.copy_(value)

    return update


def make_card(recipe: Recipe, seen: Sequence[str], validation_ids: Sequence[str], origin: str) -> WeightsCard:
    """The card of a run's weights, before `finish` chose their operating point."""
    return WeightsCard(
        name=recipe.name,
        spec=recipe.model,
        preprocess=asdict(recipe.preprocess),
        threshold=0.5,
        keep="all",
        sha256="",
        licence=LICENCE,
        training_patients=tuple(seen),
        validation_patients=tuple(validation_ids),
        version=__version__,
        init=origin,
    )


def seed_process(seed: int, epoch: int, process: int) -> None:
    """Give a process that is not the first a random state of its own for one epoch.

    Dropout then differs between processes, and a resumed run repeats it: a checkpoint holds the random state
    of the first process alone.
    """
    torch.manual_seed(int(np.random.SeedSequence((seed, epoch, process)).generate_state(1)[0]))


def check_processes(recipe: Recipe, accelerator: Accelerator) -> None:
    """Refuse what several processes would make differ from one.

    Raises:
        RecipeError: if processes do not know of each other, a batch cannot be cut into equal parts, or
            BatchNorm cannot be synchronised.
    """
    count = accelerator.num_processes
    if int(os.environ.get("WORLD_SIZE", "1")) != count:
        raise RecipeError("these processes would each train alone; on the CPU, set ACCELERATE_USE_CPU=1")
    for stage in recipe.stages:
        if stage.batch % count:
            raise RecipeError(f"a batch of {stage.batch} cannot be shared by {count} processes evenly")
    if count > 1 and recipe.model.norm == "batch" and accelerator.device.type != "cuda":
        raise RecipeError(
            "BatchNorm over several processes needs CUDA devices; use model.norm group, or one process"
        )


def train_epoch(
    recipe: Recipe,
    run: Run,
    accelerator: Accelerator,
    heads: nn.Module,
    pairs: Iterable[tuple[Tensor, Tensor]],
    total: int,
    say: Say | None,
) -> float:
    """One pass over `pairs` of images (B, 3, h, w) and masks (B, 1, h, w); returns the mean loss."""
    chosen = recipe.loss
    loss_of = make_loss(chosen.name, chosen.alpha, chosen.beta, chosen.smooth, chosen.batch)
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
            if say and (progress.step % 10 == 0 or progress.step == total):
                say(f"epoch {progress.epoch + 1}/{recipe.epochs}", progress.step, total)
    return float(cast("Tensor", accelerator.reduce(torch.stack(losses).mean(), "mean")))


def begin_together(
    out: Path,
    recipe: Recipe,
    training_ids: Sequence[str],
    validation_ids: Sequence[str],
    *,
    resume: bool,
    first: bool,
) -> None:
    """`begin` in the first process; what it raises is raised in all, so that none is left waiting."""
    problem = ""
    if first:
        try:
            begin(out, recipe, training_ids, validation_ids, resume=resume)
        except RecipeError as error:
            problem = str(error)
    said = [one for one in gather_object([problem]) if one]
    if said:
        raise RecipeError(said[0])


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
        with atomic_write(frozen) as file:
            file.write(text.encode())
    except OSError as error:
        raise RecipeError(f"{out} cannot be written ({error.strerror}); choose another --out") from error


def _changed(frozen: Path, text: str) -> list[str]:
    """Keys whose values differ."""

    def flat(value: Any, key: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            return {key: value}
        items = [flat(item, f"{key}.{name}" if key else name) for name, item in value.items()]
        return {name: item for part in items for name, item in part.items()}

    try:
        before, now = flat(json.loads(frozen.read_bytes()), ""), flat(json.loads(text), "")
    except (OSError, ValueError) as error:
        raise RecipeError(
            f"{frozen} is damaged or missing, so that nothing says what this run was; choose another --out"
        ) from error
    return [key for key in before | now if before.get(key) != now.get(key)]


def make_network(
    recipe: Recipe, folder: Path, training_ids: Sequence[str], validation_ids: Sequence[str]
) -> tuple[Network, tuple[str, ...], str]:
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
        beside = folder / recipe.init
        start = load(beside if beside.is_dir() else recipe.init)
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
        self.references = [study.reference for study in studies if study.reference is not None]
        if not any(reference.any() for reference in self.references):
            raise InputError("no validation patient has tumour; choose another data.fold or another split")
        self.inputs = [preprocess.apply(study) for study in studies]

    def predict(self, network: nn.Module, device: torch.device, temperature: float = 1.0) -> list[FloatArray]:
        """Probabilities (S, H, W) of each patient, without flips."""
        return [self._predict(index, network, device, temperature) for index in range(len(self.inputs))]

    def _predict(
        self, index: int, network: nn.Module, device: torch.device, temperature: float = 1.0
    ) -> FloatArray:
        network.eval()
        images, letterbox = self.inputs[index]
        parts = [
            probabilities(network, images[n : n + BATCH], device, temperature)
            for n in range(0, len(images), BATCH)
        ]
        return invert(np.concatenate(parts), letterbox)

    def dice(self, network: nn.Module, accelerator: Accelerator) -> list[float]:
        """Volumetric Dice of each patient at threshold 0.5; patients where it is not computable left out.

        The processes share the patients, and all return all of them.
        """
        mine = range(accelerator.process_index, len(self.inputs), accelerator.num_processes)
        found = [
            (index, self._score(self._predict(index, network, accelerator.device), index)) for index in mine
        ]
        return [value for _, value in sorted(gather_object(found)) if not isinstance(value, Undefined)]

    def _score(
        self, probability: FloatArray, index: int, threshold: float = 0.5, keep: Keep = "all"
    ) -> Figure:
        return dice(cut(probability, threshold, keep), self.references[index])

    def score(self, predicted: Sequence[FloatArray], threshold: float, keep: Keep) -> list[float]:
        """Volumetric Dice of each patient at an operating point."""
        found = [self._score(one, index, threshold, keep) for index, one in enumerate(predicted)]
        return [value for value in found if not isinstance(value, Undefined)]


def finish(folder: Path, validation: Validation, device: torch.device) -> WeightsCard:
    """Choose temperature, threshold and post-processing of the best weights on the validation patients.

    They are written to the card.
    """
    model = load(folder)
    network = model.network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    predicted = validation.predict(network, device)
    temperature = fit_temperature(predicted, validation.references)
    if temperature != 1.0:
        # Anew, since resampling to the original grid follows the sigmoid.
        predicted = validation.predict(network, device, temperature)
    points: list[tuple[float, float, Keep]] = [
        (float(np.mean(validation.score(predicted, threshold, keep))), threshold, keep)
        for keep in ("all", "largest")
        for threshold in THRESHOLDS
    ]
    # Among equals, the point nearest to 0.5, and no post-processing rather than some.
    _, threshold, keep = max(points, key=lambda point: (point[0], -abs(point[1] - 0.5), point[2] == "all"))
    chosen = (temperature, threshold, keep)
    known = (model.card.temperature, model.card.threshold, model.card.keep)
    card = replace(model.card, threshold=threshold, keep=keep, temperature=temperature)
    # Figures of another operating point are none of this one.
    return save(folder, model.network, card if chosen == known else replace(card, metrics={}))


def write_logs(out: Path, history: Sequence[dict[str, float]]) -> None:
    """metrics.csv and TensorBoard events, written anew, so that a resumed run leaves no rows twice."""
    names = list(dict.fromkeys(key for row in history for key in row))
    rows = io.StringIO(newline="")
    writer = csv.DictWriter(rows, names)
    writer.writeheader()
    writer.writerows(history)
    with atomic_write(out / "metrics.csv") as file:
        file.write(rows.getvalue().encode())
    from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - slow to import

    row = history[-1]
    with SummaryWriter(str(out / "tensorboard"), purge_step=int(row["epoch"])) as board:
        for key, value in row.items():
            board.add_scalar(key, value, int(row["epoch"]))
