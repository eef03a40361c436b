"""The LGG data: patients in memory, folds of patients, augmented slices in a fixed random order."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from brainseg.io import read_study
from brainseg.io.files import is_junk
from brainseg.io.names import natural
from brainseg.io.text import plural
from brainseg.preprocess import Preprocess, apply_mask
from brainseg.training.config import Augment, Data, RecipeError
from brainseg.types import BoolArray, FloatArray, InputError, Study


def data_folder(root: Path) -> Path:
    """The folder that holds the patient folders: `root`, or the `kaggle_3m` in it.

    Raises:
        InputError: if it is not a folder.
    """
    folder = root / "kaggle_3m" if (root / "kaggle_3m").is_dir() else root
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


def make_folds(patients: Sequence[str], count: int, seed: int) -> list[list[str]]:
    """Deal patients into `count` folds, each institution spread as evenly as it goes."""
    rng = np.random.default_rng(seed)
    by_institution: dict[str, list[str]] = {}
    for patient in sorted(patients):
        by_institution.setdefault(institution(patient), []).append(patient)
    folds: list[list[str]] = [[] for _ in range(count)]
    turn = 0
    for _, group in sorted(by_institution.items(), key=lambda item: (-len(item[1]), item[0])):
        for index in rng.permutation(len(group)):
            folds[turn % count].append(group[index])
            turn += 1
    return [sorted(fold) for fold in folds]


def read_fold(path: Path, fold: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(training IDs, validation IDs) of one fold of a committed split.

    Raises:
        RecipeError: if the file or the fold is missing, or a patient is named twice.
    """
    try:
        folds = [[str(patient) for patient in ids] for ids in json.loads(path.read_bytes())["folds"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecipeError(
            f"{path} is not a split; give a JSON file with a list of folds of patient IDs"
        ) from error
    twice = [patient for patient, count in Counter(chain.from_iterable(folds)).items() if count > 1]
    if twice:
        raise RecipeError(f"{path} names {twice[0]} twice; a patient belongs to one fold alone")
    if not 0 <= fold < len(folds):
        raise RecipeError(f"{path} has folds 0 to {len(folds) - 1}, not {fold}")
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
    if study.source.format.endswith("-stack"):
        return 0
    roles = Counter(file.role for file in study.source.files)
    # A slice may be three files, one a sequence.
    return min(roles["slice"], len(study.slices)) - roles["mask"]


MAX_WORKERS = 12
"""Processes that load and augment beside a GPU, at most."""


@dataclass(frozen=True)
class Draw:
    """One sample to make: which slice, at what size, and the seed of its augmentation."""

    index: int
    size: int
    seed: int


def draws(has_tumour: BoolArray, data: Data, size: int, seed: int, epoch: int) -> list[Draw]:
    """The samples of one epoch in order: a function of seed and epoch alone, so a resumed run repeats it."""
    rng = np.random.default_rng((seed, epoch))
    tumour = round(data.samples_per_epoch * data.tumour_fraction)
    chosen = np.concatenate(
        [
            _deal(np.flatnonzero(has_tumour), tumour, rng),
            _deal(np.flatnonzero(~has_tumour), data.samples_per_epoch - tumour, rng),
        ]
    )
    rng.shuffle(chosen)
    seeds = rng.integers(0, 2**31, len(chosen))
    return [Draw(int(index), size, int(one)) for index, one in zip(chosen, seeds, strict=True)]


def _deal(pool: npt.NDArray[np.int64], count: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """`count` members of `pool`; nobody is drawn twice before everybody was drawn once."""
    if count == 0:
        return pool[:0]
    if len(pool) == 0:
        raise RecipeError(
            "data.tumour_fraction cannot be met; the training slices are all with or all without tumour"
        )
    rounds = -(-count // len(pool))
    return np.concatenate([rng.permutation(pool) for _ in range(rounds)])[:count]


class SliceData(Dataset[tuple[Tensor, Tensor]]):
    """Augmented training slices, made one `Draw` at a time.

    An item is (image (3, h, w) float32, mask (1, h, w) float32 of 0 and 1); see `make_pipeline`.
    """

    def __init__(self, studies: Sequence[Study], preprocess: Preprocess, augment: Augment) -> None:
        images, masks = [], []
        self.preprocess = preprocess
        margin = _MARGIN if preprocess.crop else 0.0
        for study in studies:
            assert study.reference is not None
            batch, letterbox = preprocess.apply(study, margin)
            if letterbox.scaled != _scaled(preprocess.size, preprocess, margin):
                height, width = letterbox.original
                raise InputError(
                    f"patient {study.case_id} has slices of {height} x {width} pixels"
                    + (" without a head that is longer than wide; " if preprocess.crop else "; ")
                    + f"training takes {'such heads' if preprocess.crop else 'square ones'}"
                )
            # float16 halves the memory of the whole set; 11 bits are more than the 8 that were read.
            images.append(batch.transpose(0, 2, 3, 1).astype(np.float16))
            masks.append(apply_mask(study.reference, letterbox).astype(np.uint8))
        self.images = np.concatenate(images)
        self.masks = np.concatenate(masks)
        self.has_tumour: BoolArray = np.asarray(self.masks.any(axis=(1, 2)))
        self.augment = augment
        self._pipelines: dict[int, Any] = {}

    def __getitem__(self, draw: Draw) -> tuple[Tensor, Tensor]:
        if draw.size not in self._pipelines:
            self._pipelines[draw.size] = make_pipeline(self.augment, draw.size, self.preprocess)
        image, mask = augmented(
            self._pipelines[draw.size],
            self.images[draw.index].astype(np.float32),
            self.masks[draw.index],
            self.augment.drop_channel,
            draw.seed,
        )
        channels_first = image.transpose(2, 0, 1).copy()
        return torch.from_numpy(channels_first), torch.from_numpy(mask[None].astype(np.float32))


# What turning and shifting may bring into the crop, on all sides together, as a fraction of it.
_MARGIN = 0.25


def _scaled(size: int, preprocess: Preprocess, margin: float) -> tuple[int, int]:
    """Rows and columns of a training slice before the crop, at the scale of a stage of that `size`."""
    if not preprocess.crop:
        return size, size
    rows, columns = (side * size / preprocess.size * (1 + margin) for side in preprocess.canvas)
    return round(rows), round(columns)


def make_pipeline(augment: Augment, size: int, preprocess: Preprocess) -> Any:
    """The Albumentations pipeline of a stage, (H, W, 3) image and (H, W) mask -> (h, w, ...).

    Turned first and cropped then, so that what enters at the edges is the slice and not black. (h, w) is
    (size, size), or with `preprocess.crop` the canvas of that size. The only place that knows the library.
    """
    # Importing it asks the network for a newer version unless told not to.
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    import albumentations as A  # noqa: PLC0415 - slow to import

    moved = augment.rotate or augment.scale or augment.shift
    canvas = replace(preprocess, size=size).canvas if preprocess.crop else (size, size)
    return A.Compose(
        [
            A.Resize(*_scaled(size, preprocess, _MARGIN), interpolation=cv2.INTER_AREA),
            A.HorizontalFlip(p=augment.flip),
            A.Affine(
                rotate=(-augment.rotate, augment.rotate),
                scale=(1 - augment.scale, 1 + augment.scale),
                translate_percent=(-augment.shift, augment.shift),
                p=1.0 if moved else 0.0,
            ),
            A.CenterCrop(*canvas),
            A.RandomBrightnessContrast(
                augment.contrast, augment.contrast, p=0.5 if augment.contrast else 0.0
            ),
            A.RandomGamma(
                (100 * (1 - augment.gamma), 100 * (1 + augment.gamma)), p=0.5 if augment.gamma else 0.0
            ),
            A.GaussianBlur(blur_limit=0, sigma_limit=(0.4, 1.2), p=augment.blur),
            A.GaussNoise(std_range=(0.01, 0.04), p=augment.noise),
        ]
    )


def augmented(
    pipeline: Any, image: FloatArray, mask: npt.NDArray[np.uint8], drop_channel: float, seed: int
) -> tuple[FloatArray, npt.NDArray[np.uint8]]:
    """One augmented pair; equal seeds give equal pairs, in any process."""
    pipeline.set_random_seed(seed)
    out = pipeline(image=image, mask=mask)
    image, mask = out["image"], out["mask"]
    rng = np.random.default_rng(seed)
    if rng.random() < drop_channel:
        image = image.copy()
        for channel in ((0,), (2,), (0, 2))[rng.integers(3)]:
            image[..., channel] = image[..., 1]
    return np.clip(image, 0.0, 1.0), mask


def share(samples: Sequence[Draw], batch: int, index: int, count: int) -> list[list[Draw]]:
    """What process `index` of `count` takes of each batch; together they take the whole of it."""
    return [list(samples[start + index : start + batch : count]) for start in range(0, len(samples), batch)]


def workers_beside(device: str, processes: int) -> int:
    """Loading processes for each training one of `processes` on this machine.

    None on the CPU, whose cores are busy.
    """
    return 0 if device == "cpu" else max(1, min(MAX_WORKERS, (os.cpu_count() or 1) // processes))


def make_loader(
    data: SliceData, order: list[list[Draw]], workers: int
) -> torch.utils.data.DataLoader[tuple[Tensor, Tensor]]:
    """Batches of `order` as it stands when an epoch begins: images (B, 3, h, w), masks (B, 1, h, w).

    They do not depend on `workers`, the processes that make them, which live as long as the loader.
    """
    return torch.utils.data.DataLoader(
        data,
        batch_sampler=order,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
        # Its own: the loader draws a worker seed at each start, which must not touch the random state that
        # dropout uses.
        generator=torch.Generator(),
    )
