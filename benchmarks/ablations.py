"""Train the variants of a specification and write what each scores on the validation patients.

    python benchmarks/ablations.py DATASET                                   # benchmarks/ablations.toml
    python benchmarks/ablations.py DATASET --spec benchmarks/recipe.toml     # the check of the recipe

A run that was interrupted goes on; one that is finished is not repeated, so that several of these commands,
with another `--fold` each, share the work. `benchmarks/results/NAME.json` holds the figures, from which
`docs/results.py` writes docs/RESULTS.md.
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from brainseg.checkpoint import load
from brainseg.evaluation.cohort import evaluate
from brainseg.training.config import read_recipe
from brainseg.training.loop import train
from brainseg.types import InputError

HERE = Path(__file__).resolve().parent
SPEC = HERE / "ablations.toml"
RESULTS = HERE / "results"


def folder_name(variant: str, seed: int, fold: int) -> str:
    """A folder for one run: letters and digits of the variant's name, then seed and fold."""
    letters = "".join(c if c.isalnum() or c == "+" else " " for c in variant).split()
    return "-".join(letters) + f"-seed{seed}-fold{fold}"


def run_one(
    spec: dict[str, Any], variant: str, seed: int, fold: int, path: Path, data: Path, out: Path
) -> None:
    """Train one variant with one seed on one fold unless it is there already.

    It is scored with and without flips; `path` is that of the recipe.
    """
    folder = out / folder_name(variant, seed, fold)
    changes = [*spec["common"], *spec["variants"][variant], f"seed={seed}", f"data.fold={fold}"]
    recipe = read_recipe(path, changes)
    if (folder / "result.json").is_file():
        frozen = json.loads((folder / "recipe.json").read_bytes())
        if any(frozen[key] != value for key, value in json.loads(json.dumps(asdict(recipe))).items()):
            raise typer.BadParameter(f"{folder} is of another recipe; choose another --out")
        return
    train(recipe, path.parent, data, folder, resume=True)
    model = load(folder / "weights")
    scores = {}
    for flips in (False, True):
        result = evaluate([model], data, validation=True, tta=flips)
        if result["failures"]:
            raise InputError(next(iter(result["failures"].values())))
        found = result["models"][recipe.name]["patients"]
        scores["flips" if flips else "plain"] = {patient: row["dice"] for patient, row in found.items()}
    row = {"variant": variant, "seed": seed, "fold": fold}
    row |= {"threshold": model.card.threshold, "keep": model.card.keep}
    (folder / "result.json").write_text(json.dumps(row | {"dice": scores}, indent=1) + "\n", encoding="utf-8")
    typer.echo(f"{variant}, seed {seed}, fold {fold}: done")


def collect(spec: dict[str, Any], out: Path) -> list[dict[str, Any]]:
    """The results that are there, in the order of the specification."""
    names = [
        folder_name(variant, seed, fold)
        for variant in spec["variants"]
        for seed in spec["seeds"]
        for fold in spec["folds"]
    ]
    paths = [out / name / "result.json" for name in names]
    return [json.loads(path.read_bytes()) for path in paths if path.is_file()]


def main(
    data: Annotated[Path, typer.Argument(help="Folder of patient folders, with masks.")],
    spec: Annotated[Path, typer.Option(help="What to train: a TOML file.")] = SPEC,
    out: Annotated[Path, typer.Option(help="Folder of the runs.")] = Path("runs/ablations"),
    only: Annotated[str, typer.Option(help="Only variants whose name holds this.")] = "",
    fold: Annotated[int | None, typer.Option(help="Only this fold.")] = None,
) -> None:
    """Train, score, and write benchmarks/results/NAME.json."""
    what = tomllib.loads(spec.read_text(encoding="utf-8"))
    for seed in what["seeds"]:
        for variant in what["variants"]:
            for one in what["folds"]:
                if only in variant and fold in (None, one):
                    run_one(what, variant, seed, one, spec.parent / what["recipe"], data, out)
    result = {key: what[key] for key in ("common", "variants", "against")} | {"runs": collect(what, out)}
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(result, indent=1) + "\n"
    (RESULTS / f"{spec.stem}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
