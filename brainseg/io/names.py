"""What files' names say: the patient, the slice number, the MRI sequence, and whether it is a mask."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

IMAGE_SUFFIXES = frozenset({".tif", ".tiff", ".png", ".jpg", ".jpeg"})

T2 = "t2"
"""A sequence that is told apart so that it can be left aside; the networks have no channel for it."""


def words(text: str) -> frozenset[str]:
    """A vocabulary, written as one line of text."""
    return frozenset(text.split())


_MASK = words(
    "mask masks seg segs segm segmentation segmentations label labels gt gts groundtruth annotation "
    "annotations roi rois lesion lesions contour contours ref refs reference"
)
_GENERIC = words(
    "slice slices image images img imgs im frame frames scan scans axial ax mri mr stack volume page"
)
_SEQUENCES = {
    **dict.fromkeys(("flair", "t2flair", "t2f"), "flair"),
    **dict.fromkeys(("t1", "t1n", "t1w", "t1pre", "pre"), "pre"),
    **dict.fromkeys(("t1ce", "t1c", "t1gd", "t1post", "post"), "post"),
    **dict.fromkeys(("t2", "t2w"), T2),
}
# Beside the name of a T1 these say which of the two it is; alone they say nothing.
_CONTRAST = {
    **dict.fromkeys(("post", "ce", "gd", "gad", "gado", "gadolinium", "contrast", "c"), "post"),
    "pre": "pre",
}
_TRUTH = words("ground truth")
_ABOUT_MASKS = _TRUTH | words("manual expert tumor tumour binary consensus final")
_IMAGE_FOLDER = words("image images img imgs slice slices scan scans png tif tiff jpg jpeg")
# What scanners add to the name of a sequence.
_DESCRIPTORS = words(
    "sag sagittal cor coronal tra transverse transversal se tse fse spgr mprage gre fs fatsat iso w wi "
    "weighted native series seq brain mm d"
)
# Of whole volumes: what a T1 or a FLAIR is called elsewhere, what is neither, and masks of no tumour.
_T1 = words("mprage bravo tfl mp2rage vibe")
_FLUID = words("tirm darkfluid")
_MAPS = words(
    "adc dwi eadc trace swi asl bold fa md dti pwi perfusion cbf cbv mtt ttp tof phase localizer localiser "
    "scout survey dce dsc ct pet"
)
_TISSUE = words("brain brainmask bet parenchyma tissue skull gm wm csf ventricles aseg aparc")
_ANATOMY = words("anat nifti nii")
_FORMATS = words("png tif tiff jpg jpeg")
_SPLITS = words("tr ts train training test testing val valid validation")
_SEPARATORS = "_-. +()[]"
_TOKENS = re.compile(r"[_\-. +()\[\]]+|[0-9]+|[^_\-. +()\[\]0-9]+")
# Words that hold digits, before digits are split off: t1ce, t2flair; and "t1" on its own, not of "t1234".
_SEQUENCE_WORDS = re.compile(
    r"(?i)(?<![0-9a-z])(?:t2flair|t1post|t1pre|t1ce|t1gd|t1c|t1n|t1w|t2f|t2w|t1|t2)(?![a-z])(?![0-9])"
    r"|(?<![0-9a-z])(?:t2flair|t1post|t1pre|t1ce|t1gd|t1c|t1n|t1w|t2f|t2w)(?=[0-9])"
)
_DIGITS = re.compile(r"([0-9]+)")
_FOLDER_SPLIT = re.compile(r"^(.*[a-z])(Tr|Ts|Val)$")
_NUMBERED_COPY = re.compile(r"\(([0-9]{1,9})\)$")
_CHANNEL = re.compile(r"_000([0-9])$")
_MOST_DIGITS = 4
_MOST_CHANNELS = 4


@dataclass(frozen=True)
class Name:
    """A parsed file name.

    Attributes:
        patient: what is left once number and words such as "slice" or "mask" are taken away; may be empty.
        number: the slice number at the end, or None. More than four digits are a date or an identifier.
        mask: the name holds a word for a mask.
        folder: the folder that stands for the patient, without ``images``, ``masks``, ``FLAIR`` and the like.
        in_mask_folder: the file lies in a folder named as one of masks.
        sequence: ``"pre"``, ``"flair"``, ``"post"`` or ``"t2"``, if name or folder say so.
        channel: position of this file among the channels of its slice, by nnU-Net's endings ``_0000`` on.
        copy: the number in brackets at the end of a name, as systems give copies and renamed series.
        split: ``"train"`` and the like, of a folder such as ``train_images``.
    """

    patient: str
    number: int | None
    mask: bool
    folder: str
    in_mask_folder: bool
    sequence: str | None = None
    channel: int | None = None
    copy: int | None = None
    split: str = ""

    @property
    def is_mask(self) -> bool:
        """The name or the folder says so."""
        return self.mask or self.in_mask_folder


def parse(name: str) -> Name:
    """Read a relative path, e.g. ``ABC_01_0001_20000101_12_mask.tif`` or ``images/slice_001.png``.

    The time taken grows in proportion to the length of the name.
    """
    path = PurePosixPath(name)
    stem = path.stem if path.suffix.lower() in IMAGE_SUFFIXES else path.name
    stem, copy = _without_copy(stem)
    left = _Words(stem)
    left.strip_end()
    number = left.take_number()
    if number is not None:
        left.strip_end()
    elif copy is not None:
        number, copy = copy, None
    left.strip_start()
    folders = list(path.parts[:-1])
    in_mask_folder, sequence, split = False, left.sequence, ""
    while folders:
        about = _folder(folders[-1])
        if about is None:
            break
        in_mask_folder |= about.mask
        sequence = sequence or about.sequence
        split = split or about.split
        folders.pop()
        if about.rest:
            folders.append(about.rest)
            break
    return Name(
        left.rest, number, left.mask, "/".join(folders), in_mask_folder, sequence, copy=copy, split=split
    )


def parse_all(names: Sequence[str]) -> list[Name]:
    """Read the names of files that lie together, where one name alone leaves a doubt.

    Endings ``_0000``, ``_0001``, ... are channels, as nnU-Net names them, where every image of a folder has
    them, all with the same few; and numbers in brackets count slices where nothing else tells files apart.
    """
    parsed = [parse(name) for name in names]
    channels = _channels(names, parsed)
    parsed = [
        replace(parse(channels[i][0]), channel=channels[i][1]) if i in channels else name
        for i, name in enumerate(parsed)
    ]
    series: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for i, name in enumerate(parsed):
        series[(name.folder, name.patient, name.is_mask, name.sequence, name.channel, name.split)].append(i)
    for members in series.values():
        copies = {parsed[i].copy for i in members}
        numbers = {parsed[i].number for i in members}
        if len(numbers) == 1 and None not in copies and len(copies) == len(members) > 1:
            (number,) = numbers
            for i in members:
                patient = f"{parsed[i].patient} {number}".strip()
                parsed[i] = replace(parsed[i], patient=patient, number=parsed[i].copy, copy=None)
    return parsed


@dataclass(frozen=True)
class VolumeName:
    """What the name of a file that holds a whole volume says.

    Attributes:
        patient: what precedes the word for sequence or mask, else what is left of the name; may be empty.
        folder: as in `Name`, with ``anat`` taken away too.
        split: as in `Name`.
        sequence: as in `Name`.
        mask: name or folder holds a word for a mask.
        channel: by nnU-Net's ending ``_0000``, or None.
        other: the word that makes it neither of the three sequences nor a mask of a tumour, or empty.
    """

    patient: str
    folder: str
    split: str = ""
    sequence: str | None = None
    mask: bool = False
    channel: int | None = None
    other: str = ""


def parse_volume(name: str, suffix: str) -> VolumeName:
    """Read a relative path, e.g. ``BraTS20_001/BraTS20_001_t1ce.nii.gz``, less its `suffix`.

    Unlike slices, volumes have no numbers, and words may stand anywhere in the name.
    """
    path = PurePosixPath(name)
    stem = path.name[: len(path.name) - len(suffix)]
    channel = None
    if found := _CHANNEL.search(stem):
        stem, channel = stem[: found.start()], int(found[1])
    tokens = _split(stem)
    words_ = [token.lower() for token in tokens]
    # Only the folders are asked of `parse`; it would take a number away from the name.
    about = parse(str(path.with_name("x.tif")))
    folder = PurePosixPath(about.folder)
    while folder.name.lower() in _ANATOMY:
        folder = folder.parent
    t1 = any(_SEQUENCES.get(word) in ("pre", "post") or word in _T1 for word in words_)
    used = {w for w in words_ if w in _SEQUENCES or w in _T1 or w in _FLUID or (t1 and w in _CONTRAST)}
    mask = bool(_MASK & set(words_)) or about.in_mask_folder
    others = _TISSUE & set(words_) if mask else _MAPS & set(words_)
    kept = [w not in _MASK and w not in used and w not in _GENERIC for w in words_]
    first = kept.index(False) if False in kept else len(tokens)
    before = "".join(tokens[:first]).strip(_SEPARATORS)
    rest = "".join(t if keep else "" for t, keep in zip(tokens, kept, strict=True)).strip(_SEPARATORS)
    sequence = "flair" if used & _FLUID else _sequence(used - _T1 | ({"t1"} if used & _T1 else set()))
    return VolumeName(
        before or rest,
        "" if str(folder) == "." else str(folder),
        about.split,
        None if mask else sequence or about.sequence,
        mask,
        channel,
        min(others, default=""),
    )


def natural(text: str) -> tuple[tuple[tuple[int, int, str], ...], str]:
    """A sort key that puts ``x_2`` before ``x_10``."""
    key: list[tuple[int, int, str]] = []
    for i, part in enumerate(_DIGITS.split(text)):
        # Digits compare by length, then as text: int() refuses very long ones.
        digits = part.lstrip("0")
        key.append((0, len(digits), digits) if i % 2 else (1, 0, part.casefold()))
    return tuple(key), text


def masks_by_name(names: Sequence[str], parsed: Sequence[Name]) -> list[bool]:
    """For the files of one patient, which are masks by their names or folders.

    A folder named ``masks`` speaks for its files only where it tells files apart: some lie outside it, and
    none inside it is named as a mask itself.
    """
    folders = {str(PurePosixPath(n).parent) for n, p in zip(names, parsed, strict=True) if p.mask}
    spoken = any(not p.mask and not p.in_mask_folder for p in parsed)
    return [
        p.mask or (spoken and p.in_mask_folder and str(PurePosixPath(n).parent) not in folders)
        for n, p in zip(names, parsed, strict=True)
    ]


class _Words:
    """A stem's tokens, taken away from both ends."""

    def __init__(self, stem: str) -> None:
        self.tokens = _split(stem)
        self.begin, self.end = 0, len(self.tokens)
        self.mask = False
        self.found: list[str] = []

    def strip_end(self) -> None:
        while self.begin < self.end:
            token = self.tokens[self.end - 1]
            if token[0] not in _SEPARATORS and not self._known(token):
                return
            self.end -= 1

    def strip_start(self) -> None:
        while self.begin < self.end:
            token = self.tokens[self.begin]
            if token[0] not in _SEPARATORS and not self._known(token):
                return
            self.begin += 1

    def take_number(self) -> int | None:
        if self.begin == self.end:
            return None
        digits = self.tokens[self.end - 1]
        significant = digits.lstrip("0")
        if not (digits.isascii() and digits.isdigit()) or len(significant) > _MOST_DIGITS:
            return None
        self.end -= 1
        return int(significant or "0")

    @property
    def rest(self) -> str:
        return "".join(self.tokens[self.begin : self.end]).strip(_SEPARATORS)

    @property
    def sequence(self) -> str | None:
        return _sequence(self.found)

    def _known(self, token: str) -> bool:
        word = token.lower()
        if word in _MASK:
            self.mask = True
        elif word in _SEQUENCES or (word in _CONTRAST and self._beside_t1()):
            self.found.append(word)
        elif word not in _GENERIC:
            return False
        return True

    def _beside_t1(self) -> bool:
        return any(token.lower() in ("t1", "t1w") for token in self.tokens[self.begin : self.end][-4:])


