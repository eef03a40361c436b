"""What one user has open: patients, results, settings, runs, downloads. No framework; a face draws it.

A face calls the methods, from any of its threads, and draws what the properties give. Nothing in here leaves
the process, and nothing is shared between sessions except the networks' weights.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count

from brainseg import report
from brainseg.io import Case, NamedBytes, find_cases, read_case
from brainseg.io.series import Role
from brainseg.measure import Reading
from brainseg.models import ARCHITECTURES
from brainseg.report.formats import FOLDERS, MaskFormat, why_not
from brainseg.types import BrainsegError, InputError, Keep, Prediction, Spacing, Study, WeightsCard
from brainseg.ui import state
from brainseg.ui.job import UNEXPECTED, Job, Predict, Status
from brainseg.ui.state import Jump, PredictionKey
from brainseg.ui.wire import attention_id, attention_pack, prediction_pack, study_pack

MAX_UPLOADED = 3 * 2**29
"""Bytes of files one session holds."""

MAX_KEPT = 2**30
"""Bytes of volumes and results that one session keeps beside those of the patient shown."""

Cut = tuple[float, Keep]

_log = logging.getLogger(__name__)
_file_numbers = count(1)


@dataclass(frozen=True)
class Download:
    """A file that can be asked for; one of a mask format only where the study allows that."""

    name: str
    title: str
    hint: str
    mask_format: MaskFormat | None = None


DOWNLOADS: tuple[Download, ...] = (
    Download("dicom-seg", "Masks (DICOM-SEG)", "A zip of segmentations of the FLAIR series", "dicom-seg"),
    Download("nifti", "Masks (NIfTI)", "A zip of masks and probabilities on FLAIR's own grid", "nifti"),
    Download("masks-tif", "Masks (TIFF)", "A zip of mask slices, 0 and 255", "tiff"),
    Download("masks-png", "Masks (PNG)", "A zip of mask slices, 0 and 255", "png"),
    Download("overlays", "Overlays (PNG)", "A zip of every slice, models side by side"),
    Download("csv", "Figures (CSV)", "A row for the patient and one for each slice"),
    Download("json", "Report (JSON)", "All figures, with weights, threshold and time"),
)


@dataclass(frozen=True, eq=False)
class File:
    """A file for the browser to save; each has its own number, so that it is saved once."""

    name: str
    data: bytes
    number: int = field(default_factory=lambda: next(_file_numbers))


@dataclass(eq=False)
class Patient:
    """One patient of a session, with all that belongs to it; a face reads it and `Session` changes it.

    Attributes:
        number: unique in the session and never used again.
        title: for the page alone, as the files may say more than an export shall hold: the case's title, else
            its name; told apart where two patients have the same.
        case: the files.
        synthetic: made by brainseg, not a patient.
        channels: the order in which the files hold the sequences, as stated; None as the files say or, if
            they say nothing, as `CHANNELS`.
        roles: of series that the user corrected; see `brainseg.io.series.corrected`.
        register: pre and post are moved onto FLAIR.
        error: why the files cannot be read, in a sentence.
        note: what was dropped, in a sentence.
        spacing: as typed: between slices, rows, columns in mm; None where nothing is.
        results: predictions, by what they depend on.
        cuts: threshold and components as last set, for the predictions where they were set.
        failures: why a network gave nothing, by name of the weights.
        job: the run in progress.
        ended: how the last run ended, if it was stopped.
        jump: the slice the viewer was last asked to go to.
    """

    number: int
    title: str
    case: Case
    synthetic: bool = False
    channels: tuple[str, ...] | None = None
    roles: Mapping[str, Role | None] = field(default_factory=dict)
    register: bool = False
    error: str | None = None
    note: str | None = None
    spacing: tuple[float | None, float | None, float | None] = (None, None, None)
    results: dict[PredictionKey, Prediction] = field(default_factory=dict)
    cuts: dict[PredictionKey, Cut] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    job: Job | None = None
    ended: str | None = None
    jump: Jump | None = None
    _read: Study | None = field(default=None, repr=False)
    _readings: dict[PredictionKey, tuple[tuple[Cut, Spacing | None], Reading]] = field(
        default_factory=dict, repr=False
    )
    _packs: dict[str, bytes] = field(default_factory=dict, repr=False)

    @property
    def study(self) -> Study | None:
        """The volume, with the spacing the user typed if the files carry none; None until it is shown."""
        study, typed = self._read, self.spacing
        if study is None or study.spacing_mm is not None:
            return study
        between, row, column = typed
        if between is None or row is None or column is None:
            return study
        return state.with_spacing(study, (between, row, column))

    @property
    def spacing_is_asked(self) -> bool:
        """Whether the files carry no spacing, so that the user may type it."""
        return self._read is not None and self._read.spacing_mm is None

    def cut(self, key: PredictionKey) -> Cut:
        """Threshold and components as last set, as stored with the weights at first."""
        prediction = self.results[key]
        return self.cuts.get(key, (prediction.threshold, prediction.keep))


def _always() -> bool:
    return True


class Session:
    """What one user has open.

    Several patients may be open and one is shown. Opening another, or failing to, leaves the others as they
    are; results, thresholds, runs and failures belong to their patient. Volumes and results of patients not
    shown are kept up to `MAX_KEPT` bytes; beyond that, those not seen for longest are dropped: a volume is
    read again when needed, and of results a note says that they are gone.

    Args:
        predict: runs a network.
        installed: cards of the weights there are, and sentences about damaged ones, both by name.
        alive: whether the user is still there; runs end when it answers False. Called from any thread.
    """

    def __init__(
        self,
        predict: Predict,
        installed: Callable[[], tuple[dict[str, WeightsCard], dict[str, str]]],
        alive: Callable[[], bool] = _always,
    ) -> None:
        self._predict = predict
        self._installed = installed
        self._alive = alive
        self._lock = threading.RLock()
        self._numbers = count(1)
        self._patients: list[Patient] = []
        self._shown: Patient | None = None
        self._refused: Patient | None = None
        self._seen: list[Patient] = []
        self._closed = False
        self._troubles: tuple[str, ...] = ()
        self._chosen: tuple[str, ...] | None = None
        self._flips = False
        self.cards: dict[str, WeightsCard] = {}
        self.damaged: dict[str, str] = {}
        self.update()

    # ---- patients

    @property
    def patients(self) -> tuple[Patient, ...]:
        """All that are open, in the order they were opened."""
        with self._lock:
            return tuple(self._patients)

    @property
    def shown(self) -> Patient | None:
        """The one on screen; it has a `Patient.study`."""
        with self._lock:
            return self._shown

    @property
    def described(self) -> Patient | None:
        """Whose files the page describes and lets the user correct.

        The patient shown, unless the last one asked for cannot be read as its series were recognised.
        """
        with self._lock:
            return self._refused or self._shown

    @property
    def troubles(self) -> tuple[str, ...]:
        """What the last opening or showing could not do, in sentences.

        While no patient is open also why weights are missing, which is else said beside the models' names.
        """
        with self._lock:
            return (*self._troubles, *(self.damaged.values() if self._shown is None else ()))

    def open(self, load: Callable[[], Sequence[NamedBytes]], *, synthetic: bool = False) -> None:
        """Add the patients found in some files and show the first that can be read.

        What cannot be read leaves its sentence in `troubles`, and the patient on screen stays. A patient that
        is open already is shown and not added again.

        Args:
            load: gives the files.
            synthetic: they were made by brainseg.
        """
        self._say()
        with self._sentences() as failed:
            cases = find_cases(load())
        if failed:
            return
        with self._lock:
            with self._sentences() as failed:
                found = [self._add(case, synthetic) for case in cases]
            if failed:
                return
        for patient in found:
            if self._show(patient):
                return

    def show(self, number: int) -> None:
        """Put a patient on screen; one that cannot be read leaves its sentence, and the one shown stays."""
        self._say()
        with self._lock:
            patient = self._get(number)
        if patient is not None:
            self._show(patient)

    def remove(self, number: int) -> None:
        """Close a patient and free all of it; no other one comes on screen in its place."""
        self._say()
        with self._lock:
            patient = self._get(number)
            if patient is None:
                return
            self._patients.remove(patient)
            self._seen = [other for other in self._seen if other is not patient]
            if self._shown is patient:
                self._shown = None
            if self._refused is patient:
                self._refused = None
            _free(patient)

    def reorder(self, number: int, channels: Sequence[str] | None) -> None:
        """Read a patient again, its files holding the sequences in this order.

        Results belong to the order they were computed with, and come back with it.

        Args:
            number: the patient's.
            channels: `CHANNELS` in any order, or None as the files say.
        """
        self._say()
        with self._lock:
            patient = self._get(number)
        if patient is None:
            return
        with self._sentences() as failed:
            order = None if channels is None else tuple(channels)
            study = read_case(patient.case, channels=order)
        if failed:
            return
        with self._lock:
            patient.channels = order
            self._replace(patient, study)

    def assign(self, number: int, roles: Mapping[str, Role | None], *, register: bool = False) -> None:
        """Read a patient again, its series taken as stated.

        Results belong to the roles they were computed with, and come back with them. What cannot be read so
        leaves its sentence, and the volume shown and its roles as they were; only of a patient that could not
        be read before the roles are kept, as more than one may have to be corrected.

        Args:
            number: the patient's.
            roles: as in `brainseg.io.series.corrected`.
            register: move pre and post onto FLAIR.
        """
        self._say()
        with self._lock:
            patient = self._get(number)
            if patient is None:
                return
            unread = patient._read is None
            if unread:
                patient.roles, patient.register = dict(roles), register
        if unread:
            self._show(patient)
            return
        with self._sentences() as failed:
            study = read_case(patient.case, channels=patient.channels, roles=roles, register=register)
        if failed:
            return
        with self._lock:
            patient.roles, patient.register = dict(roles), register
            self._replace(patient, study)

    def type_spacing(
        self, number: int, between: float | None, row: float | None, column: float | None
    ) -> None:
        """What the user knows of a patient's spacing, in mm; used once all three are given."""
        with self._lock:
            patient = self._get(number)
            if patient is not None:
                patient.spacing = (between, row, column)

    # ---- models and thresholds

    @property
    def chosen(self) -> tuple[str, ...]:
        """Names of the weights whose results are shown; all at first."""
        with self._lock:
            return tuple(name for name in self.cards if self._chosen is None or name in self._chosen)

    @property
    def flips(self) -> bool:
        """Whether results are means over left-right flips."""
        with self._lock:
            return self._flips

    def choose(self, names: Iterable[str], *, flips: bool) -> None:
        """Which weights to run and show."""
        with self._lock:
            self._chosen, self._flips = tuple(names), flips

    def cut(self, key: PredictionKey, threshold: float, keep: Keep) -> None:
        """Set the threshold of a prediction of the patient shown, and which components count."""
        with self._lock:
            if self._shown is not None and key in self._shown.results:
                self._shown.cuts[key] = (threshold, keep)

    @property
    def results(self) -> list[tuple[PredictionKey, Prediction]]:
        """Predictions of the chosen weights for the patient shown, as far as they are there."""
        with self._lock:
            patient = self._shown
            if patient is None:
                return []
            keys = [self._key(patient, name) for name in self.chosen]
            return [(key, patient.results[key]) for key in keys if key in patient.results]

    @property
    def todo(self) -> tuple[str, ...]:
        """Chosen weights that have no result yet for the patient shown."""
        with self._lock:
            patient = self._shown
            if patient is None:
                return ()
            return tuple(name for name in self.chosen if self._key(patient, name) not in patient.results)

    @property
    def readings(self) -> list[Reading]:
        """Every result shown, cut and measured; measured anew only where something changed."""
        with self._lock:
            patient = self._shown
            study = None if patient is None else patient.study
            if patient is None or study is None:
                return []
            readings = []
            for key, prediction in self.results:
                wanted = (patient.cut(key), study.spacing_mm)
                kept = patient._readings.get(key)
                if kept is None or kept[0] != wanted:
                    kept = wanted, state.reading_at(study, prediction, *wanted[0])
                    patient._readings[key] = kept
                readings.append(kept[1])
            return readings

    # ---- runs

    def run(self) -> None:
        """Start the chosen networks that have no result yet on the patient shown."""
        with self._lock:
            patient, names = self._shown, self.todo
            if patient is None or patient._read is None or patient.job is not None or not names:
                return
            patient.failures.clear()
            patient.ended = patient.note = None
            patient.job = Job(patient._read, names, self._flips, self._predict, self._alive).start()

    def stop(self, number: int) -> None:
        """End the run of a patient; what has finished is kept."""
        with self._lock:
            patient = self._get(number)
            if patient is not None and patient.job is not None:
                patient.job.stop()

    def update(self) -> None:
        """Take what the runs have finished, and look again which weights there are."""
        with self._lock:
            self.cards, self.damaged = self._installed()
            for patient in self._patients:
                job = patient.job
                if job is None:
                    continue
                status = job.status()  # before the results: what comes in between is taken next time
                for name, result in job.take():
                    if isinstance(result, str):
                        patient.failures[name] = result
                    else:
                        patient.results[state.key_of(job.study, result)] = result
                if status.ended:
                    patient.job = None
                    patient.ended = "Stopped. What had finished is kept." if status.stopped else None
            self._trim()

    def close(self) -> None:
        """Stop all runs and free all memory; for good."""
        with self._lock:
            self._closed = True
            for patient in self._patients:
                _free(patient)
            self._patients, self._seen, self._shown, self._refused = [], [], None, None

    # ---- what a face draws

    def view(self, wanted: Sequence[str] = ()) -> bytes:
        """The viewer's message for the patient shown.

        Args:
            wanted: ids of attention packs the viewer asked for; see `attention_packs`.
        """
        with self._lock:
            patient = self._shown
            study = None if patient is None else patient.study
            if patient is None or study is None:
                raise ValueError("no patient is shown")
            return state.view_message(study, self.readings, wanted, patient.jump)

    def packs(self) -> dict[str, bytes]:
        """Volumes the browser needs for the patient shown, by id; the same bytes each time."""
        with self._lock:
            patient = self._shown
            study = None if patient is None else patient._read
            if patient is None or study is None:
                return {}
            makers: dict[str, Callable[[], bytes]] = {study.source.sha256: lambda: study_pack(study)}
            for _, prediction in self.results:
                name = state.pack_id(study, prediction)
                makers[name] = lambda p=prediction, n=name: prediction_pack(p, n)  # type: ignore[misc]
            return {name: self._pack(patient, name, make) for name, make in makers.items()}

    def attention_packs(self, wanted: Sequence[str]) -> dict[str, bytes]:
        """Those of the wanted attention packs that belong to results shown, by id."""
        with self._lock:
            patient = self._shown
            study = None if patient is None else patient._read
            if patient is None or study is None:
                return {}
            makers: dict[str, Callable[[], bytes]] = {}
            for _, prediction in self.results:
                owner = state.pack_id(study, prediction)
                for gate in prediction.attention:
                    name = attention_id(owner, gate.gate)
                    makers[name] = lambda g=gate, o=owner: attention_pack(g, o)  # type: ignore[misc]
            return {name: self._pack(patient, name, makers[name]) for name in wanted if name in makers}

    def jump(self, index: int | None) -> None:
        """Send the viewer to a slice, counted from 0; None sends it once more to where it was sent last."""
        with self._lock:
            patient = self._shown
            if patient is None:
                return
            before = patient.jump
            nonce = 1 if before is None else before.nonce + 1
            if index is not None:
                patient.jump = Jump(index, nonce)
            elif before is not None:
                patient.jump = replace(before, nonce=nonce)

    @property
    def downloads(self) -> tuple[Download, ...]:
        """Those of `DOWNLOADS` that the files of the patient shown allow."""
        with self._lock:
            study = None if self._shown is None else self._shown.study
        if study is None:
            return ()
        return tuple(
            one for one in DOWNLOADS if one.mask_format is None or not why_not(study, one.mask_format)
        )

    def download(self, name: str) -> File | None:
        """The file of that name in `downloads`, of the results shown; None if there is nothing to save."""
        with self._lock:
            patient, readings = self._shown, self.readings
            study = None if patient is None else patient.study
        if study is None or not readings:
            return None
        findings = [reading.finding for reading in readings]
        case = report.safe_name(study.case_id)
        one = next((one for one in self.downloads if one.name == name), None)
        if one is None:
            return None
        if one.mask_format is not None:
            ending = f"{FOLDERS[one.mask_format]}.zip"
            return File(f"{case}_{ending}", report.masks_in(study, findings, one.mask_format))
        makers: dict[str, tuple[str, Callable[[], bytes]]] = {
            "overlays": ("overlays.zip", lambda: report.overlays_zip(study, findings)),
            "csv": ("figures.csv", lambda: report.to_csv(report.report(study, readings))),
            "json": ("figures.json", lambda: report.to_json(report.report(study, readings))),
        }
        ending, make = makers[name]
        return File(f"{case}_{ending}", make())

    # ---- inside

    def _say(self, *sentences: str) -> None:
        with self._lock:
            self._troubles = sentences

    def _sentences(self) -> _Sentences:
        return _Sentences(self)

    def _trouble(self, sentence: str) -> None:
        with self._lock:
            self._troubles = (*self._troubles, sentence)

    def _get(self, number: int) -> Patient | None:
        return next((patient for patient in self._patients if patient.number == number), None)

    def _add(self, case: Case, synthetic: bool) -> Patient:
        for patient in self._patients:
            if patient.case == case:
                return patient
        held = sum(_size(patient.case) for patient in self._patients)
        if held + _size(case) > MAX_UPLOADED:
            raise InputError(
                f"{case.case_id} would bring the files of this session to more than "
                f"{MAX_UPLOADED / 2**30:g} GB: remove patients first."
            )
        titles = {patient.title for patient in self._patients}
        own = case.title or case.case_id
        names = (own, *(f"{own} ({n})" for n in range(2, len(titles) + 3)))
        title = next(name for name in names if name not in titles)
        patient = Patient(next(self._numbers), title, case, synthetic)
        if not self._closed:
            self._patients.append(patient)
        return patient

    def _show(self, patient: Patient) -> bool:
        study = patient._read
        if study is None:
            with self._sentences() as failed:
                study = read_case(
                    patient.case, channels=patient.channels, roles=patient.roles, register=patient.register
                )
            patient.error = failed[0] if failed else None
        with self._lock:
            if patient not in self._patients:
                return False
            if study is None:
                if patient.case.series:
                    self._refused = patient
                return False
            self._refused = None
            before = self._shown
            if before is not None and before is not patient:
                before._packs.clear()
            patient._read = study
            self._shown = patient
            self._seen = [*(other for other in self._seen if other is not patient), patient]
            self._trim()
            return True

    def _replace(self, patient: Patient, study: Study) -> None:
        """The same files, read in another way."""
        if patient.job is not None:
            patient.job.stop()
        patient._read, patient.error = study, None
        patient.failures.clear()
        patient._readings.clear()
        patient._packs.clear()
        self._trim()

    def _key(self, patient: Patient, name: str) -> PredictionKey:
        if patient._read is None:
            raise ValueError("the patient is not read")
        return state.prediction_key(patient._read, self.cards[name], self._flips)

    def _pack(self, patient: Patient, name: str, make: Callable[[], bytes]) -> bytes:
        if name not in patient._packs:
            patient._packs[name] = make()
        return patient._packs[name]

    def _trim(self) -> None:
        """Drop volumes, then results, of the patients not seen for longest, never of the one shown."""
        away = [patient for patient in self._seen if patient is not self._shown]
        held = sum(_kept(patient) for patient in away)
        for drop in (_drop_volume, _drop_results):
            for patient in away:
                if held <= MAX_KEPT:
                    return
                held -= drop(patient)


