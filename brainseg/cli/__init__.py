"""The command line: predict, evaluate, train, models, data, hub; `python -m brainseg` is the same program."""

from __future__ import annotations

from brainseg.cli.program import main

__all__ = ["main"]
