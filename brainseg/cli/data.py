"""brainseg data: fetch and check the training data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from brainseg.cli.common import JsonOption, print_line, print_table, stdout
from brainseg.files import quiet_stderr
from brainseg.types import BrainsegError

if TYPE_CHECKING:
    from brainseg.datasets.audit import Audit

# The heavy parts are imported inside the commands: --help answers at once.
# ruff: noqa: PLC0415

data_app = typer.Typer(help="Fetch and check the training data.")


@data_app.command()
def fetch(
    out: Annotated[Path | None, typer.Option(help="Folder for it; the download cache unless given.")] = None,
) -> None:
    """Fetch the public LGG data set from Kaggle."""
    from brainseg.datasets import lgg

    typer.echo(lgg.fetch(out))


@data_app.command()
def check(
    dataset: Annotated[Path, typer.Argument(help="Folder of patient folders.")], as_json: JsonOption = False
) -> None:
    """Check a data set: missing masks, sizes, types, gaps, duplicates, missing sequences."""
    from brainseg.datasets.audit import check_dataset

    with quiet_stderr():
        report = check_dataset(dataset)
    if as_json:
        typer.echo(json.dumps(report.to_json(), indent=2, ensure_ascii=False))
    else:
        _show_audit(report)
    if report.errors:
        raise BrainsegError(f"{dataset} has {len(report.errors)} errors; mend them before training")


def _show_audit(report: Audit) -> None:
    console = stdout()
    if report.problems:
        rows = [(problem.patient, problem.severity, problem.text) for problem in report.problems]
        print_table(console, ["patient", "severity", "problem"], rows, left=3)
    print_line(
        console,
        f"{len(report.patients)} patients, {report.slices} slices, {report.slices_with_tumour} with tumour, "
        f"{report.foreground_fraction:.2%} of the pixels; "
        f"{len(report.errors)} errors, {len(report.problems) - len(report.errors)} warnings",
    )
