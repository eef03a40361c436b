"""brainseg models: the networks and the bundled weights."""

from __future__ import annotations

import json
from typing import Any

import typer

from brainseg.cli.common import JsonOption, number, print_line, print_table, stdout

# The heavy parts are imported inside the commands: --help answers at once.
# ruff: noqa: PLC0415


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
    console = stdout()
    print_table(
        console,
        ["name", "network", "parameters", "threshold", "Dice mean / median", "weights' licence"],
        [_cells(name, row) for name, row in rows.items()],
        left=6,
    )
    print_line(console, "Dice: volumetric, by patient, on validation patients; see each model card.")


def _cells(name: str, row: dict[str, Any]) -> list[str]:
    if not row["bundled"]:
        return [name, row["title"], "-", "-", "no bundled weights", "-"]
    dice = " / ".join(number(row, key, missing="not stated") for key in ("dice_mean", "dice_median"))
    return [name, row["title"], f"{row['parameters']:,}", f"{row['threshold']:g}", dice, row["licence"]]