def _split(stem: str) -> list[str]:
    tokens: list[str] = []
    at = 0
    for word in _SEQUENCE_WORDS.finditer(stem):
        tokens += _TOKENS.findall(stem, at, word.start())
        tokens.append(word[0])
        at = word.end()
    return tokens + _TOKENS.findall(stem, at)


def _sequence(named: Iterable[str]) -> str | None:
    found = set(named)
    if not found:
        return None
    kinds = {_SEQUENCES[word] for word in found if word in _SEQUENCES}
    contrast = {_CONTRAST[word] for word in found if word in _CONTRAST}
    if "flair" in kinds:
        return "flair"
    if "post" in kinds or "post" in contrast:
        return "post"
    return "pre" if "pre" in kinds else T2 if T2 in kinds else None


def _without_copy(stem: str) -> tuple[str, int | None]:
    stem = stem.rstrip()
    # Sought in the last characters only, so that kilobytes of digits cost nothing.
    found = _NUMBERED_COPY.search(stem[-11:])
    if found is None or len(found[0]) == len(stem):
        return stem, None
    return stem[: -len(found[0])].rstrip(), int(found[1])


@dataclass(frozen=True)
class _Folder:
    mask: bool = False
    sequence: str | None = None
    split: str = ""
    rest: str = ""


