"""The files of a study -> the table of its series, by headers alone: what each is taken as, and why."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import UID

from brainseg.io.cases import OWN_RESULT
from brainseg.io.dicom.headers import items, kind_of, number, numbers, text, whole, words
from brainseg.io.dicom.recognise import Facts, recognise
from brainseg.io.dicom.stacks import Plane, Stack, stacks
from brainseg.io.limits import MAX_SIDE, MAX_SLICES
from brainseg.io.readers.reader import MAX_BYTES, MAX_PAGES
from brainseg.io.series import Role, SeriesInfo
from brainseg.io.sniff import OWN_MARK
from brainseg.io.text import listed, plural, shown

SEGMENTATION, LABELMAP = "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"
SEGMENTATIONS = (SEGMENTATION, LABELMAP)
STRUCTURES = "1.2.840.10008.5.1.4.1.1.481.3"
DIRECTORY = "1.2.840.10008.1.3.10"

_PICTURES_OF_SCREENS = "1.2.840.10008.5.1.4.1.1.7"
_MODALITIES = {
    "CT": "a CT",
    "PT": "a PET",
    "NM": "a scintigram",
    "CR": "a radiograph",
    "DX": "a radiograph",
    "RF": "fluoroscopy",
    "XA": "an angiogram",
    "US": "ultrasound",
    "MG": "a mammogram",
    "OT": "another kind of image",
    "RTIMAGE": "an image of radiotherapy",
}
_NO_STRUCTURES = "contours of radiotherapy (RTSTRUCT), which are not read: export them as DICOM-SEG or NIfTI"
_TUMOUR = re.compile(r"tumou?r|lesion|glioma|neoplasm|edema|oedema|enhanc|necro|gtv|flair|whole|core|mass")
_LONGEST = 48


@dataclass(frozen=True, eq=False)
class Instance:
    """One file: its index in the case and its header."""

    file: int
    header: FileDataset


@dataclass(frozen=True, eq=False)
class Row:
    """One line of the table, and what is needed to decode it.

    Attributes:
        info: the line.
        stack: of an image series; None of anything else.
        problem: why it cannot be decoded, a clause that continues "series 4".
        frame: the frame of reference.
        derived: computed from other images.
        normal: the world axis nearest to the slices' normal; None without a grid.
    """

    info: SeriesInfo
    stack: Stack | None = None
    problem: str = ""
    frame: str | None = None
    derived: bool = False
    normal: int | None = None


def rows(instances: Sequence[Instance]) -> list[Row]:
    """The table of one study, in the order of the series' numbers, with no role given twice."""
    by_series: dict[tuple[str, str], list[Instance]] = defaultdict(list)
    for one in instances:
        # Exports of several objects under one series are told apart by what they are.
        by_series[(text(one.header, "SeriesInstanceUID"), kind_of(one.header))].append(one)
    ordered = sorted(by_series.values(), key=lambda members: (_number(members), members[0].file))
    out: list[Row] = []
    seen: Counter[str] = Counter()
    for members in ordered:
        first = _number(members)
        base = "0" if first == _UNNUMBERED else str(first)
        seen[base] += 1
        out += of_series(members, base if seen[base] == 1 else f"{base}{_letters(seen[base])}")
    return _chosen(out)


def of_series(members: Sequence[Instance], base: str) -> list[Row]:
    """The lines that the files of one series make; their keys are `base`, or `base` with ``.1`` and so on."""
    first = members[0].header
    files = tuple(one.file for one in members)
    what = _no_image(first)
    if kind_of(first) in SEGMENTATIONS:
        return [_of_segments(one, base if i == 0 else f"{base}.{i + 1}") for i, one in enumerate(members)]
    if what:
        info = SeriesInfo(base, _title(base, first, plural(len(files), "file")), None, what, files)
        return [Row(info, problem=f"is {what}: choose a series of MR images")]
    too_much = _too_much(members)
    if too_much:
        info = SeriesInfo(
            base, _title(base, first, plural(len(files), "file")), None, f"it {too_much}", files
        )
        return [Row(info, problem=too_much)]
    parts = stacks([plane for one in members for plane in _planes(one)])
    parts.sort(key=lambda stack: min((plane.file, plane.frame) for plane in stack.planes))
    headers = {one.file: one.header for one in members}
    return [
        _of_stack(stack, headers, base if len(parts) == 1 else f"{base}.{i}", len(parts))
        for i, stack in enumerate(parts, 1)
    ]


