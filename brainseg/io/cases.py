"""Files -> patients, by names alone: nothing is decoded here."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Literal

from brainseg.io.files import NamedBytes, is_junk, tidy
from brainseg.io.names import Name, natural, parse, parse_all, words
from brainseg.io.readers import reader_of
from brainseg.io.series import SeriesInfo
from brainseg.io.sniff import (
    DICOM_SUFFIXES,
    HEAD,
    READ,
    VOLUME_FORMATS,
    format_by_content,
    format_not_read,
    has_image_suffix,
    is_dicom,
    is_no_image,
    is_own_result,
    is_volume,
)
from brainseg.io.text import plural, shown
from brainseg.types import InputError, SourceFile

OWN_RESULT = "a result that brainseg itself wrote, which is neither a slice nor a reference"

_NO_IMAGE = "not an image"
# Where discs keep the program that shows their DICOM.
_OF_A_VIEWER = words(
    "viewer viewers icons icon help html htm web www bin program programs resources res jre autorun "
    "plugins skins doc docs manual"
)


@dataclass(frozen=True)
class Case:
    """The files of one patient.

    Attributes:
        case_id: the patient as the files name it, else the folder's name, else ``"study"``; unique, printable
            and without slashes.
        files: slices and masks, in natural order of their names.
        ignored: files beside them that belong to no patient, each with the reason.
        kind: ``"slices"`` (TIFF, PNG, JPEG), ``"nifti"`` (with MetaImage and NRRD) or ``"dicom"``.
        series: of volumes: what each series was recognised as, also those set aside; empty of slices.
        title: for the user who chooses among cases, where the files say more than `case_id`; never in a file
            that is written, as it may hold what a hospital typed.
    """

    case_id: str
    files: tuple[NamedBytes, ...]
    ignored: tuple[SourceFile, ...] = ()
    kind: Literal["slices", "nifti", "dicom"] = "slices"
    series: tuple[SeriesInfo, ...] = ()
    title: str = ""


@dataclass(frozen=True)
class _Found:
    file: NamedBytes
    name: Name

    @property
    def is_mask(self) -> bool:
        return self.name.is_mask


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
        InputError: no image in a format that is read, or DICOM of which the images are no more than company.
    """
    images: list[NamedBytes] = []
    ignored: list[SourceFile] = []
    found_volumes, files, unread = _volumes(files)
    ignored += unread
    for file in files:
        if is_junk(file.name):
            continue
        reason = _why_ignored(file)
        if reason:
            ignored.append(SourceFile(tidy(file.name), "ignored", reason))
        else:
            images.append(file)
    images = _without_company(images, ignored, found_volumes, unread)
    if not images and not found_volumes:
        raise InputError(_nothing(ignored))
    images.sort(key=lambda file: natural(tidy(file.name)))
    names = parse_all([tidy(file.name) for file in images])
    found = [_Found(file, name) for file, name in zip(images, names, strict=True)]
    found = _without_pictures(_split_apart(found), ignored)
    groups = _unique_ids(_grouped(found, ignored))
    groups.sort(key=lambda group: natural(group.case_id))
    stray = [(parse(file.name).folder, file) for file in ignored]
    cases = [
        Case(
            group.case_id,
            tuple(found.file for found in group.found),
            _beside(group.folder, [found.file for found in group.found], stray),
        )
        for group in groups
    ]
    for case in found_volumes:
        folder = parse(str(relative_base([file.name for file in case.files]) / "x")).folder
        cases.append(replace(case, ignored=(*case.ignored, *_beside(folder, case.files, stray))))
    return _told_apart(cases)


def relative_names(names: Sequence[str]) -> list[str]:
    """Names less the folders that all of them share, so that folder, zip and upload read alike."""
    parts = [PurePosixPath(tidy(name)).parts for name in names]
    shared = 0
    while all(len(p) > shared + 1 for p in parts) and len({p[shared] for p in parts}) == 1:
        shared += 1
    return ["/".join(p[shared:]) for p in parts]


def _volumes(
    files: Sequence[NamedBytes],
) -> tuple[list[Case], list[NamedBytes], list[SourceFile]]:
    """Patients in formats of whole volumes, the files of other formats, and volumes of no patient."""
    scans: list[NamedBytes] = []
    volumes: list[NamedBytes] = []
    rest: list[NamedBytes] = []
    disguised: list[NamedBytes] = []
    for file in files:
        if _is_scan(file):
            (disguised if has_image_suffix(file.name) else scans).append(file)
        else:
            (volumes if _is_volume(file) else rest).append(file)
    # Among pictures, DICOM that is named as one is a picture that cannot be read.
    pictures = any(has_image_suffix(file.name) for file in rest)
    (rest if pictures else scans).extend(disguised)
    found: list[Case] = []
    left: list[SourceFile] = []
    # The libraries of these formats are loaded for files of theirs alone.
    if scans:
        from brainseg.io import dicom  # noqa: PLC0415

        found, left = dicom.cases(scans)
    if volumes:
        from brainseg.io import volume_files  # noqa: PLC0415

        more, unread = volume_files.cases(volumes, rest)
        found, left = found + more, left + unread
    return found, rest, left


