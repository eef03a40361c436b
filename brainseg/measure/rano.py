"""The largest perpendicular diameters of a lesion, as the RANO criteria measure it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial.distance import pdist

from brainseg.measure.checks import bounding_box, check_mask, check_spacing
from brainseg.measure.metrics import MASK_EMPTY
from brainseg.types import BoolArray, Spacing, Undefined

Point = tuple[float, float]
_Points = npt.NDArray[np.float64]
_Places = npt.NDArray[np.intp]

TOO_RAGGED = Undefined("its outline is too ragged")

_EDGES = 4000
"""Edges that an outline may have; a lesion's has some hundreds. Time and memory grow with their square."""
_TOUCH = 1e-6
"""Pixels; nearer to an edge than this is on it."""
_PROBES = tuple(np.arange(1, 16, 2)[np.argsort(np.abs(np.arange(1, 16, 2) - 8))] / 16)
"""Fractions of a line that are looked at before the whole line is; the middle leaves a lesion first."""


@dataclass(frozen=True)
class Diameter:
    """A straight line within a slice of a lesion, from border to border.

    Attributes:
        start: (row, column); centres of pixels have whole numbers, borders lie half way.
        end: likewise.
        length: in mm; in pixels where the spacing is unknown.
    """

    start: Point
    end: Point
    length: float


@dataclass(frozen=True)
class Diameters:
    """Two diameters at right angles.

    Attributes:
        slice: index of the slice that both lie in.
        longest: the longest line within the lesion in that slice.
        perpendicular: the longest line at a right angle to it, likewise.
        lesions: how many separate lesions the mask has; the diameters are those of the largest.
    """

    slice: int
    longest: Diameter
    perpendicular: Diameter
    lesions: int

    @property
    def product(self) -> float:
        """Of the two lengths, in mm² or, where the spacing is unknown, pixels²."""
        return self.longest.length * self.perpendicular.length


def diameters(mask: BoolArray, spacing_mm: Spacing | None) -> Diameters | Undefined:
    """Measure the largest lesion of a mask in two dimensions.

    RANO (Wen 2010, doi 10.1200/JCO.2009.26.3541; for lower-grade glioma, on T2 or FLAIR, van den Bent 2011,
    doi 10.1016/S1470-2045(11)70057-2; RANO 2.0, Wen 2023, doi 10.1200/JCO.23.01059) takes the product of the
    largest perpendicular diameters in one slice for the size of a lesion. What the criteria leave open is
    settled here as follows.

    - The lesion: the component with most voxels, voxels that share a face, an edge or a corner being
      connected. The criteria add the products of several target lesions (two to five of them in 2010), of at
      least 10 mm both ways in two slices, which a reader chooses; the small components of a mask are seldom
      of that kind. `Diameters.lesions` tells how many there are.
    - The slice: the one where that lesion has most pixels; its largest part where it has several there.
    - Both lines lie within the lesion. We know of no sentence in the criteria that asks for it, but they
      leave cysts and cavities out, and programs that follow them do ask for it (AutoRANO, Chang 2019,
      doi 10.1093/neuonc/noz106). So neither a bay nor a hole is crossed. Where a lesion is convex the longest
      line is the maximum Feret diameter.
    - The right angle is exact, in mm. The lines cross in every convex lesion; elsewhere they need not.
    - Lines run from border to border and not from centre to centre of pixels: they end half way to the next
      pixel, so that one pixel is one pixel long. Ends of the longest line, and one end of the other, are
      middles of pixels' edges.

    Where the spacing is unknown, pixels are taken as square, as the viewer shows them.

    Args:
        mask: (S, H, W) bool, S axial slices.
        spacing_mm: between slices, rows, columns; None when unknown.

    Returns:
        `Undefined` for an empty mask, and where the outline of what is measured runs along more than 4000
        edges of pixels, which is noise and no lesion.

    Raises:
        ValueError: if the mask is not (S, H, W) bool or the spacing is not three positive numbers.
    """
    check_mask(mask, (3,))
    check_spacing(spacing_mm)
    if not mask.any():
        return MASK_EMPTY
    box = bounding_box(mask)
    lesion, lesions = _largest(mask[box])
    index = int(np.count_nonzero(lesion, axis=(1, 2)).argmax())
    region, _ = _largest(lesion[index])
    inner = bounding_box(region)
    # A margin around the region: what lies beyond a border pixel can be looked up.
    region = np.pad(region[inner], 1)
    scale = np.asarray((1.0, 1.0) if spacing_mm is None else spacing_mm[1:])
    border, outward = _border(region)
    if len(border) > _EDGES:
        return TOO_RAGGED
    longest = _longest(region, border, scale)
    across = _perpendicular(region, border, outward, scale, longest)
    # It need not end in the middle of an edge, so in a very ragged outline it may be the longer one.
    while _length(across, scale) > _length(longest, scale):
        longest = across
        across = _perpendicular(region, border, outward, scale, longest)
    offset = np.asarray([box[1].start + inner[0].start - 1, box[2].start + inner[1].start - 1])
    return Diameters(
        box[0].start + index, _diameter(longest, offset, scale), _diameter(across, offset, scale), lesions
    )


