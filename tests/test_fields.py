"""Mappings become dataclasses, or one sentence says which field is wrong."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainseg.fields import DEEPEST, FieldError, Within, build, read_at_most, short


@dataclass(frozen=True)
class Inner:
    """One row."""

    size: int
    share: float = 0.5
    part: Annotated[float, Within(0, 1, "high")] = 0.0


@dataclass(frozen=True)
class Outer:
    """Every type that is read."""

    name: str
    inner: Inner
    rows: tuple[Inner, ...] = ()
    words: tuple[str, ...] = ()
    kind: Literal["a", "b"] = "a"
    on: bool = False
    free: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.name == "no":
            raise ValueError("the name is no")


GOOD: dict[str, Any] = {"name": "x", "inner": {"size": 1}}


def complaint(**changes: Any) -> str:
    with pytest.raises(FieldError) as caught:
        build(Outer, GOOD | changes)
    return str(caught.value)


def test_a_mapping_becomes_what_it_describes() -> None:
    raw = GOOD | {"rows": [{"size": 2, "share": 1}], "words": ["p", "q"], "kind": "b", "on": True}
    outer = build(Outer, raw | {"free": {"a": [1, None, {"b": "c"}]}})
    assert outer == Outer(
        "x", Inner(1), (Inner(2, 1.0),), ("p", "q"), "b", True, {"a": [1, None, {"b": "c"}]}
    )
    assert type(outer.rows[0].share) is float


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"name": 1}, "name must be str, not 1"),
        ({"name": None}, "name must be str, not None"),
        ({"name": "a\nb"}, "name must be one line"),
        ({"name": "\ud800"}, "name must be one line"),
        ({"name": "\x1b[2J"}, "name must be one line"),
        ({"name": "x" * 2000}, "name must be one line"),
        ({"name": "no"}, "the name is no"),
        ({"inner": [1]}, "inner must be a table, not [1]"),
        ({"inner": {}}, "inner.size is missing"),
        ({"inner": {"size": 1.0}}, "inner.size must be int, not 1.0"),
        ({"inner": {"size": True}}, "inner.size must be int, not True"),
        ({"inner": {"size": 2**64}}, "inner.size must fit into 64 bits"),
        ({"inner": {"size": 1, "share": float("nan")}}, "inner.share must be a finite number"),
        ({"inner": {"size": 1, "share": 10**400}}, "inner.share must be float, not 1000"),
        ({"inner": {"size": 1, "part": 1}}, "inner.part must lie in 0..1, below 1"),
        ({"inner": {"size": 1, "part": "0"}}, "inner.part must be float, not '0'"),
        ({"inner": {"size": 1, "shar": 1}}, "unknown key inner.shar; did you mean inner.share?"),
        ({"size": 1}, "unknown key size; did you mean inner.size?"),
        ({"rows": {}}, "rows must be an array of tables, not {}"),
        ({"rows": [{"size": "1"}]}, "rows[0].size must be int, not '1'"),
        ({"words": "pq"}, "words must be a list, not 'pq'"),
        ({"words": ["p", 1]}, "words[1] must be str, not 1"),
        ({"kind": ["a"]}, "kind must be one of a, b, not ['a']"),
        ({"on": 1}, "on must be bool, not 1"),
        ({"free": []}, "free must be a table, not []"),
        ({"free": {"a": {"b": [float("inf")]}}}, "each value in free must be a finite number"),
        ({"free": {"a\tb": 1}}, "a key of free must be one line"),
        ({"free": {"a": {1, 2}}}, "free must hold numbers, text, lists and tables"),
    ],
)
def test_what_does_not_fit(changes: dict[str, Any], says: str) -> None:
    assert says in complaint(**changes)


def test_depth_is_counted_not_suffered() -> None:
    deep: Any = 1
    for _ in range(DEEPEST - 1):
        deep = [deep]
    assert build(Outer, GOOD | {"free": {"a": deep}}).free == {"a": deep}
    assert f"more than {DEEPEST} tables" in complaint(free={"a": [deep]})
    for _ in range(100_000):
        deep = [deep]
    assert "must not hold more" in complaint(free={"a": deep})
    assert "must be str, not [[" in complaint(name=deep)


def test_values_in_messages_are_short() -> None:
    assert len(short(["x" * 10_000] * 1000)) < 500
    assert short(16**5000) == "a number of thousands of digits"
    assert len(complaint(**{"k" * 10_000: 1})) < 200


def test_files_are_read_up_to_a_size(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(bytes(2**20))
    assert len(read_at_most(tmp_path / "x", 2**20)) == 2**20
    with pytest.raises(FieldError, match="more than 0 MB"):
        read_at_most(tmp_path / "x", 2**20 - 1)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=3), inside, max_size=3),
    max_leaves=10,
)


@given(
    st.dictionaries(st.sampled_from(["name", "inner", "rows", "words", "kind", "on", "free", "z"]), VALUES)
)
def test_anything_is_read_or_refused_in_one_line(changes: dict[str, Any]) -> None:
    raw = GOOD | changes
    try:
        outer = build(Outer, raw)
    except FieldError as error:
        message = str(error)
        assert message.isprintable()
        return
    # What was read is what stood there: it survives JSON, where tuples are lists.
    given_back = json.loads(json.dumps(asdict(outer)))
    assert all(given_back[key] == value or isinstance(value, dict | list) for key, value in raw.items())
