"""Lower-grade glioma on brain MRI: four U-Nets side by side, from patient folder to overlay.

>>> import brainseg
>>> study = brainseg.read_study("patient_folder")            # doctest: +SKIP
>>> model = brainseg.load("attention_unet")                  # doctest: +SKIP
>>> prediction = brainseg.Predictor(model).predict(study)    # doctest: +SKIP
>>> prediction.probability.shape                             # doctest: +SKIP
(24, 256, 256)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from brainseg.types import Prediction, Study

if TYPE_CHECKING:
    from brainseg.checkpoint import load
    from brainseg.inference import Predictor
    from brainseg.io import read_study

__version__ = "0.1.0"
__all__ = ["Prediction", "Predictor", "Study", "load", "read_study"]

# Loaded on first use: `import brainseg` stays light, torch comes with the first network.
_LATE = {"load": "brainseg.checkpoint", "Predictor": "brainseg.inference", "read_study": "brainseg.io"}


def __getattr__(name: str) -> Any:
    if name in _LATE:
        from importlib import import_module  # noqa: PLC0415

        return getattr(import_module(_LATE[name]), name)
    raise AttributeError(f"module 'brainseg' has no attribute {name!r}")
