"""Work for engines that needs no network, and a data set for those that have one."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile

from brainseg.io import read_study
from brainseg.sample import SYNTHETIC_GLIOMA
from brainseg.types import BrainsegError, InputError


@dataclass(frozen=True)
class Trouble:
    """Does what a patient's name says; leaves a line in a file of that name for each time it is begun.

    Attributes:
        marks: folder of those files.
        start_with: "refusal" or "death" of every worker that starts.
    """

    marks: Path
    start_with: str = ""

    def start(self) -> Callable[[Path], str]:
        if self.start_with == "refusal":
            raise BrainsegError("no such device")
        if self.start_with == "death":
            os.kill(os.getpid(), signal.SIGKILL)
        return self._run

    def _run(self, path: Path) -> str:
        mark = self.marks / path.name
        with mark.open("a") as file:
            file.write(f"{os.getpid()}\n")
        begun = len(mark.read_text().split())
        if path.name == "dies always" or (path.name == "dies once" and begun == 1):
            os.kill(os.getpid(), signal.SIGKILL)
        if path.name == "bad":
            raise InputError("it is bad")
        if path.name == "unforeseen":
            raise ValueError("the name of a patient")
        return path.name


TROUBLE = ["a", "dies once", "b", "bad", "dies always", "unforeseen", "c", "not utf-8 \udcff"]


def write_patients(root: Path, count: int, slices: int = 2) -> None:
    """Patients of a few slices of the synthetic sample, each with noise of its own."""
    study = read_study(SYNTHETIC_GLIOMA)
    assert study.reference is not None
    middle = study.slice_numbers[len(study.slice_numbers) // 2]
    for patient in range(1, count + 1):
        name = f"SYN_{patient:02d}"
        folder = root / name
        folder.mkdir(parents=True)
        noise = np.random.default_rng(patient)
        for number in range(middle, middle + slices):
            index = study.slice_numbers.index(number)
            image = study.slices[index] + noise.integers(0, 12, study.slices[index].shape)
            pixels = np.clip(image, 0, 255).astype(np.uint8)
            tifffile.imwrite(folder / f"{name}_{number}.tif", pixels, photometric="rgb")
            mask = study.reference[index].astype(np.uint8) * 255
            tifffile.imwrite(folder / f"{name}_{number}_mask.tif", mask)
