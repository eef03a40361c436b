"""How names and lists are written in messages."""

from __future__ import annotations

from collections.abc import Iterable

LONGEST = 60


def shown(name: str) -> str:
    """A file name in quotes, at most 60 characters, with nothing that could disturb a line of text.

    Control, direction and surrogate characters become ``?``; a long name loses its middle.
    """
    safe = "".join(c if c.isprintable() else "?" for c in name).replace('"', "'")
    if len(safe) > LONGEST:
        half = (LONGEST - 1) // 2
        safe = f"{safe[:half]}…{safe[-half:]}"
    return f'"{safe}"'


def listed(items: Iterable[object], most: int = 8) -> str:
    """``1, 2 and 3``; beyond `most` items the rest is counted: ``1, 2 and 40 more``."""
    words = [str(item) for item in items]
    if len(words) > most:
        words = [*words[:most], f"{len(words) - most} more"]
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"


def plural(count: int, word: str) -> str:
    """``1 slice``, ``2 slices``."""
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"
