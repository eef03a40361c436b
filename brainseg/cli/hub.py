"""brainseg hub: weights to and from the Hugging Face Hub, and Spaces on it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from brainseg.cli.common import print_line, print_notice, stdout
from brainseg.types import BrainsegError, WeightsCard

# The heavy parts are imported inside the commands: --help answers at once.
# ruff: noqa: PLC0415

hub_app = typer.Typer(help="Weights and Spaces on the Hugging Face Hub. The login is `hf auth login`.")


@hub_app.command()
def push(
    name: Annotated[str, typer.Argument(help="A weights folder, or a bundled name in a clone.")],
    repo: Annotated[str, typer.Argument(metavar="ORG/REPO", help="Made if there is none.")],
    revision: Annotated[
        str | None,
        typer.Option(help="A branch, made if there is none; or a tag to set, if it looks like v1 or 1.0."),
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="A repository made now is private.")] = False,
    release: Annotated[
        bool,
        typer.Option(
            "--release", help="State in released.json that installed packages get the name from there."
        ),
    ] = False,
) -> None:
    """Check weights and put them on the Hub: card, tensors and model card in one commit."""
    from brainseg import checkpoint

    if release:
        if private:
            raise BrainsegError("what is released cannot be --private; leave out one of the two")
        checkpoint.check_release(name)
    pushed = checkpoint.push(name, repo, revision, private=private)
    console = stdout()
    print_line(console, pushed.url if pushed.changed else f"{pushed.url} holds these weights already")
    if pushed.tag:
        print_line(console, f"tag: {pushed.tag}")
    print_line(console, f'to pin: brainseg.load("{pushed.repo}@{pushed.commit}")')
    if release:
        print_line(console, f"written to {checkpoint.state_release(name, pushed)}")


@hub_app.command()
def pull(
    name: Annotated[str, typer.Argument(metavar="NAME|ORG/REPO[@REV]", help="A bundled name or a Hub id.")],
    to: Annotated[
        Path | None, typer.Option(help="Weights folder to make; else they stay in the cache.")
    ] = None,
) -> None:
    """Fetch weights once, check their sha256, and say what they are."""
    from brainseg.checkpoint import pull as pull_weights

    folder, card = pull_weights(name, to)
    _show(folder, card)


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


def _show(folder: Path, card: WeightsCard) -> None:
    from brainseg.models import ARCHITECTURES

    console = stdout()
    print_line(console, str(folder))
    print_line(
        console, f"{card.name}: {ARCHITECTURES[card.spec.architecture].title}, width {card.spec.width}"
    )
    print_line(console, f"sha256 {card.sha256}, as the card states")
    figures = card.metrics
    stated = [
        f"{label} {figures[key]:.3f}"
        for key, label in (("dice_mean", "mean"), ("dice_median", "median"))
        if isinstance(figures.get(key), float)
    ]
    dice = f"Dice: {', '.join(stated)}, {figures.get('cases', '?')} validation patients" if stated else ""
    print_line(console, dice or "Dice: not stated on the card")
    if stated:
        print_line(console, str(figures.get("protocol", "protocol not stated on the card")))
    print_line(console, f"licence: {card.licence}")
    print_notice(console)
