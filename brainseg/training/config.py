"""Recipes: one TOML file holds everything that makes a set of weights."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from brainseg.fields import FieldError, Within, build, is_folder_name, read_at_most, readable, short
from brainseg.models import ARCHITECTURES
from brainseg.models.blocks import GROUPS
from brainseg.preprocess import MULTIPLE, Preprocess
from brainseg.training.losses import LossName
from brainseg.types import BrainsegError, ModelSpec

_MOST_BYTES = 2**20


class RecipeError(BrainsegError):
    """A recipe or an override cannot be used as it stands."""


Share = Annotated[float, Within(0, 1)]
ShareBelow1 = Annotated[float, Within(0, 1, "high")]
NotNegative = Annotated[float, Within(0, math.inf, "high")]
Positive = Annotated[float, Within(0, math.inf, "both")]
Count = Annotated[int, Within(1, 1_000_000)]
CountOr0 = Annotated[int, Within(0, 1_000_000)]


@dataclass(frozen=True)
class Data:
    """Which patients, and how slices are drawn.

    Attributes:
        split: JSON file of patient IDs in folds, relative to the recipe.
        fold: number of the fold kept for validation, 0 the first.
        samples_per_epoch: slices drawn an epoch.
        tumour_fraction: share of them that show tumour; the rest are drawn from slices without.
    """

    split: str = "lgg_folds.json"
    fold: CountOr0 = 0
    samples_per_epoch: Count = 2000
    tumour_fraction: Share = 0.6


@dataclass(frozen=True)
class Augment:
    """Strength of each augmentation; 0 switches one off.

    Attributes:
        rotate: largest rotation, degrees.
        scale: largest change of size, as a fraction.
        shift: largest translation, as a fraction of the slice.
        flip: probability of left-right mirroring.
        contrast: largest change of brightness and of contrast, as a fraction.
        gamma: largest change of gamma, as a fraction.
        blur: probability of a slight Gaussian blur.
        noise: probability of slight Gaussian noise.
        drop_channel: probability that pre, post or both become FLAIR, as where sequences are missing.
    """

    rotate: NotNegative = 20.0
    scale: ShareBelow1 = 0.25
    shift: Share = 0.05
    flip: Share = 0.5
    contrast: Share = 0.25
    gamma: ShareBelow1 = 0.4
    blur: Share = 0.15
    noise: Share = 0.2
    drop_channel: Share = 0.1


@dataclass(frozen=True)
class LossChoice:
    """Which loss; alpha weighs false positives, beta false negatives, in Tversky and Combined.

    `smooth`, in pixels, is added to overlap and size in the three region losses; `batch` computes them over
    the samples of a micro-batch, or of a device's share of it, together rather than one by one.
    `deep_supervision` averages the loss over the columns of the nested networks.
    """

    name: LossName = "combined"
    alpha: NotNegative = 0.5
    beta: NotNegative = 0.5
    smooth: Positive = 1.0
    batch: bool = False
    deep_supervision: bool = False


@dataclass(frozen=True)
class Optim:
    """AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101) and its schedule.

    Attributes:
        lr: peak learning rate.
        weight_decay: decoupled L2, on convolution weights alone.
        schedule: ``"cosine"`` to zero over the run, or ``"plateau"``: halved when validation stalls.
        warmup_steps: optimiser steps of linear warm-up, before ``"cosine"`` alone.
        plateau_patience: validations without a better one before ``"plateau"`` halves the rate.
        clip: largest gradient norm.
        ema: decay of the averaged weights, which are the ones validated and kept; lower in the first steps.
    """

    lr: Positive = 2e-3
    weight_decay: NotNegative = 1e-2
    schedule: Literal["cosine", "plateau"] = "cosine"
    warmup_steps: CountOr0 = 200
    plateau_patience: CountOr0 = 3
    clip: Positive = 1.0
    ema: ShareBelow1 = 0.999


@dataclass(frozen=True)
class Stage:
    """Some epochs on slices resized to `size` x `size`, or cropped to the canvas of that size; small ones
    first are cheap."""

    size: Annotated[int, Within(MULTIPLE, 4096)]
    epochs: Count
    batch: Count


@dataclass(frozen=True)
class Recipe:
    """Everything that makes one set of weights.

    Attributes:
        name: of the weights folder.
        model: the network.
        stages: run one after the other. A batch is the global one: several processes share it.
        preprocess: stored with the weights; its `size` is the one of validation and of use.
        data, augment, loss, optim: see there.
        init: weights to start from, of which tensors of equal name and shape are taken over: a folder beside
            the recipe, or what `brainseg.load` takes; empty for a random start.
        seed: of initialisation, sampling, augmentation and dropout.
        accumulate: micro-batches an optimiser step.
        precision: ``"bf16"`` autocast, or ``"no"`` for float32.
        validate_every: epochs from one validation to the next.
        patience: validations without a better one before training stops early.
    """

    name: str
    model: ModelSpec
    stages: tuple[Stage, ...]
    preprocess: Preprocess = field(default_factory=Preprocess)
    data: Data = field(default_factory=Data)
    augment: Augment = field(default_factory=Augment)
    loss: LossChoice = field(default_factory=LossChoice)
    optim: Optim = field(default_factory=Optim)
    init: str = ""
    seed: Annotated[int, Within(0, 2**31 - 1)] = 0
    accumulate: Count = 1
    precision: Literal["bf16", "no"] = "bf16"
    validate_every: Count = 1
    patience: Count = 20

    @property
    def epochs(self) -> int:
        """Epochs in all stages."""
        return sum(stage.epochs for stage in self.stages)

    def stage_of(self, epoch: int) -> Stage:
        """The stage epoch number `epoch`, from 0, belongs to."""
        for stage in self.stages:
            if epoch < stage.epochs:
                return stage
            epoch -= stage.epochs
        raise IndexError("epoch lies behind the last stage")

    def steps_in(self, epoch: int) -> int:
        """Optimiser steps of that epoch; slices that do not fill a last one are left out."""
        return self.data.samples_per_epoch // (self.stage_of(epoch).batch * self.accumulate)


def read_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe; `overrides` are ``key=value`` with dots into tables, values as TOML.

    Raises:
        RecipeError: for a missing or broken file, an unknown key (naming the nearest known one), a missing
            key, or a value of the wrong type or out of range.
    """
    try:
        raw = tomllib.loads(read_at_most(path, _MOST_BYTES).decode())
    except OSError as error:
        raise RecipeError(
            f"recipe {path} cannot be read; give the path of a TOML file in recipes/"
        ) from error
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"recipe {path} is not valid TOML: {_why_not(error)}") from error
    for override in overrides:
        _override(raw, override)
    try:
        recipe = build(Recipe, raw)
    except FieldError as error:
        raise RecipeError(f"recipe {path}: {error}") from error
    _check(recipe, f"recipe {path}")
    return recipe


