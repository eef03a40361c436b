"""How many patients a minute a cohort makes, against a shell that starts `brainseg predict` for each.

The patients are phantoms, so that anyone may run it; every row is of the same patients, one after another on
the same machine, and only ratios within one run mean anything. ``--json`` writes
benchmarks/results/cohort_speed.json.

    python benchmarks/cohort_speed.py --patients 8 --slices 24 --json
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tifffile
import torch
import typer
from phantom import make_phantom
from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results" / "cohort_speed.json"


def write_phantoms(root: Path, patients: int, slices: int) -> None:
    """Phantoms in the layout of the LGG set."""
    for seed in range(patients):
        name = f"PHANTOM_{seed:02d}"
        study = make_phantom(seed=seed)
        (root / name).mkdir(parents=True)
        for index in range(min(slices, len(study.slices))):
            pixels = np.asarray(study.slices[index], np.uint8)
            tifffile.imwrite(root / name / f"{name}_{index + 1}.tif", pixels, photometric="rgb")


def predict(*arguments: object) -> None:
    """Run the command, as a shell would."""
    command = [sys.executable, "-m", "brainseg", "predict", *map(str, arguments)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def shell_loop(data: Path, out: Path, models: list[str]) -> None:
    """``for p in DATA/*; do brainseg predict $p --out OUT/$p ...; done``"""
    for patient in sorted(data.iterdir()):
        predict(patient, "--out", out / patient.name, *models)


def main(
    patients: Annotated[int, typer.Option(help="Phantoms.")] = 8,
    slices: Annotated[int, typer.Option(help="Slices of each, at most.")] = 24,
    model: Annotated[list[str] | None, typer.Option(help="Weights; unet unless given.")] = None,
    workers: Annotated[list[int] | None, typer.Option(help="How many; 1 and 2 unless given.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Also write the result file.")] = False,
) -> None:
    """Time the shell loop and the engines, and print patients a minute and ratios to the loop."""
    names = model or ["unet"]
    models = [part for name in names for part in ("--model", name)]
    ways: list[tuple[str, int, list[str]]] = [
        (f"--cohort --workers {count}", count, ["--workers", str(count)]) for count in workers or [1, 2]
    ]
    if find_spec("ray"):
        most = max(workers or [2])
        ways.append((f"--engine ray --workers {most}", most, ["--engine", "ray", "--workers", str(most)]))
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_phantoms(root / "data", patients, slices)
        started = time.perf_counter()
        shell_loop(root / "data", root / "loop", models)
        rows.append(row("a shell loop of brainseg predict", patients, time.perf_counter() - started))
        for title, _, more in ways:
            started = time.perf_counter()
            predict(root / "data", "--cohort", "--out", root / "out", *models, *more)
            rows.append(row(title, patients, time.perf_counter() - started))
            shutil.rmtree(root / "out")
    for one in rows:
        one["against_loop"] = rows[0]["seconds"] / one["seconds"]
    result = {
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "load": os.getloadavg()[0],
        "models": names,
        "patients": patients,
        "slices": slices,
        "rows": rows,
    }
    show(result)
    if as_json:
        RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def row(way: str, patients: int, seconds: float) -> dict[str, Any]:
    return {"way": way, "seconds": seconds, "patients_per_minute": patients / seconds * 60}


def show(result: dict[str, Any]) -> None:
    """The result as a table."""
    title = f"{result['patients']} patients of {result['slices']} slices, {', '.join(result['models'])}"
    table = Table(title=f"{title}; {result['cores']} cores, load {result['load']:.1f}")
    for column in ("way", "patients/min", "x loop"):
        table.add_column(column, justify="left" if column == "way" else "right")
    for one in result["rows"]:
        table.add_row(one["way"], f"{one['patients_per_minute']:.1f}", f"{one['against_loop']:.2f}")
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
