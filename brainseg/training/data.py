"""The LGG data: patients in memory, folds of patients, augmented slices in a fixed random order."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from brainseg.io import read_study
from brainseg.io.names import natural
from brainseg.preprocess import Preprocess
from brainseg.training.config import Augment, Data, RecipeError
from brainseg.types import FloatArray, InputError, Study


def patient_folders(root: Path) -> dict[str, Path]:
    """Patient folders of a data set, by ID in natural order; `root` or its `kaggle_3m` holds them.

    Raises:
        InputError: if there is no folder with slices.
    """
    if (root / "kaggle_3m").is_dir():
        root = root / "kaggle_3m"
    if not root.is_dir():
        raise InputError(f"{root} is not a folder; give the folder that holds one folder for each patient")
    folders = sorted(
        (p for p in root.iterdir() if p.is_dir() and any(p.iterdir())), key=lambda p: natural(p.name)
    )
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
        RecipeError: if the file or the fold is missing.
    """
    try:
        folds = json.loads(path.read_text(encoding="utf-8"))["folds"]
    except (OSError, ValueError, KeyError) as error:
        raise RecipeError(
            f"{path} is not a split: a JSON file with a list of folds of patient IDs"
        ) from error
    if not 0 <= fold < len(folds):
        raise RecipeError(f"{path} has folds 0 to {len(folds) - 1}, not {fold}")
    training = sorted(patient for n, ids in enumerate(folds) if n != fold for patient in ids)
    return tuple(training), tuple(folds[fold])


def read_patients(root: Path, patients: Sequence[str]) -> list[Study]:
    """Read these patients.

    Raises:
        InputError: if one is missing, cannot be read, or has no masks.
    """
    folders = patient_folders(root)
    missing = [patient for patient in patients if patient not in folders]
    if missing:
        raise InputError(
            f"{root} lacks {len(missing)} patients of the split, first {missing[0]}; fetch the data again"
        )
    studies = []
    for patient in patients:
        study = read_study(folders[patient])
        if study.reference is None:
            raise InputError(f"{folders[patient]} has no masks; training needs one for each slice")
        studies.append(study)
    return studies


@dataclass(frozen=True)
class Draw:
    """One sample to make: which slice, how large a window, and the seed of its augmentation."""

    index: int
    crop: int
    seed: int


def draws(has_tumour: npt.NDArray[np.bool_], data: Data, crop: int, seed: int, epoch: int) -> list[Draw]:
    """The samples of one epoch in order: a function of seed and epoch alone, so a resumed run repeats it."""
    rng = np.random.default_rng((seed, epoch))
    tumour = round(data.samples_per_epoch * data.tumour_fraction)
    pools = (np.flatnonzero(has_tumour), np.flatnonzero(~has_tumour))
    wanted = (tumour, data.samples_per_epoch - tumour)
    chosen = np.concatenate(
        [
            _deal(pool if len(pool) else np.arange(len(has_tumour)), count, rng)
            for pool, count in zip(pools, wanted, strict=True)
        ]
    )
    rng.shuffle(chosen)
    seeds = rng.integers(0, 2**31, len(chosen))
    return [Draw(int(index), crop, int(one)) for index, one in zip(chosen, seeds, strict=True)]


def _deal(pool: npt.NDArray[np.int64], count: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """`count` members of `pool`; nobody is drawn twice before everybody was drawn once."""
    rounds = -(-count // len(pool))
    return np.concatenate([rng.permutation(pool) for _ in range(rounds)])[:count] if rounds else pool[:0]


class SliceData(Dataset[tuple[Tensor, Tensor]]):
    """Augmented training slices, made one `Draw` at a time.

    An item is (image (3, crop, crop) float32, mask (1, crop, crop) float32 of 0 and 1).
    """

    def __init__(self, studies: Sequence[Study], preprocess: Preprocess, augment: Augment) -> None:
        images, masks = [], []
        for study in studies:
            assert study.reference is not None
            batch, geometry = preprocess.apply(study)
            if geometry.original != geometry.padded:
                raise InputError(
                    f"patient {study.case_id} has slices of {geometry.original}; training takes {preprocess.size} x {preprocess.size}"
                )
            # float16 halves the memory of the whole set; 11 bits are more than the 8 that were read.
            images.append(batch.transpose(0, 2, 3, 1).astype(np.float16))
            masks.append(study.reference.astype(np.uint8))
        self.images = np.concatenate(images)
        self.masks = np.concatenate(masks)
        self.has_tumour = self.masks.any(axis=(1, 2))
        self.augment = augment
        self._pipelines: dict[int, Any] = {}
        self.order: list[Draw] = []

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, position: int) -> tuple[Tensor, Tensor]:
        draw = self.order[position]
        if draw.crop not in self._pipelines:
            self._pipelines[draw.crop] = make_pipeline(self.augment, draw.crop)
        image, mask = augmented(
            self._pipelines[draw.crop],
            self.images[draw.index].astype(np.float32),
            self.masks[draw.index],
            self.augment.drop_channel,
            draw.seed,
        )
        return torch.from_numpy(image.transpose(2, 0, 1).copy()), torch.from_numpy(
            mask[None].astype(np.float32)
        )


def make_pipeline(augment: Augment, crop: int) -> Any:
    """The Albumentations pipeline, (H, W, 3) image and (H, W) mask -> (crop, crop, ...). The only place that
    knows the library."""
    import albumentations as A  # noqa: PLC0415 - slow to import

    return A.Compose(
        [
            A.HorizontalFlip(p=augment.flip),
            A.Affine(
                rotate=(-augment.rotate, augment.rotate),
                scale=(1 - augment.scale, 1 + augment.scale),
                translate_percent=(-augment.shift, augment.shift),
                p=1.0 if augment.rotate or augment.scale or augment.shift else 0.0,
            ),
            A.PadIfNeeded(crop, crop),
            A.RandomCrop(crop, crop),
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
        image[..., 2 * rng.integers(2)] = image[..., 1]
    return np.clip(image, 0.0, 1.0), mask


def batches(data: SliceData, size: int, workers: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of `data.order` as it stands: images (size, 3, crop, crop), masks (size, 1, crop, crop)."""
    # A generator of its own: the loader draws a worker seed at each start, which must not touch the
    # random state that dropout uses.
    loader = torch.utils.data.DataLoader(
        data,
        batch_size=size,
        num_workers=workers,
        drop_last=True,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),
    )
    yield from loader
