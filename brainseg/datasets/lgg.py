"""The LGG set of Buda and others (doi 10.1016/j.compbiomed.2019.05.002): layout, IDs, folds, fetching.

A folder for each patient holds ``<patient>_<number>.tif``, three sequences as three channels, and
``<patient>_<number>_mask.tif``. The files carry no spacing and no orientation.
"""

from __future__ import annotations

import json
import logging
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from importlib import import_module
from importlib.util import find_spec
from itertools import chain, count
from pathlib import Path
from typing import Any

from brainseg.io import NamedBytes, read_study
from brainseg.io.files import is_junk
from brainseg.io.names import natural
from brainseg.io.text import plural
from brainseg.types import BrainsegError, InputError, Study

SLUG = "mateuszbuda/lgg-mri-segmentation"
"""Its name on Kaggle."""
URL = f"https://www.kaggle.com/datasets/{SLUG}"
FOLDER = "kaggle_3m"
"""Folder in the download that holds the patient folders."""
LICENCE = "cc-by-nc-sa-4.0"
"""Of the images, and so of weights trained on them."""
TIMEOUT = 5.0
"""Seconds to wait for Kaggle's first answer."""

_OFFLINE = "Kaggle cannot be reached from here: check the network connection, or upload a folder."
_AT_ONCE = 8
_MOST = 200


def data_folder(root: Path) -> Path:
    """The folder that holds the patient folders: `root`, or the `FOLDER` in it.

    Raises:
        InputError: if it is not a folder.
    """
    folder = root / FOLDER if (root / FOLDER).is_dir() else root
    if not folder.is_dir():
        raise InputError(f"{root} is not a folder; give the folder that holds one folder for each patient")
    return folder


def patient_folders(root: Path, *, empty: bool = False) -> dict[str, Path]:
    """Patient folders of a data set, by ID in natural order; those without files only with `empty`.

    Raises:
        InputError: if `root` is not a folder or there is none in it.
    """
    found = [path for path in data_folder(root).iterdir() if path.is_dir() and not is_junk(path.name)]
    folders = sorted((p for p in found if empty or any(p.iterdir())), key=lambda p: natural(p.name))
    if not folders:
        raise InputError(
            f"{root} holds no patient folders; give the folder that holds one folder for each patient"
        )
    return {folder.name: folder for folder in folders}


def institution(patient: str) -> str:
    """The second part of a TCGA ID, the institution the patient was scanned at."""
    parts = patient.split("_")
    return parts[1] if len(parts) > 1 else ""


def read_fold(path: Path, fold: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(training IDs, validation IDs) of one fold of a committed split.

    Raises:
        InputError: if the file or the fold is missing, or a patient is named twice.
    """
    try:
        folds = [[str(patient) for patient in ids] for ids in json.loads(path.read_bytes())["folds"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is not a split; give a JSON file with a list of folds of patient IDs"
        ) from error
    twice = [patient for patient, count in Counter(chain.from_iterable(folds)).items() if count > 1]
    if twice:
        raise InputError(f"{path} names {twice[0]} twice; a patient belongs to one fold alone")
    if not 0 <= fold < len(folds):
        raise InputError(f"{path} has folds 0 to {len(folds) - 1}, not {fold}")
    training = sorted(patient for n, ids in enumerate(folds) if n != fold for patient in ids)
    return tuple(training), tuple(folds[fold])


def read_patients(root: Path, patients: Sequence[str]) -> list[Study]:
    """Read these patients.

    Raises:
        InputError: if one is missing, cannot be read, or lacks a mask.
    """
    folders = patient_folders(root)
    missing = [patient for patient in patients if patient not in folders]
    if missing:
        raise InputError(
            f"{root} lacks {plural(len(missing), 'patient')} of the split, first {missing[0]}; "
            "fetch the data again"
        )
    studies = []
    for patient in patients:
        study = read_study(folders[patient])
        if without := without_mask(study):
            raise InputError(
                f"{folders[patient]} has no mask for {plural(without, 'slice')}; training needs one for each"
            )
        studies.append(study)
    return studies


def without_mask(study: Study) -> int:
    """How many slices no mask was supplied for; `Study.reference` takes them as free of tumour."""
    if study.reference is None:
        return len(study.slices)
    roles = Counter(file.role for file in study.source.files)
    # A slice may be three files, one a sequence.
    return min(roles["slice"], len(study.slices)) - roles["mask"]


def fetch(dest: Path | None = None) -> Path:
    """Download the public LGG data set with kagglehub, about a gigabyte.

    Args:
        dest: new or empty folder to put it in; kagglehub's own cache unless given. What is there complete
            is not downloaded again.

    Returns:
        Its `FOLDER`, which holds the patient folders.

    Raises:
        BrainsegError: kagglehub is not installed, Kaggle cannot be reached, or the set has another layout.
    """
    by_hand = f"or download and unzip {URL} by hand"
    if find_spec("kagglehub") is None:
        raise BrainsegError(
            f"fetching needs the package kagglehub; install it with: pip install kagglehub, {by_hand}"
        )
    hub: Any = import_module("kagglehub")
    logger = logging.getLogger("kagglehub")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        # kagglehub itself waits without limit where a firewall swallows packets.
        import_module("requests").head(URL, timeout=TIMEOUT)
        # It also prints to stdout, which belongs to the caller.
        with redirect_stdout(sys.stderr):
            options = {} if dest is None else {"output_dir": str(dest)}
            folder = Path(hub.dataset_download(SLUG, **options))
    # kagglehub passes on whatever its HTTP library raises.
    except Exception as error:
        why = type(error).__name__
        raise BrainsegError(
            f"the data set could not be fetched from Kaggle ({why}); check the network connection"
            f"{'' if dest is None else f' and that {dest} is new or empty'}, {by_hand}"
        ) from error
    finally:
        logger.setLevel(before)
    if not (folder / FOLDER).is_dir():
        raise BrainsegError(
            f"the data set in {folder} holds no {FOLDER} folder; empty it and fetch again, {by_hand}"
        )
    return folder / FOLDER


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
        http.head(URL, timeout=TIMEOUT)
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
        raise InputError(f"Kaggle's data set {SLUG} holds no such patient; upload a folder instead.")
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
    path = hub.dataset_download(SLUG, path=f"{FOLDER}/{name}")
    return NamedBytes(name, Path(path).read_bytes())
