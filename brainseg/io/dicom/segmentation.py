"""DICOM-SEG -> a volume of labels on its own grid, by highdicom."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from highdicom.seg import Segmentation
from pydicom.dataset import Dataset, FileDataset

from brainseg.grid import Grid
from brainseg.io.dicom.headers import items, number, whole, words
from brainseg.io.dicom.pixels import decompress
from brainseg.io.limits import MAX_SIDE, MAX_VOXELS
from brainseg.io.readers.reader import UnreadableError

_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

_TOO_LARGE = "is a segmentation that is too large: give one on the grid of its images."
_NO_VOLUME = (
    "is a segmentation whose frames make no volume of even slices: export it on the grid of its images."
)


def labels_of(
    dataset: FileDataset, segments: Sequence[int]
) -> tuple[npt.NDArray[np.uint16], Grid, tuple[str, ...]]:
    """The segments asked for, (S, H, W) with the number of the first that marks a voxel, its grid, remarks.

    Slices without a frame are empty, as the standard leaves those out. To be called within `reading`.

    Raises:
        UnreadableError: too large, not on one regular grid, or none of these segments.
    """
    frames = whole(dataset, "NumberOfFrames") or 1
    rows, columns = whole(dataset, "Rows") or 0, whole(dataset, "Columns") or 0
    if max(rows, columns) > MAX_SIDE or rows * columns * frames > 4 * MAX_VOXELS:
        raise UnreadableError(_TOO_LARGE)
    # highdicom would leave the choice of decoder to pydicom.
    decompress(dataset)
    parsed = Segmentation.from_dataset(dataset, copy=False)
    remarks = []
    if words(dataset, "SegmentationType")[:1] == ("FRACTIONAL",):
        remarks.append("is fractional; voxels of a half and more count as marked")
    wanted = [one for one in segments if one in parsed.segment_numbers]
    if not wanted:
        raise UnreadableError("holds none of the segments that were chosen: choose among those listed.")
    try:
        grid = _grid(parsed)
        if max(rows, columns) > MAX_SIDE or math.prod(grid.shape) > MAX_VOXELS:
            raise UnreadableError(_TOO_LARGE)
        out = np.zeros(grid.shape, np.uint16)
        for label in wanted:
            volume = parsed.get_volume(segment_numbers=[label], rescale_fractional=True)
            marked = volume.array.reshape(grid.shape) >= 0.5
            out[marked & (out == 0)] = label
    # highdicom's sentences are about a programmer's arguments.
    except (RuntimeError, ValueError, AttributeError, KeyError, TypeError):
        raise UnreadableError(_NO_VOLUME) from None
    return out, grid, tuple(remarks)


def _grid(parsed: Segmentation) -> Grid:
    """The grid of all segments' frames; slices that none of them marks lie in it, too."""
    geometry = parsed.get_volume_geometry(allow_missing_positions=True, allow_duplicate_positions=True)
    if geometry is None:
        raise UnreadableError(_NO_VOLUME)
    affine = np.array(geometry.affine, float)
    slices, rows, columns = geometry.spatial_shape
    if slices == 1:
        # Of one plane highdicom takes the next to be 1 mm away.
        shared = items(parsed, "SharedFunctionalGroupsSequence")[:1]
        measures = [one for group in shared for one in items(group, "PixelMeasuresSequence")[:1]]
        apart = next((mm for one in measures if (mm := _between(one))), None)
        if apart is None:
            raise UnreadableError("is one slice of unknown thickness: export the segmentation of all slices.")
        affine[:3, 0] *= apart / np.linalg.norm(affine[:3, 0])
    return Grid(_TO_RAS @ affine, (slices, rows, columns))


def _between(measures: Dataset) -> float | None:
    return number(measures, "SpacingBetweenSlices") or number(measures, "SliceThickness")
