"""Write docs/RESULTS.md from the cards of the weights and the results of the benchmarks.

    python docs/results.py            # writes it
    python docs/results.py --check    # fails if it is not what this would write

Every figure in a table comes from a file; the words around them are here.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from brainseg.checkpoint import bundled
from brainseg.models import ARCHITECTURES
from brainseg.types import WeightsCard

HERE = Path(__file__).resolve().parent
OUT = HERE / "RESULTS.md"
RESULTS = HERE.parent / "benchmarks" / "results"
TARGETS = {"unet": 0.87, "attention_unet": 0.89, "unetpp": 0.89, "attention_unetpp": 0.89}
EARLIER = {"unet": 0.82, "attention_unet": 0.87, "unetpp": 0.85, "attention_unetpp": 0.81}
BASE = "as the recipe"
WORST = 6

WORDS = {
    "targets": "",
    "training": "",
    "failures": "",
    "operating_points": "",
    "ablations": "",
    "speed": "",
}


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, the first column to the left."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def read(name: str) -> Any:
    """A result file of the benchmarks."""
    return json.loads((RESULTS / name).read_bytes())


def main_table(cards: dict[str, WeightsCard]) -> str:
    """The four networks on the validation patients, beside targets and earlier figures."""
    rows = []
    for name, card in cards.items():
        m = card.metrics
        dice = [row["dice"] for row in m["patients"].values()]
        quartiles = " to ".join(f"{value:.2f}" for value in np.quantile(dice, (0.25, 0.75)))
        error = np.std(dice, ddof=1) / np.sqrt(len(dice))
        rows.append(
            [
                ARCHITECTURES[name].title,
                f"{m['dice_mean']:.3f} ± {error:.3f}",
                f"{m['dice_median']:.3f}",
                quartiles,
                str(m["missed"]),
                f"{TARGETS[name]:.2f}",
                f"{EARLIER[name]:.2f}",
            ]
        )
    head = ["network", "mean Dice ± standard error", "median", "middle half", "missed", "target", "earlier"]
    return table(head, rows)


def runs_table(cards: dict[str, WeightsCard]) -> str:
    """What the training logs of the four runs say."""
    rows = []
    for name, card in cards.items():
        with (RESULTS / f"{name}.csv").open(newline="") as file:
            log = list(csv.DictReader(file))
        recipe = json.loads((RESULTS / f"{name}.recipe.json").read_bytes())
        slices = len(log) * recipe["data"]["samples_per_epoch"]
        hours = (
            sum(recipe["data"]["samples_per_epoch"] / float(row["samples_per_second"]) for row in log) / 3600
        )
        best = max((row for row in log if row["dice_mean"]), key=lambda row: float(row["dice_mean"]))
        stages = ", ".join(f"{s['epochs']} at {s['size']}" for s in recipe["stages"])
        start = card.init.partition("@")[0] or "random"
        rows.append(
            [
                ARCHITECTURES[name].title,
                start,
                stages,
                f"{slices:,}",
                f"{hours:.1f}",
                f"{float(log[-1]['loss']):.3f}",
                f"{best['epoch']} of {len(log)}",
            ]
        )
    head = ["network", "start", "epochs", "slices seen", "hours on one core", "last loss", "best epoch"]
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
    titles = [ARCHITECTURES[name].title for name in cards]
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
                ARCHITECTURES[name].title,
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
    result = read("operating_points.json")
    stated = {name: card.sha256 for name, card in cards.items()}
    if result["weights_sha256"] != stated:
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
    titles = [ARCHITECTURES[m].title if m in ARCHITECTURES else "mean of the four" for m in models]
    return table(["kept", *titles], rows)


def paired(
    variant: list[dict[str, Any]], base: list[dict[str, Any]], key: str = "plain"
) -> tuple[float, float]:
    """Mean over patients of the difference in Dice, averaged over seeds, and its standard error."""
    seeds = {run["seed"] for run in variant} & {run["seed"] for run in base}
    gaps = []
    for patient in variant[0]["dice"][key]:
        one, other = (
            np.mean([run["dice"][key][patient] for run in runs if run["seed"] in seeds])
            for runs in (variant, base)
        )
        gaps.append(one - other)
    return float(np.mean(gaps)), float(np.std(gaps, ddof=1) / np.sqrt(len(gaps)))


def ablations() -> str:
    """Every variant against the recipe, patient by patient."""
    result = read("ablations.json")
    by_variant: dict[str, list[dict[str, Any]]] = {}
    for run in result["runs"]:
        by_variant.setdefault(run["variant"], []).append(run)
    rows = []
    for variant, runs in by_variant.items():
        base = by_variant[result["against"].get(variant, BASE)]
        means = [np.mean(list(run["dice"]["plain"].values())) for run in runs]
        medians = [np.median(list(run["dice"]["plain"].values())) for run in runs]
        gap, error = paired(runs, base)
        each = [paired([run], [other]) for run in runs for other in base if other["seed"] == run["seed"]]
        same_sign = len(each) > 1 and len({np.sign(one) for one, _ in each}) == 1
        clear = "yes" if same_sign and abs(gap) > 2 * error else "no"
        rows.append(
            [
                variant,
                ", ".join(f"{value:.3f}" for value in means),
                ", ".join(f"{value:.3f}" for value in medians),
                "" if runs is base else f"{gap:+.3f} ± {error:.3f}",
                "" if runs is base else clear,
            ]
        )
    flips = []
    for run in result["runs"]:
        flips.append(
            np.mean(list(run["dice"]["flips"].values())) - np.mean(list(run["dice"]["plain"].values()))
        )
    head = ["variant", "mean Dice, each seed", "median, each seed", "difference by patient", "clear"]
    return (
        table(head, rows)
        + f"\n\nFlips at test time change the mean by {np.mean(flips):+.3f} on average over these "
        + f"{len(flips)} runs (from {min(flips):+.3f} to {max(flips):+.3f})."
    )


def speed() -> str:
    """Training speed, ratios of one run."""
    result = read("train_speed.json")
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
        f"{result['device']}, PyTorch {result['torch']}; width {result['width']}, slices of {result['size']} x "
        f"{result['size']}, batch {result['batch']}, median of {result['rounds']} rounds; a large bf16 "
        f"matrix product reaches {result['bf16_peak_tflops']:.2f} TFLOP/s."
    )
    return f"{setting}\n\n{table(head, rows)}"


def page() -> str:
    """The whole of RESULTS.md."""
    cards = bundled()
    first = next(iter(cards.values()))
    count = len(first.validation_patients)
    common = ", ".join(f"`{change}`" for change in read("ablations.json")["common"] if change != "init=")
    return f"""# Results

