"""The command line: predict, evaluate, train, data, models."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from brainseg import __version__
from brainseg.types import RESEARCH_USE, BrainsegError, Spacing, Undefined

if TYPE_CHECKING:
    from brainseg.checkpoint import LoadedModel
    from brainseg.postprocess import Finding
    from brainseg.training.audit import AuditReport
    from brainseg.types import Study

# The heavy parts are imported inside the commands: --help answers at once.
# ruff: noqa: PLC0415

Step = Callable[[str, int, int], None]

app = typer.Typer(
    help=f"Lower-grade glioma on brain MRI: four U-Nets side by side. {RESEARCH_USE}",
    add_completion=False,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Fetch and check the training data.")
app.add_typer(data_app, name="data")

ModelOption = Annotated[
    list[str],
    typer.Option("--model", "-m", help="Bundled name, weights folder or Hub id; again for more; or: all."),
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, ...")]
TtaOption = Annotated[bool, typer.Option("--tta", help="Average over left-right flips; twice the time.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]


# typer carries a click of its own or depends on one, by version; this is the base of its usage errors.
_UsageError = cast("type[Exception]", typer.BadParameter.__mro__[2])


def main(arguments: list[str] | None = None) -> None:
    """Run the program; exits with 0 done, 2 bad input or usage, 130 interrupted."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        code = app(arguments or ["--help"], standalone_mode=False, prog_name="brainseg")
    except BrainsegError as error:
        _fail(str(error))
    except _UsageError as error:
        _fail(getattr(error, "format_message", error.__str__)() + " See: brainseg --help")
    except OSError as error:
        _fail(
            f"{error.filename or 'a file'}: {error.strerror or error}; check that it is there and may be used"
        )
    except (KeyboardInterrupt, typer.Abort):
        typer.echo("error: interrupted", err=True)
        sys.exit(130)
    sys.exit(code or 0)


def _fail(message: str) -> None:
    typer.echo("error: " + " ".join(message.split()), err=True)
    sys.exit(2)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"brainseg {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def _console() -> Console:
    """Standard output; where it is not a terminal, wide enough that no table is folded."""
    return Console(width=None if sys.stdout.isatty() else 160)


@contextmanager
def _quiet_decoders() -> Iterator[None]:
    """libtiff writes lines of its own about damaged files to descriptor 2, past Python; ours says enough."""
    sys.stderr.flush()
    saved = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


@contextmanager
def _progress(quiet: bool) -> Iterator[Step]:
    """A bar with time left on a terminal, plain lines otherwise; always on standard error."""
    console = Console(stderr=True)
    if quiet:
        yield lambda _text, _done, _total: None
    elif console.is_terminal:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console) as bar:
            task = bar.add_task("", total=None)
            yield lambda text, done, total: bar.update(task, description=text, completed=done, total=total)
    else:
        said = [""]

        def step(text: str, done: int, total: int) -> None:
            if text != said[0] or done == total:
                said[0] = text
                typer.echo(f"{text} [{done}/{total}]", err=True)

        yield step


def _load(names: list[str]) -> list[LoadedModel]:
    from brainseg.checkpoint import bundled, load

    if "all" in names:
        if len(names) > 1:
            raise BrainsegError("--model all already means every bundled model; leave out the others")
        names = list(bundled())
        if not names:
            raise BrainsegError("no bundled weights are installed; run from a clone of the repository")
    models = [load(name) for name in names]
    repeated = {m.card.name for m in models if sum(m.card.name == other.card.name for other in models) > 1}
    if repeated:
        raise BrainsegError(f"two of the models are named {repeated.pop()}; give each once")
    return models


def _spacing(text: str | None) -> Spacing | None:
    if text is None:
        return None
    try:
        slices, rows, columns = (float(part) for part in text.split(","))
    except ValueError as error:
        raise BrainsegError(
            f"--spacing {text!r} must be three numbers in mm: between slices, rows, columns, e.g. 5,0.94,0.94"
        ) from error
    return slices, rows, columns