class _Sentences:
    """Whatever goes wrong inside becomes one sentence of the session; it is also in the list given."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._failed: list[str] = []

    def __enter__(self) -> list[str]:
        return self._failed

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> bool:
        if not isinstance(error, Exception):
            return False
        self._failed.append(sentence_for(error))
        self._session._trouble(self._failed[0])
        return True


def sentence_for(error: Exception) -> str:
    """What to tell the user; of an unexpected error only the type is logged."""
    if isinstance(error, BrainsegError):
        return str(error)
    # No message and no traceback in the log: both may name a patient's files.
    _log.error("page failed: %s", type(error).__name__)
    return UNEXPECTED


def progress_text(status: Status) -> str:
    """How far a run is, in words."""
    title = ARCHITECTURES[status.name].title
    which = f"{title} ({status.index + 1} of {status.models})"
    if status.before:
        others = "another run" if status.before == 1 else f"{status.before} other runs"
        return f"{which}: waiting for {others} on this computer"
    return f"{which}: slice {status.done} of {status.slices}" if status.slices else f"{which}: loading"


def _size(case: Case) -> int:
    return sum(len(file.data) for file in case.files)


def _kept(patient: Patient) -> int:
    """Bytes of volume and results."""
    study = patient._read
    volume = 0 if study is None else study.slices.nbytes
    return volume + sum(_result_bytes(prediction) for prediction in patient.results.values())


def _result_bytes(prediction: Prediction) -> int:
    return prediction.probability.nbytes + sum(a.coefficients.nbytes for a in prediction.attention)


def _drop_volume(patient: Patient) -> int:
    study = patient._read
    if study is None or patient.job is not None:
        return 0
    patient._read = None
    patient._readings.clear()
    return study.slices.nbytes


def _drop_results(patient: Patient) -> int:
    freed = sum(_result_bytes(prediction) for prediction in patient.results.values())
    if freed:
        patient.results.clear()
        patient._readings.clear()
        patient.note = "Results of this patient were dropped to free memory for others; run the models again."
    return freed


def _free(patient: Patient) -> None:
    if patient.job is not None:
        patient.job.stop()
    patient.job, patient._read, patient.case = None, None, Case(patient.case.case_id, ())
    for kept in (patient.results, patient.cuts, patient.failures, patient._readings, patient._packs):
        kept.clear()
