"""Results on the grid that the input's FLAIR had in its files."""

from __future__ import annotations

import numpy as np

from brainseg.grid import to_origin
from brainseg.postprocess import Finding, cut
from brainseg.types import BoolArray, FloatArray, Study


def on_origin(study: Study, finding: Finding) -> tuple[FloatArray, BoolArray]:
    """Probability and mask of a finding, (S, H, W) of the study's `Origin`.

    The probability goes back and is cut there at the finding's threshold, with its choice of components: a
    mask that was interpolated would have lost its edge.

    Raises:
        ValueError: a study without origin.
    """
    back = to_origin(finding.prediction.probability, study)
    # Rounding in interpolation may leave 0..1.
    probability = np.clip(back, 0, 1, dtype=np.float32)
    return probability, cut(probability, finding.threshold, finding.keep)
