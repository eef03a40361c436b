"""The table of a patient's series, and what a change in it means."""

from __future__ import annotations

import pytest

from brainseg.io import Case
from brainseg.io.series import Role, SeriesInfo
from brainseg.ui import sequences
from brainseg.ui.session import Patient

SEGMENTS = ((1, "oedema"), (2, "core"))


def info(key: str, role: Role | None, segments: tuple[tuple[int, str], ...] = ()) -> SeriesInfo:
    return SeriesInfo(key, f"{key}: a series", role, "by its name", (0,), segments)


def patient(*series: SeriesInfo) -> Patient:
    return Patient(1, "a", Case("a", (), kind="dicom", series=series))


@pytest.fixture
def whole() -> Patient:
    return patient(
        info("1", "pre"), info("2", "flair"), info("3", "post"), info("4", None), info("5", "mask", SEGMENTS)
    )


def roles(patient: Patient) -> str:
    return " ".join(f"{line.key}={line.role}" for line in sequences.lines(patient))


def test_lines_say_what_was_recognised(whole: Patient) -> None:
    lines = sequences.lines(whole)
    assert [(line.title, line.why, line.role) for line in lines[:2]] == [
        ("1: a series", "By its name", "pre"),
        ("2: a series", "By its name", "flair"),
    ]
    assert lines[0].choices == ("pre", "flair", "post", "mask", None)
    assert lines[4].choices == ("mask", None)
    assert (lines[4].segments, lines[4].labels) == (SEGMENTS, (1, 2))
    assert sequences.is_complete(whole)
    assert sequences.lines(patient()) == ()


def test_a_role_is_taken_from_who_had_it(whole: Patient) -> None:
    whole.roles = sequences.changed(whole, "4", "flair")
    assert roles(whole) == "1=pre 2=None 3=post 4=flair 5=mask"
    whole.roles = sequences.changed(whole, "1", "flair")
    assert roles(whole) == "1=flair 2=None 3=post 4=None 5=mask"
    assert not sequences.is_complete(whole)
    whole.roles = sequences.changed(whole, "2", "flair")
    whole.roles = sequences.changed(whole, "1", "pre")
    assert roles(whole) == "1=pre 2=flair 3=post 4=None 5=mask"


def test_masks_are_united_where_both_are_chosen(whole: Patient) -> None:
    whole.roles = sequences.changed(whole, "4", "mask")
    assert roles(whole).endswith("4=mask 5=None")
    whole.roles = sequences.changed(whole, "5", "mask")
    assert roles(whole).endswith("4=mask 5=mask")


def test_segments_become_keys(whole: Patient) -> None:
    whole.roles = sequences.changed(whole, "5", "mask", [2])
    assert whole.roles == {"5#2": "mask"}
    assert sequences.lines(whole)[4].labels == (2,)
    whole.roles = sequences.changed(whole, "5", "mask", [1, 2])
    assert whole.roles == {"5": "mask"}
    whole.roles = sequences.changed(whole, "5", "mask", [])
    assert whole.roles == {"5": None}
    whole.roles = sequences.changed(whole, "5", "mask")
    assert sequences.lines(whole)[4].labels == (1, 2)


def test_a_registration_needs_something_to_move(whole: Patient) -> None:
    assert sequences.to_register(whole)
    for key in ("1", "3"):
        whole.roles = sequences.changed(whole, key, None)
    assert not sequences.to_register(whole)
    assert sequences.can_register()


def test_names_of_roles_there_and_back() -> None:
    for role, title in sequences.ROLE_TITLES.items():
        name = sequences.name_of(role)
        assert sequences.role_of(name) == role
        assert sequences.title_of(name) == title
    with pytest.raises(ValueError, match="no such role"):
        sequences.role_of("t2")
