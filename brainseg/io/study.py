"""One patient's files -> `Study`."""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from brainseg.grid import MAX_SPACING_MM, MIN_SPACING_MM, check_spacing
from brainseg.io.cases import OWN_RESULT, Case, find_cases, relative_names
from brainseg.io.channels import Item, combined, in_order, is_order
from brainseg.io.files import NamedBytes, collect
from brainseg.io.limits import MAX_SLICES, MAX_VOXELS
from brainseg.io.masks import NotAMaskError, looks_like_mask, to_mask
from brainseg.io.names import masks_by_name, natural, parse_all
from brainseg.io.plausible import about_masks, about_order
from brainseg.io.readers import READERS, decode
from brainseg.io.series import ROLES, Role, with_roles
from brainseg.io.sniff import is_own_result
from brainseg.io.text import listed, plural, shown
from brainseg.types import CHANNELS, BoolArray, InputError, Source, SourceFile, Spacing, Study

ONE_SEQUENCE = "Only one sequence was given; it was used for all three channels, results are less reliable."

# One in so many slices may hold but two values without being taken for a mask.
_RARE = 4


@dataclass(frozen=True, eq=False)
class _Plane:
    # One slice or one mask: a page of an item. `pixels` is (H, W, C).
    item: Item
    number: int
    pixels: npt.NDArray[Any]


def read_study(
    source: str | Path | Sequence[str | Path],
    *,
    case_id: str | None = None,
    spacing_mm: Spacing | None = None,
    channels: Sequence[str] | None = None,
    roles: Mapping[str, Role | None] | None = None,
    register: bool = False,
) -> Study:
    """Read one patient from a folder, a zip or files on disk; see `read_case`.

    Args:
        source: a patient folder, a zip, or a list of files.
        case_id: which patient, where there are several.
        spacing_mm: mm between slices, rows and columns, if the user knows it.
        channels: the order in which the files' channels come, if it is not pre, flair, post.

    Returns:
        The study, whose ``notes`` say what was assumed while reading.

    Raises:
        InputError: as `collect`, `find_cases` and `read_case`; also if several patients are there and
            `case_id` names none of them.
    """
    cases = find_cases(collect(source))
    found = listed((shown(case.case_id) for case in cases), most=5)
    if case_id is not None:
        for case in cases:
            if case.case_id == case_id:
                return read_case(
                    case, spacing_mm=spacing_mm, channels=channels, roles=roles, register=register
                )
        raise InputError(f"There is no patient {shown(case_id)} here: choose among {found}.")
    if len(cases) > 1:
        raise InputError(f"Files of {len(cases):,} patients were given ({found}): choose one of them.")
    return read_case(cases[0], spacing_mm=spacing_mm, channels=channels, roles=roles, register=register)


