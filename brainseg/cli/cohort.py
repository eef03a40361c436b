"""brainseg predict --cohort: a folder of patients, one or more models."""

from __future__ import annotations

from pathlib import Path

import typer

from brainseg.cli.common import load_models, print_failures, print_line, print_notice, progress, stdout
from brainseg.cohort.engines import EngineName
from brainseg.types import RESEARCH_USE, BrainsegError, Spacing

# The heavy parts are imported inside the commands: --help answers at once.
# ruff: noqa: PLC0415


def predict_folder(
    dataset: Path,
    models: list[str],
    out: Path,
    *,
    spacing_mm: Spacing | None,
    channels: list[str] | None,
    device: str,
    tta: bool,
    engine_name: EngineName,
    workers: int,
    as_json: bool,
) -> None:
    """Find the tumour in every patient of a data set that is not done yet.

    Raises:
        BrainsegError: in the end, if a patient failed; everything else is done and written.
    """
    from brainseg.cohort.engines import engine
    from brainseg.cohort.patient import Examination
    from brainseg.cohort.run import predict_cohort
    from brainseg.io.text import listed, shown
    from brainseg.report import to_json

    chosen = engine(engine_name, workers)
    work = Examination(load_models(models), tta, device, spacing_mm, channels)
    with progress(quiet=as_json, time_left=True) as say:
        result = predict_cohort(dataset, out, work, chosen, say)
    if as_json:
        typer.echo(
            to_json(
                {
                    "research_use": RESEARCH_USE,
                    "out": str(out),
                    "patients": result.patients,
                    "done": result.done,
                    "failures": result.failures,
                    "left_out": list(result.left_out),
                }
            ).decode(),
            nl=False,
        )
    else:
        console = stdout()
        earlier = f", {result.earlier} of them before" if result.earlier else ""
        print_line(console, f"{result.done} of {result.patients} patients done{earlier}")
        print_failures(console, result.failures)
        if result.left_out:
            print_line(console, f"left out, as neither folder nor zip: {listed(map(shown, result.left_out))}")
        print_line(
            console, f"written to {out}: index.html, summary.csv, records.jsonl, a folder for each patient"
        )
        print_notice(console)
    if result.failures:
        raise BrainsegError(
            f"{len(result.failures)} of {result.patients} patients failed (see index.html in {out}); "
            "start the same command again to retry them"
        )