def _folder(name: str) -> _Folder | None:
    """What a folder says of its files, or None if it names a patient and no more."""
    split = ""
    if found := _FOLDER_SPLIT.match(name):
        name, split = found[1], found[2].lower()
    tokens = [token.lower() for token in _split(name) if token[0] not in _SEPARATORS]
    for word in tokens:
        if word in _SPLITS:
            split = split or word
    kinds = [word for word in tokens if word not in _SPLITS and word not in _FORMATS] or tokens
    of_masks = bool(_MASK & set(kinds)) or set(kinds) >= _TRUTH
    if of_masks and set(kinds) <= _MASK | _ABOUT_MASKS | _IMAGE_FOLDER:
        return _Folder(mask=True, split=split)
    if kinds and set(kinds) <= _IMAGE_FOLDER:
        return _Folder(split=split)
    contrast = _CONTRAST if {"t1", "t1w"} & set(tokens) else {}
    named = [word for word in tokens if word in _SEQUENCES or word in contrast]
    if named and set(tokens) - set(named) <= _GENERIC | _DESCRIPTORS:
        return _Folder(sequence=_sequence(named))
    stripped = _Words(name)
    stripped.strip_end()
    if stripped.sequence is None or stripped.mask:
        return None
    return _Folder(sequence=stripped.sequence, rest=stripped.rest)