def base_of(key: str) -> str:
    """The part of a key that all lines of one series share."""
    return key.partition(".")[0]


def _of_stack(stack: Stack, headers: dict[int, FileDataset], key: str, parts: int) -> Row:
    planes = stack.planes
    header = headers[planes[0].file]
    facts = facts_of(header, planes[0].frame)
    count = sum(1 for place in stack.places if place) if stack.grid else len(planes)
    files = tuple(sorted({plane.file for plane in planes}))
    guess = recognise(facts)
    problem = stack.problem
    if not problem and stack.grid and stack.grid.shape[0] > MAX_SLICES:
        problem = f"has more than {MAX_SLICES:,} slices: choose another"
    derived = facts.is_derived or kind_of(header).startswith(_PICTURES_OF_SCREENS)
    # What its description sets aside is said before what its geometry lacks.
    role = None if problem else guess.role
    why = f"it {problem}" if problem and guess.role else guess.why
    if parts > 1 and role:
        why += f"; one of {parts} volumes of its series"
    info = SeriesInfo(key, _title(key, header, plural(count, "slice")), role, why, files)
    normal = int(np.abs(stack.grid.affine[:3, 0]).argmax()) if stack.grid else None
    return Row(info, stack, problem, text(header, "FrameOfReferenceUID") or None, derived, normal)


def _chosen(found: list[Row]) -> list[Row]:
    """The lines with the best of each role; the others are set aside, and say so."""
    best: dict[Role, Row] = {}
    flair = _best([row for row in found if row.info.role == "flair"], 2, last=True)
    plane = flair.normal if flair and flair.normal is not None else 2
    roles: tuple[Role, ...] = ("pre", "post", "mask")
    for role in roles:
        several = [row for row in found if row.info.role == role]
        chosen = _best_mask(several) if role == "mask" else _best(several, plane, last=role == "post")
        if chosen:
            best[role] = chosen
    if flair:
        best["flair"] = flair
    out = []
    for row in found:
        own = row.info.role
        if own and best[own] is not row:
            taken = best[own].info.key
            why = f"{row.info.why}; series {taken} was taken"
            out.append(replace(row, info=replace(row.info, role=None, why=why)))
        else:
            out.append(row)
    return out


def _best(several: list[Row], plane: int, *, last: bool) -> Row | None:
    """Original, in the plane of the others and whole before derived, in another plane, or of a few slices.

    Of those alike the last, as scans are repeated when the first was blurred; before contrast the first.
    """
    if not several:
        return None

    def rank(at: int) -> tuple[bool, bool, bool, int]:
        row = several[at]
        slices = row.stack.grid.shape[0] if row.stack and row.stack.grid else 0
        return row.derived, row.normal != plane, slices < 8, -at if last else at

    return several[min(range(len(several)), key=rank)]


def _best_mask(several: list[Row]) -> Row | None:
    def is_tumour(row: Row) -> bool:
        return any(_TUMOUR.search(name.lower()) for _, name in row.info.segments)

    return max(reversed(several), key=is_tumour) if several else None


def _of_segments(one: Instance, key: str) -> Row:
    segments = tuple(
        (label, short(text(item, "SegmentLabel")) or f"segment {label}")
        for item in items(one.header, "SegmentSequence")
        if (label := whole(item, "SegmentNumber")) is not None and label > 0
    )
    names = listed((name for _, name in segments), most=4)
    title = _title(key, one.header, plural(len(segments), "segment"))
    frame = text(one.header, "FrameOfReferenceUID") or None
    if not segments:
        info = SeriesInfo(key, title, None, "a segmentation without segments", (one.file,))
        return Row(info, problem="is a segmentation without segments: choose another")
    if text(one.header, "Manufacturer") == OWN_MARK:
        info = SeriesInfo(key, title, None, OWN_RESULT, (one.file,), segments)
        return Row(info, problem=f"is {OWN_RESULT}: choose another", frame=frame)
    info = SeriesInfo(key, title, "mask", f"a segmentation of {names}", (one.file,), segments)
    return Row(info, frame=frame)


