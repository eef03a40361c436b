"""brainseg models: the networks and the bundled weights."""

from __future__ import annotations

import json
from typing import Any

import typer

from brainseg.cli.common import JsonOption, number, print_line, print_table, stdout
from brainseg.types import WeightsCard, WeightsError

# The heavy parts are imported inside the commands: --help answers at once.
# ruff: noqa: PLC0415


def models(as_json: JsonOption = False) -> None:
    """List the networks, and the bundled weights with where they are."""
    from brainseg.checkpoint import bundled_names, whereabouts
    from brainseg.models import ARCHITECTURES, build

    cards = _cards()
    rows = {
        name: {
            "title": architecture.title,
            "paper": architecture.paper,
            "gated": architecture.gated,
            "bundled": name in bundled_names(),
            "weights": whereabouts(name),
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
        ["name", "network", "parameters", "threshold", "Dice mean / median", "weights", "their licence"],
        [_cells(name, row) for name, row in rows.items()],
        left=7,
    )
    print_line(console, "Dice: volumetric, by patient, on validation patients; see each model card.")


def _cards() -> dict[str, WeightsCard]:
    """Cards of the bundled weights, as far as they are here or within reach."""
    from brainseg.checkpoint import bundled_card, bundled_names, whereabouts

    cards: dict[str, WeightsCard] = {}
    reach = True
    for name in bundled_names():
        where = whereabouts(name)
        try:
            if where in ("here", "cached") or (reach and where == "to be fetched"):
                cards[name] = bundled_card(name)
        except WeightsError:
            if where == "here":
                raise
            reach = False  # nobody waits four times
    return cards


def _cells(name: str, row: dict[str, Any]) -> list[str]:
    if "sha256" not in row:
        return [name, row["title"], "-", "-", "-", row["weights"], "-"]
    dice = " / ".join(number(row, key, missing="not stated") for key in ("dice_mean", "dice_median"))
    where, licence = row["weights"], row["licence"]
    return [name, row["title"], f"{row['parameters']:,}", f"{row['threshold']:g}", dice, where, licence]
