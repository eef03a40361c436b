"""What the header of a volume file says, whatever the format; limits are checked before voxels are read."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from brainseg.grid import Grid
from brainseg.io.limits import MAX_SIDE, MAX_UNZIPPED, MAX_VOLUME_VOXELS
from brainseg.io.readers import UnreadableError
from brainseg.types import Affine, VolumeFormat


@dataclass(frozen=True, eq=False)
class Layout:
    """One volume file's header.

    Attributes:
        grid: of one volume, its axes the file's in reverse: the one that varies fastest is the column.
        volumes: how many follow each other in the file; more than one in 4-D files.
        dtype: of the voxels as stored.
        format: of the file.
        header: as in `Origin`, of NIfTI alone.
        sides_known: the file says how its axes lie in the patient; otherwise `grid` is right in size alone.
        segments: label and name of each segment, where the file lists them.
        parts: the volume and the value of each segment, where they lie in several volumes.
        remarks: what was remarkable; sentences with ``{name}`` for the file.
    """

    grid: Grid
    volumes: int
    dtype: np.dtype[Any]
    format: VolumeFormat
    header: Any = field(default=None, repr=False)
    sides_known: bool = True
    segments: tuple[tuple[int, str], ...] = ()
    parts: tuple[tuple[int, int], ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def voxels(self) -> int:
        """Of one volume."""
        return math.prod(self.grid.shape)


def grid_of(affine: Affine, columns: int, rows: int, slices: int) -> Grid:
    """A grid from an affine that takes (column, row, slice, 1), as NIfTI's and ITK's do, to RAS+.

    Raises:
        UnreadableError: the affine is not one of a scanner.
    """
    try:
        return Grid(np.asarray(affine, np.float64)[:, [2, 1, 0, 3]], (slices, rows, columns))
    except ValueError as error:
        raise UnreadableError(
            f"has no usable place in the world ({error}): export it again with a valid orientation and "
            "spacing in mm."
        ) from None


def check_extent(sides: tuple[int, ...], volumes: int, dtype: np.dtype[Any]) -> None:
    """Refuse empty volumes, and those beyond the limits, before anything is allocated."""
    size = " x ".join(map(str, sides))
    if min(*sides, volumes) < 1:
        raise UnreadableError(f"says that it is {size} voxels: export it again.")
    voxels = math.prod(sides)
    if (
        max(sides) > MAX_SIDE
        or voxels > MAX_VOLUME_VOXELS
        or voxels * volumes * dtype.itemsize > MAX_UNZIPPED
    ):
        raise UnreadableError(
            f"says that it is {size} voxels, beyond the limit of {MAX_SIDE:,} a side, "
            f"{MAX_VOLUME_VOXELS // 10**6} million in all and {MAX_UNZIPPED // 2**30} GB: give the volume as "
            "the scanner made it."
        )


def finite(pixels: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], tuple[str, ...]]:
    """Voxels without the NaN that SPM writes around a brain and without infinities, and a remark on them."""
    if pixels.dtype.kind != "f" or np.isfinite(pixels).all():
        return pixels, ()
    bad = ~np.isfinite(pixels)
    clean = np.where(bad, 0, pixels).astype(pixels.dtype)
    return clean, (f"{bad.mean():.1%} of the voxels of {{name}} are NaN or infinite: they were taken as 0.",)
