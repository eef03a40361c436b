"""NIfTI, MetaImage and NRRD files -> patients, by names and headers; and their voxels."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from brainseg.io import itk, nifti
from brainseg.io.cases import OWN_RESULT, Case, relative_names
from brainseg.io.files import NamedBytes, tidy
from brainseg.io.layout import Layout
from brainseg.io.names import T2, VolumeName, natural, parse_volume
from brainseg.io.readers import UnreadableError
from brainseg.io.series import ROLES, Role, SeriesInfo
from brainseg.io.sniff import HEAD, ITK_SUFFIXES, NIFTI_SUFFIXES, is_nifti
from brainseg.io.text import shown
from brainseg.io.volumes import Acquisition
from brainseg.types import CHANNELS, InputError, SourceFile

_SEG_NRRD = ".seg.nrrd"
_VOXELS = (".img", ".img.gz", ".raw", ".zraw", ".raw.gz")
# Four sequences are common in one file; more volumes are one sequence over time, or directions.
_SERIES_FROM = 5
_UNNAMED = "its name says no sequence"
_NAMED = {"flair": "flair", "t2-flair": "flair", "t1": "pre", "t1w": "pre", "t1gd": "post", "t1ce": "post"}
# Medical Segmentation Decathlon, Task01_BrainTumour, as its dataset.json says.
_DECATHLON = re.compile(r"^BRATS_[0-9]+$")
_DECATHLON_ORDER: tuple[Role | None, ...] = ("flair", "pre", "post", None)


@dataclass
class _Found:
    # One header, the file of its voxels if that is another, and what name and header say.
    file: NamedBytes
    image: NamedBytes | None
    name: VolumeName
    about: Layout
    role: Role | None = None
    why: str = ""
    channel: int | None = None

    @property
    def slot(self) -> str:
        """What a patient has once; empty where nothing was recognised."""
        if self.role is None and self.name.channel is not None:
            return f"channel {self.name.channel}"
        return self.role or ("4-D" if self.about.volumes > 1 else "")


@dataclass
class _Group:
    folder: str
    patient: str
    found: list[_Found] = field(default_factory=list)

    @property
    def slots(self) -> frozenset[str]:
        return frozenset(one.slot for one in self.found) - {""}


def cases(
    files: Sequence[NamedBytes], beside: Sequence[NamedBytes] = ()
) -> tuple[list[Case], list[SourceFile]]:
    """Group volumes into patients, and guess by their names which sequence each holds.

    A patient is a folder in which no role occurs twice; a folder of more is told apart by what the names
    hold before the word for the sequence (``BraTS20_001_flair``, ``sub-01_T1w``) or nnU-Net's ``_0000``.

    Args:
        files: those that `brainseg.io.sniff.is_volume` finds.
        beside: other files, of which nnU-Net's ``dataset.json`` names the channels.

    Returns:
        Patients, and files that belong to none, each with the reason.
    """
    ignored: list[SourceFile] = []
    found = _found(files, ignored)
    channels = _stated_channels(beside)
    counts: dict[tuple[str, str], int] = defaultdict(int)
    for one in found:
        if one.name.channel is not None:
            key = (one.name.folder, one.name.patient)
            counts[key] = max(counts[key], one.name.channel + 1)
    for one in found:
        _recognise(one, counts[one.name.folder, one.name.patient], channels)
    out = []
    for group in _grouped(found):
        if all(one.name.mask for one in group.found):
            note = "a mask without the images that it belongs to: add them"
            ignored += [SourceFile(tidy(one.file.name), "ignored", note) for one in group.found]
        else:
            out.append(_case(group, channels))
    return out, ignored


def acquisitions(case: Case) -> Iterator[Acquisition]:
    """The voxels of the series that have a role, FLAIR first; each file is read once.

    Raises:
        InputError: damaged, cut short, or a time series.
    """
    first = sorted((one for one in case.series if one.role is not None), key=lambda one: one.role != "flair")
    by_files: dict[tuple[int, ...], list[SeriesInfo]] = defaultdict(list)
    for one in first:
        by_files[one.files].append(one)
    names = relative_names([file.name for file in case.files])
    for at, several in by_files.items():
        name = shown(names[at[0]])
        try:
            about, stored, remarks = _read([case.files[i] for i in at])
            for one in several:
                yield _acquisition(one, about, stored, remarks, name)
            del stored  # before the next file is unpacked
        except UnreadableError as error:
            raise InputError(f"{name} {error}") from None


def _found(files: Sequence[NamedBytes], ignored: list[SourceFile]) -> list[_Found]:
    by_name = {tidy(file.name): file for file in files}
    used: set[str] = set()
    found = []
    for name in sorted(by_name, key=natural):
        file = by_name[name]
        lower = name.lower()
        head = file.head(HEAD)
        if lower.endswith(_VOXELS) and not is_nifti(head):
            continue
        if is_nifti(head) and nifti.is_own_result(head):
            ignored.append(SourceFile(name, "ignored", OWN_RESULT))
            continue
        try:
            image = _image(name, head, by_name)
            if image is not None:
                used.add(tidy(image.name))
            about = _layout(file, head, image)
        except UnreadableError as error:
            ignored.append(SourceFile(name, "ignored", f"it {error}".rstrip(".")))
            continue
        suffix = next((s for s in (_SEG_NRRD, *NIFTI_SUFFIXES, *ITK_SUFFIXES) if lower.endswith(s)), "")
        parsed = parse_volume(name, suffix)
        if suffix == _SEG_NRRD or about.segments:
            parsed = replace(parsed, mask=True, sequence=None)
        found.append(_Found(file, image, parsed, about))
    taken = {tidy(one.file.name) for one in found} | used | {file.name for file in ignored}
    ignored += [
        SourceFile(name, "ignored", "voxels without the header that belongs to them: add it")
        for name in by_name
        if name not in taken
    ]
    return found


def _image(name: str, head: bytes, by_name: Mapping[str, NamedBytes]) -> NamedBytes | None:
    """The file beside a header that holds its voxels; None where they follow it or are not here."""
    path = PurePosixPath(name)
    if is_nifti(head):
        if not nifti.is_paired(head):
            return None
        for suffix in (".img", ".img.gz"):
            if beside := by_name.get(str(path.with_suffix(suffix))):
                return beside
        raise UnreadableError(f"has its voxels in {shown(path.stem + '.img')}, which was not given: add it.")
    if itk.format_of(name, head) == "metaimage" and (other := itk.voxels_file(head)):
        return by_name.get(str(path.with_name(other)))
    return None


def _layout(file: NamedBytes, head: bytes, image: NamedBytes | None) -> Layout:
    kind = itk.format_of(file.name, head)
    if kind is not None and not is_nifti(head):
        return itk.layout(file, kind, image)
    return nifti.layout(head)


def _read(files: Sequence[NamedBytes]) -> tuple[Layout, npt.NDArray[Any], tuple[str, ...]]:
    file, image = files[0], files[1] if len(files) > 1 else None
    head = file.head(HEAD)
    kind = itk.format_of(file.name, head)
    if kind is not None and not is_nifti(head):
        return itk.pixels(file, kind, image)
    about = nifti.layout(head)
    return about, nifti.pixels(file, about, image), ()


def _acquisition(
    info: SeriesInfo, about: Layout, stored: npt.NDArray[Any], remarks: tuple[str, ...], name: str
) -> Acquisition:
    if info.role == "mask" and about.parts:
        chosen = [i for i, (label, _) in enumerate(about.segments) if label in (info.labels or (label,))]
        values = np.zeros(about.grid.shape, np.bool_)
        for volume, value in (about.parts[i] for i in chosen):
            values |= stored[volume] == value
        said = [text for i, (_, text) in enumerate(about.segments) if i in chosen]
        if len(said) > 1:
            remarks = (*remarks, f"The segments {', '.join(map(shown, said))} of {{name}} were united.")
        info = replace(info, labels=())
    else:
        if about.volumes >= _SERIES_FROM:
            raise UnreadableError(
                f"is a time series or the like of {about.volumes} volumes: give 3-D images, one a sequence."
            )
        values = stored[info.volume]
        if about.format == "nifti":
            values, more = nifti.scaled(values, about)
            remarks += more
    return Acquisition(
        info,
        about.grid,
        values,
        about.format,
        headers=() if about.header is None else (about.header,),
        sides_known=about.sides_known,
        remarks=tuple(remark.replace("{name}", name) for remark in (*about.remarks, *remarks)),
    )


def _stated_channels(beside: Sequence[NamedBytes]) -> list[str]:
    """The sequences that nnU-Net's or the Decathlon's dataset.json names, in the order of the channels."""
    for file in beside:
        if PurePosixPath(file.name).name == "dataset.json":
            try:
                said = json.loads(file.head(HEAD))
                named = said.get("channel_names") or said.get("modality")
                return [str(named[str(i)]) for i in range(len(named))]
            except (ValueError, KeyError, AttributeError, TypeError):
                continue
    return []


def _recognise(one: _Found, count: int, channels: list[str]) -> None:
    """Fill in the role of a 3-D volume, `count` of which share their name but for nnU-Net's ending."""
    name = one.name
    if name.mask and name.other:
        one.why = f"a mask of {name.other}, not of a tumour"
    elif name.mask:
        one.role, one.why = "mask", "holds segments" if one.about.segments else "named as a mask"
    elif one.about.volumes > 1:
        one.why = f"holds {one.about.volumes} volumes"
    elif name.channel is not None and name.sequence is None and count > 1:
        one.role, one.why, one.channel = _of_channel(name.channel, count, channels)
    elif name.other:
        one.why = f"named {name.other}, which is none of the three sequences"
    elif name.sequence == T2:
        one.why = "T2 is none of the three sequences that the networks use"
    elif name.sequence:
        one.role, one.why = _role(name.sequence), "by its name"
    else:
        one.why = _UNNAMED


