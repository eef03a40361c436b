"""What is known of a patient's series before they are decoded: the table in which the user corrects it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from brainseg.io.text import listed, shown
from brainseg.types import InputError

Role = Literal["pre", "flair", "post", "mask"]

ROLES: Mapping[Role, str] = {
    "pre": "pre-contrast T1",
    "flair": "FLAIR",
    "post": "post-contrast T1",
    "mask": "mask",
}
"""What a series can be taken as, and its name for the user."""


@dataclass(frozen=True)
class SeriesInfo:
    """One series of a case: a file, a volume of a file, or the DICOM slices of one acquisition.

    Attributes:
        key: short, stable, unique in the case: ``"4"``, ``"4.2"``, or the file's name.
        title: for a table, for instance ``"4: AX T2 FLAIR, 24 slices"``.
        role: what it is taken as; None where it is set aside.
        why: how that was recognised, or why it was set aside: a short phrase.
        files: indices into the case's files.
        segments: of a mask: label and name of each segment, where the files list them.
        labels: of a mask: the labels that count as tumour; all but 0 where empty.
        volume: index of the volume in a file that holds several.
        channel: place among three channels whose sequences nothing names; None where something does.
    """

    key: str
    title: str
    role: Role | None
    why: str
    files: tuple[int, ...]
    segments: tuple[tuple[int, str], ...] = ()
    labels: tuple[int, ...] = ()
    volume: int = 0
    channel: int | None = None


def with_roles(
    series: Sequence[SeriesInfo], roles: Mapping[str, Role | None] | None = None
) -> tuple[SeriesInfo, ...]:
    """The series as the user corrected them, with exactly one FLAIR and no role twice.

    Args:
        series: as `find_cases` guessed them.
        roles: as in `corrected`.

    Raises:
        InputError: as `corrected`; no FLAIR, or two series of one role that the user did not choose between.
    """
    out = corrected(series, roles)
    _check(out, chosen=set(_given(series, roles or {})[0]))
    return out


def corrected(
    series: Sequence[SeriesInfo], roles: Mapping[str, Role | None] | None = None
) -> tuple[SeriesInfo, ...]:
    """The series as the user corrected them so far, whether or not they can be read so.

    Args:
        series: as `find_cases` guessed them.
        roles: role of a series by its key; None sets it aside. A series not named keeps its role, unless
            another was given that role. ``KEY#2`` names the segment 2 of a mask, again for more; the other
            segments then do not count.

    Raises:
        InputError: a key or a role that is not there.
    """
    given, labels = _given(series, roles or {})
    named = set(given.values())
    out = []
    for one in series:
        if one.key in given:
            why = one.why if one.role == given[one.key] else "chosen by the user"
            one = replace(one, role=given[one.key], why=why, labels=tuple(labels[one.key]))  # noqa: PLW2901
        elif one.role is not None and one.role in named:
            one = replace(one, role=None, why=f"another series was chosen as {ROLES[one.role]}")  # noqa: PLW2901
        out.append(one)
    return tuple(out)


def _given(
    series: Sequence[SeriesInfo], roles: Mapping[str, Role | None]
) -> tuple[dict[str, Role | None], dict[str, list[int]]]:
    """What the user said, by keys without segments, and the segments."""
    labels: dict[str, list[int]] = defaultdict(list)
    given: dict[str, Role | None] = {}
    keys = {one.key for one in series}
    for name, role in roles.items():
        if role is not None and role not in ROLES:
            raise InputError(f"{shown(str(role))} is no role of a series: choose among {listed(ROLES)}.")
        key, _, label = name.rpartition("#")
        if name in keys:
            given[name] = role
        elif key in keys and label.isdecimal() and len(label) < 6:
            given[key] = role
            labels[key].append(int(label))
        else:
            raise InputError(f"There is no series {shown(name)} here: choose among {_keys(series)}.")
    return given, labels


def _check(series: Sequence[SeriesInfo], chosen: set[str]) -> None:
    by_role: dict[Role, list[SeriesInfo]] = defaultdict(list)
    for one in series:
        if one.role is not None:
            by_role[one.role].append(one)
    for role, several in by_role.items():
        # Masks that the user named one by one are meant together.
        together = role == "mask" and all(one.key in chosen for one in several)
        if len(several) > 1 and not together:
            raise InputError(
                f"{listed((shown(one.title) for one in several), most=4)} were all recognised as "
                f"{ROLES[role]}: choose one, in the table of sequences or by --sequence "
                f"{role}={several[0].key}."
            )
    if not by_role["flair"]:
        aside = listed((f"{shown(one.key)} ({one.why})" for one in series), most=6)
        raise InputError(
            f"No FLAIR was recognised, which the networks need most, among {aside}: say which series it is, "
            "in the table of sequences or by --sequence flair=KEY."
        )


def _keys(series: Sequence[SeriesInfo]) -> str:
    return listed((shown(one.key) for one in series), most=12)
