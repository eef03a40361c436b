"""One public TCGA patient from the LGG data set on Kaggle, file by file rather than the whole gigabyte."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any

from brainseg.io import NamedBytes
from brainseg.types import InputError

__all__ = ["DATASET", "fetch_patient"]

DATASET = "mateuszbuda/lgg-mri-segmentation"

_KAGGLE = "https://www.kaggle.com"
_TIMEOUT_S = 5
_OFFLINE = "Kaggle cannot be reached from here: check the network connection, or upload a folder."

_AT_ONCE = 8
_MOST = 200


def fetch_patient(patient: str) -> list[NamedBytes]:
    """All slices and masks of one patient, named as in the data set.

    Raises:
        InputError: kagglehub is missing, Kaggle cannot be reached, or has no such patient.
    """
    try:
        hub: Any = import_module("kagglehub")
        http: Any = import_module("requests")
    except ImportError as error:
        raise InputError("The package kagglehub is missing: install brainseg again.") from error
    try:
        # kagglehub itself waits without limit where a firewall swallows packets.
        http.head(_KAGGLE, timeout=_TIMEOUT_S)
    except Exception as error:
        raise InputError(_OFFLINE) from error
    files: list[NamedBytes] = []
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for start in count(1, _AT_ONCE):
            numbers = range(start, start + _AT_ONCE)
            batch = [pair for pair in pool.map(lambda n: _slice(hub, patient, n), numbers) if pair]
            files += [file for pair in batch for file in pair]
            if len(batch) < _AT_ONCE or start > _MOST:
                break
    if not files:
        raise InputError(f"Kaggle's data set {DATASET} holds no such patient; upload a folder instead.")
    return files


def _slice(hub: Any, patient: str, number: int) -> tuple[NamedBytes, NamedBytes] | None:
    """A slice and its mask; None past the last one."""
    name = f"{patient}/{patient}_{number}"
    try:
        return _file(hub, f"{name}.tif"), _file(hub, f"{name}_mask.tif")
    except Exception as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status == 404 or type(error).__name__ == "NotFoundError":
            return None
        raise InputError(_OFFLINE) from error


def _file(hub: Any, name: str) -> NamedBytes:
    path = hub.dataset_download(DATASET, path=f"kaggle_3m/{name}")
    return NamedBytes(name, Path(path).read_bytes())