def read_case(
    case: Case,
    *,
    spacing_mm: Spacing | None = None,
    channels: Sequence[str] | None = None,
    roles: Mapping[str, Role | None] | None = None,
    register: bool = False,
) -> Study:
    """Decode one patient.

    Args:
        case: from `find_cases`.
        spacing_mm: between slices, rows and columns in mm, if the user knows it; pictures hold none. Of no
            matter where the files know their own.
        channels: the order in which the files' channels come, if not pre, flair, post: those three names
            in another order. Of no matter where files say which sequence each of them holds.
        roles: of volumes: what a series is, by its key, where it was recognised as something else; see
            `brainseg.io.series.with_roles`.
        register: of volumes: move pre and post onto FLAIR by a rigid registration.

    Returns:
        Of volumes, see `brainseg.io.volumes.assemble`.

        Of pictures, a study whose `slices` are (S, H, W, 3) in the dtype of the files (8- to 32-bit integers,
        floats), ascending by slice number; `orientation` is None. A single channel is repeated three times;
        sequences in files or folders of their own are combined. Gaps in the numbers, slices without a
        mask beside others with one, and whatever is improbable (masks that mark most of the head, an order
        of slices that jumps) are accepted and said in `notes`. The digest covers role, base name and content
        of each file in slice order and `channels`, so that a folder, a zip and an upload of the same files
        read as the same study.

    Raises:
        InputError: anything that leaves a doubt over which pixels are which: a damaged file, slices of
            different sizes or depths, a number used twice, a mask without its slice or of another size or
            with more than two values, only masks, more than 1,000 slices; also a spacing outside
            0.01..100 mm, `channels` that are no order of the three, and `roles` of series that are not there.
    """
    _check_spacing(spacing_mm)
    if channels is not None and not is_order(channels):
        raise InputError(
            f"The channel order {shown(', '.join(map(str, channels)))} does not hold each of pre, flair and "
            "post once: state them in the order in which the files hold them."
        )
    if case.kind != "slices":
        return _of_volumes(case, spacing_mm, channels, roles, register)
    if roles or register:
        raise InputError(
            f"{shown(case.case_id)} consists of slices, which have neither series to choose among nor a "
            "place to register from: leave these choices out, or state the order of the channels."
        )
    slices, masks, own = _triaged(case)
    slices, left, notes = combined(slices, masks, channels)
    ignored = (*case.ignored, *own, *left)
    images, marks = _planes(_harmonised(slices), masks)
    _check_numbers(images, masks_too=False)
    _check_numbers(marks, masks_too=True)
    _check_pairs(images, marks)
    _check_alike(images)
    volume = np.stack([plane.pixels for plane in images])
    notes = [*_about_numbers(images), *_about_values(slices, volume, case.case_id), *notes]
    volume, more = in_order(volume, slices, channels)
    notes += more
    if volume.shape[-1] == 1:
        volume = np.repeat(volume, 3, axis=-1)
        notes.append(ONE_SEQUENCE)
    else:
        notes += _about_missing(volume)
    notes += about_order(volume, tuple(plane.number for plane in images))
    reference, rules = _reference(images, marks)
    notes += _about_masks(images, marks, reference, rules)
    notes += about_masks(volume, reference, tuple(plane.number for plane in images))
    notes += _about_files([*slices, *masks], ignored)
    return Study(
        slices=volume,
        case_id=case.case_id,
        source=_source(images, marks, rules, ignored, channels),
        slice_numbers=tuple(plane.number for plane in images),
        reference=reference,
        spacing_mm=spacing_mm,
        notes=tuple(notes),
    )


def _of_volumes(
    case: Case,
    spacing_mm: Spacing | None,
    channels: Sequence[str] | None,
    roles: Mapping[str, Role | None] | None,
    register: bool,
) -> Study:
    # The libraries of these formats are loaded for files of theirs alone.
    from brainseg.io import dicom, volume_files, volumes  # noqa: PLC0415

    series = case.series
    unused = []
    if channels is not None and any(one.channel is not None for one in series):
        stated = [role for name in channels for role in ROLES if role == name]
        series = tuple(
            one if one.channel is None else replace(one, role=stated[one.channel], why="in the stated order")
            for one in series
        )
    elif channels is not None:
        unused.append("The stated channel order was not used: the files say which sequence each holds.")
    if spacing_mm is not None:
        unused.append("The stated spacing was not used: the files know their own.")
    case = replace(case, series=with_roles(series, roles))
    decode = dicom.acquisitions if case.kind == "dicom" else volume_files.acquisitions
    study = volumes.assemble(case, decode(case), register=register)
    return replace(study, notes=(*study.notes, *unused))


def _check_spacing(spacing: Spacing | None) -> None:
    if spacing is None:
        return
    try:
        check_spacing(spacing)
    except ValueError:
        raise InputError(
            f"The spacing is not three numbers from {MIN_SPACING_MM:g} to {MAX_SPACING_MM:g}: give the "
            "distance between slices, rows and columns in mm."
        ) from None


