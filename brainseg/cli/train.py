"""brainseg train: a network as a recipe says."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from brainseg.cli.common import progress
from brainseg.types import BrainsegError

# The heavy parts are imported inside the commands: --help answers at once.
# ruff: noqa: PLC0415


def train(
    recipe: Annotated[Path, typer.Argument(help="A TOML file, for instance recipes/unet.toml.")],
    data: Annotated[Path, typer.Option(help="Folder of patient folders, with masks.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the run; runs/<name> unless given.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint in --out.")
    ] = False,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a recipe's key, e.g. optim.lr=0.001."),
    ] = None,
) -> None:
    """Train a network as a recipe says; killed and resumed, it gives the same weights."""
    from importlib.util import find_spec

    for package in ("accelerate", "albumentations", "tensorboard"):
        if find_spec(package) is None:
            raise BrainsegError(f"training needs {package}; install it with: pip install -e '.[train]'")
    from brainseg.training import loop
    from brainseg.training.config import read_recipe

    settings = read_recipe(recipe, overrides or [])
    folder = out or Path("runs") / settings.name
    # Of several processes the first speaks for all.
    first = os.environ.get("RANK", "0") == "0"
    with progress(quiet=not first) as say:
        card = loop.train(settings, recipe.parent, data, folder, resume=resume, say=say)
    if first:
        typer.echo(
            f"weights in {folder / 'weights'}, threshold {card.threshold:g}, components kept: {card.keep}"
        )