def _role(sequence: str) -> Role | None:
    return next((role for role in ROLES if role == sequence), None)


def _of_channel(channel: int, count: int, channels: list[str]) -> tuple[Role | None, str, int | None]:
    """Role, reason, and the place among three channels that nothing names."""
    if channel < len(channels):
        role = _role(_NAMED.get(channels[channel].lower(), ""))
        return role, f"dataset.json calls channel {channel} {shown(channels[channel])}", None
    if count == len(CHANNELS):
        why = f"number {channel + 1} of three, taken in the order {', '.join(CHANNELS)}"
        return _role(CHANNELS[channel]), why, channel
    return None, f"number {channel + 1} of {count}, which nothing names", None


def _grouped(found: list[_Found]) -> list[_Group]:
    folders: dict[str, list[_Found]] = defaultdict(list)
    for one in found:
        folders[one.name.folder].append(one)
    out = []
    for folder, members in folders.items():
        images = {(one.name.patient, one.name.split) for one in members if not one.name.mask}
        # Training and test images of one name are two patients; masks may lie in a folder of neither.
        split = len({patient for patient, _ in images}) < len(images)
        groups: dict[tuple[str, str], _Group] = {}
        for one in members:
            key = (one.name.patient, one.name.split if split else "")
            groups.setdefault(key, _Group(folder, one.name.patient)).found.append(one)
        out += _patients(folder, list(groups.values()))
    return out


