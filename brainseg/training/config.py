"""Recipes: one TOML file holds everything that makes a set of weights."""

from __future__ import annotations

import difflib
import math
import tomllib
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from brainseg.models import ARCHITECTURES
from brainseg.models.blocks import GROUPS
from brainseg.preprocess import MULTIPLE, Preprocess
from brainseg.training.losses import LossName
from brainseg.types import BrainsegError, ModelSpec


class RecipeError(BrainsegError):
    """A recipe or an override cannot be used as it stands."""


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
    fold: int = 0
    samples_per_epoch: int = 2000
    tumour_fraction: float = 0.6


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

    rotate: float = 20.0
    scale: float = 0.2
    shift: float = 0.05
    flip: float = 0.5
    contrast: float = 0.2
    gamma: float = 0.3
    blur: float = 0.15
    noise: float = 0.2
    drop_channel: float = 0.1


@dataclass(frozen=True)
class LossChoice:
    """Which loss; alpha weighs false positives, beta false negatives, in Tversky and Combined.

    `smooth`, in pixels, is added to overlap and size in the three region losses; `batch` computes them over
    the samples of a batch together rather than one by one. `deep_supervision` averages the loss over the
    columns of the nested networks.
    """

    name: LossName = "combined"
    alpha: float = 0.5
    beta: float = 0.5
    smooth: float = 1.0
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

    lr: float = 1e-3
    weight_decay: float = 1e-2
    schedule: Literal["cosine", "plateau"] = "cosine"
    warmup_steps: int = 200
    plateau_patience: int = 3
    clip: float = 1.0
    ema: float = 0.998


@dataclass(frozen=True)
class Stage:
    """Some epochs on slices resized to `size` x `size`, or cropped to the canvas of that size; small ones
    first are cheap."""

    size: int
    epochs: int
    batch: int


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
    seed: int = 0
    accumulate: int = 1
    precision: Literal["bf16", "no"] = "bf16"
    validate_every: int = 1
    patience: int = 20

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
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(
            f"recipe {path} cannot be read; give the path of a TOML file in recipes/"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"recipe {path} is not valid TOML: {error}") from error
    for override in overrides:
        _override(raw, override)
    recipe: Recipe = _build(Recipe, raw, f"recipe {path}", "")
    _check(recipe, f"recipe {path}")
    return recipe


def _override(raw: dict[str, Any], text: str) -> None:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise RecipeError(f"--set {text!r} must read key=value, for instance optim.lr=0.001")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value.strip()  # a string without its quotes
    *tables, last = key.strip().split(".")
    for table in tables:
        raw = raw.setdefault(table, {})
        if not isinstance(raw, dict):
            raise RecipeError(f"--set {text!r}: {table} is not a table; give {table} as a whole")
    raw[last] = parsed


def _build(kind: Any, raw: Any, where: str, prefix: str) -> Any:
    if not isinstance(raw, dict):
        raise RecipeError(f"{where}: {prefix.rstrip('.')} must be a table, not {raw!r}")
    hints = get_type_hints(kind)
    known = [item.name for item in fields(kind)]
    for key in raw:
        if key not in known:
            raise RecipeError(
                f"{where}: unknown key {prefix}{key}; did you mean {_nearest(key, known, prefix)}?"
            )
    for item in fields(kind):
        if item.name not in raw and item.default is MISSING and item.default_factory is MISSING:
            raise RecipeError(f"{where}: {prefix}{item.name} is missing")
    values = {key: _value(hints[key], value, where, prefix + key) for key, value in raw.items()}
    try:
        return kind(**values)
    except ValueError as error:
        raise RecipeError(f"{where}: {error}") from error


def _nearest(key: str, known: Sequence[str], prefix: str) -> str:
    # A key in the wrong table is meant more often than one that merely looks like it.
    tables = {name: hint for name, hint in get_type_hints(Recipe).items() if is_dataclass(hint)}
    for table, kind in tables.items():
        if any(item.name == key for item in fields(kind)):
            return f"{table}.{key}"
    if any(item.name == key for item in fields(Recipe)):
        return key
    return prefix + difflib.get_close_matches(key, known, 1, 0)[0]


def _value(hint: Any, value: Any, where: str, key: str) -> Any:
    if is_dataclass(hint):
        return _build(hint, value, where, key + ".")
    if get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise RecipeError(f"{where}: {key} must be an array of tables, not {value!r}")
        return tuple(_value(get_args(hint)[0], item, where, f"{key}[{n}]") for n, item in enumerate(value))
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise RecipeError(f"{where}: {key} must be one of {', '.join(get_args(hint))}, not {value!r}")
        return value
    if hint is float and type(value) is int:
        value = float(value)
    if type(value) is not hint:
        raise RecipeError(f"{where}: {key} must be {hint.__name__}, not {value!r}")
    return value


def _check(recipe: Recipe, where: str) -> None:
    model, data, augment, loss, optim = recipe.model, recipe.data, recipe.augment, recipe.loss, recipe.optim
    shares = {
        "data.tumour_fraction": data.tumour_fraction,
        **{f"augment.{name}": getattr(augment, name) for name in ("flip", "blur", "noise", "drop_channel")},
        **{f"augment.{name}": getattr(augment, name) for name in ("shift", "contrast")},
    }
    shares_below_1 = {
        "model.dropout": model.dropout,
        "augment.scale": augment.scale,
        "augment.gamma": augment.gamma,
        "optim.ema": optim.ema,
    }
    not_negative = {
        "seed": recipe.seed,
        "augment.rotate": augment.rotate,
        "loss.alpha": loss.alpha,
        "loss.beta": loss.beta,
        "optim.weight_decay": optim.weight_decay,
        "optim.warmup_steps": optim.warmup_steps,
        "optim.plateau_patience": optim.plateau_patience,
    }
    positive = {
        "model.width": model.width,
        "loss.smooth": loss.smooth,
        "optim.lr": optim.lr,
        "optim.clip": optim.clip,
        "accumulate": recipe.accumulate,
        "validate_every": recipe.validate_every,
        "patience": recipe.patience,
        **{
            f"stages[{n}].{name}": getattr(stage, name)
            for n, stage in enumerate(recipe.stages)
            for name in ("size", "epochs", "batch")
        },
    }
    nested = [name for name in ARCHITECTURES if name.endswith("unetpp")]
    rules = [
        # NaN fails each comparison.
        *((0 <= value <= 1, f"{key} must lie in 0..1") for key, value in shares.items()),
        *((0 <= value < 1, f"{key} must lie in 0..1, below 1") for key, value in shares_below_1.items()),
        *((0 <= value < math.inf, f"{key} must be 0 or more") for key, value in not_negative.items()),
        *((0 < value < math.inf, f"{key} must be above 0") for key, value in positive.items()),
        (
            bool(recipe.name) and Path(recipe.name).name == recipe.name,
            "name must be good for a folder, without slashes",
        ),
        (
            model.architecture in ARCHITECTURES,
            f"model.architecture must be one of {', '.join(ARCHITECTURES)}, not {model.architecture!r}",
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
            not loss.deep_supervision or model.architecture in nested,
            f"loss.deep_supervision needs a nested network ({', '.join(nested)})",
        ),
    ]
    for holds, sentence in rules:
        if not holds:
            raise RecipeError(f"{where}: {sentence}")
