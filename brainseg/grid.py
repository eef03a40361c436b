"""Where voxels lie in the patient: the only part that knows space.

World coordinates are millimetres in RAS+ (right, anterior, superior), as in NIfTI. Voxels are counted as
(slice, row, column), the axes of `Study.slices`. An orientation such as ``"LPS"`` names the directions in
which columns, rows and slices count up, as in DICOM: to the patient's left, to the back, to the head.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
import numpy.typing as npt

from brainseg.types import Affine, Spacing

MIN_SPACING_MM, MAX_SPACING_MM = 0.01, 100.0
"""No scanner's voxels are smaller or larger; another number is a mistake or another unit."""

_POSITIVE, _NEGATIVE = "RAS", "LPI"
_OPPOSITE = dict(zip(_POSITIVE + _NEGATIVE, _NEGATIVE + _POSITIVE, strict=True))
# World axis that slices, rows and columns run along in axial slices as radiologists see them, and its sign.
_AXIAL = ((2, 1), (1, -1), (0, -1))
# Cosine of a twentieth of a degree: rounding in a file's affine makes no volume oblique.
_STRAIGHT = 0.9999996


@dataclass(frozen=True, eq=False)
class Grid:
    """A volume's lattice of voxels.

    Attributes:
        affine: (4, 4) from (slice, row, column, 1) to millimetres in RAS+.
        shape: (S, H, W).

    Raises:
        ValueError: if the affine is not one of a scanner: not finite, without volume, or with a spacing
            outside `MIN_SPACING_MM` to `MAX_SPACING_MM`.
    """

    affine: Affine
    shape: tuple[int, int, int]

    def __post_init__(self) -> None:
        if self.affine.shape != (4, 4) or not np.isfinite(self.affine).all():
            raise ValueError("the affine is not 4 x 4 finite numbers")
        if not np.array_equal(self.affine[3], (0, 0, 0, 1)):
            raise ValueError("the affine's last row is not 0, 0, 0, 1")
        check_spacing(self.spacing_mm)
        # Axes of unit length span a volume of 1 at right angles, and next to none in one plane.
        if abs(np.linalg.det(self.directions)) < 0.1:
            raise ValueError("the affine's axes lie in one plane")

    @property
    def spacing_mm(self) -> Spacing:
        """Between slices, between rows, between columns."""
        between, rows, columns = (float(length) for length in np.linalg.norm(self.affine[:3, :3], axis=0))
        return between, rows, columns

    @property
    def directions(self) -> Affine:
        """(3, 3): unit vectors along which slices, rows and columns count up, one a column."""
        return np.asarray(self.affine[:3, :3] / np.linalg.norm(self.affine[:3, :3], axis=0))

    @property
    def orientation(self) -> str:
        """Letters of the world axes nearest to the directions of columns, rows and slices."""
        letters = [
            (_POSITIVE if sign > 0 else _NEGATIVE)[axis] for axis, sign in _nearest_axes(self.directions)
        ]
        return "".join(reversed(letters))

    @property
    def is_oblique(self) -> bool:
        """Whether an axis runs between those of the world, by more than rounding."""
        return bool(np.abs(self.directions).max(axis=0).min() < _STRAIGHT)

    def world(self, voxels: npt.ArrayLike) -> Affine:
        """(..., 3) indices of slice, row and column, fractions allowed -> (..., 3) millimetres."""
        return np.asarray(np.asarray(voxels, float) @ self.affine[:3, :3].T + self.affine[:3, 3])

    def voxels(self, points: npt.ArrayLike) -> Affine:
        """(..., 3) millimetres -> (..., 3) fractional indices of slice, row and column."""
        inverse = np.linalg.inv(self.affine[:3, :3])
        return np.asarray((np.asarray(points, float) - self.affine[:3, 3]) @ inverse.T)


@dataclass(frozen=True)
class Turn:
    """A lossless change of the order and direction of a volume's first three axes.

    Attributes:
        order: the axis of the source that each axis of the result is.
        flips: whether it runs the other way, for each axis of the result.
    """

    order: tuple[int, int, int]
    flips: tuple[bool, bool, bool]

    def apply(self, volume: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """(S, H, W, ...) -> the same voxels in the order of the result."""
        turned = volume.transpose(*self.order, *range(3, volume.ndim))
        return np.flip(turned, self._flipped)

    def undo(self, volume: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """What `apply` made -> the volume it was made of."""
        back = (self.order.index(axis) for axis in range(3))
        return np.flip(volume, self._flipped).transpose(*back, *range(3, volume.ndim))

    @property
    def _flipped(self) -> tuple[int, ...]:
        return tuple(axis for axis in range(3) if self.flips[axis])


def to_axial(grid: Grid) -> tuple[Grid, Turn]:
    """The grid with its axes as axial slices have them, ``"LPS"``, and the turn that takes volumes there.

    Every voxel keeps its place in the world. Of an oblique grid the nearest axes are taken.
    """
    nearest = _nearest_axes(grid.directions)
    source = {axis: index for index, (axis, _) in enumerate(nearest)}
    first, second, third = (source[axis] for axis, _ in _AXIAL)
    order = (first, second, third)
    flips = tuple(nearest[index][1] != sign for index, (_, sign) in zip(order, _AXIAL, strict=True))
    affine = grid.affine.copy()
    for target, (index, flipped) in enumerate(zip(order, flips, strict=True)):
        step = grid.affine[:, index]
        affine[:, target] = -step if flipped else step
        if flipped:
            affine[:3, 3] += step[:3] * (grid.shape[index] - 1)
    s, h, w = (grid.shape[index] for index in order)
    return Grid(affine, (s, h, w)), Turn(order, (flips[0], flips[1], flips[2]))


def check_spacing(spacing_mm: Spacing) -> None:
    """Raise ValueError unless all three lie in `MIN_SPACING_MM` to `MAX_SPACING_MM`."""
    # Written so that NaN fails.
    if len(spacing_mm) != 3 or not all(MIN_SPACING_MM <= mm <= MAX_SPACING_MM for mm in spacing_mm):
        raise ValueError(f"a spacing lies outside {MIN_SPACING_MM:g} to {MAX_SPACING_MM:g} mm")


def mirror(orientation: str | None) -> tuple[bool, bool]:
    """Whether rows and columns are shown the other way round for the radiological view.

    Patient right belongs on screen left and front on top; in views from the side, front on screen left. An
    unknown orientation is shown as the files have it.
    """
    if orientation is None:
        return False, False
    return orientation[1] not in "PI", orientation[0] not in "LP"


def edges(orientation: str | None) -> dict[str, str] | None:
    """Letters for the four sides of the screen, after `mirror`; None when the orientation is unknown.

    >>> edges("LPS")
    {'left': 'R', 'right': 'L', 'top': 'A', 'bottom': 'P'}
    """
    if orientation is None:
        return None
    rows, columns = mirror(orientation)
    right = _OPPOSITE[orientation[0]] if columns else orientation[0]
    bottom = _OPPOSITE[orientation[1]] if rows else orientation[1]
    return {"left": _OPPOSITE[right], "right": right, "top": _OPPOSITE[bottom], "bottom": bottom}


def _nearest_axes(directions: Affine) -> tuple[tuple[int, int], ...]:
    """For each column, the world axis it is nearest to and the sign; no axis twice."""
    # The best of all six, since the nearest of each alone may be one axis for two of them.
    best = max(
        permutations(range(3)), key=lambda order: sum(abs(directions[a, c]) for c, a in enumerate(order))
    )
    return tuple((axis, 1 if directions[axis, column] > 0 else -1) for column, axis in enumerate(best))
