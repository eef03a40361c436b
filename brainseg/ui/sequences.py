"""The table of a patient's series: what each is taken as, why, and what the user may make of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from brainseg.io.series import Role, corrected
from brainseg.ui.session import Patient

ROLE_TITLES: Mapping[Role | None, str] = {
    "pre": "T1 before contrast",
    "flair": "FLAIR",
    "post": "T1 after contrast",
    "mask": "Mask",
    None: "Not used",
}
"""What a series can be taken as, in the words of the page."""


_NOT_USED = "none"


def name_of(role: Role | None) -> str:
    """A role as the value of a drop-down, where None would mean that nothing is chosen."""
    return role or _NOT_USED


def role_of(name: str) -> Role | None:
    """The role of a drop-down's value.

    Raises:
        ValueError: there is no such role.
    """
    for role in ROLE_TITLES:
        if name_of(role) == name:
            return role
    raise ValueError("no such role")


def title_of(name: str) -> str:
    """What a drop-down says for its value."""
    return ROLE_TITLES[role_of(name)]


@dataclass(frozen=True)
class Line:
    """One series.

    Attributes:
        key: of the series.
        title: its own, for instance ``"4: AX T2 FLAIR, 24 slices"``.
        why: how it was recognised, or why it is not used; a phrase with a capital.
        role: what it is taken as now.
        choices: what it may be taken as.
        segments: of a mask with several: label and name of each.
        labels: those of them that count as tumour.
    """

    key: str
    title: str
    why: str
    role: Role | None
    choices: tuple[Role | None, ...]
    segments: tuple[tuple[int, str], ...]
    labels: tuple[int, ...]


def lines(patient: Patient) -> tuple[Line, ...]:
    """The table, in the order of the files; empty of slices that are no series."""
    out = []
    for one in corrected(patient.case.series, patient.roles):
        several = one.role == "mask" and len(one.segments) > 1
        out.append(
            Line(
                one.key,
                one.title,
                one.why[:1].upper() + one.why[1:],
                one.role,
                ("mask", None) if one.segments else tuple(ROLE_TITLES),
                one.segments if several else (),
                (one.labels or tuple(label for label, _ in one.segments)) if several else (),
            )
        )
    return tuple(out)


def changed(
    patient: Patient, key: str, role: Role | None, labels: Sequence[int] | None = None
) -> dict[str, Role | None]:
    """The roles for `Session.assign`, after one line was changed.

    Args:
        patient: whose table it is.
        key: of the line.
        role: what its series is taken as now; another series that had the role gives it up, unless both are
            masks.
        labels: of a mask, the segments that count as tumour; all if None. A mask of none is not used.
    """
    line = next(line for line in lines(patient) if line.key == key)
    if labels is not None and not labels and role == line.role == "mask":
        role = None
    roles: dict[str, Role | None] = {}
    for name, own in patient.roles.items():
        if name == key or name.rpartition("#")[0] == key:
            continue
        roles[name] = None if own == role and role != "mask" else own
    if role == "mask" and labels and len(labels) < len(line.segments):
        roles |= {f"{key}#{label}": role for label in labels}
    else:
        roles[key] = role
    return roles


def to_register(patient: Patient) -> bool:
    """Whether there is a series beside FLAIR that a registration would move."""
    roles = {line.role for line in lines(patient)}
    return bool(roles & {"pre", "post"}) and "flair" in roles


def can_register() -> bool:
    """Whether SimpleITK is installed, which registers."""
    return find_spec("SimpleITK") is not None


def is_complete(patient: Patient) -> bool:
    """Whether the patient can be read, with all three sequences."""
    return patient.error is None and {"pre", "flair", "post"} <= {line.role for line in lines(patient)}