@app.command()
def predict(
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUT", help="A patient folder, a zip, or files.")],
    model: ModelOption,
    out: Annotated[Path | None, typer.Option(help="Folder for masks, overlays, JSON and CSV.")] = None,
    case: Annotated[str | None, typer.Option(help="Patient to take, where INPUT holds several.")] = None,
    spacing: Annotated[
        str | None, typer.Option(help="mm between slices, rows, columns: 5,0.94,0.94. Without it: voxels.")
    ] = None,
    device: DeviceOption = "auto",
    tta: TtaOption = False,
    as_json: JsonOption = False,
) -> None:
    """Find the tumour in one patient with one or more models."""
    from brainseg.export import report, to_json
    from brainseg.inference import Predictor
    from brainseg.io import read_study
    from brainseg.postprocess import find

    spacing_mm = _spacing(spacing)
    models = _load(model)
    with _quiet_decoders():
        study = read_study(inputs[0] if len(inputs) == 1 else inputs, case_id=case, spacing_mm=spacing_mm)
    if spacing_mm is not None:
        study = replace(study, notes=(*study.notes, "Spacing was given by the user, not by the files."))
    findings: list[Finding] = []
    with _progress(quiet=as_json) as step:
        for one in models:

            def slices_done(done: int, total: int, name: str = one.card.name) -> None:
                step(f"{name}: slices", done, total)

            prediction = Predictor(one, device).predict(study, tta=tta, attention=False, progress=slices_done)
            findings.append(find(prediction))
    figures = report(study, findings)
    if out is not None:
        _write(out, study, findings, figures)
    if as_json:
        typer.echo(to_json(figures).decode(), nl=False)
    else:
        _show(figures)
        if out is not None:
            typer.echo(f"written to {out}")


def _write(out: Path, study: Study, findings: list[Finding], figures: dict[str, Any]) -> None:
    import io
    import zipfile

    from brainseg.export import masks_zip, overlays_zip, safe_name, to_csv, to_json

    case = safe_name(study.case_id)
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / f"{case}.json").write_bytes(to_json(figures))
        (out / f"{case}.csv").write_bytes(to_csv(figures))
        for name, data in (
            ("masks", masks_zip(study, findings, "tif")),
            ("overlays", overlays_zip(study, findings)),
        ):
            # Our own zip, with names made safe by the export.
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                archive.extractall(out / name)
    except OSError as error:
        raise BrainsegError(f"cannot write to {out} ({error.strerror}); choose another --out") from error


def _text(row: dict[str, Any], key: str, digits: int = 3, missing: str = "not computable") -> str:
    value = row[key]
    if value is None:
        reason = row.get("not_computable", {})
        return str(Undefined(reason[key])) if isinstance(reason, dict) and key in reason else missing
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)


def _show(figures: dict[str, Any]) -> None:
    console = _console()
    slices, rows, columns = figures["shape"]
    spacing = figures["spacing_mm"]
    console.print(
        f"{figures['case_id']}: {slices} slices of {rows} x {columns}, "
        + (f"spacing {' x '.join(f'{x:g}' for x in spacing)} mm" if spacing else "spacing unknown"),
        highlight=False,
        markup=False,
    )
    for note in figures["notes"]:
        console.print(f"note: {note}", highlight=False, markup=False)
    table = Table()
    names = ["model", "tumour voxels", *["ml"] * bool(spacing)]
    names += ["Dice", "IoU", "sensitivity", "precision", "HD95", "seconds"]
    for name in names:
        table.add_column(name, justify="left" if name == "model" else "right")
    no_reference = figures["reference_voxels"] is None
    for name, row in figures["models"].items():
        table.add_row(
            name + (" (trained on this patient)" if row["seen_in_training"] else ""),
            str(row["tumour_voxels"]),
            *([_text(row, "volume_ml", 1)] if spacing else []),
            *(
                "-" if no_reference else _text(row, key)
                for key in ("dice", "iou", "sensitivity", "precision")
            ),
            "-"
            if no_reference
            else _text(row, "hd95", 1) + (f" {row['hd95_unit']}" if row["hd95"] is not None else ""),
            f"{row['seconds']:.1f}",
        )
    console.print(table)
    areas = Table(title="tumour pixels in each slice")
    areas.add_column("slice", justify="right")
    for name in figures["models"]:
        areas.add_column(name, justify="right")
    for index, number in enumerate(figures["slice_numbers"]):
        row_areas = [row["area_per_slice"][index] for row in figures["models"].values()]
        if any(row_areas):
            areas.add_row(str(number), *map(str, row_areas))
    if areas.row_count:
        console.print(areas)
    if no_reference:
        console.print("No reference mask was given: Dice and its kin need one.", highlight=False)
    console.print(RESEARCH_USE, style="dim", highlight=False)


