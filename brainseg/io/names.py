"""What a file's name says: the patient, the slice number, and whether it is a mask."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

IMAGE_SUFFIXES = frozenset({".tif", ".tiff", ".png", ".jpg", ".jpeg"})

_MASK = (
    "masks?|segs?|segm|segmentations?|labels?|gt|groundtruth|annotations?|rois?|lesions?|contours?|refs?"
    "|reference"
)
_GENERIC = (
    "slices?|images?|imgs?|img|im|frames?|scans?|axial|ax|mri|mr|stack|volume|page"
    "|flair|t1|t1c|t1ce|t1gd|t2|pre|post"
)
_SEPARATORS = "_-. "
_AT_END = re.compile(rf"(?:^|(?<=[_\-. 0-9]))(?:(?P<mask>{_MASK})|{_GENERIC})$", re.IGNORECASE)
_AT_START = re.compile(rf"^(?:(?P<mask>{_MASK})|{_GENERIC})(?=[_\-. 0-9]|$)", re.IGNORECASE)
_COPY = re.compile(r"\s*\([0-9]+\)$")
_NUMBER = re.compile(r"[0-9]+$")
_DIGITS = re.compile(r"([0-9]+)")
_MASK_FOLDER = re.compile(rf"^(?:{_MASK})$", re.IGNORECASE)
_IMAGE_FOLDER = re.compile(r"^(?:images?|imgs?|slices?|scans?|png|tiff?|jpe?g)$", re.IGNORECASE)


@dataclass(frozen=True)
class Name:
    """A parsed file name.

    Attributes:
        patient: what is left once number and words such as "slice" or "mask" are taken away; may be empty.
        number: the slice number at the end, or None. More than four digits are a date or an identifier.
        mask: the name holds a word for a mask.
        folder: the folder that stands for the patient, without ``images``, ``masks`` and the like.
        in_mask_folder: the file lies in a folder named as one of masks.
    """

    patient: str
    number: int | None
    mask: bool
    folder: str
    in_mask_folder: bool


def parse(name: str) -> Name:
    """Read a relative path, e.g. ``ABC_01_0001_20000101_12_mask.tif`` or ``images/slice_001.png``."""
    path = PurePosixPath(name)
    stem = path.stem if path.suffix.lower() in IMAGE_SUFFIXES else path.name
    stem, mask = _strip_end(_COPY.sub("", stem))
    number = None
    found = _NUMBER.search(stem)
    if found and len(found[0].lstrip("0")) <= 4:
        number = int(found[0])
        stem, before = _strip_end(stem[: found.start()].rstrip(_SEPARATORS))
        mask = mask or before
    stem, front = _strip_start(stem)
    folders = list(path.parts[:-1])
    in_mask_folder = False
    while folders and (_MASK_FOLDER.match(folders[-1]) or _IMAGE_FOLDER.match(folders[-1])):
        in_mask_folder |= bool(_MASK_FOLDER.match(folders.pop()))
    return Name(stem.strip(_SEPARATORS), number, mask or front, "/".join(folders), in_mask_folder)


def natural(text: str) -> tuple[tuple[tuple[int, int, str], ...], str]:
    """A sort key that puts ``x_2`` before ``x_10``."""
    key: list[tuple[int, int, str]] = []
    for i, part in enumerate(_DIGITS.split(text)):
        # Digits compare by length, then as text: int() refuses very long ones.
        digits = part.lstrip("0")
        key.append((0, len(digits), digits) if i % 2 else (1, 0, part.casefold()))
    return tuple(key), text


def masks_by_name(names: list[str]) -> list[bool]:
    """For the files of one patient, which are masks by their names or folders.

    A folder named ``masks`` speaks for its files only where it tells files apart: some lie outside it, and
    none inside it is named as a mask itself.
    """
    parsed = [parse(name) for name in names]
    folders = {str(PurePosixPath(n).parent) for n, p in zip(names, parsed, strict=True) if p.mask}
    spoken = any(not p.mask and not p.in_mask_folder for p in parsed)
    return [
        p.mask or (spoken and p.in_mask_folder and str(PurePosixPath(n).parent) not in folders)
        for n, p in zip(names, parsed, strict=True)
    ]


def _strip_end(stem: str) -> tuple[str, bool]:
    mask = False
    while found := _AT_END.search(stem):
        mask = mask or found["mask"] is not None
        stem = stem[: found.start()].rstrip(_SEPARATORS)
    return stem, mask


def _strip_start(stem: str) -> tuple[str, bool]:
    mask = False
    while found := _AT_START.search(stem):
        mask = mask or found["mask"] is not None
        stem = stem[found.end() :].lstrip(_SEPARATORS)
    return stem, mask
