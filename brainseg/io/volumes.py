"""Series with a place in the world -> `Study`: one grid, axial slices, the mask laid over them."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from brainseg.grid import Grid, furthest_mm, inside, resample, to_axial
from brainseg.io import itk
from brainseg.io.cases import Case, relative_names
from brainseg.io.limits import MAX_SIDE, MAX_SLICES, MAX_VOXELS
from brainseg.io.plausible import about_masks
from brainseg.io.readers import UnreadableError
from brainseg.io.series import ROLES, Role, SeriesInfo
from brainseg.io.text import listed, shown
from brainseg.types import (
    CHANNELS,
    Affine,
    BoolArray,
    InputError,
    Origin,
    Source,
    SourceFile,
    Study,
    VolumeFormat,
)

SLICE_MM = 5.0
"""Thickness of the slices that thin-sliced volumes are cut into. The networks learned from 95 heads of 20 to
88 slices, 32 in the median. A head is about 150 mm high: 4.7 mm a slice in the median, 3.9 to 6.5 between the
quartiles, and never below 1.7."""

THINNEST_MM = 1.7
"""Axial slices thinner than this are of no thickness that the networks know."""

MOST_STRETCHED = 1.2
"""Pixels longer than wide by more than this are made square: the networks keep proportions of pixels, and
learned from square ones, stretched by training's augmentation up to about as much."""

# Below it, air on the scale of CT; MRI is rarely negative, and after subtraction of a mean not by so much.
_HOUNSFIELD = -500
_TITLES: dict[Role, str] = {
    "pre": "Pre-contrast",
    "flair": "FLAIR",
    "post": "Post-contrast",
    "mask": "The mask",
}
# Of a segmentation of the whole head there are more; grey values of an image run into hundreds.
_MOST_LABELS = 64
_VIEWS = {0: "sagittal", 1: "coronal"}


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
        sides_known: the files say how the axes lie in the patient; otherwise `grid` is right in size alone.
    """

    info: SeriesInfo
    grid: Grid
    pixels: npt.NDArray[Any]
    format: VolumeFormat
    frame: str | None = None
    headers: tuple[Any, ...] = field(default=(), repr=False)
    remarks: tuple[str, ...] = ()
    sides_known: bool = True

    @property
    def name(self) -> str:
        """For messages."""
        return shown(self.info.key)


@dataclass(frozen=True, eq=False)
class _Frame:
    # FLAIR and its grid, cut into slices.
    grid: Grid
    flair: Acquisition

    def lay(self, pixels: npt.NDArray[Any], own: Grid, *, order: Literal[0, 1] = 1) -> npt.NDArray[Any]:
        """(S, H, W) on the study's grid; a slice is the mean of as many planes as its thickness holds."""
        step = np.linalg.inv(own.affine[:3, :3]) @ self.grid.affine[:3, 0]
        return resample(pixels, own, self.grid, order=order, planes=max(1, round(float(np.abs(step).max()))))


def assemble(case: Case, acquisitions: Iterable[Acquisition], *, register: bool = False) -> Study:
    """One patient's acquisitions -> a study of axial slices on FLAIR's grid.

    Args:
        case: with the roles as the user left them.
        acquisitions: exactly one FLAIR, at most one pre and post, any number of masks, which are united (as
            overlapping segments are). Taken one after another, so a generator holds one at a time in memory
            where FLAIR comes first.
        register: move pre and post onto FLAIR by a rigid registration.

    Returns:
        A study in the order of `to_axial`. Slices are FLAIR's own where they are thick, else means of planes
        of `SLICE_MM`; pixels are its own where they are square. Pre and post lie on the same grid, linearly
        interpolated where their own is another; the reference is the nearest voxel's, or that of at least
        half of a slice's planes. Values stay in the files' dtype where nothing was interpolated.

    Raises:
        InputError: no common frame of reference, nothing in common in the world, a blank FLAIR, a CT, or too
            large.
    """
    waiting: list[Acquisition] = []
    frame: _Frame | None = None
    placed: dict[Role, npt.NDArray[Any]] = {}
    moves: dict[str, Affine] = {}
    marks: list[BoolArray] = []
    notes: list[str] = []

    def place(one: Acquisition, frame: _Frame) -> None:
        notes.extend(one.remarks)
        if one.info.role == "mask":
            mark, said = _mask(one, frame, moves)
            marks.append(mark)
        else:
            _check_values(one)
            placed[one.info.role or "pre"], said = _image(one, frame, moves, register)
        notes.extend(said)

    for one in acquisitions:
        if one.info.role == "flair":
            _check_values(one)
            frame, said = _frame(one)
            placed["flair"] = frame.lay(one.pixels, one.grid)
            notes += [*one.remarks, *said]
            if not register:  # its own voxels are needed no more, and are large
                frame = replace(frame, flair=replace(one, pixels=np.empty(0)))
            for early in waiting:
                place(early, frame)
            waiting.clear()
        elif frame is None or (one.info.role == "mask" and one.frame is not None):
            # A mask in the frame of a T1 goes where that goes.
            waiting.append(one)
        else:
            place(one, frame)
        del one  # before the next is decoded
    if frame is None:
        raise InputError(
            f"No FLAIR was given for {shown(case.case_id)}, which the networks need most: add it."
        )
    for late in sorted(waiting, key=lambda one: one.info.role == "mask"):
        place(late, frame)
    volume, said = _stacked(placed)
    notes += said
    reference: BoolArray | None = np.logical_or.reduce(marks) if marks else None
    numbers = tuple(range(1, len(volume) + 1))
    notes += about_masks(volume, reference, numbers)
    flair = frame.flair
    return Study(
        slices=volume,
        case_id=case.case_id,
        source=_source(case, flair.format, register),
        slice_numbers=numbers,
        reference=reference,
        spacing_mm=frame.grid.spacing_mm,
        orientation=frame.grid.orientation if flair.sides_known else None,
        notes=(*notes, *_about_ignored(case)),
        affine=frame.grid.affine,
        origin=Origin(flair.grid.affine, flair.grid.shape, flair.format, flair.headers),
    )


