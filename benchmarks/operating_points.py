"""What flips and post-processing give the bundled weights on their validation patients.

    python benchmarks/operating_points.py DATASET

Every network and the mean of the four; without flips and over left-right flips; all voxels above the
threshold, the largest component, or hysteresis (components that reach a second, higher threshold). For each
the threshold with the best mean Dice is stated, chosen on the same patients, so that the rows are compared at
their best. Writes benchmarks/results/operating_points.json, which `docs/results.py` puts into RESULTS.md.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from scipy import ndimage
from skimage.filters import apply_hysteresis_threshold

from brainseg.checkpoint import bundled, load
from brainseg.datasets.lgg import read_patients
from brainseg.evaluation.patient import ENSEMBLE
from brainseg.inference import Predictor
from brainseg.measure import dice
from brainseg.postprocess import cut
from brainseg.training.loop import THRESHOLDS
from brainseg.types import BoolArray, FloatArray

RESULTS = Path(__file__).resolve().parent / "results" / "operating_points.json"
RULES: dict[str, Callable[[FloatArray, float], BoolArray]] = {
    "all": lambda p, threshold: cut(p, threshold, "all"),
    "largest component": lambda p, threshold: cut(p, threshold, "largest"),
    "hysteresis to 0.8": lambda p, threshold: np.asarray(
        apply_hysteresis_threshold(p, threshold, max(threshold, 0.8))
    ),
    "hysteresis to 0.95": lambda p, threshold: np.asarray(
        apply_hysteresis_threshold(p, threshold, max(threshold, 0.95))
    ),
}


def main(data: Annotated[Path, typer.Argument(help="Folder of patient folders, with masks.")]) -> None:
    """Predict once with and once without flips, score every rule at every threshold, write the best."""
    models = [load(name) for name in bundled()]
    patients = sorted(set.intersection(*(set(model.card.validation_patients) for model in models)))
    predictors = [Predictor(model) for model in models]
    scores: dict[tuple[str, bool, str, float], list[float]] = {}
    for study in read_patients(data, patients):
        assert study.reference is not None
        for flips in (False, True):
            found = {
                one.model.card.name: one.predict(study, tta=flips, attention=False).probability
                for one in predictors
            }
            found[ENSEMBLE] = np.asarray(np.mean(list(found.values()), axis=0), np.float32)
            for name, whole in found.items():
                # Neither mask reaches out of this box at any threshold, so Dice is that of the volume.
                (box,) = ndimage.find_objects(((whole >= THRESHOLDS[0]) | study.reference).astype(np.uint8))
                probability, reference = whole[box], study.reference[box]
                for rule, apply in RULES.items():
                    for threshold in THRESHOLDS:
                        value = dice(apply(probability, threshold), reference)
                        assert isinstance(value, float)
                        scores.setdefault((name, flips, rule, threshold), []).append(value)
    rows: list[dict[str, Any]] = []
    for name, flips, rule in dict.fromkeys(key[:3] for key in scores):
        best = max(THRESHOLDS, key=lambda threshold: np.mean(scores[name, flips, rule, threshold]))
        values = scores[name, flips, rule, best]
        rows.append(
            {
                "model": name,
                "flips": flips,
                "rule": rule,
                "threshold": best,
                "dice_mean": float(np.mean(values)),
                "dice_median": float(np.median(values)),
                "missed": sum(value == 0 for value in values),
            }
        )
    weights = {model.card.name: [model.card.sha256, model.card.temperature] for model in models}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(
        json.dumps({"patients": len(patients), "weights": weights, "rows": rows}, indent=1) + "\n",
        encoding="utf-8",
    )


if __name__ == "__main__":
    typer.run(main)
