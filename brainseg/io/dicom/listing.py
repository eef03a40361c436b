"""DICOM files -> the studies among them, by headers alone."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace

from brainseg.io.cases import OWN_RESULT, Case
from brainseg.io.dicom.headers import kind_of, read_header, text
from brainseg.io.dicom.series import DIRECTORY, SEGMENTATIONS, Instance, Row, rows, short
from brainseg.io.files import NamedBytes, tidy
from brainseg.io.readers.reader import UnreadableError
from brainseg.types import SourceFile


def cases(files: Sequence[NamedBytes]) -> tuple[list[Case], list[SourceFile]]:
    """Group DICOM files into studies, and tell which sequence each series is.

    A study is a case, named ``study-`` and six letters of the digest of its identifier, which tell nothing of
    the patient; `Case.title` is for the user who brought it. A study without any image of an MRI is no case.

    Returns:
        Cases by title, and files of no case, each with the reason.
    """
    instances: list[Instance] = []
    ignored: list[SourceFile] = []
    for index, file in enumerate(files):
        try:
            header = read_header(file)
        except UnreadableError as error:
            ignored.append(SourceFile(tidy(file.name), "ignored", f"it {str(error).rstrip('.')}"))
            continue
        if kind_of(header) == DIRECTORY:
            note = "the index of a disc (DICOMDIR); the files that it lists were read themselves"
            ignored.append(SourceFile(tidy(file.name), "ignored", note))
        else:
            instances.append(Instance(index, header))
    out = []
    for study in _studies(instances):
        case, found = _case(files, study)
        if any(row.stack for row in found):
            out.append((study, case))
        else:
            ignored += [
                SourceFile(tidy(case.files[index].name), "ignored", _alone(row))
                for row in found
                for index in row.info.files
            ]
    return _titled(out), ignored


def _alone(row: Row) -> str:
    if row.info.why == OWN_RESULT:
        return OWN_RESULT
    is_mask = row.info.role == "mask" or row.info.segments
    return "a segmentation, whose images were not given" if is_mask else row.info.why


def _studies(instances: Sequence[Instance]) -> list[list[Instance]]:
    """Instances by patient and study; segmentations stored as a study of their own beside their images."""
    by_study: dict[tuple[str, str], list[Instance]] = defaultdict(list)
    for one in instances:
        by_study[(text(one.header, "PatientID"), text(one.header, "StudyInstanceUID"))].append(one)
    homes: dict[str, tuple[str, str]] = {}
    for key, members in by_study.items():
        for one in members:
            if kind_of(one.header) not in SEGMENTATIONS:
                homes.setdefault(text(one.header, "FrameOfReferenceUID"), key)
    homes.pop("", None)
    for key, members in list(by_study.items()):
        if all(kind_of(one.header) in SEGMENTATIONS for one in members):
            del by_study[key]
            for one in members:
                by_study[homes.get(text(one.header, "FrameOfReferenceUID"), key)].append(one)
    return [sorted(members, key=lambda one: one.file) for members in by_study.values()]


def _case(files: Sequence[NamedBytes], study: Sequence[Instance]) -> tuple[Case, list[Row]]:
    """A study's case, whose files are those of the study, without its title."""
    found = rows([Instance(at, one.header) for at, one in enumerate(study)])
    own = tuple(files[one.file] for one in study)
    header = study[0].header
    # Digests of a patient's number could be undone by trying all numbers; a study's is too long for that.
    name = text(header, "StudyInstanceUID") or text(header, "SOPInstanceUID")
    digest = hashlib.sha256(name.encode()).hexdigest()
    return Case(f"study-{digest[:6]}", own, kind="dicom", series=tuple(row.info for row in found)), found


def _titled(found: list[tuple[list[Instance], Case]]) -> list[Case]:
    """The cases in order of time, with titles that tell them apart without a date or a name."""
    patients = list(dict.fromkeys(text(study[0].header, "PatientID") for study, _ in found))

    def when(one: tuple[list[Instance], Case]) -> tuple[int, str, str]:
        header = one[0][0].header
        return patients.index(text(header, "PatientID")), text(header, "StudyDate"), text(header, "StudyTime")

    of_patient = Counter(text(study[0].header, "PatientID") for study, _ in found)
    taken: Counter[str] = Counter()
    ids: Counter[str] = Counter()
    out = []
    for study, case in sorted(found, key=when):
        header = study[0].header
        patient = text(header, "PatientID")
        taken[patient] += 1
        ids[case.case_id] += 1
        parts = []
        if len(patients) > 1:
            parts.append(f"patient {patients.index(patient) + 1}")
        if of_patient[patient] > 1:
            parts.append(f"study {taken[patient]} of {of_patient[patient]} in time")
        description = short(text(header, "StudyDescription")) or "MR study"
        title = f"{description} ({', '.join(parts)})" if parts else description
        again = f"-{ids[case.case_id]}" if ids[case.case_id] > 1 else ""
        out.append(replace(case, case_id=case.case_id + again, title=title))
    return out
