"""One patient: what each model makes of it, and of it without some of its sequences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from brainseg.evaluation.calibration import Reliability, reliability
from brainseg.inference import Predictor
from brainseg.measure import Reading, measure
from brainseg.postprocess import Finding, find
from brainseg.types import CHANNELS, Metrics, Prediction, Study

ENSEMBLE = "ensemble"
MISSING = {"T1 before contrast": ("pre",), "T1 after contrast": ("post",), "both": ("pre", "post")}
"""Channels that FLAIR takes the place of, as in the data where a sequence is missing."""
LESION_FLOOR = 0.01
"""Voxels below this probability that are no tumour either are out of the question."""


@dataclass(frozen=True, eq=False)
class Row:
    """What one model made of one patient.

    Attributes:
        metrics: over the volume.
        seen: the patient is among those the model was trained on.
        healthy: slices without tumour in the reference.
        false: pixels found in each of those of them where any was.
        everywhere: calibration over all voxels.
        lesion: calibration over those that are tumour or got `LESION_FLOOR` or more.
        lacking: metrics with FLAIR in place of other sequences, by key of `MISSING`; empty if not asked for.
    """

    metrics: Metrics
    seen: bool
    healthy: int
    false: tuple[int, ...]
    everywhere: Reliability
    lesion: Reliability
    lacking: dict[str, Metrics]


def evaluate_patient(
    predictors: Sequence[Predictor],
    study: Study,
    *,
    ensemble: bool = False,
    tta: bool = False,
    missing_sequences: bool = False,
) -> dict[str, Row]:
    """Compare what models find in a study with its reference.

    Args:
        predictors: of models of different names.
        study: with a reference.
        ensemble: also `mean` of the models.
        tta: average over left-right flips.
        missing_sequences: also with FLAIR in place of the channels of `MISSING`; four times the work.

    Returns:
        By model, the ensemble last.
    """
    findings = _findings(predictors, study, ensemble, tta)
    lacking: dict[str, dict[str, Metrics]] = {finding.prediction.model: {} for finding in findings}
    for sequences, channels in MISSING.items() if missing_sequences else ():
        poorer = without(study, channels)
        for finding in _findings(predictors, poorer, ensemble, tta):
            lacking[finding.prediction.model][sequences] = _metrics(measure(poorer, finding))
    return {f.prediction.model: _row(study, f, lacking[f.prediction.model]) for f in findings}


def mean(predictions: Sequence[Prediction]) -> Prediction:
    """What models say together: the mean of probabilities and thresholds, and what most of them keep."""
    largest = sum(p.keep == "largest" for p in predictions)
    return Prediction(
        model=ENSEMBLE,
        architecture=ENSEMBLE,
        case_id=predictions[0].case_id,
        probability=np.asarray(np.mean([p.probability for p in predictions], axis=0), np.float32),
        threshold=float(np.mean([p.threshold for p in predictions])),
        keep="largest" if largest * 2 > len(predictions) else "all",
        seconds=sum(p.seconds for p in predictions),
        seen_in_training=any(p.seen_in_training for p in predictions),
        tta=predictions[0].tta,
    )


def without(study: Study, channels: Sequence[str]) -> Study:
    """The study with FLAIR in place of these channels."""
    slices = study.slices.copy()
    for channel in channels:
        slices[..., CHANNELS.index(channel)] = slices[..., CHANNELS.index("flair")]
    return replace(study, slices=slices)


def _findings(predictors: Sequence[Predictor], study: Study, ensemble: bool, tta: bool) -> list[Finding]:
    predictions = [predictor.predict(study, tta=tta, attention=False) for predictor in predictors]
    return [find(p) for p in predictions + ([mean(predictions)] if ensemble else [])]


def _metrics(reading: Reading) -> Metrics:
    assert reading.metrics is not None, "evaluation asks for a reference"
    return reading.metrics


def _row(study: Study, finding: Finding, lacking: dict[str, Metrics]) -> Row:
    reading = measure(study, finding)
    metrics = _metrics(reading)
    assert study.reference is not None
    healthy = ~study.reference.any(axis=(1, 2))
    areas = np.asarray(reading.areas)[healthy]
    probability = finding.prediction.probability
    return Row(
        metrics=metrics,
        seen=finding.prediction.seen_in_training,
        healthy=int(healthy.sum()),
        false=tuple(int(area) for area in areas[areas > 0]),
        everywhere=reliability(probability, study.reference),
        lesion=reliability(probability, study.reference, LESION_FLOOR),
        lacking=lacking,
    )
