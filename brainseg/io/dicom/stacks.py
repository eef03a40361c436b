"""Planes in the patient -> stacks of slices: ordered by position along the normal, never by number."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
import numpy.typing as npt

from brainseg.grid import Grid
from brainseg.io.text import plural
from brainseg.types import Affine

# What tells the stacks of one series apart, where they lie in the same places; the likeliest first.
TRAITS = (
    "stack",
    "echo",
    "temporal position",
    "b value",
    "image type",
    "component",
    "inversion time",
    "acquisition",
    "trigger time",
    "contrast",
)

MOST_PARTS = 4
"""More volumes in one place are a time series, or directions of diffusion: none is a sequence of its own."""

# DICOM's patient axes point to the left, to the back and to the head; the world's are RAS+.
_TO_RAS = np.array([-1.0, -1.0, 1.0])
# Directions that differ by less (a tenth of a degree) are one.
_SAME_DIRECTION = 2e-3
_SAME_PLACE_MM = 0.005
# Of the distance between slices: under the first a deviation is rounding, over the second no stack.
_ROUNDING, _IRREGULAR = 0.01, 0.1
_ROUNDING_MM = 0.02
_UPRIGHT_DEGREES, _STEEPEST_DEGREES = 0.5, 40.0
# One slice in so many may be missing.
_RARE = 4


@dataclass(frozen=True, eq=False)
class Plane:
    """One slice of a file.

    Attributes:
        file: index into the case's files.
        frame: index into the file's frames.
        uid: the instance's.
        size: rows and columns.
        position: of the first pixel's centre in DICOM's axes, in mm; None where unknown.
        axes: unit vectors along a row and along a column, 6 numbers; None where unknown.
        spacing: between rows and between columns, in mm; None where unknown.
        thickness: of the slice or between slices, in mm, for a slice that stands alone.
        traits: by a name of `TRAITS`.
    """

    file: int
    frame: int
    uid: str
    size: tuple[int, int]
    position: tuple[float, ...] | None
    axes: tuple[float, ...] | None
    spacing: tuple[float, ...] | None
    thickness: float | None = None
    traits: Mapping[str, Hashable] = field(default_factory=dict)

    @property
    def is_placed(self) -> bool:
        """Position, directions and spacing are known."""
        return self.position is not None and self.axes is not None and self.spacing is not None


@dataclass(frozen=True, eq=False)
class Stack:
    """Planes that make one volume.

    Attributes:
        places: for each slice in the order along the normal, the planes that lie there: one, none where a
            slice is missing, or several, which must then hold the same pixels.
        grid: None where there is a `problem`.
        problem: why the planes make no volume, a clause that continues the series' name.
        remarks: clauses that do so too, about what was kept and should be known.
        volumes: in one place; more than 1 where no volume can be told apart.
    """

    places: tuple[tuple[Plane, ...], ...]
    grid: Grid | None = None
    problem: str = ""
    remarks: tuple[str, ...] = ()
    volumes: int = 1

    @property
    def planes(self) -> tuple[Plane, ...]:
        """All of them, in order."""
        return tuple(plane for place in self.places for plane in place)


def stacks(planes: Sequence[Plane]) -> list[Stack]:
    """The volumes that the planes of one series make, in the order of their first planes.

    Planes of different size, pixel spacing or direction are never one volume. Several planes in one place are
    told apart by echo, temporal position and other `TRAITS`; where none tells, they stay together.
    """
    groups = _alike(planes)
    if len(groups) > MOST_PARTS:
        problem = (
            f"holds slices in {len(groups)} directions or sizes, so that they make no volume: choose another"
        )
        return [Stack((tuple(planes),), problem=problem, volumes=len(groups))]
    out: list[Stack] = []
    for group in groups:
        parts = _told_apart(group)
        most = max(len(parts), *map(_most_in_one_place, parts))
        if most > MOST_PARTS:
            problem = f"holds {most} volumes of the same place, over time or by diffusion: choose another"
            out.append(Stack((tuple(group),), problem=problem, volumes=most))
        else:
            out += [_stack(part) for part in parts]
    return out


def _alike(planes: Sequence[Plane]) -> list[list[Plane]]:
    groups: list[list[Plane]] = []
    firsts: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for plane in planes:
        spacing = tuple(round(mm, 3) for mm in plane.spacing) if plane.spacing else None
        same = firsts[(plane.is_placed, plane.size, spacing)]
        for index in same:
            # Beyond a few directions it is of no matter which is which.
            if len(same) > 4 * MOST_PARTS or _same_direction(groups[index][0], plane):
                groups[index].append(plane)
                break
        else:
            same.append(len(groups))
            groups.append([plane])
    return groups


def _same_direction(one: Plane, other: Plane) -> bool:
    if not one.is_placed or one.axes is None or other.axes is None:
        return True
    return all(abs(a - b) < _SAME_DIRECTION for a, b in zip(one.axes, other.axes, strict=True))


def _told_apart(group: list[Plane]) -> list[list[Plane]]:
    most = _most_in_one_place(group)
    if most < 2:
        return [group]
    named = [name for name in TRAITS if len({plane.traits.get(name) for plane in group}) > 1]
    for chosen in [*combinations(named, 1), *combinations(named, 2)]:
        parts: dict[tuple[Hashable, ...], list[Plane]] = defaultdict(list)
        for plane in group:
            parts[tuple(plane.traits.get(name) for name in chosen)].append(plane)
        # What has a value of its own for each slice tells slices apart, not volumes.
        if len(parts) <= 2 * most and all(_most_in_one_place(part) < 2 for part in parts.values()):
            return list(parts.values())
    return [group]


def _most_in_one_place(planes: list[Plane]) -> int:
    """How many instances lie in one place at most; a copy of an instance does not count."""
    if not planes[0].is_placed:
        return 1
    once = {(plane.uid, plane.frame): plane for plane in planes}
    return max(map(len, _places(list(once.values()))))


def _normal(plane: Plane) -> npt.NDArray[np.float64]:
    axes = np.asarray(plane.axes, float)
    normal = np.cross(axes[:3], axes[3:])
    return np.asarray(normal / (np.linalg.norm(normal) or 1.0))


def _places(planes: list[Plane]) -> list[list[Plane]]:
    """Planes in order along the normal, those of one position together."""
    positions = np.array([plane.position for plane in planes], float)
    along = positions @ _normal(planes[0])
    order = sorted(range(len(planes)), key=lambda i: (along[i], planes[i].file, planes[i].frame))
    out: list[list[Plane]] = []
    last = None
    for i in order:
        if last is not None and abs(along[i] - along[last]) < _SAME_PLACE_MM:
            out[-1].append(planes[i])
        else:
            out.append([planes[i]])
        last = i
    return out


def _stack(planes: list[Plane]) -> Stack:
    first = planes[0]
    if not first.is_placed:
        return Stack((tuple(planes),), problem="does not say where its slices lie: export it again as DICOM")
    axes = np.asarray(first.axes, float)
    lengths = np.linalg.norm(axes.reshape(2, 3), axis=1)
    if abs(lengths - 1).max() > 0.01 or abs(axes[:3] @ axes[3:]) > 0.01:
        return Stack(
            (tuple(planes),), problem="gives directions of rows and columns that cannot be: export it again"
        )
    places = _places(planes)
    positions = np.array([place[0].position for place in places], float)
    for place, position in zip(places, positions, strict=True):
        if any(np.abs(np.asarray(plane.position) - position).max() > _SAME_PLACE_MM for plane in place):
            problem = "has slices side by side in one plane, which make no volume: choose another"
            return Stack((tuple(planes),), problem=problem)
    if len(places) == 1:
        if first.thickness is None:
            return Stack((tuple(planes),), problem="is one slice of unknown thickness: give the whole series")
        return _on_grid(places, positions[0], _normal(first) * first.thickness, [])
    return _spaced(places, positions)


def _spaced(places: list[list[Plane]], positions: npt.NDArray[np.float64]) -> Stack:
    planes = tuple(plane for place in places for plane in place)
    normal = _normal(places[0][0])
    distances = np.diff(positions @ normal)
    usual = float(np.median(distances))
    steps = np.rint(distances / usual).astype(int)
    missing = int((steps - 1).sum())
    irregular = (
        f"has slices at irregular distances, from {distances.min():.3g} to {distances.max():.3g} mm: "
        "export the series again"
    )
    if (steps < 1).any() or missing * _RARE > len(places):
        return Stack((planes,), problem=irregular)
    index = np.concatenate([[0], np.cumsum(steps)])
    step = (positions[-1] - positions[0]) / index[-1]
    length = float(np.linalg.norm(step))
    deviation = float(np.linalg.norm(positions - (positions[0] + index[:, None] * step), axis=1).max())
    if deviation > max(_IRREGULAR * length, _ROUNDING_MM):
        return Stack((planes,), problem=irregular)
    tilt = float(np.degrees(np.arccos(np.clip(step @ normal / length, -1, 1))))
    if tilt > _STEEPEST_DEGREES:
        return Stack((planes,), problem="has slices that are shifted sideways: export the series again")
    remarks = []
    if deviation > max(_ROUNDING * length, _ROUNDING_MM):
        remarks.append(
            f"has slices {distances.min():.3g} to {distances.max():.3g} mm apart; {length:.3g} mm was used"
        )
    if tilt > _UPRIGHT_DEGREES:
        remarks.append(
            f"is a sheared stack, whose slices are shifted by {tilt:.2g} degrees against their normal; it "
            f"was kept so, and ml come out {100 * (1 / np.cos(np.radians(tilt)) - 1):.2g} % too large"
        )
    if missing:
        after = [str(int(at) + 1) for at in index[:-1][steps > 1]]
        remarks.append(
            f"lacks {plural(missing, 'slice')} after slice {', '.join(after[:8])}, which were left blank: no "
            "tumour is found there"
        )
    full: list[list[Plane]] = [[] for _ in range(int(index[-1]) + 1)]
    for at, place in zip(index, places, strict=True):
        full[int(at)] = place
    return _on_grid(full, positions[0], step, remarks)


def _on_grid(
    places: list[list[Plane]],
    origin: npt.NDArray[np.float64],
    step: npt.NDArray[np.float64],
    remarks: list[str],
) -> Stack:
    first = places[0][0]
    kept = tuple(map(tuple, places))
    try:
        grid = Grid(affine_of(first, origin, step), (len(places), *first.size))
    except ValueError:
        return Stack(kept, problem="gives a place in space that no scanner has: export it again")
    return Stack(kept, grid, remarks=tuple(remarks))


def affine_of(plane: Plane, origin: npt.NDArray[np.float64], step: npt.NDArray[np.float64]) -> Affine:
    """(4, 4) from (slice, row, column, 1) to mm in RAS+, of slices `step` apart in DICOM's axes."""
    axes = np.asarray(plane.axes, float).reshape(2, 3)
    axes = axes / np.linalg.norm(axes, axis=1, keepdims=True)
    between_rows, between_columns = plane.spacing or (1.0, 1.0)
    affine = np.eye(4)
    affine[:3, 0] = step * _TO_RAS
    affine[:3, 1] = axes[1] * between_rows * _TO_RAS
    affine[:3, 2] = axes[0] * between_columns * _TO_RAS
    affine[:3, 3] = origin * _TO_RAS
    return affine