def _largest(mask: BoolArray) -> tuple[BoolArray, int]:
    """The component with most voxels, the first of equals, and how many components there are."""
    labels = np.zeros(mask.shape, dtype=np.int32)
    count = int(ndimage.label(mask, structure=np.ones((3,) * mask.ndim), output=labels))
    if count < 2:
        return mask, count
    voxels = np.bincount(labels[mask])
    return np.asarray(labels == voxels.argmax(), dtype=np.bool_), count


def _border(region: BoolArray) -> tuple[_Points, _Points]:
    """Middles of the pixels' edges on the border of a padded region, and unit vectors pointing out there."""
    points, normals = [], []
    for normal in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        beyond = np.roll(region, (-normal[0], -normal[1]), axis=(0, 1))
        edges = np.argwhere(region & ~beyond) + 0.5 * np.asarray(normal)
        points.append(edges)
        normals.append(np.broadcast_to(np.asarray(normal, dtype=np.float64), edges.shape))
    return np.concatenate(points), np.concatenate(normals)


def _longest(region: BoolArray, border: _Points, scale: _Points) -> _Points:
    """The (2, 2) ends of the longest line within the region between two border points."""
    lengths = pdist(border * scale)
    while True:
        # From the longest down, a shell at a time, so that lines shorter than the answer are never sorted.
        shell = np.flatnonzero(lengths >= 0.97 * lengths.max())
        shell = shell[np.argsort(-lengths[shell], kind="stable")]
        lengths[shell] = 0
        done, batch = 0, 64
        while done < len(shell):
            first, second = _pairs(shell[done : done + batch], len(border))
            start, end = border[first], border[second]
            for fraction in _PROBES:
                likely = _covers(region, start + fraction * (end - start))
                start, end = start[likely], end[likely]
            within = _reach(region, start, end) == 1
            if within.any():
                best = int(within.argmax())
                return np.stack([start[best], end[best]])
            done, batch = done + batch, min(4 * batch, 4096)


def _pairs(condensed: _Places, points: int) -> tuple[_Places, _Places]:
    """Which two points each entry of a condensed distance matrix belongs to."""
    twice = 2 * points - 1
    first = ((twice - np.sqrt(twice**2 - 8 * condensed)) / 2).astype(np.intp)
    return first, condensed - first * (twice - first) // 2 + first + 1


def _perpendicular(
    region: BoolArray, border: _Points, outward: _Points, scale: _Points, longest: _Points
) -> _Points:
    """The (2, 2) ends of the longest line within the region that starts at its border, at a right angle."""
    along = (longest[1] - longest[0]) * scale
    # A right angle in mm, then back to pixels.
    across = np.asarray([-along[1], along[0]]) / scale
    across *= sum(region.shape) / np.abs(across).max()
    inward = -np.sign(outward @ across)
    start, sense = border[inward != 0], inward[inward != 0]
    rays = sense[:, None] * across
    reached = _reach(region, start, start + rays)
    # All rays are equally long, so fractions compare as lengths do.
    best = int(reached.argmax())
    return np.stack([start[best], start[best] + reached[best] * rays[best]])


def _covers(region: BoolArray, points: _Points) -> BoolArray:
    """Which points (..., 2) lie in the region; on an edge or a corner, any pixel that has it will do."""
    low = np.ceil(points - (0.5 + _TOUCH)).astype(np.intp)
    high = np.floor(points + (0.5 + _TOUCH)).astype(np.intp)
    for ends in (low, high):
        ends.clip(0, np.asarray(region.shape) - 1, out=ends)
    (top, left), (bottom, right) = (np.moveaxis(ends, -1, 0) for ends in (low, high))
    covered: BoolArray = region[top, left] | region[top, right] | region[bottom, left] | region[bottom, right]
    return covered


def _reach(region: BoolArray, start: _Points, end: _Points) -> npt.NDArray[np.float64]:
    """The fraction of each of N lines, (N, 2) to (N, 2), up to which it has not left the region; 1 is all."""
    step = end - start
    times = [np.zeros((len(start), 1)), np.ones((len(start), 1))]
    for axis in (0, 1):
        lines = np.arange(region.shape[axis] - 1) + 0.5
        pace = np.where(step[:, axis] == 0, np.inf, step[:, axis])
        times.append((lines - start[:, axis, None]) / pace[:, None])
    crossings = np.sort(np.clip(np.concatenate(times, axis=1), 0, 1), axis=1)
    middles = (crossings[:, 1:] + crossings[:, :-1]) / 2
    # Between two crossings a line lies in one pixel, or on the edge between two.
    outside = ~_covers(region, start[:, None] + middles[..., None] * step[:, None])
    outside &= np.diff(crossings, axis=1) > 1e-9
    left = np.where(outside.any(axis=1), outside.argmax(axis=1), crossings.shape[1] - 1)
    fractions: npt.NDArray[np.float64] = crossings[np.arange(len(start)), left]
    return fractions


def _diameter(ends: _Points, offset: _Points, scale: _Points) -> Diameter:
    (a, b), (c, d) = (ends + offset).tolist()
    return Diameter((a, b), (c, d), _length(ends, scale))


def _length(ends: _Points, scale: _Points) -> float:
    return float(np.linalg.norm((ends[1] - ends[0]) * scale))