def _is_scan(file: NamedBytes) -> bool:
    """DICOM, whatever its name: a preamble may begin as a picture does."""
    if file.absent or is_junk(file.name):
        return False
    return file.name.lower().endswith(DICOM_SUFFIXES) or is_dicom(file.head(132))


def _is_volume(file: NamedBytes) -> bool:
    if file.absent or is_junk(file.name) or is_no_image(file.name) or has_image_suffix(file.name):
        return False
    return is_volume(file.name, file.head(HEAD))


def _told_apart(cases: list[Case]) -> tuple[Case, ...]:
    """Sorted, DICOM first as it came, in order of time; numbered where names are equal."""
    seen: Counter[str] = Counter()
    out = []
    for case in sorted(cases, key=lambda case: ((), "") if case.kind == "dicom" else natural(case.case_id)):
        seen[case.case_id] += 1
        count = seen[case.case_id]
        out.append(case if count == 1 else replace(case, case_id=f"{case.case_id} ({count})"))
    return tuple(out)


def _why_ignored(file: NamedBytes) -> str | None:
    name = file.name
    if file.absent:
        return file.absent
    if not has_image_suffix(name):
        unread = format_not_read(name)
        if unread:
            return _not_read(unread)
        if is_no_image(name):
            return _NO_IMAGE
    head = file.head(HEAD)
    if is_own_result(head):
        return OWN_RESULT
    if has_image_suffix(name) or reader_of(head):
        return None
    unread = format_by_content(head)
    return _not_read(unread) if unread else _NO_IMAGE


def _not_read(what: str) -> str:
    return f"{what} is not read in this release, only {READ}"


def _without_company(
    images: list[NamedBytes],
    ignored: list[SourceFile],
    found: Sequence[Case],
    unread: Sequence[SourceFile],
) -> list[NamedBytes]:
    """Without what lies beside volumes: a viewer's icons, previews.

    Such pictures are nobody's slices; where as many volumes as images were given, the volumes were meant.
    """
    unread = [*unread, *(file for file in ignored if file.note in map(_not_read, VOLUME_FORMATS))]
    volumes = [file.name for file in unread] + [file.name for case in found for file in case.files]
    if not volumes or not images:
        return images
    kept = []
    for file in images:
        folders = {part.lower() for part in PurePosixPath(tidy(file.name)).parts[:-1]}
        if folders & _OF_A_VIEWER:
            note = "a picture of the program that shows the volumes beside it"
            ignored.append(SourceFile(tidy(file.name), "ignored", note))
        else:
            kept.append(file)
    disc = any(PurePosixPath(name).name.upper() == "DICOMDIR" for name in volumes)
    if not kept or not (disc or len(volumes) >= len(kept)):
        return kept
    if found:
        note = "a picture beside volumes, which were taken instead"
        ignored += [SourceFile(tidy(file.name), "ignored", note) for file in kept]
        return []
    raise InputError(
        f"{shown(PurePosixPath(unread[0].name).name)} cannot be used, as {_clause(unread[0].note)} "
        f"({plural(len(unread), 'such file')} beside {plural(len(kept), 'image')}, which alone would be read "
        "as slices)."
    )


def _split_apart(found: list[_Found]) -> list[_Found]:
    """``train_images`` and ``test_images`` are folders of their own; ``train_images`` alone is not."""
    splits: dict[str, set[str]] = defaultdict(set)
    for one in found:
        splits[one.name.folder].add(one.name.split)
    return [
        replace(one, name=replace(one.name, folder=f"{one.name.folder}/{one.name.split}".strip("/")))
        if len(splits[one.name.folder]) > 1
        else one
        for one in found
    ]


def _nothing(ignored: Sequence[SourceFile]) -> str:
    remedy = f"give one patient's {READ}, in a folder, a zip or as files."
    if not ignored:
        return f"No files were given: {remedy}"
    for file in ignored:
        if file.note != _NO_IMAGE:
            # Readers' refusals hold their own remedy.
            end = "." if ": " in file.note else f": {remedy}"
            return f"{shown(PurePosixPath(file.name).name)} cannot be used, as {_clause(file.note)}{end}"
    first = shown(PurePosixPath(ignored[0].name).name)
    return f"No image among {plural(len(ignored), 'file')} (the first is {first}): {remedy}"


def _clause(note: str) -> str:
    # Reasons are clauses ("DICOM is not read in ...") or what the file is ("a link to ...").
    whole = " is not read in " in note
    return f"it is {note}" if note.startswith(("a ", "an ")) and not whole else note


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
    taken: dict[tuple[object, ...], _Found] = {}
    kept: list[_Found] = []
    copies: list[SourceFile] = []
    for inside in folders.values():
        before = dict(taken)
        for found in inside:
            own = (found.name.sequence, found.name.channel)
            slot = (found.name.number, found.is_mask, *(() if found.is_mask else own))
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


def _beside(
    own_folder: str, files: Sequence[NamedBytes], ignored: Sequence[tuple[str, SourceFile]]
) -> tuple[SourceFile, ...]:
    # Of a data set's stray files (folder, file), those above, in or below the patient's own folder.
    own = _ends(own_folder)
    common = relative_base([file.name for file in files])
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
