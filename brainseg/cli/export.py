"""brainseg export: weights in the formats of other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

# The heavy parts are imported inside the commands: --help answers at once.
# ruff: noqa: PLC0415

export_app = typer.Typer(help="Write weights in the formats of other programs.")


@export_app.callback()
def _group() -> None:
    """Keeps `onnx` a subcommand while it is the only one."""


@export_app.command()
def onnx(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Bundled name, weights folder or Hub id.")],
    out: Annotated[Path | None, typer.Option(help="The file; <name>.onnx here unless given.")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Run it in onnxruntime on the sample, and compare with PyTorch.")
    ] = False,
) -> None:
    """Write weights as one ONNX file: normalised slices in, probabilities out."""
    from brainseg.checkpoint import load
    from brainseg.checkpoint.onnx import INPUT, OPSET, OUTPUT, TOLERANCE, export
    from brainseg.io import read_study
    from brainseg.sample import SYNTHETIC_GLIOMA

    model = load(name)
    path = out or Path(f"{model.card.name}.onnx")
    worst = export(model, path, read_study(SYNTHETIC_GLIOMA) if check else None)
    typer.echo(
        f"{path}: opset {OPSET}, input {INPUT} (batch, 3, 16*h, 16*w) in 0..1, "
        f"output {OUTPUT} (batch, 1, 16*h, 16*w); {path.stat().st_size / 2**20:.1f} MB"
    )
    if worst is not None:
        typer.echo(
            "checked in onnxruntime on the sample: probabilities differ by at most "
            f"{worst:.1e} from PyTorch's ({TOLERANCE:g} allowed)"
        )
