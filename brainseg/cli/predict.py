"""brainseg predict: one patient or a cohort, one or more models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from brainseg.cli.cohort import predict_folder
from brainseg.cli.common import (
    DeviceOption,
    EngineOption,
    JsonOption,
    ModelOption,
    TtaOption,
    WorkersOption,
    load_models,
    print_line,
    print_notice,
    print_table,
    progress,
    stdout,
)
from brainseg.cohort.engines import EngineName
from brainseg.files import quiet_stderr
from brainseg.types import BrainsegError, Spacing, Study

if TYPE_CHECKING:
    from brainseg.checkpoint import LoadedModel
    from brainseg.io.series import Role
    from brainseg.measure import Reading

# The heavy parts are imported inside the commands: --help answers at once.
# ruff: noqa: PLC0415


def predict(
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUT", help="A patient folder, a zip, or files.")],
    model: ModelOption,
    out: Annotated[Path | None, typer.Option(help="Folder for masks, overlays, JSON and CSV.")] = None,
    case: Annotated[str | None, typer.Option(help="Patient to take, where INPUT holds several.")] = None,
    spacing: Annotated[
        str | None, typer.Option(help="mm between slices, rows, columns: 5,0.94,0.94. Without it: voxels.")
    ] = None,
    channels: Annotated[
        str | None, typer.Option(help="The order of the files' channels, where it is not pre,flair,post.")
    ] = None,
    sequence: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ROLE=KEY",
            help="What a series is: flair=KEY, pre=KEY, post=KEY, mask=KEY, none=KEY; again for more.",
        ),
    ] = None,
    register: Annotated[
        bool, typer.Option("--register", help="Move pre and post onto FLAIR by a rigid registration.")
    ] = False,
    mask_format: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="Of the masks: nifti, dicom-seg, tiff, png; again for more. Without it: the input's own.",
        ),
    ] = None,
    keep_identifiers: Annotated[
        bool,
        typer.Option("--keep-identifiers", help="Copy the patient's name and number into DICOM-SEG."),
    ] = False,
    device: DeviceOption = "auto",
    tta: TtaOption = False,
    cohort: Annotated[
        bool,
        typer.Option("--cohort", help="INPUT is a folder of patients; --out goes on where it was ended."),
    ] = False,
    engine: EngineOption = EngineName.LOCAL,
    workers: WorkersOption = 1,
    as_json: JsonOption = False,
) -> None:
    """Find the tumour in one patient, or in each of a cohort, with one or more models."""
    from brainseg.cohort.patient import read_patient
    from brainseg.report import report, to_json
    from brainseg.report.folder import check_folder, results_of, run_of, write_folder
    from brainseg.report.formats import parse_formats, why_not

    spacing_mm = parse_spacing(spacing)
    order = None if channels is None else [name.strip() for name in channels.split(",")]
    if cohort:
        of_one = case is not None or sequence or register or mask_format or keep_identifiers
        if out is None or len(inputs) > 1 or of_one:
            raise BrainsegError(
                "--cohort needs one folder of patients and --out; it takes no --case, --sequence, "
                "--register, --format, --keep-identifiers"
            )
        predict_folder(
            inputs[0],
            model,
            out,
            spacing_mm=spacing_mm,
            channels=order,
            device=device,
            tta=tta,
            engine_name=engine,
            workers=workers,
            as_json=as_json,
        )
        return
    if engine is not EngineName.LOCAL or workers > 1:
        raise BrainsegError("--engine and --workers are for many patients; add --cohort, or leave them out")
    if out is None and (mask_format or keep_identifiers):
        raise BrainsegError("--format and --keep-identifiers are about files; add --out")
    roles = parse_sequences(sequence or ())
    models = load_models(model)
    with quiet_stderr():
        study = read_patient(
            inputs[0] if len(inputs) == 1 else inputs,
            case_id=case,
            spacing_mm=spacing_mm,
            channels=order,
            roles=roles,
            register=register,
        )
    formats = parse_formats(study, mask_format or ())
    if keep_identifiers and "dicom-seg" not in formats:
        raise BrainsegError("--keep-identifiers is for DICOM-SEG, which is not written here; leave it out")
    if out is not None:
        check_folder(out, run_of(study, [one.card for one in models], tta))
    readings = _readings(study, models, device, tta, quiet=as_json)
    figures = report(study, readings)
    if out is not None:
        results = results_of(study, readings, figures, formats=formats, keep_identifiers=keep_identifiers)
        write_folder(out, dict(results.files()), results.figures)
    if as_json:
        typer.echo(to_json(figures).decode(), nl=False)
    else:
        _show(study, readings, models)
        if out is not None:
            lacking = None if mask_format or study.origin is None else why_not(study, "dicom-seg")
            if lacking and study.source.format == "dicom":
                print_line(stdout(), f"note: {lacking}")
            typer.echo(f"written to {out}")


def _readings(study: Study, models: list[LoadedModel], device: str, tta: bool, quiet: bool) -> list[Reading]:
    from brainseg.inference import Predictor
    from brainseg.measure import measure
    from brainseg.postprocess import find

    readings = []
    with progress(quiet) as say:
        for one in models:

            def slices_done(done: int, total: int, name: str = one.card.name) -> None:
                say(f"{name}: slices", done, total)

            prediction = Predictor(one, device).predict(study, tta=tta, attention=False, progress=slices_done)
            readings.append(measure(study, find(prediction)))
    return readings


def _show(study: Study, readings: list[Reading], models: list[LoadedModel]) -> None:
    from brainseg.measure import area_unit, cost_of_missing, table

    console = stdout()
    slices, rows, columns = study.shape
    spacing = study.spacing_mm
    print_line(
        console,
        f"{study.case_id}: {slices} slices of {rows} x {columns}, "
        + (f"spacing {' x '.join(f'{x:g}' for x in spacing)} mm" if spacing else "spacing unknown"),
    )
    cost = cost_of_missing(study, {one.card.name: one.card for one in models})
    for note in (*study.notes, *([cost] if cost else ())):
        print_line(console, f"note: {note}")
    names = [reading.prediction.model for reading in readings]
    head, cells = table(readings)
    # A column for each model: there are more figures than a terminal is wide.
    by_figure = [[heading, *row] for heading, row in zip(head, zip(*cells, strict=True), strict=True)]
    print_table(console, ["", *names], by_figure)
    areas = [
        [str(number), *(reading.slices[index][0].text for reading in readings)]
        for index, number in enumerate(study.slice_numbers)
        if any(reading.areas[index] for reading in readings)
    ]
    if areas:
        title = f"area in each slice ({area_unit(study.spacing_mm)})"
        print_table(console, ["slice", *names], areas, title=title, left=0)
    if study.reference is None:
        print_line(console, "No reference mask was given: Dice and its kin need one.")
    print_notice(console)


def parse_spacing(text: str | None) -> Spacing | None:
    """The spacing "5,0.94,0.94" as mm between slices, rows and columns."""
    if text is None:
        return None
    try:
        slices, rows, columns = (float(part) for part in text.split(","))
    except ValueError as error:
        raise BrainsegError(
            f"--spacing {text!r} must be three numbers in mm: between slices, rows, columns, e.g. 5,0.94,0.94"
        ) from error
    return slices, rows, columns


def parse_sequences(texts: Sequence[str]) -> dict[str, Role | None]:
    """``flair=4`` -> ``{"4": "flair"}``; ``none=4`` sets the series aside."""
    from brainseg.io.series import ROLES

    found: dict[str, Role | None] = {}
    for text in texts:
        name, _, key = text.partition("=")
        role = next((role for role in ROLES if role == name), None)
        if not key or (role is None and name != "none"):
            raise BrainsegError(
                f"--sequence {text!r} must be ROLE=KEY, with a role of {', '.join(ROLES)} or none, "
                "e.g. flair=4"
            )
        found[key] = role
    return found