@app.command()
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
    as_json: JsonOption = False,
) -> None:
    """Compare models with reference masks over a data set, patient by patient."""
    from brainseg.checkpoint import bundled, is_local, resolve
    from brainseg.training.evaluate import evaluate as run
    from brainseg.training.evaluate import state_on_card

    if write_card and tta:
        raise BrainsegError("a card states figures without flips; leave out --tta or --write-card")
    models = _load(model)
    if ensemble and len(models) < 2:
        raise BrainsegError("--ensemble needs two models or more")
    names = list(bundled()) if model == ["all"] else model
    if write_card and (foreign := [name for name in names if not is_local(name)]):
        raise BrainsegError(
            f"--write-card cannot write to {foreign[0]}; give a weights folder or a bundled name"
        )
    with _progress(quiet=as_json) as step:
        result = run(
            models,
            dataset,
            ensemble=ensemble,
            validation=validation,
            tta=tta,
            missing_sequences=missing_sequences or write_card,
            device=device,
            report=step,
        )
    if write_card:
        for name, one in zip(names, models, strict=True):
            state_on_card(resolve(name), one.card, result)
    if as_json:
        typer.echo(json.dumps(result, indent=2, ensure_ascii=False, allow_nan=False))
        return
    table = Table(title="volumetric Dice by patient")
    for column in ("model", "mean", "median", "std", "patients", "missed", "not computable", "mean HD95"):
        table.add_column(column, justify="left" if column == "model" else "right")
    for name, row in result["models"].items():
        table.add_row(
            name,
            *(_text(row, key) for key in ("dice_mean", "dice_median", "dice_std")),
            *(str(row[key]) for key in ("cases", "missed", "not_computable")),
            _text(row, "hd95_mean", 1) + (f" {row['hd95_unit']}" if row["hd95_mean"] is not None else ""),
        )
    console = _console()
    console.print(table)
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
        console.print(
            f"{len(seen)} of these patients were seen in training; --validation leaves them out.",
            highlight=False,
        )
    console.print(result["protocol"], style="dim", highlight=False)
    console.print(RESEARCH_USE, style="dim", highlight=False)


def _print_behaviour(console: Console, models: dict[str, Any]) -> None:
    """What the cards state beside Dice: healthy slices, calibration, missing sequences."""
    table = Table(title="slices without tumour, and calibration")
    for column in ("model", "false positives", "median pixels", "ECE", "ECE at lesions"):
        table.add_column(column, justify="left" if column == "model" else "right")
    for name, row in models.items():
        healthy, calibration = row["healthy_slices"], row["calibration"]
        table.add_row(
            name,
            f"{healthy['with_false_positives']} of {healthy['slices']}",
            f"{healthy['median_false_pixels']:.0f}",
            _text(calibration, "ece", 4),
            _text(calibration, "ece_lesion"),
        )
    console.print(table)
    lacking = list(next(iter(models.values())).get("missing_sequences", {}))
    if not lacking:
        return
    table = Table(title="mean Dice with FLAIR in place of")
    for column in ("model", *lacking):
        table.add_column(column, justify="left" if column == "model" else "right")
    for name, row in models.items():
        cells = [_text(row["missing_sequences"][sequences], "dice_mean") for sequences in lacking]
        table.add_row(name, *cells)
    console.print(table)


