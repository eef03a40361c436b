"""What the pages of the site state of the program is taken from the program when the site is built.

A hook of MkDocs: a line ``<!-- generated: NAME -->`` of a page becomes what ``GENERATED[NAME]`` gives.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

from brainseg.checkpoint import bundled
from brainseg.cli.program import app
from brainseg.evaluation.patient import MISSING
from brainseg.io import limits
from brainseg.models import ARCHITECTURES, build
from brainseg.training.config import read_recipe

ROOT = Path(__file__).resolve().parent.parent
_MARK = re.compile(r"^<!-- generated: (\w+) -->$", re.MULTILINE)


_WORKER = ROOT / "node_modules" / "iframe-worker" / "shim" / "index.js"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what lets the search run when the site is opened from a folder, where browsers start no worker."""
    if not _WORKER.is_file():
        raise PluginError("node_modules lacks iframe-worker; call `make docs`, which installs it")
    files.append(File.generated(config, "javascripts/iframe-worker.js", abs_src_path=str(_WORKER)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill what a page leaves to the program; MkDocs calls it for every page."""
    return _MARK.sub(lambda mark: GENERATED[mark[1]](), markdown)


def commands() -> Iterator[tuple[str, Any]]:
    """Every command as it is typed, with its click object, groups first."""

    def walk(words: str, command: Any) -> Iterator[tuple[str, Any]]:
        yield words, command
        for name, one in getattr(command, "commands", {}).items():
            yield from walk(f"{words} {name}", one)

    yield from walk("brainseg", typer.main.get_command(app))


def command_line() -> str:
    """A section for each command: what it does, how it is called, its arguments and options."""
    return "\n\n".join(_section(words, command) for words, command in commands())


def _section(words: str, command: Any) -> str:
    inner = getattr(command, "commands", None)
    parts = [f"### `{words}` {{ #{_anchor(words)} }}", _help(command)]
    if inner:
        links = [(f"[`{words} {n}`](#{_anchor(f'{words} {n}')})", _help(one)) for n, one in inner.items()]
        parts.append(_table(["command", "does"], links))
    else:
        parts.append(f"```text\n{_usage(words, command.params)}\n```")
    shown = [one for one in command.params if not getattr(one, "hidden", False)]
    if shown:
        parts.append(_table(["argument or option", "means", "unless given"], [_row(one) for one in shown]))
    return "\n\n".join(parts)


def _anchor(words: str) -> str:
    return words.replace(" ", "-")


def _help(one: Any) -> str:
    return " ".join((one.help or "").split())


def _usage(words: str, params: list[Any]) -> str:
    """The command with what it cannot do without."""
    needed = [_words(one) for one in params if one.required]
    optional = ["[OPTIONS]"] if len(needed) < len(params) else []
    return " ".join([words, *needed, *optional])


def _words(one: Any) -> str:
    """An argument or option as it is typed. The value is named as the option is: Typer's own words for types
    change with its version."""
    if one.param_type_name == "argument":
        return f"{one.metavar or one.name}".upper() + ("..." if one.nargs == -1 else "")
    name: str = max(one.opts, key=len)
    return name if one.is_flag else f"{name} {one.metavar or name.strip('-').replace('-', '_').upper()}"


def _row(one: Any) -> tuple[str, str, str]:
    """Cells of one argument or option."""
    short = [f"`{name}`, " for name in getattr(one, "opts", []) if len(name) == 2 and name != one.name]
    fixed = one.required or one.default is None or callable(one.default) or getattr(one, "is_flag", False)
    default = "required" if one.required else "" if fixed else f"`{one.default}`"
    return f"{''.join(short)}`{_words(one)}`", _help(one), default


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    lines = [head, ["---"] * len(head), *cells]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def networks() -> str:
    """The list of networks, with the size of the bundled weights."""
    cards = bundled()
    rows = []
    for name, row in ARCHITECTURES.items():
        card = cards[name]
        count = sum(p.numel() for p in build(card.spec).parameters())
        gates = len(build(card.spec).gates())
        rows.append((f"`{name}`", row.title, row.paper, str(card.spec.width), f"{count:,}", str(gates)))
    return _table(["name", "network", "paper", "width", "parameters", "gates"], rows)


def figures() -> str:
    """What the cards of the bundled weights state of their validation patients."""
    rows = []
    for card in bundled().values():
        m = card.metrics
        rows.append(
            (
                ARCHITECTURES[card.spec.architecture].title,
                *(f"{m[key]:.3f}" for key in ("dice_mean", "dice_median", "dice_std")),
                str(m["missed"]),
                f"{m['hd95_mean']:.1f} {m['hd95_unit']}",
                f"{card.threshold:g}",
                card.keep,
            )
        )
    head = [
        "network",
        "mean Dice",
        "median",
        "standard deviation",
        "missed",
        "mean HD95",
        "threshold",
        "keep",
    ]
    return _table(head, rows)


def behaviour() -> str:
    """What the cards state beside Dice: missed lesions, healthy slices, missing sequences."""
    rows = []
    for card in bundled().values():
        m = card.metrics
        healthy, lacking = m["healthy_slices"], m["missing_sequences"]
        rows.append(
            (
                ARCHITECTURES[card.spec.architecture].title,
                f"{m['missed']} of {m['cases']}",
                f"{healthy['with_false_positives']} of {healthy['slices']}",
                f"{m['dice_mean']:.3f}",
                *(f"{lacking[key]['dice_mean']:.3f} ({lacking[key]['missed']})" for key in MISSING),
            )
        )
    head = [
        "network",
        "lesions missed",
        "healthy slices marked",
        "mean Dice",
        *(f"without {k}" for k in MISSING),
    ]
    return _table(head, rows)


def patients() -> str:
    """How many patients trained and validated the bundled weights."""
    counts = {(len(card.training_patients), len(card.validation_patients)) for card in bundled().values()}
    (training, validation) = counts.pop() if len(counts) == 1 else ("other numbers of", "other numbers of")
    return f"The released weights were trained on {training} patients and validated on {validation}."


def starts() -> str:
    """What each recipe of a released weight starts from, and its stages."""
    rows = []
    for name, row in ARCHITECTURES.items():
        recipe = read_recipe(ROOT / "recipes" / f"{name}.toml")
        stages = ", ".join(f"{stage.epochs} at {stage.size}" for stage in recipe.stages)
        start = f"`{recipe.init}`" if recipe.init else "random"
        rows.append((row.title, f"`recipes/{name}.toml`", start, stages, f"{recipe.optim.lr:g}"))
    return _table(["network", "recipe", "starts from", "epochs at pixels", "peak learning rate"], rows)


def bounds() -> str:
    """How much the readers take."""
    mib = 2**20
    return _table(
        ["what", "at most"],
        [
            ("files in one folder or zip", f"{limits.MAX_FILES:,}"),
            ("slices of one patient", f"{limits.MAX_SLICES:,}"),
            ("rows or columns of one slice", f"{limits.MAX_SIDE:,} pixels"),
            ("slices x rows x columns of one patient", f"{limits.MAX_VOXELS:,} voxels"),
            ("bytes of a zip, unpacked", f"{limits.MAX_UNZIPPED // mib:,} MiB"),
            (
                "unpacked to packed size of a zip",
                f"{limits.MAX_RATIO} to 1, once it unpacks to more than {limits.RATIO_FROM // mib} MiB",
            ),
            ("the path of a file, in UTF-8", f"{limits.MAX_NAME:,} bytes, {limits.MAX_PART} for one part"),
        ],
    )


GENERATED: dict[str, Callable[[], str]] = {
    "command_line": command_line,
    "networks": networks,
    "figures": figures,
    "behaviour": behaviour,
    "patients": patients,
    "starts": starts,
    "bounds": bounds,
}
