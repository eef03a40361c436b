"""Series that have a role -> volumes with their place in the world."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import FileDataset

from brainseg.grid import Grid
from brainseg.io.cases import Case
from brainseg.io.dicom.headers import read_header, read_whole, reading, text, without_pixels
from brainseg.io.dicom.pixels import frames_of
from brainseg.io.dicom.segmentation import labels_of
from brainseg.io.dicom.series import Instance, Row, base_of, of_series
from brainseg.io.dicom.stacks import Plane, Stack
from brainseg.io.files import tidy
from brainseg.io.readers.reader import MAX_BYTES, UnreadableError
from brainseg.io.series import SeriesInfo
from brainseg.io.text import plural, shown
from brainseg.io.volumes import Acquisition
from brainseg.types import InputError

_FIRST = ("flair", "pre", "post", "mask")
# A picture of more values is grey.
_MOST_LABELS = 64


def acquisitions(case: Case) -> Iterator[Acquisition]:
    """The series that have a role, decoded one after another, FLAIR first.

    `headers` are of the slices that are there: where one is missing, `pixels` hold a blank slice, and there
    is no header for it.

    Raises:
        InputError: a series that makes no volume, pixels that are cut short or compressed in a way without a
            decoder, different slices in one place, or grey values in a mask. The sentence names file and
            series.
    """
    for role in _FIRST:
        for info in case.series:
            if info.role == role:
                yield _acquired(case, info)


def _acquired(case: Case, info: SeriesInfo) -> Acquisition:
    base = base_of(info.key)
    members = sorted({at for one in case.series if base_of(one.key) == base for at in one.files})
    instances = []
    for at in members:
        try:
            instances.append(Instance(at, read_header(case.files[at])))
        except UnreadableError as error:
            raise _refused(case, info, at, error) from None
    row = next((row for row in of_series(instances, base) if row.info.key == info.key), None)
    if row is None or row.info.files != info.files:
        raise InputError(f"The files of series {info.key} changed since they were listed: give them again.")
    if row.problem:
        raise InputError(f"Series {info.key} ({_named(case, info.files[0])}) {row.problem}.")
    if row.stack is None or row.stack.grid is None:
        return _of_segmentation(case, info, row)
    return _of_stack(case, info, row, row.stack, row.stack.grid)


@dataclass
class _Filling:
    """A volume while its files are decoded.

    Attributes:
        shape: (S, H, W).
        pixels: None before the first file.
        sources: the file that each slice came from.
        headers: by file.
        copies: slices that were there twice.
        lossy: a file says that its compression lost detail.
    """

    shape: tuple[int, int, int]
    pixels: npt.NDArray[Any] | None = None
    sources: dict[int, int] = field(default_factory=dict)
    headers: dict[int, FileDataset] = field(default_factory=dict)
    copies: int = 0
    lossy: bool = False

    def add(self, file: int, places: Sequence[int], frames: npt.NDArray[Any]) -> int | None:
        """Put frames (N, H, W) of a file in their places; the file whose other pixels lie there, if so."""
        if self.pixels is None:
            self.pixels = np.zeros(self.shape, frames.dtype)
        self.pixels = self.pixels.astype(np.result_type(self.pixels, frames), copy=False)
        for place, frame in zip(places, frames, strict=True):
            if place not in self.sources:
                self.pixels[place], self.sources[place] = frame, file
            elif np.array_equal(self.pixels[place], frame):
                self.copies += 1
            else:
                return self.sources[place]
        return None

    def whole(self) -> npt.NDArray[Any]:
        """The volume, missing slices as dark as its darkest voxel."""
        if self.pixels is None:
            raise ValueError("a stack holds planes")
        there = sorted(self.sources)
        for place in set(range(self.shape[0])) - self.sources.keys():
            self.pixels[place] = min(self.pixels[one].min() for one in there)
        return self.pixels

    def in_order(self) -> tuple[FileDataset, ...]:
        """Headers in the order of their first slices."""
        return tuple(
            self.headers[file] for file in dict.fromkeys(self.sources[at] for at in sorted(self.sources))
        )


def _of_stack(case: Case, info: SeriesInfo, row: Row, stack: Stack, grid: Grid) -> Acquisition:
    if math.prod(grid.shape) * 4 > MAX_BYTES:
        raise InputError(f"Series {info.key} holds more than {MAX_BYTES // 2**30} GB: choose a smaller one.")
    by_file: dict[int, list[tuple[int, Plane]]] = defaultdict(list)
    for at, place in enumerate(stack.places):
        for plane in place:
            by_file[plane.file].append((at, plane))
    filling = _Filling(grid.shape)
    for file, wanted in by_file.items():
        try:
            with reading():
                dataset = read_whole(case.files[file].data)
                frames = frames_of(dataset, [plane.frame for _, plane in wanted])
                filling.lossy |= text(dataset, "LossyImageCompression") == "01"
                filling.headers[file] = without_pixels(dataset)
        except UnreadableError as error:
            raise _refused(case, info, file, error) from None
        other = filling.add(file, [at for at, _ in wanted], frames)
        if other is not None:
            raise InputError(
                f"{_named(case, other)} and {_named(case, file)} of series {info.key} are different slices "
                "in one place, and nothing tells their volumes apart: leave one out."
            )
    pixels = filling.whole()
    if info.role == "mask" and (pixels.dtype.kind not in "iu" or len(np.unique(pixels)) > _MOST_LABELS):
        name = _named(case, info.files[0])
        raise InputError(f"Series {info.key} ({name}) holds grey values, so it is no mask: choose another.")
    remarks = [f"Series {info.key} {remark}." for remark in stack.remarks]
    if filling.copies:
        remarks.append(
            f"Series {info.key} holds {plural(filling.copies, 'slice')} twice; each was taken once."
        )
    if filling.lossy:
        remarks.append(f"Series {info.key} was compressed with loss of detail: results are less reliable.")
    return Acquisition(
        info=info,
        grid=grid,
        pixels=pixels,
        format="dicom",
        frame=row.frame,
        headers=filling.in_order(),
        remarks=tuple(remarks),
    )


def _of_segmentation(case: Case, info: SeriesInfo, row: Row) -> Acquisition:
    (file,) = info.files
    if info.role != "mask":
        raise InputError(
            f"Series {info.key} ({_named(case, file)}) is a segmentation, not images: take it as a mask, or "
            "leave it."
        )
    segments = info.labels or tuple(label for label, _ in info.segments)
    try:
        with reading():
            dataset = read_whole(case.files[file].data)
            pixels, grid, remarks = labels_of(dataset, segments)
            header = without_pixels(dataset)
    except UnreadableError as error:
        raise _refused(case, info, file, error) from None
    return Acquisition(
        info=info,
        grid=grid,
        pixels=pixels,
        format="dicom",
        frame=row.frame,
        headers=(header,),
        remarks=tuple(f"Series {info.key} {remark}." for remark in remarks),
    )


def _refused(case: Case, info: SeriesInfo, file: int, error: UnreadableError) -> InputError:
    return InputError(f"{_named(case, file)} of series {info.key} {error}")


def _named(case: Case, file: int) -> str:
    return shown(tidy(case.files[file].name))
