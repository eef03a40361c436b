"""The command line: predict, evaluate, train, models, data; `python -m brainseg` is the same program."""

from __future__ import annotations

from brainseg.cli.program import main

__all__ = ["main"]