def _no_image(header: FileDataset) -> str:
    """What a file is, if it is no image of one value a pixel from an MRI."""
    kind, modality = kind_of(header), text(header, "Modality").upper()
    no_pixels = whole(header, "Rows") is None or whole(header, "Columns") is None
    of_screen = kind.startswith(_PICTURES_OF_SCREENS)
    placed = numbers(header, "ImagePositionPatient", 3) is not None
    reasons = (
        (kind == STRUCTURES, _NO_STRUCTURES),
        (modality in _MODALITIES, f"{_MODALITIES.get(modality)}, not an MRI"),
        (no_pixels, f"{_named(kind)} {'without pixels' if 'Image' in _named(kind) else '(no images)'}"),
        (
            (whole(header, "SamplesPerPixel") or 1) != 1 or _is_palette(header),
            "a picture in colour, not a scan",
        ),
        # Converters write whole scans as secondary captures, and say where their slices lie.
        (
            of_screen and not (modality == "MR" and placed),
            "a secondary capture (a picture of a screen), not a scan",
        ),
        (modality != "MR", f"{_named(kind)}, not an MRI"),
    )
    return next((why for holds, why in reasons if holds), "")


def _named(kind: UID) -> str:
    # The standard's own names; a private identifier is only itself.
    name = kind.name if not kind.is_private and kind.name != str(kind) else "an object of an unknown kind"
    return name.removesuffix(" Storage")


def _is_palette(header: FileDataset) -> bool:
    return words(header, "PhotometricInterpretation")[:1] not in ((), ("MONOCHROME1",), ("MONOCHROME2",))