def _patients(folder: str, groups: list[_Group]) -> list[_Group]:
    """One folder's groups as they are, if they are several patients; else united."""
    slots = [one.slot for group in groups for one in group.found if one.slot]
    repeated = len(slots) > len(set(slots))
    # Either some name has several sequences to it, or every name has the same.
    if repeated and (any(len(group.slots) > 1 for group in groups) or len({g.slots for g in groups}) == 1):
        return groups
    names = {group.patient for group in groups if group.patient}
    if len(names) > 1:
        names = {group.patient for group in groups if group.patient and len(group.found) > 1}
    patient = next(iter(names)) if len(names) == 1 else ""
    united = [one for group in groups for one in group.found]
    return [_Group(folder, patient, sorted(united, key=lambda one: natural(tidy(one.file.name))))]


def _case(group: _Group, channels: list[str]) -> Case:
    images = [one for one in group.found if not one.name.mask]
    if len(images) == 1 and images[0].why == _UNNAMED:
        images[0].role, images[0].why = "flair", "the only image"
    files: list[NamedBytes] = []
    series: list[SeriesInfo] = []
    bases = Counter(PurePosixPath(one.file.name).name for one in group.found)
    for one in group.found:
        at = tuple(range(len(files), len(files) + (1 if one.image is None else 2)))
        files += [one.file] if one.image is None else [one.file, one.image]
        base = PurePosixPath(one.file.name).name
        key = base if bases[base] == 1 else tidy(one.file.name)
        series += _series(one, key, at, channels)
    case_id = group.patient or PurePosixPath(group.folder).name or "study"
    return Case(case_id, tuple(files), kind="nifti", series=tuple(series))


def _series(one: _Found, key: str, files: tuple[int, ...], channels: list[str]) -> list[SeriesInfo]:
    count = one.about.volumes
    size = " x ".join(f"{n}" for n in one.about.grid.shape)
    spacing = " x ".join(f"{mm:.3g}" for mm in one.about.grid.spacing_mm)
    title = f"{key}, {size} voxels of {spacing} mm"
    segments = one.about.segments
    if count == 1 or one.role == "mask":
        return [SeriesInfo(key, title, one.role, one.why, files, segments, channel=one.channel)]
    if count >= _SERIES_FROM:
        why = f"a time series or the like of {count} volumes"
        return [SeriesInfo(key, title, None, why, files)]
    guesses: list[tuple[Role | None, str, int | None]]
    if count == len(_DECATHLON_ORDER) and not channels and _DECATHLON.match(one.name.patient):
        guesses = [
            (role, "in the order of the Medical Segmentation Decathlon", None) for role in _DECATHLON_ORDER
        ]
    else:
        guesses = [_of_channel(i, count, channels if len(channels) == count else []) for i in range(count)]
    return [
        SeriesInfo(
            f"{key}:{i + 1}", f"{title}, volume {i + 1}", *guess[:2], files, volume=i, channel=guess[2]
        )
        for i, guess in enumerate(guesses)
    ]
