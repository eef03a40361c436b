"""Write docs/RESULTS.md from its template, the cards of the weights and the results of the benchmarks.

    python docs/results.py            # writes it
    python docs/results.py --check    # fails if it is not what this would write

Every figure in a table comes from a file.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from brainseg.checkpoint import bundled
from brainseg.evaluation.patient import ENSEMBLE
from brainseg.models import ARCHITECTURES
from brainseg.training.config import read_recipe
from brainseg.types import WeightsCard

HERE = Path(__file__).resolve().parent
OUT = HERE / "RESULTS.md"
TEMPLATE = HERE / "RESULTS.md.j2"
RESULTS = HERE.parent / "benchmarks" / "results"
RECIPES = HERE.parent / "recipes"
TARGETS = {"unet": 0.87, "attention_unet": 0.89, "unetpp": 0.89, "attention_unetpp": 0.89, ENSEMBLE: 0.90}
EARLIER = {"unet": 0.82, "attention_unet": 0.87, "unetpp": 0.85, "attention_unetpp": 0.81}
BASE = "as the recipe"
WORST = 6


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, the first column to the left."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def stored(name: str) -> Any:
    """A result file of the benchmarks."""
    return json.loads((RESULTS / name).read_bytes())


def main_table(cards: dict[str, WeightsCard]) -> str:
    """The four networks and their mean on the validation patients, beside targets and earlier figures."""
    found = stored("evaluation.json")["models"]
    for name, card in cards.items():
        used = (card.sha256, card.threshold, card.keep, card.temperature)
        if tuple(found[name][key] for key in ("weights_sha256", "threshold", "keep", "temperature")) != used:
            raise SystemExit(f"evaluation.json is of other weights than {name}; evaluate again")
    rows = []
    for name, m in found.items():
        dice = [row["dice"] for row in m["patients"].values()]
        quartiles = " to ".join(f"{value:.2f}" for value in np.quantile(dice, (0.25, 0.75)))
        error = np.std(dice, ddof=1) / np.sqrt(len(dice))
        rows.append(
            [
                title(name),
                f"{m['dice_mean']:.3f} ± {error:.3f}",
                f"{m['dice_median']:.3f}",
                quartiles,
                str(m["missed"]),
                f"{TARGETS[name]:.2f}",
                f"{EARLIER[name]:.2f}" if name in EARLIER else "",
            ]
        )
    head = ["network", "mean Dice ± standard error", "median", "middle half", "missed", "target", "earlier"]
    return table(head, rows)


def title(name: str) -> str:
    """What a model is called in a table."""
    return ARCHITECTURES[name].title if name in ARCHITECTURES else "Ensemble of the four"


def runs_table(cards: dict[str, WeightsCard]) -> str:
    """What the training logs of the four runs say."""
    rows = []
    for name, card in cards.items():
        with (RESULTS / f"{name}.csv").open(newline="") as file:
            log = list(csv.DictReader(file))
        recipe = read_recipe(RECIPES / f"{name}.toml")
        slices = sum(
            recipe.steps_in(n) * recipe.stage_of(n).batch * recipe.accumulate for n in range(len(log))
        )
        hours = sum(slices / len(log) / float(row["samples_per_second"]) for row in log) / 3600
        best = max((row for row in log if row["dice_mean"]), key=lambda row: float(row["dice_mean"]))
        stages = ", ".join(f"{stage.epochs} at {stage.size}" for stage in recipe.stages)
        start = card.init.partition("@")[0] or "random"
        rows.append(
            [
                title(name),
                start,
                stages,
                f"{slices:,}",
                f"{hours:.1f}",
                f"{float(log[-1]['loss']):.3f}",
                f"{best['epoch']} of {len(log)}",
            ]
        )
    head = ["network", "start", "epochs", "slices seen", "hours of steps", "last loss", "best epoch"]
    return table(head, rows)


def failures(cards: dict[str, WeightsCard]) -> str:
    """The patients with the lowest mean Dice over the networks."""
    patients = list(next(iter(cards.values())).metrics["patients"])
    dice = {p: [card.metrics["patients"][p]["dice"] for card in cards.values()] for p in patients}
    worst = sorted(patients, key=lambda p: float(np.mean(dice[p])))[:WORST]
    rows = []
    for patient in worst:
        figures = [card.metrics["patients"][patient] for card in cards.values()]
        sensitivity = np.mean([row["sensitivity"] for row in figures])
        precision = [row["precision"] for row in figures if row["precision"] is not None]
        rows.append(
            [
                patient,
                *(f"{value:.2f}" for value in dice[patient]),
                f"{figures[0]['reference_voxels']:,}",
                f"{sensitivity:.2f}",
                f"{np.mean(precision):.2f}" if precision else "not computable",
            ]
        )
    titles = [title(name) for name in cards]
    lost = 1 - np.mean([np.mean(values) for values in dice.values()])
    share = sum(1 - np.mean(dice[p]) for p in worst) / len(patients) / lost
    head = ["patient", *titles, "reference voxels", "mean sensitivity", "mean precision"]
    return (
        table(head, rows)
        + f"\n\nThese {len(worst)} of {len(patients)} patients make {share:.0%} of what is missing to 1."
    )


def behaviour(cards: dict[str, WeightsCard]) -> str:
    """Healthy slices, missing sequences, calibration."""
    rows = []
    for name, card in cards.items():
        healthy, calibration = card.metrics["healthy_slices"], card.metrics["calibration"]
        lacking = card.metrics["missing_sequences"]
        rows.append(
            [
                title(name),
                f"{healthy['with_false_positives']} of {healthy['slices']}",
                *(f"{row['dice_mean']:.3f}" for row in lacking.values()),
                f"{calibration['ece']:.4f}",
                f"{calibration['ece_lesion']:.3f}",
                f"{card.temperature:g}",
                f"{card.threshold:g}",
                card.keep,
            ]
        )
    lacking = next(iter(cards.values())).metrics["missing_sequences"]
    head = ["network", "false positives", *(f"without {key}" for key in lacking)]
    return table([*head, "ECE", "ECE at lesions", "temperature", "threshold", "keep"], rows)


def operating_points(cards: dict[str, WeightsCard]) -> str:
    """Flips and post-processing, each at its best threshold."""
    result = stored("operating_points.json")
    stated = {name: [card.sha256, card.temperature] for name, card in cards.items()}
    if result["weights"] != stated:
        raise SystemExit(
            "operating_points.json is of other weights; run benchmarks/operating_points.py again"
        )
    models = list(dict.fromkeys(row["model"] for row in result["rows"]))
    found = {(row["model"], row["flips"], row["rule"]): row for row in result["rows"]}
    rows = []
    for rule in dict.fromkeys(row["rule"] for row in result["rows"]):
        for flips in (False, True):
            cells = [found[model, flips, rule] for model in models]
            rows.append(
                [
                    rule + (", flips" if flips else ""),
                    *(f"{c['dice_mean']:.3f} ({c['missed']}) at {c['threshold']:g}" for c in cells),
                ]
            )
    return table(["kept", *map(title, models)], rows)


def paired(
    variant: list[dict[str, Any]], base: list[dict[str, Any]], key: str = "plain"
) -> tuple[float, float]:
    """Mean over patients of the difference in Dice, averaged over seeds, and its standard error.

    Only seeds and folds that both have are compared; each patient belongs to one fold.
    """
    shared = {run_key(run) for run in variant} & {run_key(run) for run in base}
    gaps: dict[str, list[float]] = {}
    for run in variant:
        if run_key(run) in shared:
            (other,) = (one for one in base if run_key(one) == run_key(run))
            for patient, value in run["dice"][key].items():
                gaps.setdefault(patient, []).append(value - other["dice"][key][patient])
    means = [np.mean(values) for values in gaps.values()]
    return float(np.mean(means)), float(np.std(means, ddof=1) / np.sqrt(len(means)))


def run_key(run: dict[str, Any]) -> tuple[int, int]:
    """Which runs of two variants are a pair."""
    return run["fold"], run["seed"]


def ablations(name: str) -> str:
    """Every variant of a specification against its recipe, patient by patient."""
    result = stored(name)
    by_variant: dict[str, list[dict[str, Any]]] = {}
    for run in result["runs"]:
        by_variant.setdefault(run["variant"], []).append(run)
    rows = []
    for variant, runs in by_variant.items():
        against = result["against"].get(variant, BASE)
        base = by_variant[against]
        means = [np.mean(list(run["dice"]["plain"].values())) for run in runs]
        medians = [np.median(list(run["dice"]["plain"].values())) for run in runs]
        gap, error = paired(runs, base)
        each = [paired([run], [other]) for run in runs for other in base if run_key(other) == run_key(run)]
        same_sign = len(each) > 1 and len({np.sign(one) for one, _ in each}) == 1
        clear = "yes" if same_sign and abs(gap) > 2 * error else "no"
        rows.append(
            [
                variant,
                ", ".join(f"{value:.3f}" for value in means),
                ", ".join(f"{value:.3f}" for value in medians),
                ""
                if runs is base
                else f"{gap:+.3f} ± {error:.3f}" + (f" to {against}" if against != BASE else ""),
                "" if runs is base else clear,
            ]
        )
    flips = []
    for run in result["runs"]:
        flips.append(
            np.mean(list(run["dice"]["flips"].values())) - np.mean(list(run["dice"]["plain"].values()))
        )
    head = ["variant", "mean Dice, each run", "median, each run", "difference by patient", "clear"]
    return (
        table(head, rows)
        + f"\n\nFlips at test time change the mean by {np.mean(flips):+.3f} on average over these "
        + f"{len(flips)} runs (from {min(flips):+.3f} to {max(flips):+.3f})."
    )


def speed() -> str:
    """Training speed, ratios of one run."""
    result = stored("train_speed.json")
    rows = [
        [
            row["network"],
            row["way"],
            f"{row['slices_per_second']:.1f}",
            f"{row['against_plain']:.2f}" if row["against_plain"] else "",
            f"{row['share_of_peak']:.0%}",
            f"{row['gflop_per_slice']:.1f}",
        ]
        for row in result["rows"]
    ]
    head = ["network", "way", "slices/s", "times plain", "of bf16 peak", "GFLOP/slice"]
    setting = (
        f"{result['device']}, PyTorch {result['torch']}; width {result['width']}, slices "
        f"of {result['size']} x {result['size']}, batch {result['batch']}, median of {result['rounds']} "
        f"rounds; a large bf16 matrix product reaches {result['bf16_peak_tflops']:.2f} TFLOP/s."
    )
    return f"{setting}\n\n{table(head, rows)}"


def page() -> str:
    """The whole of RESULTS.md."""
    cards = bundled()
    first = next(iter(cards.values()))
    common = [f"`{change}`" for change in stored("ablations.json")["common"]]
    template = jinja2.Template(
        TEMPLATE.read_text(encoding="utf-8"), undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    text: str = template.render(
        protocol=first.metrics["protocol"],
        validation=len(first.validation_patients),
        training=len(first.training_patients),
        precision=first.metrics["precision"],
        device=first.metrics["device"].upper(),
        lesion_floor=first.metrics["calibration"]["lesion_floor"],
        common=", ".join(common),
        main_table=main_table(cards),
        runs_table=runs_table(cards),
        failures=failures(cards),
        behaviour=behaviour(cards),
        operating_points=operating_points(cards),
        ablations=ablations("ablations.json"),
        recipe_check=ablations("recipe.json"),
        speed=speed(),
    )
    return text


if __name__ == "__main__":
    written = page()
    if "--check" in sys.argv[1:]:
        if OUT.read_text(encoding="utf-8") != written:
            raise SystemExit("docs/RESULTS.md is not what docs/results.py writes; run it again")
    else:
        OUT.write_text(written, encoding="utf-8")