def _triaged(case: Case) -> tuple[list[Item], list[Item], list[SourceFile]]:
    """Slices, masks, and files that are results of our own.

    `find_cases` knows those by their first bytes; here all bytes are at hand, and the case may be hand-made.
    """
    # Names decide first; content can turn an unnamed file into a mask, never a named mask into a slice.
    files = sorted(case.files, key=lambda file: natural(file.name))
    names = relative_names([file.name for file in files])
    parsed = parse_all([file.name for file in files])
    named = masks_by_name([file.name for file in files], parsed)
    for is_mask, word in ((False, "slice"), (True, "mask")):
        # A slice may be several files, one a sequence.
        given = [name.number for name, masked in zip(parsed, named, strict=True) if masked == is_mask]
        count = len(set(given) - {None}) + given.count(None)
        if count > MAX_SLICES:
            raise InputError(
                f"{shown(case.case_id)} has {plural(count, word)}, the most is {MAX_SLICES:,}: "
                "give the files of one patient."
            )
    if all(named):
        raise InputError(f"Only masks were given for {shown(case.case_id)}: add its slices.")
    items: dict[bool, list[Item]] = {True: [], False: []}
    own = []
    voxels = 0
    for file, name, about, is_mask in zip(files, names, parsed, named, strict=True):
        # Bytes are held from here, so that the digest is of what was decoded.
        held = NamedBytes(file.name, file.data)
        if is_own_result(held.data):
            own.append(SourceFile(name, "ignored", OWN_RESULT))
            continue
        item = Item(held, name, about, about.number, decode(held, label=name))
        voxels += math.prod(item.volume.pixels.shape[:3])
        if voxels > 2 * MAX_VOXELS:
            raise InputError(_too_large(case.case_id))
        items[is_mask].append(item)
    if not items[False]:
        raise InputError(f"{shown(own[0].name)} is {OWN_RESULT}: give the slices that it was made from.")
    masks = [replace(item, why="named as a mask") for item in items[True]]
    slices, more = _by_content(case, items[False], bool(masks))
    if sum(math.prod(item.volume.pixels.shape[:3]) for item in slices) > MAX_VOXELS:
        raise InputError(_too_large(case.case_id))
    return slices, masks + more, own


def _too_large(case_id: str) -> str:
    return (
        f"{shown(case_id)} has more than {MAX_VOXELS // 10**6} million voxels: "
        "give fewer slices or slices as the scanner made them."
    )


def _by_content(case: Case, slices: list[Item], masks_given: bool) -> tuple[list[Item], list[Item]]:
    # What names its sequence is a slice, however little it holds.
    binary = [
        item
        for item in slices
        if item.parsed.sequence is None
        and item.parsed.channel is None
        and looks_like_mask(item.volume.pixels)
    ]
    if len(binary) == len(slices):
        raise InputError(
            f"{shown(binary[0].name)} and every other image of {shown(case.case_id)} hold only two values, "
            "as masks do: add the slices."
        )
    rest = [item for item in slices if item not in binary]
    partner = {item.number: item for item in rest}
    alone = [item for item in binary if item.number not in partner]
    masks = []
    for item in binary:
        values = item.volume.pixels
        if item.number in partner and not masks_given:
            why = f"grey with only two values, and the number of {partner[item.number].name}"
            masks.append(replace(item, why=why))
        elif item.number in partner or (
            values.max() == _full(values.dtype) and not _is_scaled_blank(item, rest, len(alone))
        ):
            raise InputError(
                f"{shown(item.name)} holds only two values, as a mask does, but is not named as one: name "
                "masks as their slice with _mask at the end."
            )
        else:
            # The last slices above the brain can hold one stray grey level.
            rest.append(replace(item, why=f"only the values 0 and {values.max():g}"))
    rest.sort(key=lambda item: natural(item.file.name))
    return rest, masks


def _is_scaled_blank(item: Item, others: list[Item], alone: int) -> bool:
    # Programs that stretch each slice to 0..255 make black and white of a slice of one stray grey level. Such
    # slices are few, grey among grey ones, and no other file has their number.
    alike = all(
        other.volume.pixels.shape[-1] == item.volume.pixels.shape[-1]
        and item.volume.pixels.dtype in (other.volume.pixels.dtype, np.bool_)
        for other in others
    )
    return alike and item.number is not None and alone * _RARE <= alone + len(others)