def _frame(flair: Acquisition) -> tuple[_Frame, list[str]]:
    """Axial slices of a thickness and with pixels that the networks know, and what was done for it."""
    axial, _ = to_axial(flair.grid)
    between, rows, columns = axial.spacing_mm
    notes = []
    planes = 1
    if between < THINNEST_MM:
        planes = min(axial.shape[0], max(1, round(SLICE_MM / between)))
    pixel = min(rows, columns)
    square = (pixel, pixel) if max(rows, columns) > MOST_STRETCHED * pixel else (rows, columns)
    grid = _cut(axial, (between * planes, *square))
    if planes > 1:
        notes.append(
            f"FLAIR is {_view(axial)} ({' x '.join(f'{mm:.3g}' for mm in flair.grid.spacing_mm)} mm): it was "
            f"cut into axial slices of {between * planes:.3g} mm, each the mean of {planes} planes, as the "
            "networks know them; results go back to its own grid."
        )
    if square != (rows, columns):
        notes.append(
            f"FLAIR's axial pixels are {rows:.3g} x {columns:.3g} mm: they were interpolated to squares of "
            f"{pixel:.3g} mm; results go back to its own grid."
        )
    if flair.grid.is_oblique:
        notes.append("FLAIR is oblique: its own planes nearest to axial are shown, none was straightened.")
    slices, height, width = grid.shape
    if slices > MAX_SLICES or max(height, width) > MAX_SIDE or slices * height * width > MAX_VOXELS:
        raise InputError(
            f"{flair.name} makes {slices:,} slices of {height:,} x {width:,} pixels, more than "
            f"{MAX_SLICES:,} slices, {MAX_SIDE:,} pixels a side or {MAX_VOXELS // 10**6} million voxels: "
            "give it as the scanner made it."
        )
    return _Frame(grid, flair), notes


def _cut(grid: Grid, spacing: tuple[float, float, float]) -> Grid:
    """A grid over the same ground with other spacings; the last voxel may reach over its edge."""
    affine = grid.affine.copy()
    shape = []
    for axis, (own, new, n) in enumerate(zip(grid.spacing_mm, spacing, grid.shape, strict=True)):
        # The first voxels begin at the same edge.
        affine[:3, axis] *= new / own
        affine[:3, 3] += (affine[:3, axis] - grid.affine[:3, axis]) / 2
        shape.append(max(1, int(np.ceil(n * own / new - 1e-3))))
    return Grid(affine, (shape[0], shape[1], shape[2]))


def _view(axial: Grid) -> str:
    """In a word, how a volume was acquired: across its thickest axis, if there is one."""
    between, rows, columns = axial.spacing_mm
    thick = {1: rows, 0: columns}
    axis = max(thick, key=lambda axis: thick[axis])
    others = sorted((between, rows, columns))[:2]
    return _VIEWS[axis] if thick[axis] > MOST_STRETCHED * others[1] else "thin-sliced"


