"""Files -> patients, by names alone: nothing is decoded here."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from brainseg.io.files import NamedBytes, is_junk, tidy
from brainseg.io.names import Name, natural, parse
from brainseg.io.sniff import ACCEPTED, format_not_read, has_image_suffix, is_no_image, kind_of
from brainseg.io.text import plural, shown
from brainseg.types import InputError, SourceFile


@dataclass(frozen=True)
class Case:
    """The files of one patient.

    Attributes:
        case_id: the patient as the files name it, else the folder's name, else ``"study"``; unique, printable
            and without slashes.
        files: slices and masks, in natural order of their names.
        ignored: files beside them that belong to no patient, each with the reason.
    """

    case_id: str
    files: tuple[NamedBytes, ...]
    ignored: tuple[SourceFile, ...] = ()


@dataclass(frozen=True)
class _Found:
    file: NamedBytes
    name: Name

    @property
    def is_mask(self) -> bool:
        return self.name.mask or self.name.in_mask_folder


@dataclass
class _Group:
    case_id: str
    folder: str
    found: list[_Found]


def find_cases(files: Sequence[NamedBytes]) -> tuple[Case, ...]:
    """Group files into patients, sorted naturally by `case_id`.

    Files whose names share a beginning (``ABC_01_3.tif``, ``ABC_01_3_mask.tif``) are one patient wherever
    they lie; files without one (``slice_001.png``) are one patient a folder. A patient found twice is kept
    once if the files are byte for byte the same, and otherwise told apart by folder.

    Raises:
        InputError: no image in a format that is read.
    """
    images: list[_Found] = []
    ignored: list[SourceFile] = []
    for file in files:
        if is_junk(file.name):
            continue
        reason = _why_ignored(file)
        if reason:
            ignored.append(SourceFile(tidy(file.name), "ignored", reason))
        else:
            images.append(_Found(file, parse(tidy(file.name))))
    if not images:
        raise InputError(_nothing(ignored))
    images.sort(key=lambda found: natural(tidy(found.file.name)))
    images = _without_pictures(images, ignored)
    groups = _unique_ids(_grouped(images, ignored))
    groups.sort(key=lambda group: natural(group.case_id))
    stray = [(parse(file.name).folder, file) for file in ignored]
    return tuple(
        Case(group.case_id, tuple(found.file for found in group.found), _beside(group, stray))
        for group in groups
    )


def relative_names(names: Sequence[str]) -> list[str]:
    """Names less the folders that all of them share, so that folder, zip and upload read alike."""
    parts = [PurePosixPath(tidy(name)).parts for name in names]
    shared = 0
    while all(len(p) > shared + 1 for p in parts) and len({p[shared] for p in parts}) == 1:
        shared += 1
    return ["/".join(p[shared:]) for p in parts]


def _why_ignored(file: NamedBytes) -> str | None:
    name = file.name
    if has_image_suffix(name):
        return None
    unread = format_not_read(name)
    if unread:
        return f"{unread} is not read in this release, only {ACCEPTED}"
    if is_no_image(name):
        return "not an image"
    data = file.data
    if kind_of(data):
        return None
    return (
        f"DICOM is not read in this release, only {ACCEPTED}" if data[128:132] == b"DICM" else "not an image"
    )


def _nothing(ignored: Sequence[SourceFile]) -> str:
    remedy = f"give one patient's slices as {ACCEPTED}, in a folder, a zip or as files."
    if not ignored:
        return f"No files were given: {remedy}"
    for file in ignored:
        if file.note != "not an image":
            return f"{shown(PurePosixPath(file.name).name)} cannot be used, as {file.note}: {remedy}"
    first = shown(PurePosixPath(ignored[0].name).name)
    return f"No image among {plural(len(ignored), 'file')} (the first is {first}): {remedy}"


def _without_pictures(images: list[_Found], ignored: list[SourceFile]) -> list[_Found]:
    # A screenshot beside a numbered series would otherwise count as a second patient. A TIFF may be a stack,
    # and a mask must never be lost.
    if not any(found.name.number is not None for found in images):
        return images
    kept = []
    for found in images:
        tiff = found.file.name.lower().endswith((".tif", ".tiff"))
        if found.name.number is None and not found.is_mask and not tiff:
            reason = "its name carries no slice number, and other files' names do"
            ignored.append(SourceFile(tidy(found.file.name), "ignored", reason))
        else:
            kept.append(found)
    return kept


def _grouped(images: list[_Found], ignored: list[SourceFile]) -> list[_Group]:
    named: dict[str, list[_Found]] = defaultdict(list)
    nameless: dict[str, list[_Found]] = defaultdict(list)
    for found in images:
        if found.name.patient:
            named[found.name.patient].append(found)
        else:
            nameless[found.name.folder].append(found)
    in_folder: dict[str, set[str]] = defaultdict(set)
    for patient, members in named.items():
        for found in members:
            in_folder[found.name.folder].add(patient)
    groups: list[_Group] = []
    for folder, members in nameless.items():
        if len(in_folder[folder]) == 1:
            named[next(iter(in_folder[folder]))] += members
        else:
            groups.append(_Group(PurePosixPath(folder).name or "study", folder, members))
    for patient, members in named.items():
        groups += _one_or_more(patient, members, ignored)
    return groups


def _one_or_more(patient: str, members: list[_Found], ignored: list[SourceFile]) -> list[_Group]:
    # Equal names in several folders: one patient spread over them, a copy, or two patients.
    folders: dict[str, list[_Found]] = defaultdict(list)
    for found in members:
        folders[found.name.folder].append(found)
    taken: dict[tuple[int | None, bool], _Found] = {}
    kept: list[_Found] = []
    copies: list[SourceFile] = []
    for inside in folders.values():
        before = dict(taken)
        for found in inside:
            slot = (found.name.number, found.is_mask)
            twin = before.get(slot)
            if twin is None:
                taken[slot] = found
                kept.append(found)
            elif _same(twin, found):
                note = f"an exact copy of {tidy(twin.file.name)}"
                copies.append(SourceFile(tidy(found.file.name), "ignored", note))
            else:
                return [
                    _Group(f"{PurePosixPath(f).name}_{patient}".strip("_"), f, m) for f, m in folders.items()
                ]
    ignored += copies
    kept.sort(key=lambda found: natural(tidy(found.file.name)))
    return [_Group(patient, kept[0].name.folder, kept)]


def _same(one: _Found, other: _Found) -> bool:
    base = PurePosixPath(one.file.name).name == PurePosixPath(other.file.name).name
    return base and one.file.data == other.file.data


def _unique_ids(groups: list[_Group]) -> list[_Group]:
    counts = Counter(group.case_id for group in groups)
    for group in groups:
        if counts[group.case_id] > 1:
            # No slash: a case id may name a file.
            own = group.folder.replace("/", "_")
            group.case_id = own if own.endswith(group.case_id) else f"{own}_{group.case_id}".strip("_")
    seen: Counter[str] = Counter()
    for group in groups:
        seen[group.case_id] += 1
        if seen[group.case_id] > 1:
            group.case_id += f" ({seen[group.case_id]})"
    return groups


def _beside(group: _Group, ignored: Sequence[tuple[str, SourceFile]]) -> tuple[SourceFile, ...]:
    # Of a data set's stray files (folder, file), those above, in or below the patient's own folder.
    own = _ends(group.folder)
    common = relative_base([found.file.name for found in group.found])
    out = []
    for folder, file in ignored:
        if own.startswith(_ends(folder)) or _ends(folder).startswith(own):
            path = PurePosixPath(file.name)
            name = str(path.relative_to(common)) if path.is_relative_to(common) else path.name
            out.append(SourceFile(name, file.role, file.note))
    return tuple(sorted(out, key=lambda file: natural(file.name)))


def _ends(folder: str) -> str:
    return f"{folder}/" if folder else ""


def relative_base(names: Sequence[str]) -> PurePosixPath:
    """The folder that all names share."""
    first = tidy(names[0])
    short = relative_names(names)[0]
    return PurePosixPath(first[: len(first) - len(short)])
