"""brainseg hub: weights and Spaces on the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

# The heavy parts are imported inside the commands: --help answers at once.
# ruff: noqa: PLC0415

hub_app = typer.Typer(help="Weights and Spaces on the Hugging Face Hub.")


@hub_app.callback()
def _group() -> None:
    """Keeps `space` a subcommand while it is the only one."""


@hub_app.command()
def space(
    face: Annotated[Literal["streamlit", "gradio"], typer.Argument(help="The page it shows.")],
    to: Annotated[Path, typer.Option(help="Folder: new, the clone of a new Space, or one written before.")],
    weights: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OWNER/REPO@REV",
            help="Weights that the Space fetches from the Hub, of one network; again for more. "
            "Without it the bundled weights go into the folder.",
        ),
    ] = None,
) -> None:
    """Write a whole Space, ready to push: page, program, weights, requirements, README."""
    from brainseg.spaces import SDK, write_space

    cards = write_space(face, to, weights or ())
    size = sum(path.stat().st_size for path in to.rglob("*") if ".git" not in path.parts and path.is_file())
    typer.echo(f"{to}: a {SDK[face]} Space with {', '.join(cards)}; {size / 2**20:.1f} MB")
    typer.echo(f"to push it: hf upload OWNER/NAME {to} --repo-type space")
