"""A folder of results: one run whole, or nothing."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from brainseg.types import BrainsegError, Spacing, Study, WeightsCard

_REMEDY = "choose another --out"


def run_of(study: Study, cards: Sequence[WeightsCard], tta: bool) -> dict[str, Any]:
    """What tells one run from another, before it has begun: patient, files, spacing, weights, flips."""
    return _run(
        study.case_id, study.source.sha256, study.spacing_mm, {c.name: (c.sha256, tta) for c in cards}
    )


def check_folder(out: Path, run: dict[str, Any]) -> None:
    """See that `write_folder` will be able to write the results of `run`, before any work is done.

    Raises:
        BrainsegError: if `out` is no folder, may not be written to, or holds anything but the results of an
            earlier run of the same patient and weights.
    """
    with _named(out):
        if out.exists() and not out.is_dir():
            raise BrainsegError(f"--out {out} is a file, not a folder; {_REMEDY}")
        there = next(path for path in (out, *out.absolute().parents) if path.exists())
        with tempfile.TemporaryFile(dir=there):
            pass
        held = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
    if not held:
        return
    before = _written(out)
    if before is None:
        raise BrainsegError(
            f"--out {out} is not empty (it holds {held[0]!r}) and no results are in it; {_REMEDY}"
        )
    if before != run:
        raise BrainsegError(
            f"--out {out} holds the results of another run (patient {before['case_id']}, "
            f"{', '.join(before['weights'])}); {_REMEDY}"
        )


def write_folder(out: Path, files: Mapping[str, bytes], figures: Mapping[str, bytes]) -> None:
    """Write all files or none; those of an earlier run of the same names are replaced.

    Everything is first written to a folder within `out` and then moved up: a full disk leaves nothing, and
    `out` may be the only folder that may be written to.

    Args:
        out: as `check_folder` found it fit.
        files: content by path relative to `out`.
        figures: likewise, moved last: the JSON of the run is there only when everything else is.

    Raises:
        BrainsegError: if the disk is full or may not be written to; what was begun is removed.
    """
    made = [path for path in (out, *out.absolute().parents) if not path.exists()]
    with _named(out):
        try:
            out.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".writing-", dir=out) as within:
                names = [*files, *figures]
                for name, content in {**files, **figures}.items():
                    _write(Path(within, name), content)
                for name in names:
                    (out / name).parent.mkdir(parents=True, exist_ok=True)
                    os.replace(Path(within, name), out / name)
        except OSError:
            for path in made:
                # Of those made here; one that another program has put something into stays.
                with contextlib.suppress(OSError):
                    path.rmdir()
            raise


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        # Network and quota file systems say only now that there is no room.
        os.fsync(file.fileno())


@contextmanager
def _named(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BrainsegError(f"cannot write to --out {out} ({error.strerror or error}); {_REMEDY}") from error


def _written(out: Path) -> dict[str, Any] | None:
    """The run whose results a folder holds."""
    for path in sorted(out.glob("*.json")):
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raw = json.loads(path.read_bytes())
            weights = {name: (row["weights_sha256"], row["tta"]) for name, row in raw["models"].items()}
            return _run(raw["case_id"], raw["source"]["sha256"], raw["spacing_mm"], weights)
    return None


def _run(
    case_id: str, source: str, spacing: Spacing | Sequence[float] | None, weights: dict[str, tuple[str, bool]]
) -> dict[str, Any]:
    spacing = None if spacing is None else tuple(float(x) for x in spacing)
    return {"case_id": case_id, "source": source, "spacing_mm": spacing, "weights": weights}
