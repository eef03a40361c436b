"""The folder of a cohort: what it holds after each patient, and after a kill at any moment.

- ``run.json``: the settings; a folder holds one run.
- ``records.jsonl``: a line for each patient, done or failed. It is the last that is written of a patient: who
  has one is finished.
- ``patients/<name>/``: what ``predict --out`` writes of a patient; ``thumbnails/<name>.png``.
- ``summary.csv``, ``index.html``: made from the records.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from brainseg.cohort.page import page
from brainseg.cohort.patient import Examined
from brainseg.cohort.summary import summary
from brainseg.files import atomic_write
from brainseg.io.names import natural
from brainseg.io.text import listed, shown
from brainseg.report import safe_name
from brainseg.report.folder import BEGUN, named, write_whole
from brainseg.types import BrainsegError

RUN, RECORDS, SUMMARY, PAGE = "run.json", "records.jsonl", "summary.csv", "index.html"
PATIENTS, THUMBNAILS = "patients", "thumbnails"
LOCK = ".lock"
"""Held while a program writes to the folder; the system lets go of it however that ends."""
_BEFORE_A_RUN = {LOCK, f"{RUN}.tmp"}

Record = dict[str, Any]
"""One line of ``records.jsonl``: ``patient``, its key; ``failure``, None or a sentence; for a patient that
did not fail ``folder`` and ``thumbnail``, paths in the folder of the cohort, ``seconds`` in all, ``device``,
``precision``, and what `brainseg.report.report` says of the volume."""


class CohortFolder:
    """An output folder while a run has it; see `open_folder`.

    Attributes:
        out: the folder.
        settings: of its run.
        records: by patient, of those that need no more work.
    """

    def __init__(self, out: Path, settings: dict[str, Any], records: dict[str, Record]) -> None:
        self.out = out
        self.settings = settings
        self.records = records
        self._names: dict[str, str] = {}

    def name(self, patients: Iterable[str]) -> None:
        """Give each of these patients, and those on record, a name that is safe and its own."""
        self._names = folder_names({*patients, *self.records})

    def add(self, patient: str, examined: Examined) -> None:
        """Keep what was found in a patient.

        Raises:
            BrainsegError: if the disk is full or may not be written to; nothing of the patient is left half.
        """
        name = self._names[patient]
        with named(self.out):
            for folder in (PATIENTS, THUMBNAILS):
                (self.out / folder).mkdir(exist_ok=True)
            with atomic_write(self.out / THUMBNAILS / f"{name}.png") as file:
                file.write(examined.thumbnail)
            write_whole(self.out / PATIENTS / name, examined.results)
        self._append(
            {
                "patient": patient,
                "failure": None,
                "folder": f"{PATIENTS}/{name}",
                "thumbnail": f"{THUMBNAILS}/{name}.png",
                **examined.record,
            }
        )

    def fail(self, patient: str, reason: str, about: Record) -> None:
        """Keep why a patient failed, with what a record says of the program.

        Raises:
            BrainsegError: as `add`.
        """
        self._append({"patient": patient, "failure": reason, **about})

    def finish(self, total: int) -> None:
        """Write the table and the page of the records so far, of `total` patients.

        Raises:
            BrainsegError: if the disk is full or may not be written to; those before are left.
        """
        records = sorted(self.records.values(), key=lambda record: natural(record["patient"]))
        with named(self.out):
            for name, content in (
                (SUMMARY, summary(records)),
                (PAGE, page(self.settings, records, total)),
            ):
                with atomic_write(self.out / name) as file:
                    file.write(content)

    def _append(self, record: Record) -> None:
        with named(self.out), (self.out / RECORDS).open("ab", buffering=0) as file:
            before = file.tell()
            try:
                content = memoryview(_line(record))
                while content:
                    content = content[file.write(content) :]
                os.fsync(file.fileno())
            except BaseException:
                # A full disk takes a part of a line.
                with suppress(OSError):
                    file.truncate(before)
                raise
        self.records[record["patient"]] = record


@contextmanager
def open_folder(out: Path, settings: dict[str, Any]) -> Iterator[CohortFolder]:
    """Take a folder for a run, alone, and mend what a killed one left.

    What was begun and not finished is removed. Records of failed patients are, too: they are tried again.

    Raises:
        BrainsegError: if `out` is no folder, may not be written to, holds anything but a run of the same
            settings, or another program has it.
    """
    settings = json.loads(json.dumps(settings))
    if out.exists() and not out.is_dir():
        raise BrainsegError(f"--out {out} is a file, not a folder; choose another --out")
    with named(out):
        held = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
        if RUN not in held and not set(held) <= _BEFORE_A_RUN:
            first = shown(next(name for name in held if name not in _BEFORE_A_RUN))
            raise BrainsegError(
                f"--out {out} is not empty (it holds {first}) and no cohort is in it; choose another --out"
            )
        out.mkdir(parents=True, exist_ok=True)
        lock = FileLock(out / LOCK, blocking=False)
        try:
            lock.acquire()
        except Timeout:
            raise BrainsegError(
                f"--out {out} is in use by another run; wait for its end, or choose another --out"
            ) from None
    try:
        with named(out):
            before = _settings(out)
            records = _mended(out / RECORDS)
            if records:
                _check(out, before, settings)
            elif before != settings:
                with atomic_write(out / RUN) as file:
                    file.write(_line(settings, indent=2))
            _sweep(out)
        yield CohortFolder(out, settings, records)
    finally:
        lock.release()


def folder_names(patients: Iterable[str]) -> dict[str, str]:
    """A name for a folder of each patient: its own where it is safe and no other's, whatever the case of its
    letters; otherwise with a digest of it.
    """
    patients = list(patients)
    taken = Counter(safe_name(patient).casefold() for patient in patients)
    names = {}
    for patient in patients:
        name = safe_name(patient)
        if name != patient or taken[name.casefold()] > 1:
            name += "-" + sha256(patient.encode(errors="surrogatepass")).hexdigest()[:8]
        names[patient] = name
    return names


def _settings(out: Path) -> dict[str, Any] | None:
    """The settings of the run a folder holds; None where there is none yet."""
    if not (out / RUN).is_file():
        return None
    with suppress(ValueError, TypeError, RecursionError):
        settings: dict[str, Any] = json.loads((out / RUN).read_bytes())
        if "dataset" in settings:
            return settings
    raise BrainsegError(f"{out / RUN} does not hold the settings of a cohort; choose another --out")


def _check(out: Path, before: dict[str, Any] | None, settings: dict[str, Any]) -> None:
    before = before or {}
    if other := sorted(key for key in {*before, *settings} if before.get(key) != settings.get(key)):
        differs = listed(key.replace("_", " ") for key in other)
        raise BrainsegError(
            f"--out {out} holds a run of other settings ({differs}); repeat those in its {RUN}, or choose "
            "another --out"
        )


def _sweep(out: Path) -> None:
    """Remove what a killed run had begun."""
    for path in (out / PATIENTS).glob(f"{BEGUN}*"):
        shutil.rmtree(path)
    for folder in (out, out / THUMBNAILS):
        for path in folder.glob("*.tmp"):
            path.unlink()


def _mended(path: Path) -> dict[str, Record]:
    """The records of patients that are done; the file is left with these alone, each on a whole line."""
    content = path.read_bytes() if path.exists() else b""
    records = {}
    for number, line in enumerate(content.split(b"\n"), 1):
        try:
            record = json.loads(line) if line else {"failure": ""}
            if record["failure"] is None:
                records[record["patient"]] = record
        except (ValueError, LookupError, TypeError, RecursionError):
            # The last line is one that a kill cut short.
            if number <= content.count(b"\n"):
                raise BrainsegError(
                    f"line {number} of {path} is damaged; remove it, and its patient is done again"
                ) from None
    whole = b"".join(map(_line, records.values()))
    if whole != content:
        with atomic_write(path) as file:
            file.write(whole)
    return records


def _line(row: dict[str, Any], indent: int | None = None) -> bytes:
    """JSON, and the end of a line."""
    text = json.dumps(row, indent=indent, ensure_ascii=False, allow_nan=False) + "\n"
    # A file name that is not UTF-8 holds lone surrogates; escaped like this they are JSON too.
    return text.encode(errors="backslashreplace")