Written by `python docs/results.py` from the cards in `weights/`, the training logs and the results in
`benchmarks/results/`. Research use only, not a medical device.

## Protocol

{first.metrics["protocol"]} {count} validation patients (fold 0 of `recipes/lgg_folds.json`, stratified
by institution), {len(first.training_patients)} training patients, no patient in both. The validation patients
also chose the epoch, the temperature, the threshold and the post-processing, so expect less on others. Computed in {first.metrics["precision"]} on the {first.metrics["device"].upper()}, without flips unless said.

## The four networks

`brainseg evaluate DATASET --model all --ensemble --validation --missing-sequences`

{main_table(cards)}

"Target" is what this set was meant to reach; "earlier" is what the same four networks were reported to reach
before brainseg, protocol unstated. {WORDS["targets"]}

## How they were trained

`brainseg train recipes/NAME.toml --data DATASET`, on one CPU core each; logs in `benchmarks/results/`.

{runs_table(cards)}

{WORDS["training"]}

## Where they fail

{failures(cards)}

{WORDS["failures"]}

## Healthy slices, missing sequences, calibration

{behaviour(cards)}

False positives: slices without tumour in the reference in which a network finds some, all from patients who have
a tumour elsewhere. "Without" a sequence: FLAIR in its place, mean Dice. ECE: expected calibration error in 15 bins
over all voxels, and over those that are tumour or got a probability of at least
{first.metrics["calibration"]["lesion_floor"]:g}.

## Flips and post-processing

`python benchmarks/operating_points.py DATASET`: mean Dice (lesions missed) at the best threshold of each row,
chosen on the same patients.

{operating_points(cards)}

{WORDS["operating_points"]}

## Ablations

`python benchmarks/ablations.py DATASET`: one change at a time against `recipes/unet.toml`, made small and short
({common}). Each network at the operating point chosen on the validation patients, without flips. The difference is
taken patient by patient, averaged over seeds, with its standard error over patients; it is called clear when it
exceeds two standard errors and has the same sign with every seed. Runs this short say what learns fast, and not
always what ends best.

{ablations()}

{WORDS["ablations"]}

## Training speed

`python benchmarks/train_speed.py --json`. {speed()}

{WORDS["speed"]}
"""


if __name__ == "__main__":
    text = page()
    if "--check" in sys.argv[1:]:
        if OUT.read_text(encoding="utf-8") != text:
            raise SystemExit("docs/RESULTS.md is not what docs/results.py writes; run it again")
    else:
        OUT.write_text(text, encoding="utf-8")