@app.command()
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
    from brainseg.training.config import read_recipe
    from brainseg.training.loop import train as run

    settings = read_recipe(recipe, overrides or [])
    folder = out or Path("runs") / settings.name
    # Of several processes the first speaks for all.
    first = os.environ.get("RANK", "0") == "0"
    with _progress(quiet=not first) as step:
        card = run(settings, recipe.parent, data, folder, resume=resume, report=step)
    if first:
        typer.echo(
            f"weights in {folder / 'weights'}, threshold {card.threshold:g}, components kept: {card.keep}"
        )


@app.command()
def models(as_json: JsonOption = False) -> None:
    """List the networks and the bundled weights."""
    from brainseg.checkpoint import bundled
    from brainseg.models import ARCHITECTURES, build

    cards = bundled()
    rows = {
        name: {
            "title": architecture.title,
            "paper": architecture.paper,
            "gated": architecture.gated,
            "bundled": name in cards,
        }
        for name, architecture in ARCHITECTURES.items()
    }
    for name, card in cards.items():
        rows[name] |= {
            "width": card.spec.width,
            "norm": card.spec.norm,
            "parameters": sum(p.numel() for p in build(card.spec).parameters()),
            "threshold": card.threshold,
            "keep": card.keep,
            "dice_mean": card.metrics.get("dice_mean"),
            "dice_median": card.metrics.get("dice_median"),
            "patients": card.metrics.get("cases"),
            "licence": card.licence,
            "sha256": card.sha256,
        }
    if as_json:
        typer.echo(json.dumps({"models": rows}, indent=2))
        return
    table = Table()
    for column in ("name", "network", "parameters", "threshold", "Dice mean / median", "weights' licence"):
        table.add_column(column)
    for name, row in rows.items():
        if row["bundled"]:
            table.add_row(
                name,
                str(row["title"]),
                f"{row['parameters']:,}",
                f"{row['threshold']:g}",
                " / ".join(_text(row, key, missing="not stated") for key in ("dice_mean", "dice_median")),
                str(row["licence"]),
            )
        else:
            table.add_row(name, str(row["title"]), "-", "-", "no bundled weights", "-")
    console = _console()
    console.print(table)
    console.print(
        "Dice: volumetric, by patient, on validation patients; see each model card.", highlight=False
    )


@app.command("app")
def serve_page(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Where the page answers.")] = 8501,
    host: Annotated[
        str, typer.Option(help="Address to listen at; 0.0.0.0 lets other computers in.")
    ] = "localhost",
) -> None:
    """Open the page in a browser: folders in, overlays out."""
    from brainseg.ui.launch import serve

    serve(host, port)


@data_app.command()
def fetch(
    out: Annotated[Path | None, typer.Option(help="Folder for it; the download cache unless given.")] = None,
) -> None:
    """Fetch the public LGG data set from Kaggle."""
    from brainseg.training.audit import fetch as run

    typer.echo(run(out))


@data_app.command()
def check(
    dataset: Annotated[Path, typer.Argument(help="Folder of patient folders.")], as_json: JsonOption = False
) -> None:
    """Check a data set: missing masks, sizes, types, gaps, duplicates, missing sequences."""
    from brainseg.training.audit import check_dataset

    with _quiet_decoders():
        report = check_dataset(dataset)
    if as_json:
        typer.echo(json.dumps(report.to_json(), indent=2, ensure_ascii=False))
    else:
        _show_audit(report)
    if report.errors:
        raise BrainsegError(f"{dataset} has {len(report.errors)} errors; mend them before training")


def _show_audit(report: AuditReport) -> None:
    console = _console()
    if report.problems:
        table = Table()
        for column in ("patient", "severity", "problem"):
            table.add_column(column)
        for problem in report.problems:
            table.add_row(problem.patient, problem.severity, problem.text)
        console.print(table)
    console.print(
        f"{len(report.patients)} patients, {report.slices} slices, {report.slices_with_tumour} with tumour, "
        f"{report.foreground_fraction:.2%} of the pixels; "
        f"{len(report.errors)} errors, {len(report.problems) - len(report.errors)} warnings",
        highlight=False,
    )


if __name__ == "__main__":
    main()
