"""What the commands share: options, tables, progress, loading models.

Text of users and files reaches the terminal as it is, never through Rich's markup.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

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
from rich.table import Column, Table
from rich.text import Text

from brainseg.cohort.engines import EngineName
from brainseg.types import RESEARCH_USE, BrainsegError, Say, Undefined

if TYPE_CHECKING:
    from brainseg.checkpoint import LoadedModel

# The heavy parts are imported inside the commands: --help answers at once.
# ruff: noqa: PLC0415

ModelOption = Annotated[
    list[str],
    typer.Option("--model", "-m", help="Bundled name, weights folder or Hub id; again for more; or: all."),
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, ...")]
TtaOption = Annotated[bool, typer.Option("--tta", help="Average over left-right flips; twice the time.")]
WorkersOption = Annotated[
    int,
    typer.Option(min=1, help="Patients at once, each about 1 GB of memory; the cores are shared among them."),
]
EngineOption = Annotated[
    EngineName,
    typer.Option(help="Who works: processes here, or the Ray cluster of RAY_ADDRESS (or one here)."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]


def stdout() -> Console:
    """Standard output; where it is not a terminal, wide enough that no table is folded."""
    return Console(width=None if sys.stdout.isatty() else 160)


@contextmanager
def progress(quiet: bool, *, time_left: bool = False) -> Iterator[Say]:
    """A bar with time left on a terminal, plain lines otherwise; always on standard error.

    Args:
        quiet: neither.
        time_left: in plain lines too, as far as what was done since the first of them tells.
    """
    console = Console(stderr=True)
    if quiet:
        yield lambda _text, _done, _total: None
    elif console.is_terminal:
        columns = (
            TextColumn("{task.description}", markup=False),
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
        began: list[tuple[float, int]] = []

        def say(text: str, done: int, total: int) -> None:
            if text != said[0] or done == total:
                said[0] = text
                began.append((time.monotonic(), done))
                left = f", {_left(*began[0], done, total)}" if time_left and done > began[0][1] else ""
                typer.echo(f"{text} [{done}/{total}]{left}", err=True)

        yield say


def _left(started: float, before: int, done: int, total: int) -> str:
    """How long `total` takes still, in words, from what it took to come from `before` to `done`."""
    seconds = (time.monotonic() - started) / (done - before) * (total - done)
    return f"about {seconds / 60:.0f} min left" if seconds >= 90 else f"about {seconds:.0f} s left"


def print_table(
    console: Console, head: Sequence[str], rows: Sequence[Sequence[str]], *, title: str = "", left: int = 1
) -> None:
    """A table of plain text; the first `left` columns are set to the left, the others to the right."""
    columns = [Column(Text(name), justify="left" if n < left else "right") for n, name in enumerate(head)]
    table = Table(*columns, title=Text(title) if title else None)
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)


def print_line(console: Console, text: str) -> None:
    """A line of plain text."""
    console.print(Text(text))


def print_failures(console: Console, failures: dict[str, str]) -> None:
    """Which patients failed, and why."""
    from brainseg.io.text import shown

    for patient, reason in failures.items():
        print_line(console, f"failed: {shown(patient)}: {reason}")


def print_notice(console: Console, *lines: str) -> None:
    """Small print, with the notice that this is for research alone."""
    for line in (*lines, RESEARCH_USE):
        console.print(Text(line, style="dim"))


def number(row: dict[str, Any], key: str, digits: int = 3, missing: str = "not computable") -> str:
    """A figure of a JSON row as text; where there is none, its reason or `missing`."""
    value = row[key]
    if value is None:
        reason = row.get("not_computable", {})
        return str(Undefined(reason[key])) if isinstance(reason, dict) and key in reason else missing
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)


def load_models(names: list[str]) -> list[LoadedModel]:
    """Load what `ModelOption` names.

    Raises:
        BrainsegError: if there is no such thing, or two bear one name.
    """
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