def _channels(names: Sequence[str], parsed: Sequence[Name]) -> dict[int, tuple[str, int]]:
    """For files named as nnU-Net names channels: the name without the ending, and the channel."""
    by_folder: dict[str, list[int]] = defaultdict(list)
    masks = {(name.patient, name.number) for name in parsed if name.is_mask}
    for i, name in enumerate(names):
        # A mask of the same number makes it the number of a slice.
        if not parsed[i].is_mask and (parsed[i].patient, parsed[i].number) in masks:
            return {}
        if not parsed[i].is_mask:
            by_folder[str(PurePosixPath(name).parent)].append(i)
    out: dict[int, tuple[str, int]] = {}
    for members in by_folder.values():
        of_stem: dict[str, set[int]] = defaultdict(set)
        ends: dict[int, tuple[str, int]] = {}
        for i in members:
            path = PurePosixPath(names[i])
            stem = path.stem if path.suffix.lower() in IMAGE_SUFFIXES else path.name
            found = _CHANNEL.search(stem[-5:])
            if found is None or len(stem) == len(found[0]):
                break
            base = stem[: -len(found[0])]
            of_stem[base].add(int(found[1]))
            ends[i] = (str(path.with_name(base + path.suffix)), int(found[1]))
        else:
            sets = {frozenset(channels) for channels in of_stem.values()}
            count = len(next(iter(sets)))
            numbered = all(stem[-1].isdigit() for stem in of_stem)
            if (
                len(sets) == 1
                and next(iter(sets)) == set(range(count))
                and len(ends) == count * len(of_stem)
                and count <= _MOST_CHANNELS
                # One stem alone with one or two endings may as well be a patient with few slices.
                and (len(of_stem) > 1 or count > 2 or (numbered and count > 1))
            ):
                out |= ends
    return out
