"""A folder of results: one run whole, or nothing."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brainseg import report
from brainseg.measure import Reading
from brainseg.report.formats import FOLDERS, MaskFormat, formats_of, masks_in
from brainseg.types import BrainsegError, Spacing, Study, WeightsCard

BEGUN = ".writing-"
"""Names of folders begin so that are not whole yet; a killed program leaves one."""
_REMEDY = "choose another --out"


@dataclass(frozen=True, eq=False)
class Results:
    """What a folder holds of one patient.

    Attributes:
        zips: a zip of the files of each subfolder, by its name.
        figures: the tables, by file name; the JSON last.
    """

    zips: dict[str, bytes]
    figures: dict[str, bytes]

    def files(self) -> Iterator[tuple[str, bytes]]:
        """The content of every file but the figures, by path relative to the folder."""
        for folder, data in self.zips.items():
            # Our own zip, whose names were made safe.
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                yield from ((f"{folder}/{name}", archive.read(name)) for name in archive.namelist())


def results_of(
    study: Study,
    readings: Sequence[Reading],
    figures: dict[str, Any],
    *,
    formats: Sequence[MaskFormat] | None = None,
    keep_identifiers: bool = False,
) -> Results:
    """Masks, overlays and figures of one patient.

    Args:
        study: the patient.
        readings: of each model.
        figures: their `brainseg.report.report`.
        formats: of the masks, as the study allows; None for the input's own, `formats_of`.
        keep_identifiers: as `brainseg.report.dicom_seg.segmentations_zip`.
    """
    case, findings = report.safe_name(study.case_id), [reading.finding for reading in readings]
    masks = {
        FOLDERS[one]: masks_in(study, findings, one, keep_identifiers=keep_identifiers)
        for one in formats or formats_of(study)
    }
    return Results(
        masks | {"overlays": report.overlays_zip(study, findings)},
        {f"{case}.csv": report.to_csv(figures), f"{case}.json": report.to_json(figures)},
    )


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
    with named(out):
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
    with named(out):
        try:
            out.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=BEGUN, dir=out) as within:
                names = [*files, *figures]
                for name, content in {**files, **figures}.items():
                    write_file(Path(within, name), content)
                for name in names:
                    (out / name).parent.mkdir(parents=True, exist_ok=True)
                    os.replace(Path(within, name), out / name)
        except OSError:
            for path in made:
                # Of those made here; one that another program has put something into stays.
                with contextlib.suppress(OSError):
                    path.rmdir()
            raise


def write_whole(folder: Path, results: Results) -> None:
    """Write a folder of results under its name when it is whole, in place of one that is there already.

    Args:
        folder: in one that is there; beside it, until it is whole, lies one named ``.writing-...``.
        results: of one patient.

    Raises:
        OSError: if the disk is full or may not be written to; what was begun is removed.
    """
    within = Path(tempfile.mkdtemp(prefix=BEGUN, dir=folder.parent))
    try:
        for name, content in (*results.figures.items(), *results.files()):
            write_file(within / name, content)
        within.chmod(folder.parent.stat().st_mode & 0o777)
        if folder.exists():
            shutil.rmtree(folder)
        within.replace(folder)
    except BaseException:
        shutil.rmtree(within, ignore_errors=True)
        raise


def write_file(path: Path, content: bytes) -> None:
    """Write a file, and its folder where there is none yet.

    Raises:
        OSError: if the disk is full or may not be written to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        # Network and quota file systems say only now that there is no room.
        os.fsync(file.fileno())


@contextmanager
def named(out: Path) -> Iterator[None]:
    """Whatever goes wrong in writing to `out` becomes a sentence.

    Raises:
        BrainsegError: in place of an OSError.
    """
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
