"""One patient of a cohort: read, predicted, measured, and made ready for the disk."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from brainseg.checkpoint import LoadedModel
from brainseg.inference import Predictor, precision
from brainseg.io import read_study
from brainseg.io.series import Role
from brainseg.measure import measure
from brainseg.postprocess import find
from brainseg.report import report
from brainseg.report.folder import Results, results_of
from brainseg.report.pictures import thumbnail
from brainseg.types import Spacing, Study

_TOO_LONG = {"slice_numbers", "source", "models"}
_TOO_LONG_OF_A_MODEL = {"slices", "area_per_slice"}


@dataclass(frozen=True, eq=False)
class Examined:
    """What is kept of one patient.

    Attributes:
        record: its figures, provenance and notes, in plain JSON types.
        results: for its folder.
        thumbnail: PNG.
    """

    record: dict[str, Any]
    results: Results
    thumbnail: bytes


@dataclass(frozen=True, eq=False)
class Examination:
    """What is done to each patient, a `brainseg.cohort.outcome.Work`.

    Attributes:
        models: of different names.
        tta: average over left-right flips.
        device: see `brainseg.inference.choose_device`.
        spacing_mm: as the user gave it, for all patients; else None.
        channels: the order of the files' channels, likewise.
    """

    models: Sequence[LoadedModel]
    tta: bool = False
    device: str = "auto"
    spacing_mm: Spacing | None = None
    channels: Sequence[str] | None = None

    def start(self) -> Callable[[Path], Examined]:
        predictors = [Predictor(model, self.device) for model in self.models]
        return partial(self._examine, predictors)

    def _examine(self, predictors: Sequence[Predictor], path: Path) -> Examined:
        started = time.perf_counter()
        study = read_patient(path, spacing_mm=self.spacing_mm, channels=self.channels)
        readings = [
            measure(study, find(predictor.predict(study, tta=self.tta, attention=False)))
            for predictor in predictors
        ]
        figures = report(study, readings)
        results = results_of(study, readings, figures)
        picture, number = thumbnail(study, readings)
        device = predictors[0].device
        record = {key: value for key, value in figures.items() if key not in _TOO_LONG}
        record |= {
            "source": {key: value for key, value in figures["source"].items() if key != "files"},
            "thumbnail_slice": number,
            "device": device.type,
            "precision": precision(device),
            "seconds": time.perf_counter() - started,
            "models": {
                name: {key: value for key, value in model.items() if key not in _TOO_LONG_OF_A_MODEL}
                for name, model in figures["models"].items()
            },
        }
        return Examined(record, results, picture)


def read_patient(
    source: str | Path | Sequence[str | Path],
    *,
    case_id: str | None = None,
    spacing_mm: Spacing | None = None,
    channels: Sequence[str] | None = None,
    roles: Mapping[str, Role | None] | None = None,
    register: bool = False,
) -> Study:
    """`brainseg.io.read_study`, with a note where the spacing was given by the user.

    Raises:
        InputError: as there.
    """
    study = read_study(
        source, case_id=case_id, spacing_mm=spacing_mm, channels=channels, roles=roles, register=register
    )
    if spacing_mm is None or study.affine is not None:
        return study
    note = "Spacing was given by the user, not by the files."
    return replace(study, notes=(*study.notes, note))
