"""Which files, pages and channels hold which MRI sequence, and one patient's slices made of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from brainseg.io.files import NamedBytes
from brainseg.io.names import T2, Name, parse
from brainseg.io.readers import Volume
from brainseg.io.text import listed, plural, shown
from brainseg.types import CHANNELS, InputError, SourceFile

_TITLES = {"pre": "pre-contrast", "flair": "FLAIR", "post": "post-contrast", T2: "T2"}
_PAGES_OR_CHANNELS = 3


@dataclass(frozen=True, eq=False)
class Item:
    """One file, or several that are one slice or stack together.

    Attributes:
        file: its bytes.
        name: relative to the patient's folder.
        parsed: what the name says.
        number: of the slice, or None.
        volume: pixels.
        why: it was taken as what it was taken as.
        parts: the files it was combined of, or none.
        by_name: the files' names say which channel is which sequence.
    """

    file: NamedBytes
    name: str
    parsed: Name
    number: int | None
    volume: Volume
    why: str = ""
    parts: tuple[Item, ...] = ()
    by_name: bool = False

    @property
    def pages(self) -> int:
        """Slices it holds."""
        return int(self.volume.pixels.shape[0])

    @property
    def files(self) -> tuple[Item, ...]:
        """Itself, or the files it was combined of."""
        return self.parts or (self,)

    def with_pixels(self, pixels: npt.NDArray[Any]) -> Item:
        """The same file with other pixels."""
        return (
            self
            if pixels is self.volume.pixels
            else replace(self, volume=replace(self.volume, pixels=pixels))
        )


def is_order(channels: Sequence[str]) -> bool:
    """Whether these are pre, flair and post, each once."""
    return not isinstance(channels, str) and sorted(channels) == sorted(CHANNELS)


def combined(
    slices: list[Item], masks: list[Item], channels: Sequence[str] | None
) -> tuple[list[Item], list[SourceFile], list[str]]:
    """Files of one channel or sequence each -> items of three channels.

    Returns:
        The items; files left aside (T2); notes.

    Raises:
        InputError: no FLAIR, other than three channels, a sequence missing for some slices only, or pages
            that may be slices as well as channels.
    """
    if any(item.parsed.channel is not None for item in slices):
        return _by_ending(slices, channels)
    sequences = {item.parsed.sequence for item in slices}
    if len(sequences - {None}) > 1:
        return _by_sequence(slices)
    return _by_page(slices, masks, channels)


def in_order(
    volume: npt.NDArray[Any], slices: list[Item], channels: Sequence[str] | None
) -> tuple[npt.NDArray[Any], list[str]]:
    """(S, H, W, C) with channels in the order of `CHANNELS`, as stated or as the files name them; notes.

    Raises:
        InputError: the files name other sequences than the three.
    """
    unused = "The stated channel order was not used: "
    if any(item.by_name for item in slices):
        return volume, [f"{unused}the files' names say which sequence each holds."] if channels else []
    if volume.shape[-1] == 1:
        return volume, [f"{unused}the slices have one channel."] if channels else []
    if channels is not None:
        order = [list(channels).index(name) for name in CHANNELS]
        return volume[..., order], [f"Channels were taken in the stated order: {', '.join(channels)}."]
    named = {item.volume.channels for item in slices}
    if len(named) != 1 or not (titles := next(iter(named))):
        return volume, _about_assumed(slices)
    found = [parse(title).sequence for title in titles]
    if not any(found):
        return volume, _about_assumed(slices)
    said = listed(map(shown, titles))
    if sorted(map(str, found)) != sorted(CHANNELS):
        raise InputError(
            f"{shown(slices[0].name)} names its channels {said}, which are not pre-contrast, FLAIR and "
            "post-contrast: keep those three, or state the order of the channels."
        )
    return volume[..., [found.index(name) for name in CHANNELS]], [
        f"Channels were taken as the file names them: {said}."
    ]


def _about_assumed(slices: list[Item]) -> list[str]:
    # A colour picture is the layout of the data set; planes of a stack are somebody's channels.
    stacked = any(item.parts or (item.volume.axes_known and item.pages > 1) for item in slices)
    return [f"Channels were assumed to come in the order {', '.join(CHANNELS)}."] if stacked else []


def _by_ending(
    slices: list[Item], channels: Sequence[str] | None
) -> tuple[list[Item], list[SourceFile], list[str]]:
    count = 1 + max(item.parsed.channel or 0 for item in slices)
    first = slices[0]
    if count == 1:
        return slices, [], []
    if any(item.volume.pixels.shape[-1] != 1 for item in slices):
        if len({item.number for item in slices}) > 1:
            raise InputError(
                f"{shown(first.name)} ends as the channels of nnU-Net do, but holds three channels itself: "
                "number slices without leading zeros."
            )
        # Slices in colour that happen to be numbered from 0000.
        return [replace(item, number=item.parsed.channel) for item in slices], [], []
    if count != len(CHANNELS):
        raise InputError(
            f"{shown(first.name)} and its like have {count} channels a slice, by their endings _0000 to "
            f"_{count - 1:04d}: give three (pre, FLAIR, post) or one (FLAIR) a slice."
        )
    groups: dict[int | None, list[Item]] = defaultdict(list)
    for item in slices:
        groups[item.number].append(item)
    merged = []
    for members in groups.values():
        members.sort(key=lambda item: item.parsed.channel or 0)
        if [item.parsed.channel for item in members] != list(range(count)):
            raise InputError(
                f"{shown(members[0].name)} lacks one of its three channels _0000, _0001 and _0002, or has "
                "one twice: give each once."
            )
        merged.append(_merged(members))
    note = "Files ending in _0000, _0001 and _0002 were taken as the three channels of a slice."
    return merged, [], [note]


def _by_sequence(slices: list[Item]) -> tuple[list[Item], list[SourceFile], list[str]]:
    unnamed = next((item for item in slices if item.parsed.sequence is None), None)
    if unnamed is not None:
        raise InputError(
            f"{shown(unnamed.name)} names no sequence, but other files do: name it by T1, FLAIR or T1CE, or "
            "leave it out."
        )
    left = [
        SourceFile(item.name, "ignored", "T2 is none of the three sequences that the networks use")
        for item in slices
        if item.parsed.sequence == T2
    ]
    used = [item for item in slices if item.parsed.sequence != T2]
    given = {str(item.parsed.sequence) for item in used}
    if "flair" not in given:
        said = listed(_TITLES[name] for name in sorted(given | ({T2} if left else set())))
        raise InputError(
            f"{shown(slices[0].name)} and its like hold {said}, but no FLAIR, which the networks need most: "
            "add it, with FLAIR in the name of its files or folder."
        )
    if given == {"flair"}:
        return used, left, []
    groups: dict[int | None, dict[str, Item]] = defaultdict(dict)
    for item in used:
        sequence, group = str(item.parsed.sequence), groups[item.number]
        if sequence in group:
            raise InputError(
                f"{shown(group[sequence].name)} and {shown(item.name)} are both {_TITLES[sequence]} of "
                f"{_slice(item)}: leave one out or number them apart."
            )
        group[sequence] = item
    merged = []
    for group in groups.values():
        one = next(iter(group.values()))
        if missing := given - set(group):
            raise InputError(
                f"{_TITLES[min(missing)].capitalize()} is missing for {_slice(one)} ({shown(one.name)}): "
                "add it, or leave the sequence out for all slices."
            )
        merged.append(replace(_merged([group.get(name, group["flair"]) for name in CHANNELS]), by_name=True))
    notes = [
        "Sequences were combined by name: "
        + ", ".join(
            f"{_TITLES[name]} from {shown(next(i.name for i in used if i.parsed.sequence == name))}"
            for name in CHANNELS
            if name in given
        )
        + (" and so on." if len(groups) > 1 else ".")
    ]
    notes += [
        f"{_TITLES[name].capitalize()} was not given: FLAIR was used in its place, results are less reliable."
        for name in CHANNELS
        if name not in given
    ]
    return merged, left, notes


def _by_page(
    slices: list[Item], masks: list[Item], channels: Sequence[str] | None
) -> tuple[list[Item], list[SourceFile], list[str]]:
    doubtful = [
        item
        for item in slices
        if item.pages == _PAGES_OR_CHANNELS
        and item.volume.pixels.shape[-1] == 1
        and not item.volume.axes_known
    ]
    if not doubtful or len(doubtful) < len(slices):
        return slices, [], []
    if len(slices) == 1:
        marked = sum(item.pages for item in masks)
        if marked == _PAGES_OR_CHANNELS and channels is None:
            return slices, [], []
        if marked != 1 and channels is None:
            raise InputError(
                f"{shown(slices[0].name)} holds 3 grey pages, which may be three slices or the three "
                "channels of one: save channels as RGB, slices as one file each, or state the order."
            )
    turned = [
        replace(item.with_pixels(np.moveaxis(item.volume.pixels[..., 0], 0, -1)[np.newaxis]), parts=(item,))
        for item in slices
    ]
    which = plural(len(slices), "file")
    return turned, [], [f"The three pages of {which} were taken as the channels of one slice."]


def _merged(members: list[Item]) -> Item:
    first = members[0]
    pixels = []
    for item in members:
        own = item.volume.pixels
        if own.shape[-1] == 3 and (own == own[..., :1]).all():
            own = own[..., :1]
        if own.shape[-1] != 1:
            raise InputError(
                f"{shown(item.name)} has {own.shape[-1]} channels, but its name says that it holds one "
                "sequence: save it in grey."
            )
        if own.shape[:3] != first.volume.pixels.shape[:3]:
            raise InputError(
                f"{shown(item.name)} is {_extent(item)} but {shown(first.name)} is {_extent(first)}: "
                "resample the sequences of a patient to one grid."
            )
        pixels.append(own)
    parts = tuple(dict.fromkeys(members))
    return replace(first, volume=replace(first.volume, pixels=np.concatenate(pixels, -1)), parts=parts)


def _slice(item: Item) -> str:
    return "the slice" if item.number is None else f"slice {item.number}"


def _extent(item: Item) -> str:
    return " x ".join(map(str, item.volume.pixels.shape[:3]))
