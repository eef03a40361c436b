"""Is a data set fit for training? Every patient is read, every doubt is one sentence."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from brainseg.datasets.lgg import institution, patient_folders, without_mask
from brainseg.io import Case, collect, find_cases, read_case
from brainseg.io.readers import decode
from brainseg.io.text import listed, plural, shown
from brainseg.types import CHANNELS, InputError, Study

Severity = Literal["error", "warning"]
Kind = Literal["files", "masks", "numbers", "sequences", "duplicates", "size", "dtype", "tumour"]


@dataclass(frozen=True)
class Problem:
    """One doubt about one patient.

    Attributes:
        patient: name of the patient's folder.
        severity: ``"error"`` keeps the patient from training or spoils the figures; ``"warning"`` is to know.
        kind: what it is about.
        text: one sentence.
    """

    patient: str
    severity: Severity
    kind: Kind
    text: str


@dataclass(frozen=True)
class PatientAudit:
    """What one readable patient holds.

    Attributes:
        patient: name of the patient's folder.
        institution: second part of a TCGA ID, else empty.
        slices: how many.
        slices_with_tumour: as the masks say.
        height, width: of a slice, in pixels.
        dtype: of the slices, as stored.
        tumour_voxels: marked in the masks.
        missing_sequences: among pre and post those equal to FLAIR over the volume, and any blank channel.
    """

    patient: str
    institution: str
    slices: int
    slices_with_tumour: int
    height: int
    width: int
    dtype: str
    tumour_voxels: int
    missing_sequences: tuple[str, ...]


@dataclass(frozen=True)
class Audit:
    """What a data set holds and what is wrong with it; the totals count readable patients alone.

    Attributes:
        root: as given.
        folders: patient folders, readable or not.
        patients: the readable ones, in natural order of their IDs.
        problems: in the order of the patients.
    """

    root: str
    folders: int
    patients: tuple[PatientAudit, ...]
    problems: tuple[Problem, ...]

    @property
    def errors(self) -> tuple[Problem, ...]:
        """Problems that keep patients from training."""
        return tuple(problem for problem in self.problems if problem.severity == "error")

    @property
    def slices(self) -> int:
        """Slices of all patients."""
        return sum(patient.slices for patient in self.patients)

    @property
    def slices_with_tumour(self) -> int:
        """Slices of all patients in which the mask marks something."""
        return sum(patient.slices_with_tumour for patient in self.patients)

    @property
    def foreground_fraction(self) -> float:
        """Share of all pixels that the masks mark; 0 without pixels."""
        pixels = sum(patient.slices * patient.height * patient.width for patient in self.patients)
        return sum(patient.tumour_voxels for patient in self.patients) / pixels if pixels else 0.0

    @property
    def institutions(self) -> dict[str, int]:
        """Patients by institution, the largest first."""
        return dict(Counter(patient.institution for patient in self.patients).most_common())

    def to_json(self) -> dict[str, Any]:
        """The report as plain dicts, lists, strings and numbers."""
        return {
            "root": self.root,
            "folders": self.folders,
            "patients": len(self.patients),
            "slices": self.slices,
            "slices_with_tumour": self.slices_with_tumour,
            "foreground_fraction": self.foreground_fraction,
            "institutions": self.institutions,
            "missing_sequences": {
                name: [p.patient for p in self.patients if name in p.missing_sequences] for name in CHANNELS
            },
            "errors": len(self.errors),
            "warnings": len(self.problems) - len(self.errors),
            "problems": [asdict(problem) for problem in self.problems],
            "by_patient": [
                asdict(patient) | {"missing_sequences": list(patient.missing_sequences)}
                for patient in self.patients
            ],
        }


def check_dataset(root: Path) -> Audit:
    """Read every patient folder of a data set and list what is wrong; goes on after a broken patient.

    Raises:
        InputError: if `root` is not a folder or holds no patient folders.
    """
    folders = patient_folders(root, empty=True)
    patients: list[PatientAudit] = []
    problems: list[Problem] = []
    seen: dict[bytes, list[tuple[str, int]]] = defaultdict(list)
    for patient, folder in folders.items():
        try:
            cases = find_cases(collect(folder))
        except InputError as error:
            problems.append(Problem(patient, "error", "files", str(error)))
            continue
        if len(cases) > 1:
            names = listed((shown(case.case_id) for case in cases), most=4)
            text = (
                f"The folder holds files of {len(cases)} patients ({names}): give each a folder of its own."
            )
            problems.append(Problem(patient, "error", "files", text))
            continue
        try:
            study = read_case(cases[0])
        except InputError as error:
            problems += _unreadable(patient, cases[0], str(error))
            continue
        patients.append(_describe(patient, study))
        problems += _about(patient, study)
        for number, pixels in zip(study.slice_numbers, study.slices, strict=True):
            if (pixels != pixels[0, 0]).any():  # blank slices are alike without being copies
                seen[hashlib.sha256(pixels.tobytes()).digest()].append((patient, number))
    problems += _about_uniformity(patients)
    problems += _about_copies(list(seen.values()))
    order = {patient: place for place, patient in enumerate(folders)}
    problems.sort(key=lambda problem: order[problem.patient])
    return Audit(str(root), len(folders), tuple(patients), tuple(problems))


def _describe(patient: str, study: Study) -> PatientAudit:
    slices, height, width = study.shape
    marked = np.zeros(slices, np.int64) if study.reference is None else study.reference.sum(axis=(1, 2))
    return PatientAudit(
        patient=patient,
        institution=institution(patient),
        slices=slices,
        slices_with_tumour=int((marked > 0).sum()),
        height=height,
        width=width,
        dtype=str(study.slices.dtype),
        tumour_voxels=int(marked.sum()),
        missing_sequences=_missing_sequences(study),
    )


def _missing_sequences(study: Study) -> tuple[str, ...]:
    flair = study.slices[..., CHANNELS.index("flair")]
    found = []
    for name, channel in zip(CHANNELS, np.moveaxis(study.slices, -1, 0), strict=True):
        blank = (channel == channel.flat[0]).all()
        if blank or (name != "flair" and np.array_equal(channel, flair)):
            found.append(name)
    return tuple(found)


def _unreadable(patient: str, case: Case, reason: str) -> Iterator[Problem]:
    # `read_case` stops at the first fault; the other damaged files are worth naming in one go.
    found = [reason]
    for file in case.files:
        try:
            decode(file, label=Path(file.name).name)
        except InputError as error:
            found.append(str(error))
    for text in dict.fromkeys(found):
        yield Problem(patient, "error", "files", text)


def _about(patient: str, study: Study) -> Iterator[Problem]:
    if study.case_id != patient:
        text = f"The files are named after {shown(study.case_id)}, the folder after another patient."
        yield Problem(patient, "warning", "files", text)
    images = [file for file in study.source.files if file.role == "ignored" and file.note != "not an image"]
    for file in images:
        yield Problem(patient, "warning", "files", f"{shown(file.name)} was left out: {file.note}.")
    without = without_mask(study)
    if without:
        some = "no slice has" if without == len(study.slices) else f"{plural(without, 'slice')} without"
        yield Problem(patient, "error", "masks", f"Masks are missing: {some} a mask.")
    elif study.reference is not None and not study.reference.any():
        yield Problem(patient, "warning", "tumour", "The masks mark no tumour in any slice.")
    numbers = study.slice_numbers
    gaps = sorted(set(range(1, numbers[-1] + 1)) - set(numbers))
    if gaps:
        yield Problem(
            patient, "warning", "numbers", f"Slice numbers from 1 to {numbers[-1]} lack {listed(gaps)}."
        )
    for name in _missing_sequences(study):
        channel = study.slices[..., CHANNELS.index(name)]
        what = "is blank" if (channel == channel.flat[0]).all() else "equals FLAIR"
        sequence = name if name == "flair" else f"{name}-contrast"
        text = f"The {sequence} sequence {what} in every slice: it was probably missing."
        yield Problem(patient, "warning", "sequences", text)


def _about_uniformity(patients: Sequence[PatientAudit]) -> Iterator[Problem]:
    if not patients:
        return
    size = Counter((patient.height, patient.width) for patient in patients).most_common(1)[0][0]
    dtype = Counter(patient.dtype for patient in patients).most_common(1)[0][0]
    for patient in patients:
        if (patient.height, patient.width) != size:
            usual = f"{size[0]} x {size[1]}"
            text = f"Slices are {patient.height} x {patient.width} pixels, in most patients {usual}."
            yield Problem(patient.patient, "error", "size", text)
        if patient.dtype != dtype:
            text = f"Slices hold {patient.dtype} values, in most patients {dtype}."
            yield Problem(patient.patient, "warning", "dtype", text)


def _about_copies(groups: Sequence[Sequence[tuple[str, int]]]) -> Iterator[Problem]:
    inside: dict[str, set[int]] = defaultdict(set)
    across: dict[tuple[str, str], set[int]] = defaultdict(set)
    for group in groups:
        by_patient: dict[str, list[int]] = defaultdict(list)
        for patient, number in group:
            by_patient[patient].append(number)
        first = next(iter(by_patient))
        for patient, numbers in by_patient.items():
            if len(numbers) > 1:
                inside[patient].update(numbers)
            if patient != first:
                across[patient, first].update(numbers)
    for patient, numbers_inside in inside.items():
        text = (
            f"Slices {listed(sorted(numbers_inside))} hold the same pixels as another slice of the patient."
        )
        yield Problem(patient, "warning", "duplicates", text)
    for (patient, other), numbers_across in across.items():
        which = f"{plural(len(numbers_across), 'slice')} ({listed(sorted(numbers_across))})"
        text = f"The pixels of {which} are also in {other}: a split could put copies on both sides."
        yield Problem(patient, "error", "duplicates", text)
