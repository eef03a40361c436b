"""Lower-grade glioma on brain MRI: four U-Nets side by side, from patient folder to overlay.

The mask of one patient, in one line; here of the synthetic sample that comes with the package:

>>> import brainseg
>>> from brainseg.sample import SYNTHETIC_GLIOMA
>>> finding = brainseg.segment(SYNTHETIC_GLIOMA, model="unet")
>>> finding.mask.shape, finding.mask.dtype
((28, 256, 256), dtype('bool'))

The same in steps, for several patients, another threshold, or the probabilities themselves:

>>> study = brainseg.read_study(SYNTHETIC_GLIOMA)
>>> predictor = brainseg.Predictor(brainseg.load("attention_unet"))
>>> prediction = predictor.predict(study)
>>> prediction.probability.shape, prediction.probability.dtype
((28, 256, 256), dtype('float32'))
>>> strict = brainseg.find(prediction, threshold=0.9)
>>> bool((strict.mask <= (prediction.probability >= 0.9)).all())
True
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brainseg.types import Prediction, Study

if TYPE_CHECKING:
    from brainseg.checkpoint import load
    from brainseg.inference import Predictor
    from brainseg.io import read_study
    from brainseg.postprocess import Finding, find

__version__ = "0.1.0"
__all__ = ["Finding", "Prediction", "Predictor", "Study", "find", "load", "read_study", "segment"]

# Loaded on first use: `import brainseg` stays light, torch comes with the first network.
_LATE = {
    "Finding": "brainseg.postprocess",
    "Predictor": "brainseg.inference",
    "find": "brainseg.postprocess",
    "load": "brainseg.checkpoint",
    "read_study": "brainseg.io",
}


def segment(
    path: str | Path | Sequence[str | Path], model: str | Path = "unet", *, device: str = "auto"
) -> Finding:
    """Find the tumour of one patient, at the operating point stored with the weights.

    Args:
        path: a patient folder, a zip, or the patient's files.
        model: a bundled name (`unet`, `attention_unet`, `unetpp`, `attention_unetpp`), a weights folder, or a
            Hub id (`owner/name` or `owner/name@revision`).
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ...

    Returns:
        The finding, whose ``mask`` is (S, H, W) bool on the slices' own grid, and whose
        ``prediction.probability``, (S, H, W) float32 in 0..1, is what it was cut from.

    Raises:
        InputError: if the files cannot be read as one patient.
        WeightsError: if the weights are missing or damaged, or the device is not there.
    """
    from brainseg.checkpoint import load  # noqa: PLC0415 - torch comes with the first network
    from brainseg.inference import Predictor  # noqa: PLC0415
    from brainseg.io import read_study  # noqa: PLC0415
    from brainseg.postprocess import find  # noqa: PLC0415

    study = read_study(path)
    return find(Predictor(load(model), device).predict(study, attention=False))


def __getattr__(name: str) -> Any:
    if name in _LATE:
        return getattr(import_module(_LATE[name]), name)
    raise AttributeError(f"module 'brainseg' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
