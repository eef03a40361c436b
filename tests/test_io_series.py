"""Roles of series, as recognised and as the user corrects them."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from brainseg.io.series import Role, SeriesInfo, with_roles
from brainseg.types import InputError


def info(key: str, role: Role | None) -> SeriesInfo:
    return SeriesInfo(key, f"{key}: a series", role, "by its name", (0,))


SERIES = (info("1", "pre"), info("2", "flair"), info("3", "post"), info("4", None), info("5", "mask"))


def roles_of(roles: Mapping[str, Role | None], series: tuple[SeriesInfo, ...] = SERIES) -> str:
    return " ".join(f"{one.key}={one.role}" for one in with_roles(series, roles))


@pytest.mark.parametrize(
    ("roles", "expected"),
    [
        ({}, "1=pre 2=flair 3=post 4=None 5=mask"),
        ({"4": "flair"}, "1=pre 2=None 3=post 4=flair 5=mask"),
        ({"1": "post", "3": "pre"}, "1=post 2=flair 3=pre 4=None 5=mask"),
        ({"1": None, "5": None}, "1=None 2=flair 3=post 4=None 5=None"),
        ({"1": "flair"}, "1=flair 2=None 3=post 4=None 5=mask"),
        ({"4": "mask"}, "1=pre 2=flair 3=post 4=mask 5=None"),
        ({"4": "mask", "5": "mask"}, "1=pre 2=flair 3=post 4=mask 5=mask"),
    ],
)
def test_the_user_corrects_what_was_recognised(roles: Mapping[str, Role | None], expected: str) -> None:
    assert roles_of(roles) == expected


def test_reasons_say_whose_choice_it_was() -> None:
    why = {one.key: one.why for one in with_roles(SERIES, {"4": "flair", "3": "post"})}
    assert why["4"] == "chosen by the user"
    assert why["2"] == "another series was chosen as FLAIR"
    assert why["3"] == why["1"] == "by its name"


def test_segments_of_a_mask_by_number() -> None:
    *_, mask = with_roles(SERIES, {"5#1": "mask", "5#4": "mask"})
    assert (mask.role, mask.labels) == ("mask", (1, 4))
    hashed = info("a#2", "flair")
    assert roles_of({"a#2": None, "2": "flair"}, (*SERIES, hashed)).endswith("a#2=None")


@pytest.mark.parametrize(
    ("series", "roles", "says"),
    [
        (SERIES, {"9": "flair"}, '"9" here: choose among "1", "2"'),
        (SERIES, {"5#x": "mask"}, '"5#x" here'),
        (SERIES, {"5#123456": "mask"}, "here"),
        (SERIES, {"1": "t2"}, '"t2" is no role'),
        (
            SERIES,
            {"2": None},
            'No FLAIR was recognised, which the networks need most, among "1" (by its name)',
        ),
        ((*SERIES, info("6", "flair")), {}, '"2: a series" and "6: a series" were all recognised as FLAIR'),
        ((*SERIES, info("6", "mask")), {}, "--sequence mask=5"),
        (SERIES, {"1": "flair", "2": "flair"}, "were all recognised as FLAIR"),
    ],
)
def test_one_sentence_where_a_choice_is_needed(
    series: tuple[SeriesInfo, ...], roles: Mapping[str, Role | None], says: str
) -> None:
    with pytest.raises(InputError) as caught:
        with_roles(series, roles)
    assert says in str(caught.value)
