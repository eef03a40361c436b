"""Series with a place in the world -> `Study`: one grid, axial slices, the mask laid over them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt

from brainseg.grid import Grid
from brainseg.io.cases import Case
from brainseg.io.series import SeriesInfo
from brainseg.types import Study, VolumeFormat


@dataclass(frozen=True, eq=False)
class Acquisition:
    """One series, decoded, on its own grid.

    Attributes:
        info: which series it is; its role is one of the four.
        grid: where `pixels` lie, in the files' own voxel order.
        pixels: (S, H, W) of any real dtype, slope and intercept applied; of a mask its labels.
        format: as in `Origin`.
        frame: the frame of reference: two acquisitions that both name one, and another one, have no common
            world. None where the format has no such name.
        headers: as in `Origin`.
        remarks: whole sentences for the user about how it was read.
    """

    info: SeriesInfo
    grid: Grid
    pixels: npt.NDArray[Any]
    format: VolumeFormat
    frame: str | None = None
    headers: tuple[Any, ...] = field(default=(), repr=False)
    remarks: tuple[str, ...] = ()


def assemble(case: Case, acquisitions: Iterable[Acquisition], *, register: bool = False) -> Study:
    """One patient's acquisitions -> a study of axial slices on FLAIR's grid.

    Args:
        case: with the roles as the user left them.
        acquisitions: exactly one FLAIR, at most one pre and post, any number of masks, which are united (as
            overlapping segments are). Taken one after another, so a generator holds one at a time in memory
            where FLAIR comes first.
        register: move pre and post onto FLAIR by a rigid registration.

    Raises:
        InputError: no common frame of reference, no overlap in the world, a blank FLAIR, or too large.
    """
    raise NotImplementedError