def _why_not(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, (tomllib.TOMLDecodeError, UnicodeDecodeError, FieldError)):
        return " ".join(str(error).split())
    return "it holds a number of thousands of digits, or a date that is none"


def _override(raw: dict[str, Any], text: str) -> None:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise RecipeError(f"--set {short(text)} must read key=value, for instance optim.lr=0.001")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except RecursionError as error:
        raise RecipeError(f"--set {readable(key.strip())} is nested too deeply") from error
    except ValueError:
        parsed = value.strip()  # a string without its quotes
    *tables, last = key.strip().split(".")
    for table in tables:
        raw = raw.setdefault(table, {})
        if not isinstance(raw, dict):
            raise RecipeError(f"--set {short(text)}: {readable(table)} is not a table; give it as a whole")
    raw[last] = parsed


def _check(recipe: Recipe, where: str) -> None:
    model, data = recipe.model, recipe.data
    nested = [name for name, row in ARCHITECTURES.items() if row.nested]
    rules = [
        (
            is_folder_name(recipe.name),
            "name must be good for a folder, without slashes",
        ),
        (
            model.architecture in ARCHITECTURES,
            f"model.architecture must be one of {', '.join(ARCHITECTURES)}, not {model.architecture!r}",
        ),
        (
            1 <= model.width <= 1024 and 0 <= model.dropout < 1,
            "model.width must lie in 1..1,024, and model.dropout in 0..1, below 1",
        ),
        (
            model.norm == "batch" or model.width % GROUPS == 0,
            f"model.width must be divisible by {GROUPS} with norm group",
        ),
        (bool(recipe.stages), "stages must hold at least one stage"),
        (
            all(stage.size % MULTIPLE == 0 for stage in recipe.stages),
            f"the size of each stage must be divisible by {MULTIPLE}",
        ),
        (
            recipe.preprocess.size % MULTIPLE == 0,
            f"preprocess.size must be divisible by {MULTIPLE}",
        ),
        (
            all(data.samples_per_epoch >= stage.batch * recipe.accumulate for stage in recipe.stages),
            "data.samples_per_epoch must fill at least one step of batch x accumulate slices in each stage",
        ),
        (
            not recipe.loss.deep_supervision or model.architecture in nested,
            f"loss.deep_supervision needs a nested network ({', '.join(nested)})",
        ),
    ]
    for holds, sentence in rules:
        if not holds:
            raise RecipeError(f"{where}: {sentence}")