def _image(
    one: Acquisition, frame: _Frame, moves: dict[str, Affine], register: bool
) -> tuple[npt.NDArray[Any], list[str]]:
    """Pre or post on the study's grid, and what was done to it."""
    flair = frame.flair
    notes = []
    if register:
        one, note, move = _registered(one, flair)
        notes.append(note)
        if one.frame is not None:
            moves[one.frame] = move
    else:
        _check_frame(one, flair)
        one, notes = _placed(one, flair)
    title = _TITLES[one.info.role or "pre"]
    share = inside(one.grid, frame.grid)
    if not share:
        raise InputError(
            f"{one.name} lies elsewhere in the world than FLAIR, with nothing in common: check that both are "
            "of one patient and one session, register them, or leave it out."
        )
    values = frame.lay(one.pixels, one.grid)
    if not _same_lattice(one.grid, flair.grid):
        notes.append(
            f"{title} ({one.name}) has another grid than FLAIR: it was resampled to FLAIR's in world space."
        )
    if share < 0.9:
        notes.append(f"{title} ({one.name}) covers {share:.0%} of FLAIR; the rest of it was taken as 0.")
    return values, notes


def _same_lattice(one: Grid, other: Grid) -> bool:
    first, second = to_axial(one)[0], to_axial(other)[0]
    return first.shape == second.shape and furthest_mm(first, second) < 0.05 * min(first.spacing_mm)


def _placed(one: Acquisition, flair: Acquisition) -> tuple[Acquisition, list[str]]:
    """Where only sizes are known, an acquisition of FLAIR's size is taken to lie where FLAIR does."""
    if one.sides_known and flair.sides_known:
        return one, []
    if one.sides_known == flair.sides_known and _same_lattice(one.grid, flair.grid):
        return one, []
    if one.grid.shape != flair.grid.shape:
        raise InputError(
            f"{one.name} and FLAIR cannot be laid over each other, as not both say how they lie in the "
            "patient and their sizes differ: export both with an orientation."
        )
    note = f"{one.name} was taken to lie where FLAIR does, as not both say how they lie in the patient."
    return replace(one, grid=flair.grid), [note]


def _check_frame(one: Acquisition, flair: Acquisition) -> None:
    if one.frame is not None and flair.frame is not None and one.frame != flair.frame:
        raise InputError(
            f"{one.name} and FLAIR have different frames of reference, so their places in the patient cannot "
            "be compared: register them (the switch below the sequences, or --register), or leave it out."
        )


def _registered(one: Acquisition, flair: Acquisition) -> tuple[Acquisition, str, Affine]:
    try:
        move, angle, shift = itk.rigid((flair.pixels, flair.grid), (one.pixels, one.grid))
    except UnreadableError as error:
        raise InputError(f"{one.name} {error}") from None
    note = (
        f"{_TITLES[one.info.role or 'pre']} ({one.name}) was moved onto FLAIR by a rigid registration "
        f"(SimpleITK, mutual information): turned by {angle:.1f} degrees, shifted by {shift:.1f} mm."
    )
    return replace(one, grid=Grid(move @ one.grid.affine, one.grid.shape)), note, move


