"""Values from JSON or TOML -> frozen dataclasses, strictly: cards and recipes are read by it."""

from __future__ import annotations

import difflib
import math
import reprlib
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")

LONGEST_TEXT = 1_000
DEEPEST = 12
_INT64 = 2**63
_LARGEST = 1e300  # beyond it, an int may be none of the floats
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60


@dataclass(frozen=True)
class Within:
    """The range of a number, stated at its field: `low` to `high`, without what is `open`."""

    low: float
    high: float
    open: Literal["", "high", "both"] = ""

    def holds(self, value: float) -> bool:
        """NaN fails, as each comparison does."""
        above = self.low < value if self.open == "both" else self.low <= value
        return above and (value < self.high if self.open else value <= self.high)

    def __str__(self) -> str:
        if self.high == math.inf:
            return f"must be above {self.low:,}" if self.open == "both" else f"must be {self.low:,} or more"
        below = f", below {self.high:,}" if self.open == "high" else ""
        return f"must lie in {self.low:,}..{self.high:,}{below}"


class FieldError(ValueError):
    """A value does not fit its field; the message names the field and what it must be."""


def build(kind: type[T], raw: object, prefix: str = "") -> T:
    """An instance of the dataclass `kind` from a mapping, with every key and type checked.

    Numbers are not made of text, nor ints of floats or bools; an int may stand where a float is due. Floats
    are finite, ints have 64 bits at most, text is one line of printable characters.

    Args:
        kind: its fields may be bool, int, float, str, Literal, dict[str, Any], another dataclass, a tuple of
            one of them and an ellipsis, or a number annotated with `Within`.
        raw: what json or tomllib returned.
        prefix: what stands before the names of its fields in messages, for instance ``"spec."``.

    Raises:
        FieldError: a key unknown (naming the nearest known one) or missing, a value of another type, or one
            that `kind` itself refuses with ValueError.
    """
    result: T = _build(kind, raw, prefix, kind)
    return result


def read_at_most(path: Path, most: int) -> bytes:
    """A file's bytes.

    Raises:
        FieldError: if it holds more than `most`.
        OSError: if it cannot be read.
    """
    with path.open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise FieldError(f"it holds more than {most // 2**20} MB")
    return data


def short(value: object) -> str:
    """A value in a message, at most about 60 characters of it."""
    try:
        return _SHORT.repr(value)
    except ValueError:
        return "a number of thousands of digits"  # Python prints none of those


def readable(key: str) -> str:
    """A key in a message, at most 60 printable characters of it."""
    return "".join(c if c.isprintable() else "?" for c in key[:60]) + "…" * (len(key) > 60)


def is_folder_name(name: str) -> bool:
    """Whether a name can be that of a folder: not empty, no slashes, not dots alone."""
    return bool(name.strip(".")) and not set("/\\") & set(name)


def _build(kind: Any, raw: object, prefix: str, root: Any) -> Any:
    if not isinstance(raw, dict):
        raise FieldError(f"{prefix.rstrip('.') or 'the whole'} must be a table, not {short(raw)}")
    hints = get_type_hints(kind, include_extras=True)
    known = [item.name for item in fields(kind)]
    for key in raw:
        if key not in known:
            raise FieldError(
                f"unknown key {prefix}{readable(key)}; did you mean {_nearest(key, known, prefix, root)}?"
            )
    for item in fields(kind):
        if item.name not in raw and item.default is MISSING and item.default_factory is MISSING:
            raise FieldError(f"{prefix}{item.name} is missing")
    values = {key: _value(hints[key], value, prefix + key, root) for key, value in raw.items()}
    try:
        return kind(**values)
    except ValueError as error:
        raise FieldError(str(error)) from error


def _nearest(key: str, known: Sequence[str], prefix: str, root: Any) -> str:
    # A key in the wrong table is meant more often than one that merely looks like it.
    tables = {name: hint for name, hint in get_type_hints(root).items() if is_dataclass(hint)}
    for table, kind in tables.items():
        if any(item.name == key for item in fields(kind)):
            return f"{table}.{key}"
    if any(item.name == key for item in fields(root)):
        return key
    return prefix + difflib.get_close_matches(key[:60], known, 1, 0)[0]


def _value(hint: Any, value: Any, key: str, root: Any) -> Any:
    if get_origin(hint) is Annotated:
        inner, within = get_args(hint)
        number = _typed(inner, value, key)
        if not within.holds(number):
            raise FieldError(f"{key} {within}")
        return number
    if is_dataclass(hint):
        return _build(hint, value, key + ".", root)
    origin = get_origin(hint)
    if origin is tuple:
        inner = get_args(hint)[0]
        if not isinstance(value, list):
            what = "an array of tables" if is_dataclass(inner) else "a list"
            raise FieldError(f"{key} must be {what}, not {short(value)}")
        return tuple(_value(inner, item, f"{key}[{n}]", root) for n, item in enumerate(value))
    if origin is Literal:
        if value not in get_args(hint):
            raise FieldError(f"{key} must be one of {', '.join(get_args(hint))}, not {short(value)}")
        return value
    if origin is dict:
        if not isinstance(value, dict):
            raise FieldError(f"{key} must be a table, not {short(value)}")
        _check_free(value, key, DEEPEST)
        return value
    value = _typed(hint, value, key)
    _check_plain(value, key)
    return value


def _typed(kind: Any, value: Any, key: str) -> Any:
    if kind is float and type(value) is int and abs(value) < _LARGEST:
        return float(value)
    if type(value) is not kind:
        raise FieldError(f"{key} must be {kind.__name__}, not {short(value)}")
    return value


def _check_plain(value: object, key: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise FieldError(f"{key} must be a finite number")
    if isinstance(value, int) and not -_INT64 <= value < _INT64:
        raise FieldError(f"{key} must fit into 64 bits")
    if isinstance(value, str) and (len(value) > LONGEST_TEXT or not value.isprintable()):
        raise FieldError(f"{key} must be one line of at most {LONGEST_TEXT:,} printable characters")


def _check_free(value: Any, key: str, levels: int) -> None:
    """What a table without a schema may hold: plain values, lists and tables of them."""
    if isinstance(value, (dict, list)):
        if not levels:
            raise FieldError(f"{key} must not hold more than {DEEPEST} tables or lists in one another")
        inside = list(value.values()) if isinstance(value, dict) else value
        for name in value if isinstance(value, dict) else ():
            _check_plain(name, f"a key of {key}")
        for item in inside:
            _check_free(item, key, levels - 1)
    elif value is not None and type(value) not in (bool, int, float, str):
        raise FieldError(f"{key} must hold numbers, text, lists and tables, not {short(value)}")
    else:
        _check_plain(value, f"each value in {key}")
