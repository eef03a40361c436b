"""Train the variants of benchmarks/ablations.toml and write what each scores on the validation patients.

    python benchmarks/ablations.py DATASET --out runs/ablations

A run that was interrupted goes on; one that is finished is not repeated. `benchmarks/results/ablations.json`
holds the figures, from which `docs/results.py` writes docs/RESULTS.md.
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from brainseg.checkpoint import load
from brainseg.training.config import read_recipe
from brainseg.training.evaluate import evaluate
from brainseg.training.loop import train

HERE = Path(__file__).resolve().parent
SPEC = HERE / "ablations.toml"
RESULTS = HERE / "results" / "ablations.json"


def folder_name(variant: str, seed: int) -> str:
    """A folder for one run: letters and digits of the variant's name, then the seed."""
    return "-".join("".join(c if c.isalnum() or c == "+" else " " for c in variant).split()) + f"-seed{seed}"


def run_one(spec: dict[str, Any], variant: str, seed: int, data: Path, out: Path) -> None:
    """Train one variant with one seed unless it is there already, and score it with and without flips."""
    folder = out / folder_name(variant, seed)
    path = SPEC.parent / spec["recipe"]
    recipe = read_recipe(path, [*spec["common"], *spec["variants"][variant], f"seed={seed}"])
    if (folder / "result.json").is_file():
        frozen = json.loads((folder / "recipe.json").read_bytes())
        if any(frozen[key] != value for key, value in json.loads(json.dumps(asdict(recipe))).items()):
            raise typer.BadParameter(f"{folder} is of another recipe; choose another --out")
        return
    train(recipe, path.parent, data, folder, resume=True)
    model = load(folder / "weights")
    scores = {}
    for flips in (False, True):
        found = evaluate([model], data, validation=True, tta=flips)["models"][recipe.name]["patients"]
        scores["flips" if flips else "plain"] = {patient: row["dice"] for patient, row in found.items()}
    row = {"variant": variant, "seed": seed, "threshold": model.card.threshold, "keep": model.card.keep}
    (folder / "result.json").write_text(json.dumps(row | {"dice": scores}, indent=1) + "\n", encoding="utf-8")
    typer.echo(f"{variant}, seed {seed}: done")


def collect(spec: dict[str, Any], out: Path) -> list[dict[str, Any]]:
    """The results that are there, in the order of the specification."""
    names = [folder_name(variant, seed) for variant in spec["variants"] for seed in spec["seeds"]]
    paths = [out / name / "result.json" for name in names]
    return [json.loads(path.read_bytes()) for path in paths if path.is_file()]


def main(
    data: Annotated[Path, typer.Argument(help="Folder of patient folders, with masks.")],
    out: Annotated[Path, typer.Option(help="Folder of the runs.")] = Path("runs/ablations"),
    only: Annotated[str, typer.Option(help="Only variants whose name holds this.")] = "",
) -> None:
    """Train, score, and write benchmarks/results/ablations.json."""
    spec = tomllib.loads(SPEC.read_text(encoding="utf-8"))
    for seed in spec["seeds"]:
        for variant in spec["variants"]:
            if only in variant:
                run_one(spec, variant, seed, data, out)
    found = collect(spec, out)
    RESULTS.parent.mkdir(exist_ok=True)
    result = {key: spec[key] for key in ("common", "variants", "against")} | {"runs": found}
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
