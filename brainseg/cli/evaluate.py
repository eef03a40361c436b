"""brainseg evaluate: models against reference masks, patient by patient."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from brainseg.cli.common import (
    DeviceOption,
    EngineOption,
    JsonOption,
    ModelOption,
    TtaOption,
    WorkersOption,
    load_models,
    number,
    print_failures,
    print_line,
    print_notice,
    print_table,
    progress,
    stdout,
)
from brainseg.cohort.engines import EngineName
from brainseg.types import BrainsegError

# The heavy parts are imported inside the commands: --help answers at once.
# ruff: noqa: PLC0415


def evaluate(
    dataset: Annotated[Path, typer.Argument(help="Folder of patient folders, with masks.")],
    model: ModelOption,
    ensemble: Annotated[bool, typer.Option("--ensemble", help="Also the mean of the models.")] = False,
    validation: Annotated[
        bool, typer.Option("--validation", help="Only the validation patients that the models' cards list.")
    ] = False,
    write_card: Annotated[
        bool, typer.Option("--write-card", help="State the figures in the cards of the weights folders.")
    ] = False,
    missing_sequences: Annotated[
        bool,
        typer.Option("--missing-sequences", help="Also with FLAIR in place of other sequences; slower."),
    ] = False,
    device: DeviceOption = "auto",
    tta: TtaOption = False,
    engine: EngineOption = EngineName.LOCAL,
    workers: WorkersOption = 1,
    as_json: JsonOption = False,
) -> None:
    """Compare models with reference masks over a data set, patient by patient."""
    from brainseg.checkpoint import bundled, is_local, resolve
    from brainseg.cohort import engines
    from brainseg.cohort.outcome import in_loop
    from brainseg.evaluation import cohort, model_card
    from brainseg.io.text import plural, shown
    from brainseg.report import to_json

    alone = engine is EngineName.LOCAL and workers == 1
    chosen = in_loop if alone else engines.engine(engine, workers)
    if write_card and tta:
        raise BrainsegError("a card states figures without flips; leave out --tta or --write-card")
    models = load_models(model)
    if ensemble and len(models) < 2:
        raise BrainsegError("--ensemble needs two models or more")
    names = list(bundled()) if model == ["all"] else model
    if write_card and (foreign := [name for name in names if not is_local(name)]):
        raise BrainsegError(
            f"--write-card cannot write to {foreign[0]}; give a weights folder or a bundled name"
        )
    with progress(quiet=as_json, time_left=True) as say:
        result = cohort.evaluate(
            models,
            dataset,
            ensemble=ensemble,
            validation=validation,
            tta=tta,
            missing_sequences=missing_sequences or write_card,
            device=device,
            engine=chosen,
            say=say,
        )
    failures = result["failures"]
    lacking = f"{plural(len(failures), 'patient')} of the data set could not be evaluated"
    if write_card and failures:
        first, reason = next(iter(failures.items()))
        raise BrainsegError(f"no card is written, as {lacking}, first {shown(first)}: {reason}")
    if write_card:
        for name, one in zip(names, models, strict=True):
            model_card.state_on_card(resolve(name), one.card, result)
    if as_json:
        typer.echo(to_json(result).decode(), nl=False)
    else:
        _show(result)
        print_failures(stdout(), failures)
    if failures:
        raise BrainsegError(f"{lacking}, and the figures are those of the others; see the failures")


def _show(result: dict[str, Any]) -> None:
    console = stdout()
    print_table(
        console,
        ["model", "mean", "median", "std", "patients", "missed", "not computable", "mean HD95"],
        [
            [
                name,
                *(number(row, key) for key in ("dice_mean", "dice_median", "dice_std")),
                *(str(row[key]) for key in ("cases", "missed", "not_computable")),
                number(row, "hd95_mean", 1)
                + (f" {row['hd95_unit']}" if row["hd95_mean"] is not None else ""),
            ]
            for name, row in result["models"].items()
        ],
        title="volumetric Dice by patient",
    )
    _print_behaviour(console, result["models"])
    seen = sorted(
        {
            p
            for row in result["models"].values()
            for p, figures in row["patients"].items()
            if figures["seen_in_training"]
        }
    )
    if seen:
        print_line(
            console, f"{len(seen)} of these patients were seen in training; --validation leaves them out."
        )
    print_notice(console, result["protocol"])


def _print_behaviour(console: Console, models: dict[str, Any]) -> None:
    """What the cards state beside Dice: healthy slices, calibration, missing sequences."""
    rows = []
    for name, row in models.items():
        healthy, calibration = row["healthy_slices"], row["calibration"]
        rows.append(
            [
                name,
                f"{healthy['with_false_positives']} of {healthy['slices']}",
                f"{healthy['median_false_pixels']:.0f}",
                number(calibration, "ece", 4),
                number(calibration, "ece_lesion"),
            ]
        )
    head = ["model", "false positives", "median pixels", "ECE", "ECE at lesions"]
    print_table(console, head, rows, title="slices without tumour, and calibration")
    lacking = list(next(iter(models.values())).get("missing_sequences", {}))
    if lacking:
        rows = [
            [name, *(number(row["missing_sequences"][sequences], "dice_mean") for sequences in lacking)]
            for name, row in models.items()
        ]
        print_table(console, ["model", *lacking], rows, title="mean Dice with FLAIR in place of")
