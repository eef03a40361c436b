"""Where voxels lie in the patient: the only part that knows space.

World coordinates are millimetres in RAS+ (right, anterior, superior), as in NIfTI. Voxels are counted as
(slice, row, column), the axes of `Study.slices`. An orientation such as ``"LPS"`` names the directions in
which columns, rows and slices count up, as in DICOM: to the patient's left, to the back, to the head.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations, product
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from brainseg.types import Affine, FloatArray, Spacing, Study

MIN_SPACING_MM, MAX_SPACING_MM = 0.01, 100.0
"""No scanner's voxels are smaller or larger; another number is a mistake or another unit."""

_POSITIVE, _NEGATIVE = "RAS", "LPI"
_OPPOSITE = dict(zip(_POSITIVE + _NEGATIVE, _NEGATIVE + _POSITIVE, strict=True))
# World axis that slices, rows and columns run along in axial slices as radiologists see them, and its sign.
_AXIAL = ((2, 1), (1, -1), (0, -1))
# Cosine of a twentieth of a degree: rounding in a file's affine makes no volume oblique.
_STRAIGHT = 0.9999996
# Voxels whose centres agree to this part of a voxel are the same: headers hold single precision.
_SAME = 0.02


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


def resample(
    volume: npt.NDArray[Any], source: Grid, target: Grid, *, order: Literal[0, 1] = 1, planes: int = 1
) -> npt.NDArray[Any]:
    """A volume as it lies in the world, on another grid.

    Args:
        volume: (S, H, W) on `source`, real or bool.
        source: its grid.
        target: the grid of the result.
        order: 0 takes the nearest voxel, 1 interpolates linearly.
        planes: each slice of the result is the mean of so many planes, evenly spread over its thickness.

    Returns:
        (S, H, W) on `target`, 0 outside `source`. Where each voxel of the result is one of the source (axes
        turned, flipped, cut off or padded), the very values in their dtype; otherwise, and for means,
        float32. A mean is over the planes inside `source`, so that none is dimmed at its edge.
    """
    if volume.shape != source.shape:
        raise ValueError(f"the volume is {volume.shape}, its grid {source.shape}")
    # From indices of the target, with its slices divided into planes, to those of the source.
    divided = target.affine.copy()
    divided[:3, 0] /= planes
    divided[:3, 3] -= divided[:3, 0] * (planes - 1) / 2
    shape = (target.shape[0] * planes, *target.shape[1:])
    step = np.linalg.inv(source.affine) @ divided
    whole = _whole_voxels(step, shape)
    if whole is not None:
        return _gathered(volume, *whole, target.shape, planes)
    straight = _straight(step, shape)
    if straight is not None:
        return _by_axis(volume, *straight, target.shape, order, planes)
    return _interpolated(volume, step, target.shape, order, planes)


def to_origin(volume: npt.NDArray[Any], study: Study) -> npt.NDArray[Any]:
    """(S, H, W) on a study's grid -> on the grid that its FLAIR had in its files, in their voxel order.

    Lossless, in the volume's dtype, where the study's grid is a turn of that one; else float32, interpolated
    linearly in world space. So give the probability and cut it afterwards, not a mask.

    Raises:
        ValueError: a study without origin, or a volume that is not on its grid.
    """
    if study.affine is None or study.origin is None:
        raise ValueError("the study's files know no space")
    origin = Grid(study.origin.affine, study.origin.shape)
    return resample(volume, Grid(study.affine, study.shape), origin)


def inside(source: Grid, target: Grid) -> float:
    """The part of `target` that lies in `source`, 0 to 1, by points spread evenly over it."""
    points = np.stack(
        np.meshgrid(*((np.arange(24) + 0.5) / 24 * n - 0.5 for n in target.shape), indexing="ij"), axis=-1
    )
    voxels = source.voxels(target.world(points))
    return float(((voxels > -0.5 - _SAME) & (voxels < np.array(source.shape) - 0.5 + _SAME)).all(-1).mean())


def furthest_mm(one: Grid, other: Grid) -> float:
    """Of two grids of one shape, the most that a corner lies apart."""
    corners = np.array(list(product(*((0, n - 1) for n in one.shape))))
    return float(np.linalg.norm(one.world(corners) - other.world(corners), axis=1).max())


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


def _whole_voxels(step: Affine, shape: tuple[int, ...]) -> tuple[Turn, tuple[int, ...]] | None:
    """How whole voxels become whole voxels by `step`, if they do over all of `shape`.

    Returns:
        A turn of the source, and for each axis of the result the source's index, before any flip, of the
        voxel where the result starts.
    """
    rounded = np.round(step[:3, :3])
    used = np.abs(rounded)
    if not (np.array_equal(used.sum(0), (1, 1, 1)) and np.array_equal(used.sum(1), (1, 1, 1))):
        return None
    corners = np.array(list(product(*((0, n - 1) for n in shape))))
    offset = np.round(step[:3, 3])
    away = corners @ (step[:3, :3] - rounded).T + step[:3, 3] - offset
    if np.abs(away).max() > _SAME:
        return None
    first, second, third = (int(axis) for axis in used.argmax(axis=0))
    order = (first, second, third)
    signs = [rounded[axis, target] for target, axis in enumerate(order)]
    flips = (bool(signs[0] < 0), bool(signs[1] < 0), bool(signs[2] < 0))
    starts = tuple(int(offset[axis]) for axis in order)
    return Turn(order, flips), starts