def _too_much(members: Sequence[Instance]) -> str:
    """What the headers declare, against the limits."""
    total = 0
    for one in members:
        rows, columns = whole(one.header, "Rows") or 0, whole(one.header, "Columns") or 0
        frames = whole(one.header, "NumberOfFrames") or 1
        bits = whole(one.header, "BitsAllocated")
        if max(rows, columns) > MAX_SIDE:
            return f"is larger than {MAX_SIDE:,} x {MAX_SIDE:,} pixels: give slices as the scanner made them"
        if min(rows, columns, frames) < 1:
            return "has no pixels: copy or export it again"
        if bits not in (8, 16, 32):
            return "holds pixels of other than 8, 16 or 32 bits, which are not read: export it with 16"
        if frames > MAX_PAGES:
            return f"holds a file of more than {MAX_PAGES:,} slices: choose another"
        total = max(total, rows * columns * frames * max(bits // 8, 2))
    if total > MAX_BYTES:
        return f"holds a file of more than {MAX_BYTES // 2**30} GB: choose another"
    return ""


def facts_of(header: FileDataset, frame: int = 0) -> Facts:
    """What `recognise` needs, from the header, or from a frame of it and what frames share."""
    look = _Look(header, items(header, "PerFrameFunctionalGroupsSequence")[frame : frame + 1])
    echo = look.number("EchoTime")
    inversion = look.number("InversionTime")
    if inversion is None:
        inversion = look.number("InversionTimes", "MRModifierSequence")
    scanning = set(words(header, "ScanningSequence"))
    if "YES" in words(header, "EchoPlanarPulseSequence"):
        scanning.add("EP")
    if "GRADIENT" in words(header, "EchoPulseSequence"):
        scanning.add("GR")
    agent = text(header, "ContrastBolusAgent")
    if not agent and items(header, "ContrastBolusAgentSequence"):
        agent = "named"
    own = look.words("FrameType", "MRImageFrameTypeSequence")
    return Facts(
        description=" ".join(filter(None, (text(header, "SeriesDescription"), text(header, "ProtocolName")))),
        image_type=words(header, "ImageType") or own,
        scanning=frozenset(scanning),
        sequence_name=text(header, "SequenceName") or text(header, "PulseSequenceName"),
        agent=agent,
        echo_ms=echo if echo is not None else look.number("EffectiveEchoTime", "MREchoSequence"),
        repetition_ms=look.number("RepetitionTime", "MRTimingAndRelatedParametersSequence"),
        inversion_ms=inversion,
        b_value=look.number("DiffusionBValue", "MRDiffusionSequence"),
        contrast="\\".join(words(header, "AcquisitionContrast"))
        or "\\".join(look.words("AcquisitionContrast", "MRImageFrameTypeSequence")),
    )


class _Look:
    """Where a value is: at the top, in a frame's functional groups, or in those that frames share."""

    def __init__(self, header: FileDataset, own: Sequence[Dataset]) -> None:
        self.header = header
        self.groups = [*own, *items(header, "SharedFunctionalGroupsSequence")[:1]]

    def holders(self, group: str) -> list[Dataset]:
        inside = [item for one in self.groups for item in items(one, group)[:1]] if group else []
        return [*inside, self.header]

    def number(self, keyword: str, group: str = "") -> float | None:
        return next((v for one in self.holders(group) if (v := number(one, keyword)) is not None), None)

    def numbers(self, keyword: str, count: int, group: str = "") -> tuple[float, ...] | None:
        return next((v for one in self.holders(group) if (v := numbers(one, keyword, count))), None)

    def words(self, keyword: str, group: str = "") -> tuple[str, ...]:
        return next((v for one in self.holders(group) if (v := words(one, keyword))), ())


def _planes(one: Instance) -> list[Plane]:
    header = one.header
    frames = whole(header, "NumberOfFrames") or 1
    size = (whole(header, "Rows") or 0, whole(header, "Columns") or 0)
    groups = items(header, "PerFrameFunctionalGroupsSequence")
    out = []
    for frame in range(frames):
        # Frames without a description of their own would all lie in one place.
        look = _Look(header, groups[frame : frame + 1])
        placed = frames == 1 or frame < len(groups)
        out.append(
            Plane(
                file=one.file,
                frame=frame,
                uid=text(header, "SOPInstanceUID"),
                size=size,
                position=look.numbers("ImagePositionPatient", 3, "PlanePositionSequence") if placed else None,
                axes=look.numbers("ImageOrientationPatient", 6, "PlaneOrientationSequence")
                if placed
                else None,
                spacing=look.numbers("PixelSpacing", 2, "PixelMeasuresSequence"),
                thickness=look.number("SpacingBetweenSlices", "PixelMeasuresSequence")
                or look.number("SliceThickness", "PixelMeasuresSequence"),
                traits={
                    "stack": look.words("StackID", "FrameContentSequence"),
                    "echo": (
                        look.number("EchoNumbers"),
                        look.number("EchoTime"),
                        look.number("EffectiveEchoTime", "MREchoSequence"),
                    ),
                    "temporal position": look.number("TemporalPositionIdentifier")
                    or look.number("TemporalPositionIndex", "FrameContentSequence"),
                    "b value": look.number("DiffusionBValue", "MRDiffusionSequence"),
                    "image type": look.words("ImageType"),
                    "component": look.words("ComplexImageComponent", "MRImageFrameTypeSequence")
                    + look.words("FrameType", "MRImageFrameTypeSequence"),
                    "inversion time": look.number("InversionTime"),
                    "acquisition": look.number("AcquisitionNumber")
                    or look.number("FrameAcquisitionNumber", "FrameContentSequence"),
                    "trigger time": look.number("TriggerTime"),
                    "contrast": text(header, "ContrastBolusAgent"),
                },
            )
        )
    return out


_UNNUMBERED = 2**31


def _number(members: Sequence[Instance]) -> int:
    found = whole(members[0].header, "SeriesNumber")
    return found if found is not None and 0 <= found < _UNNUMBERED else _UNNUMBERED


def _letters(count: int) -> str:
    """2 -> ``b``, 26 -> ``z``, 27 -> ``aa``."""
    out = ""
    while count:
        count, rest = divmod(count - 1, 26)
        out = chr(ord("a") + rest) + out
    return out


def _title(key: str, header: FileDataset, size: str) -> str:
    description = short(text(header, "SeriesDescription")) or short(text(header, "ProtocolName"))
    return f"{key}: {description or 'no description'}, {size}"


def short(line: str) -> str:
    """A description for a cell of a table."""
    return shown(line[:_LONGEST])[1:-1].strip()