def _mask(one: Acquisition, frame: _Frame, moves: dict[str, Affine]) -> tuple[BoolArray, list[str]]:
    """A mask on the study's grid, and what was done to it."""
    flair = frame.flair
    marked, notes = _tumour(one)
    if one.frame in moves and one.frame != flair.frame:
        one = replace(one, grid=Grid(moves[one.frame] @ one.grid.affine, one.grid.shape))
    else:
        _check_frame(one, flair)
        one, said = _placed(one, flair)
        notes += said
    if not marked.any():
        return np.zeros(frame.grid.shape, np.bool_), [*notes, f"The mask {one.name} marks no tumour."]
    out: BoolArray = np.asarray(frame.lay(marked, one.grid, order=0) >= 0.5)
    # Some of the voxels tell as much as millions.
    indices = np.flatnonzero(marked)
    some = np.unravel_index(indices[:: max(1, len(indices) // 100_000)], marked.shape)
    voxels = flair.grid.voxels(one.grid.world(np.stack(some, axis=-1)))
    lost = 1 - float(((voxels > -0.52) & (voxels < np.array(flair.grid.shape) - 0.48)).all(axis=-1).mean())
    if lost > 0.999:
        raise InputError(
            f"The mask {one.name} marks nothing inside FLAIR, as it lies elsewhere in the world: save it "
            "with the orientation and origin of the image that it was drawn on."
        )
    if lost > 1e-3:
        notes.append(f"{lost:.1%} of what the mask {one.name} marks lies outside FLAIR and was left out.")
    if not _same_lattice(one.grid, flair.grid) or frame.grid.shape != to_axial(flair.grid)[0].shape:
        volume = np.prod(one.grid.spacing_mm) * marked.sum() / 1000
        there = np.prod(frame.grid.spacing_mm) * out.sum() / 1000
        notes.append(
            f"The mask {one.name} lies on another grid than the slices shown: it marks {volume:.4g} ml there "
            f"and {there:.4g} ml on theirs (nearest voxels in world space)."
        )
    return out, notes


def _tumour(one: Acquisition) -> tuple[BoolArray, list[str]]:
    """What counts as tumour of a mask on its own grid."""
    values = one.pixels
    if values.dtype == np.bool_:
        return values, []
    found = np.unique(values[values != 0])
    if len(found) > _MOST_LABELS or (found < 0).any() or (found != np.round(found)).any():
        raise InputError(
            f"{one.name} is taken as a mask, but holds {len(found):,} values beside 0, from {found[0]:g} to "
            f"{found[-1]:g}, where labels are few whole numbers: save it as labels, or take it as an image."
        )
    labels = [int(v) for v in found]
    names = dict(one.info.segments)
    if one.info.labels:
        missing = [label for label in one.info.labels if label not in labels and label not in names]
        if missing:
            raise InputError(
                f"The mask {one.name} has no label {listed(missing)}: choose among {listed(labels)}."
            )
        said = listed(_label(label, names) for label in one.info.labels)
        return np.isin(values, one.info.labels), [f"Of the mask {one.name} the labels {said} were taken."]
    notes = []
    if len(labels) > 1:
        said = listed(_label(label, names) for label in labels)
        notes.append(f"The mask {one.name} holds the labels {said}: they were united to one tumour.")
    marked: BoolArray = np.asarray(values != 0)
    return marked, notes


def _label(label: int, names: dict[int, str]) -> str:
    return f"{label} ({names[label]})" if label in names else str(label)


def _check_values(one: Acquisition) -> None:
    """Refuse images without contrast, and those that are no MRI by their values."""
    values = one.pixels
    if values.size and values.min() == values.max():
        if one.info.role == "flair":
            raise InputError(f"{one.name} is blank: export it again, or choose another series as FLAIR.")
        return
    # Every eighth voxel tells as much.
    if float(np.percentile(values[::2, ::2, ::2], 5)) < _HOUNSFIELD:
        raise InputError(
            f"{one.name} holds values down to {values.min():g}, as Hounsfield units of a CT do or the phase "
            "of an MRI: give MRI magnitude images."
        )


def _stacked(placed: dict[Role, npt.NDArray[Any]]) -> tuple[npt.NDArray[Any], list[str]]:
    notes = []
    channels = []
    roles: tuple[Role, ...] = ("pre", "flair", "post")
    for role in roles:
        values = placed.get(role)
        if values is None:
            notes.append(
                f"{_TITLES[role]} was not given: FLAIR was used in its place, results are less reliable."
            )
        elif values.min() == values.max():
            notes.append(f"{_TITLES[role]} is blank in every slice: the sequence was probably missing.")
        channels.append(placed["flair"] if values is None else values)
    return np.stack(channels, axis=-1), notes


def _source(case: Case, kind: VolumeFormat, register: bool) -> Source:
    names = relative_names([file.name for file in case.files])
    used: dict[int, list[SeriesInfo]] = defaultdict(list)
    left = dict.fromkeys(range(len(names)), "belongs to no series")
    for one in case.series:
        for index in one.files:
            if one.role is None:
                left[index] = one.why
            else:
                used[index].append(one)
    digest = hashlib.sha256(b"registered\0" if register else b"")
    files = []
    order = (*CHANNELS, "mask")
    for index, series in sorted(used.items(), key=lambda item: order.index(item[1][0].role or "mask")):
        name, content = names[index], case.files[index].data
        # The same bytes in other roles are another volume, whose results are its own.
        for part in (*(f"{one.role} {one.volume} {one.labels}" for one in series), PurePosixPath(name).name):
            digest.update(part.encode("utf-8", "surrogateescape") + b"\0")
        digest.update(len(content).to_bytes(8, "big") + content)
        note = "; ".join(f"{ROLES[one.role]}: {one.why}" for one in series if one.role)
        files.append(SourceFile(name, "mask" if series[0].role == "mask" else "slice", note))
    files += [SourceFile(names[i], "ignored", left[i]) for i in sorted(left.keys() - used.keys())]
    return Source(kind, (*files, *case.ignored), digest.hexdigest())


def _about_ignored(case: Case) -> list[str]:
    by_reason: dict[str, list[str]] = {}
    for one in case.series:
        if one.role is None:
            by_reason.setdefault(one.why, []).append(shown(one.key))
    for file in case.ignored:
        if file.note != "not an image":
            by_reason.setdefault(file.note, []).append(shown(file.name))
    return [
        f"{listed(names, most=3)} {'were' if len(names) > 1 else 'was'} set aside: {reason}."
        for reason, names in by_reason.items()
    ]
