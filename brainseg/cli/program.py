"""The program: its commands, and how it ends."""

from __future__ import annotations

import sys
from typing import Annotated, cast

import typer

from brainseg import __version__
from brainseg.cli.data import data_app
from brainseg.cli.evaluate import evaluate
from brainseg.cli.hub import hub_app
from brainseg.cli.models import models
from brainseg.cli.predict import predict
from brainseg.cli.serve import serve_page
from brainseg.cli.train import train
from brainseg.types import RESEARCH_USE, BrainsegError

app = typer.Typer(
    help=f"Lower-grade glioma on brain MRI: four U-Nets side by side. {RESEARCH_USE}",
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (predict, evaluate, train, models):
    app.command()(command)
app.command("app")(serve_page)
app.add_typer(data_app, name="data")
app.add_typer(hub_app, name="hub")

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