def _gathered(
    volume: npt.NDArray[Any], turn: Turn, starts: tuple[int, ...], shape: tuple[int, int, int], planes: int
) -> npt.NDArray[Any]:
    turned = turn.apply(volume)
    # A flipped axis counts from its other end.
    begins = [
        n - 1 - start if flipped else start
        for n, start, flipped in zip(turned.shape, starts, turn.flips, strict=True)
    ]
    extents = (shape[0] * planes, *shape[1:])
    if planes == 1 and all(
        begin >= 0 and begin + n <= most for begin, n, most in zip(begins, extents, turned.shape, strict=True)
    ):
        return turned[tuple(slice(begin, begin + n) for begin, n in zip(begins, extents, strict=True))]
    # What lies in both, in the result and in the source.
    spans = [
        (max(0, -begin), max(0, -begin, min(n, most - begin)), begin)
        for begin, n, most in zip(begins[1:], shape[1:], turned.shape[1:], strict=True)
    ]
    rows, columns = (slice(first, last) for first, last, _ in spans)
    taken = tuple(slice(first + begin, last + begin) for first, last, begin in spans)
    out = np.zeros(shape, volume.dtype if planes == 1 else np.float32)
    for index, plane in enumerate(out):
        first = begins[0] + index * planes
        part = turned[(slice(max(0, first), max(0, first + planes)), *taken)]
        if part.size:
            plane[rows, columns] = part[0] if planes == 1 else part.mean(axis=0, dtype=np.float32)
    return out


def _straight(
    step: Affine, shape: tuple[int, ...]
) -> tuple[Turn, tuple[float, ...], tuple[float, ...]] | None:
    """As `_whole_voxels` for axes that run along each other at any spacing: turn, steps and starts."""
    used = np.abs(step[:3, :3])
    order = tuple(int(axis) for axis in used.argmax(axis=0))
    across = used.copy()
    across[list(order), range(3)] = 0
    if sorted(order) != [0, 1, 2] or (across @ np.array(shape)).max() > _SAME:
        return None
    turn = Turn((order[0], order[1], order[2]), (False, False, False))
    steps = tuple(float(step[axis, target]) for target, axis in enumerate(order))
    return turn, steps, tuple(float(step[axis, 3]) for axis in order)


def _by_axis(
    volume: npt.NDArray[Any],
    turn: Turn,
    steps: tuple[float, ...],
    starts: tuple[float, ...],
    shape: tuple[int, int, int],
    order: int,
    planes: int,
) -> FloatArray:
    """Linear interpolation one axis after another, which is many times faster than at points."""
    turned = turn.apply(volume)
    extents = (shape[0] * planes, *shape[1:])
    ats = [
        start + step * np.arange(n, dtype=np.float64)
        for start, step, n in zip(starts, steps, extents, strict=True)
    ]
    known = [np.abs(at + 0.5 - n / 2) < n / 2 + _SAME for at, n in zip(ats, turned.shape, strict=True)]
    ends = [_neighbours(at, n, order) for at, n in zip(ats, turned.shape, strict=True)]
    first, second, weight = ends[0]
    out = np.zeros(shape, np.float32)
    for index in range(shape[0]):
        at = [n for n in range(index * planes, (index + 1) * planes) if known[0][n]]
        if not at:
            continue
        total = np.zeros(turned.shape[1:], np.float32)
        for n in at:
            total += turned[first[n]] * (1 - weight[n])
            if weight[n]:
                total += turned[second[n]] * weight[n]
        total /= len(at)
        for axis, (low, high, part) in enumerate(ends[1:]):
            part = part[:, np.newaxis] if axis == 0 else part  # noqa: PLW2901
            total = total.take(low, axis) * (1 - part) + total.take(high, axis) * part
        out[index] = total * known[1][:, np.newaxis] * known[2]
    return out


def _neighbours(
    at: npt.NDArray[np.float64], n: int, order: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], FloatArray]:
    """Indices below and above each place, and the weight of the one above."""
    at = np.clip(np.floor(at + 0.5) if order == 0 else at, 0, n - 1)
    low = np.floor(at).astype(np.intp)
    return low, np.minimum(low + 1, n - 1), (at - low).astype(np.float32)


def _interpolated(
    volume: npt.NDArray[Any], step: Affine, shape: tuple[int, int, int], order: int, planes: int
) -> FloatArray:
    from scipy import ndimage  # noqa: PLC0415 - `import brainseg` stays light

    values = volume.astype(np.uint8) if volume.dtype == np.bool_ else volume
    half = np.array(volume.shape) / 2
    out = np.zeros(shape, np.float32)
    block = (planes, *shape[1:])
    axes = np.ogrid[tuple(slice(n) for n in block)]
    for index in range(shape[0]):
        offset = step[:3, :3] @ (index * planes, 0, 0) + step[:3, 3]
        within = np.ones(block, np.bool_)
        for axis in range(3):
            at = sum(step[axis, n] * axes[n] for n in range(3)) + offset[axis]
            within &= np.abs(at + 0.5 - half[axis]) < half[axis] + _SAME
        count = within.sum(axis=0)
        if not count.any():
            continue
        part = ndimage.affine_transform(
            values,
            step[:3, :3],
            offset,
            output_shape=block,
            output=np.float32,
            order=order,
            mode="nearest",
            prefilter=False,
        )
        out[index] = (part * within).sum(axis=0) / np.maximum(count, 1)
    return out


def _nearest_axes(directions: Affine) -> tuple[tuple[int, int], ...]:
    """For each column, the world axis it is nearest to and the sign; no axis twice."""
    # The best of all six, since the nearest of each alone may be one axis for two of them.
    best = max(
        permutations(range(3)), key=lambda order: sum(abs(directions[a, c]) for c, a in enumerate(order))
    )
    return tuple((axis, 1 if directions[axis, column] > 0 else -1) for column, axis in enumerate(best))