def _harmonised(slices: list[Item]) -> list[Item]:
    """Slices that a program saved in fewer bits or channels, as it could without loss, made like the rest."""
    full = [item for item in slices if item.volume.pixels.any()]
    if not full:
        return slices
    channels, dtype = Counter((i.volume.pixels.shape[-1], i.volume.pixels.dtype) for i in full).most_common(
        1
    )[0][0]
    dtype = np.dtype(np.uint8) if dtype == np.bool_ else dtype
    return [item.with_pixels(_like(item.volume.pixels, channels, dtype)) for item in slices]


def _like(pixels: npt.NDArray[Any], channels: int, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    if not pixels.any():
        return np.zeros((*pixels.shape[:-1], channels), dtype)
    if pixels.dtype == np.bool_ and dtype == np.uint8:
        pixels = pixels * np.uint8(255)
    if channels == 1 and pixels.shape[-1] == 3 and (pixels == pixels[..., :1]).all():
        pixels = pixels[..., :1]
    return pixels


def _full(dtype: np.dtype[Any]) -> float:
    return float(np.iinfo(dtype).max) if dtype.kind in "iu" else 1.0


def _planes(slices: list[Item], masks: list[Item]) -> tuple[list[_Plane], list[_Plane]]:
    stack = next((item for item in slices + masks if item.pages > 1), None)
    if stack is not None:
        if len(slices) > 1 or len(masks) > 1:
            raise InputError(
                f"{shown(stack.name)} holds {stack.pages} pages and lies among other slices or masks: give "
                "either one stack with at most one stack of masks, or one file a slice."
            )
        if masks and masks[0].pages != slices[0].pages:
            raise InputError(
                f"{shown(masks[0].name)} has {plural(masks[0].pages, 'page')} but {shown(slices[0].name)} "
                f"has {slices[0].pages}: give a mask page for every slice."
            )
        return _pages(slices), _pages(masks)
    if len(slices) == 1 and len(masks) == 1 and None in (slices[0].number, masks[0].number):
        number = next((n for n in (slices[0].number, masks[0].number) if n is not None), 1)
        return [_plane(slices[0], number)], [_plane(masks[0], number)]
    if len(slices) == 1 and slices[0].number is None:
        slices = [replace(slices[0], number=1)]
    for item in slices + masks:
        if item.number is None:
            raise InputError(
                f"{shown(item.name)} has no slice number in its name: call slices patient_1.tif, "
                "patient_2.tif and masks patient_1_mask.tif."
            )
    return _numbered(slices), _numbered(masks)


def _plane(item: Item, number: int) -> _Plane:
    return _Plane(item, number, item.volume.pixels[0])


def _pages(items: list[Item]) -> list[_Plane]:
    return [_Plane(item, i + 1, page) for item in items for i, page in enumerate(item.volume.pixels)]


def _numbered(items: list[Item]) -> list[_Plane]:
    planes = [_plane(item, item.number) for item in items if item.number is not None]
    return sorted(planes, key=lambda plane: plane.number)


def _check_numbers(planes: list[_Plane], *, masks_too: bool) -> None:
    by_number: dict[int, list[_Plane]] = defaultdict(list)
    for plane in planes:
        by_number[plane.number].append(plane)
    for number, same in by_number.items():
        if len(same) > 1:
            word = "mask" if masks_too else "slice"
            remedy = "" if masks_too else ", and end the name of a mask in _mask"
            raise InputError(
                f"{shown(same[0].item.name)} and {shown(same[1].item.name)} are both {word} {number}: "
                f"leave one out or number them apart{remedy}."
            )


def _check_pairs(images: list[_Plane], marks: list[_Plane]) -> None:
    sizes = {plane.number: plane.pixels.shape[:2] for plane in images}
    for mark in marks:
        name = shown(mark.item.name)
        if mark.number not in sizes:
            raise InputError(
                f"{name} is a mask of slice {mark.number}, which was not given: add the slice "
                "or leave the mask out."
            )
        if mark.pixels.shape[:2] != sizes[mark.number]:
            raise InputError(
                f"{name} is {_size(mark.pixels)} pixels but its slice is {_size(sizes[mark.number])}: "
                "export the mask on the grid of its slice."
            )


def _size(of: npt.NDArray[Any] | tuple[int, ...]) -> str:
    height, width = (of if isinstance(of, tuple) else of.shape)[:2]
    return f"{height} x {width}"


def _check_alike(images: list[_Plane]) -> None:
    def differ(of: Callable[[_Plane], Hashable]) -> tuple[_Plane, _Plane] | None:
        # The odd one out is the one to name, not the first.
        usual = Counter(map(of, images)).most_common(1)[0][0]
        odd = next((plane for plane in images if of(plane) != usual), None)
        if odd is None:
            return None
        return odd, next(plane for plane in images if of(plane) == usual)

    if pair := differ(lambda plane: plane.pixels.shape[:2]):
        odd, usual = pair
        raise InputError(
            f"{shown(odd.item.name)} is {_size(odd.pixels)} pixels but {shown(usual.item.name)} is "
            f"{_size(usual.pixels)}: give slices of one series, all of one size."
        )
    if pair := differ(lambda plane: plane.pixels.shape[-1]):
        odd, usual = pair
        raise InputError(
            f"{shown(odd.item.name)} has {plural(odd.pixels.shape[-1], 'channel')} but "
            f"{shown(usual.item.name)} has {usual.pixels.shape[-1]}: save all slices alike."
        )
    if pair := differ(lambda plane: plane.pixels.dtype.str):
        odd, usual = pair
        raise InputError(
            f"{shown(odd.item.name)} holds {odd.pixels.dtype} values but {shown(usual.item.name)} holds "
            f"{usual.pixels.dtype}, so their grey levels cannot be compared: save all slices alike."
        )


def _about_numbers(images: list[_Plane]) -> list[str]:
    numbers = [plane.number for plane in images]
    notes = []
    if numbers[0] > 1:
        notes.append(f"Slice numbers begin at {numbers[0]}: check that no slice is missing before it.")
    missing = sorted(set(range(numbers[0], numbers[-1] + 1)) - set(numbers))
    if missing:
        which, verb = ("numbers", "are") if len(missing) > 1 else ("number", "is")
        notes.append(
            f"Slice {which} {listed(missing)} {verb} missing: the rest was read as if adjacent, "
            "so volumes and distances across the gap are wrong."
        )
    return notes


def _about_values(slices: list[Item], volume: npt.NDArray[Any], case_id: str) -> list[str]:
    if (volume == volume.flat[0]).all():
        raise InputError(f"Every slice of {shown(case_id)} is blank: export the images again.")
    notes = []
    if volume.dtype != np.uint8:
        notes.append(
            f"Slices hold {volume.dtype} values and were kept as they are; they are normalised before "
            "the networks."
        )
    if any(item.volume.kind == "jpeg" for item in slices):
        notes.append(
            "Slices are JPEG, which loses detail and mixes the sequences held in its colours: "
            "results are less reliable."
        )
    white = [item.name for item in slices if item.why.startswith("only the values") and _is_full(item)]
    if white:
        notes.append(f"Only black and white, but read as slices: {listed(map(shown, white))}.")
    return notes


def _is_full(item: Item) -> bool:
    values = item.volume.pixels
    return bool(values.max() == _full(values.dtype))


def _about_missing(volume: npt.NDArray[Any]) -> list[str]:
    notes = []
    flair = volume[..., CHANNELS.index("flair")]
    for index, name in enumerate(("Pre-contrast", "FLAIR", "Post-contrast")):
        channel = volume[..., index]
        if (channel == channel.flat[0]).all():
            notes.append(f"{name} is blank in every slice: the sequence was probably missing.")
        elif name != "FLAIR" and np.array_equal(channel, flair):
            notes.append(f"{name} equals FLAIR in every slice: the sequence was probably missing.")
    return notes


def _reference(images: list[_Plane], marks: list[_Plane]) -> tuple[BoolArray | None, dict[int, str]]:
    if not marks:
        return None, {}
    height, width = images[0].pixels.shape[:2]
    reference = np.zeros((len(images), height, width), np.bool_)
    position = {plane.number: i for i, plane in enumerate(images)}
    rules = {}
    for mark in marks:
        try:
            reference[position[mark.number]], rules[mark.number] = to_mask(mark.pixels)
        except NotAMaskError as error:
            raise InputError(
                f"{shown(mark.item.name)} ({mark.item.why}) {error}: save it as 0 and 255, or rename it "
                "if it is a slice."
            ) from None
    return reference, rules


def _about_masks(
    images: list[_Plane], marks: list[_Plane], reference: BoolArray | None, rules: dict[int, str]
) -> list[str]:
    if reference is None:
        return []
    notes = []
    bare = sorted({plane.number for plane in images} - {mark.number for mark in marks})
    if bare:
        which, verb = ("slices", "they count") if len(bare) > 1 else ("slice", "it counts")
        notes.append(
            f"No mask was given for {which} {listed(bare)}: {verb} as having no tumour in the reference."
        )
    soft = [number for number, rule in rules.items() if rule.startswith("soft")]
    if soft:
        notes.append(f"Masks of slices {listed(soft)} have soft edges, as JPEG makes: they were cut at 128.")
    if not reference.any():
        notes.append("The masks given mark no tumour.")
    return notes


def _about_files(items: list[Item], ignored: Sequence[SourceFile]) -> list[str]:
    remarks = Counter(remark for item in items for part in item.files for remark in part.volume.remarks)
    by_reason: dict[str, list[str]] = defaultdict(list)
    for file in ignored:
        if file.note != "not an image":
            by_reason[file.note].append(shown(file.name))
    return [remark.format(files=plural(count, "file")) for remark, count in remarks.items()] + [
        f"{listed(names, most=3)} {'were' if len(names) > 1 else 'was'} ignored: {reason}."
        for reason, names in by_reason.items()
    ]


def _source(
    images: list[_Plane],
    marks: list[_Plane],
    rules: dict[int, str],
    ignored: tuple[SourceFile, ...],
    channels: Sequence[str] | None,
) -> Source:
    digest = hashlib.sha256()
    if channels is not None:
        # Other pixels in the same places are another volume, whose results are its own.
        digest.update(",".join(channels).encode() + b"\0")
    files: list[SourceFile] = []
    mark_at = {mark.number: mark for mark in marks}
    seen: set[int] = set()
    for image in images:
        for plane, role in ((image, "slice"), (mark_at.get(image.number), "mask")):
            if plane is None or id(plane.item) in seen:
                continue
            seen.add(id(plane.item))
            item = plane.item
            what = f"slices 1 to {item.pages}" if item.pages > 1 else f"slice {plane.number}"
            for one in item.files:
                for part in (role, PurePosixPath(one.name).name):
                    digest.update(part.encode("utf-8", "surrogateescape") + b"\0")
                content = one.file.data
                digest.update(len(content).to_bytes(8, "big") + content)
                stored = one.volume.pixels
                how = _by_bytes(one) + (f"; {one.volume.detail}" if one.volume.detail else "")
                if role == "slice":
                    channels = plural(stored.shape[-1], "channel")
                    why = f"; {one.why}" if one.why else ""
                    note = f"{what}, {channels}, {stored.dtype}{how}{why}"
                    files.append(SourceFile(one.name, "slice", note))
                else:
                    rule = "" if item.pages > 1 else f"; {rules[plane.number]}"
                    files.append(SourceFile(one.name, "mask", f"mask of {what}: {one.why}{how}{rule}"))
    return Source(_format(images), (*files, *ignored), digest.hexdigest())


def _by_bytes(item: Item) -> str:
    kind = item.volume.kind
    fits = next(reader.suffixes for reader in READERS if reader.kind == kind)
    return "" if item.name.lower().endswith(fits) else f"; {kind.upper()} by its content"


def _format(images: list[_Plane]) -> str:
    kinds = {plane.item.volume.kind for plane in images}
    if len(kinds) > 1:
        return "mixed"
    kind = kinds.pop()
    if images[0].item.pages > 1:
        return f"{kind}-stack"
    lgg = all(
        plane.pixels.shape[-1] == 3 and plane.pixels.dtype == np.uint8 and plane.item.parsed.patient
        for plane in images
    )
    return "lgg-tiff" if lgg and kind == "tiff" else kind
