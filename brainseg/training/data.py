"""Training data: augmented slices in memory, drawn in a fixed random order."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from brainseg.preprocess import Preprocess, apply_mask
from brainseg.training.config import Augment, Data, RecipeError
from brainseg.types import CHANNELS, BoolArray, FloatArray, InputError, Study

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


# Sequences that FLAIR takes the place of, as where they were not taken.
_DROPPED = (("pre",), ("post",), ("pre", "post"))

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
        for channel in _DROPPED[rng.integers(len(_DROPPED))]:
            image[..., CHANNELS.index(channel)] = image[..., CHANNELS.index("flair")]
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
