"""The page in Streamlit: patient, models, viewer, figures, downloads.

What the page shows is worked out in `brainseg.ui.state`; networks run in `brainseg.ui.job`. Here are only
widgets and what they remember. Patient data lives in one session's `st.session_state` and in its browser:
never in a cache that sessions share, never behind an address, never in a log.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, partial
from html import escape
from pathlib import Path
from typing import Any

import streamlit as st

from brainseg import checkpoint, report
from brainseg.datasets.lgg import fetch_patient
from brainseg.inference import Predictor
from brainseg.io import Case, NamedBytes, collect, expand, find_cases, read_case
from brainseg.measure import Reading, votes_sentence
from brainseg.models import ARCHITECTURES
from brainseg.types import (
    RESEARCH_USE,
    BrainsegError,
    Keep,
    Prediction,
    Spacing,
    Study,
    WeightsCard,
    WeightsError,
)
from brainseg.ui import components, state
from brainseg.ui.chart import area_chart
from brainseg.ui.job import UNEXPECTED, Job
from brainseg.ui.state import Jump, PredictionKey
from brainseg.ui.wire import attention_id, attention_pack, prediction_pack, study_pack

SAMPLE = Path(__file__).resolve().parents[2] / "samples" / "synthetic_glioma"

# The browser tab's icon: given as a material icon or an emoji, it would be fetched from a server abroad.
_ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><rect width="16" height="16" rx="3"/>'
    '<ellipse cx="8" cy="8" rx="5" ry="6" fill="#888"/><circle cx="6" cy="6" r="2" fill="#e69f00"/></svg>'
)
_POLL_S = 0.5
_PATIENTS_KEPT = 2

_log = logging.getLogger(__name__)

# Streamlit collects garbage after every run, a progress bar's included, and the libraries' quarter of a
# million objects would be walked each time while the networks wait. They live as long as the process.
gc.collect()
gc.freeze()


@dataclass
class Session:
    """What one browser tab has open."""

    cases: tuple[Case, ...] = ()
    study: Study | None = None
    synthetic: bool = False
    error: str | None = None
    origin: str = ""
    job: Job | None = None
    stopped: bool = False
    predictions: dict[PredictionKey, Prediction] = field(default_factory=dict)
    patients: list[tuple[str, str]] = field(default_factory=list)
    settings: dict[PredictionKey, tuple[float, bool]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    readings: dict[PredictionKey, tuple[tuple[float, Keep, Spacing | None], Reading]] = field(
        default_factory=dict
    )
    packs: dict[str, bytes] = field(default_factory=dict)
    jump: Jump | None = None
    file: components.File | None = None
    answered: int = 0
    notice: str | None = None


def page() -> None:
    """Draw the whole page."""
    st.set_page_config("brainseg", _ICON, layout="wide", initial_sidebar_state="expanded")
    components.style()
    st.html(f'<div class="research-use">{RESEARCH_USE}</div>')
    with _one_sentence():
        session = _session()
        cards, damaged = installed()
        _harvest(session)
        with st.sidebar:
            st.html('<h1 class="brand">brainseg</h1>')
            _choose_patient(session, cards)
            if session.study is not None:
                _choose_models(session, session.study, cards, damaged)
                _choose_thresholds(session, _shown(session, session.study, cards))
        if session.error:
            _error(session.error)
        study = _study(session)
        if study is None:
            _welcome()
            return
        _headline(study, session.synthetic)
        _workspace()
        _study_packs(session, study, cards)
        _provenance(study)


def installed() -> tuple[dict[str, WeightsCard], dict[str, str]]:
    """Cards of the bundled weights, and a sentence for each that is damaged, both by name."""
    cards: dict[str, WeightsCard] = {}
    damaged: dict[str, str] = {}
    for name in ARCHITECTURES:
        folder = checkpoint.BUNDLED / name
        if not (folder / checkpoint.CONFIG).is_file():
            continue
        try:
            cards[name] = checkpoint.read_card(folder)
        except WeightsError as error:
            damaged[name] = str(error)
    return cards, damaged


def predict(
    name: str,
    study: Study,
    *,
    tta: bool,
    progress: Callable[[int, int], None],
    cancelled: Callable[[], bool],
) -> Prediction:
    """Run bundled weights over a study."""
    card = checkpoint.read_card(checkpoint.BUNDLED / name)
    return _predictor(name, card.sha256).predict(study, tta=tta, progress=progress, cancelled=cancelled)


@cache
def _predictor(name: str, _sha256: str) -> Predictor:
    # Weights, not patients: these may be shared by every session. The digest makes new files load anew.
    return Predictor(checkpoint.load(name))


# ---- what is remembered


def _session() -> Session:
    if "brainseg" not in st.session_state:
        st.session_state["brainseg"] = Session()
    session: Session = st.session_state["brainseg"]
    return session


@contextmanager
def _one_sentence() -> Iterator[None]:
    """Whatever goes wrong inside becomes one sentence; the page around it stays usable."""
    try:
        yield
    except Exception as error:
        _error(_sentence(error))


@contextmanager
def _one_notice(session: Session) -> Iterator[None]:
    """The same in a callback, which has no place on the page: what is drawn next shows the sentence."""
    session.notice = None
    try:
        yield
    except Exception as error:
        session.notice = _sentence(error)


def _sentence(error: Exception) -> str:
    if isinstance(error, BrainsegError):
        return str(error)
    # No message and no traceback in the log: both may name a patient's files.
    _log.error("page failed: %s", type(error).__name__)
    return UNEXPECTED


def _error(sentence: str) -> None:
    st.error(components.plain(sentence), icon=":material/error:")


def _study(session: Session) -> Study | None:
    """The open study, with the spacing the user typed."""
    study = session.study
    if study is None or study.spacing_mm is not None:
        return study
    values = [st.session_state.get(f"spacing-{axis}-{study.source.sha256}") for axis in _AXES]
    if any(v is None for v in values):
        return study
    between, row, column = (float(v) for v in values if v is not None)
    return state.with_spacing(study, (between, row, column))


def _harvest(session: Session) -> None:
    job = session.job
    if job is None:
        return
    ended = job.status().ended
    for name, result in job.take():
        if isinstance(result, str):
            session.failures[name] = result
            continue
        session.predictions[state.key_of(job.study, result)] = result
    if ended:
        session.stopped = job.status().stopped
        session.job = None


# ---- opening a patient


def _choose_patient(session: Session, cards: dict[str, WeightsCard]) -> None:
    with st.expander("Open a patient", expanded=session.study is None, icon=":material/folder_open:"):
        folder, files, public = st.tabs(["Folder", "Zip or files", "Public"])
        with folder:
            st.file_uploader(
                "Patient folder",
                accept_multiple_files="directory",
                key="folder",
                on_change=_take_upload,
                args=("folder",),
                help="Slices such as case_1.tif with masks such as case_1_mask.tif, if there are any.",
            )
        with files:
            st.file_uploader(
                "Zip, or slices and masks",
                accept_multiple_files=True,
                key="files",
                on_change=_take_upload,
                args=("files",),
            )
        with public:
            st.button(
                "Fetch a public TCGA patient",
                on_click=_take_public,
                args=(cards,),
                width="stretch",
            )
            st.caption("One patient of the LGG data set, from Kaggle. Needs a network connection.")
        st.button(
            "Open the synthetic sample",
            key="sample",
            on_click=_take_sample,
            width="stretch",
            type="secondary",
        )
    if len(session.cases) > 1:
        st.selectbox(
            f"Patient ({len(session.cases)} found)",
            range(len(session.cases)),
            format_func=lambda i: session.cases[i].case_id,
            key="case",
            on_change=_take_case,
        )
    if session.study is not None and session.study.spacing_mm is None:
        _ask_spacing(session.study)


_AXES = ("between slices", "between rows", "between columns")


def _ask_spacing(study: Study) -> None:
    with st.expander("Spacing in mm (optional)", icon=":material/straighten:"):
        values = [
            st.number_input(
                axis.capitalize(),
                min_value=0.01,
                max_value=100.0,
                value=None,
                step=0.1,
                format="%.4g",
                placeholder="unknown",
                key=f"spacing-{axis}-{study.source.sha256}",
            )
            for axis in _AXES
        ]
        if any(v is None for v in values) and any(v is not None for v in values):
            st.caption("Volumes in ml need all three.")
        else:
            st.caption("The files carry no spacing. With all three, areas are in mm² and volumes in ml.")


def _take_upload(key: str) -> None:
    session = _session()
    uploads: Sequence[Any] = st.session_state[key] or []
    if not uploads:
        if session.origin == key:
            _open(session, key, lambda: ())
        return
    _open(session, key, lambda: find_cases(expand([NamedBytes(u.name, u.getvalue()) for u in uploads])))


def _take_sample() -> None:
    _open(_session(), "sample", lambda: find_cases(collect(SAMPLE)))


def _take_public(cards: dict[str, WeightsCard]) -> None:
    def fetch() -> tuple[Case, ...]:
        # One that chose thresholds but trained nothing, so that its Dice means something.
        held_out = [p for card in cards.values() for p in card.validation_patients]
        if not held_out:
            raise BrainsegError(
                "No weights are installed that name a public patient; upload a folder instead."
            )
        return find_cases(fetch_patient(held_out[0]))

    with st.spinner("Fetching from Kaggle …"):
        _open(_session(), "public", fetch)


def _take_case() -> None:
    session = _session()
    _read(session, session.cases[st.session_state["case"]])


def _open(session: Session, origin: str, cases: Callable[[], tuple[Case, ...]]) -> None:
    """Replace what is open; an input that cannot be read leaves its sentence and nothing else."""
    _close(session)
    known = {case.case_id for case in session.cases} if session.origin == origin else set()
    session.cases = ()
    session.origin = origin
    st.session_state.pop("case", None)
    try:
        with st.spinner("Reading the files …"):
            session.cases = cases()
    except Exception as error:
        session.error = _sentence(error)
    if session.cases:
        # An uploader adds to what it holds: who adds a patient wants to see that one.
        added = [i for i, case in enumerate(session.cases) if case.case_id not in known]
        st.session_state["case"] = added[0] if added else 0
        _read(session, session.cases[st.session_state["case"]])


def _read(session: Session, case: Case) -> None:
    _close(session)
    try:
        with st.spinner("Reading the slices …"):
            session.study = read_case(case)
        session.synthetic = session.origin == "sample"
        _forget_others(session, session.study)
    except Exception as error:
        session.error = _sentence(error)


def _forget_others(session: Session, study: Study) -> None:
    """Keep results of this patient and the one before; a volume's probabilities take much memory."""
    patient = (study.source.sha256, study.case_id)
    others = [p for p in session.patients if p != patient]
    session.patients = [*others, patient][-_PATIENTS_KEPT:]
    for kept in (session.predictions, session.settings):
        for key in [key for key in kept if key[:2] not in session.patients]:
            del kept[key]


def _close(session: Session) -> None:
    if session.job is not None:
        session.job.stop()
    session.study, session.job, session.error, session.jump, session.file = None, None, None, None, None
    session.notice = None
    session.synthetic = session.stopped = False
    session.failures.clear()
    session.readings.clear()
    session.packs.clear()


# ---- choosing and running models


def _choose_models(
    session: Session, study: Study, cards: dict[str, WeightsCard], damaged: dict[str, str]
) -> None:
    st.markdown("**Models**")
    for name, sentence in damaged.items():
        _error(f"{ARCHITECTURES[name].title}: {sentence}")
    if not cards:
        if not damaged:
            _error(
                "No weights are installed: run from a clone of the repository, which holds them in weights/."
            )
        return
    for name, card in cards.items():
        help_text = f"{ARCHITECTURES[card.spec.architecture].paper}. Width {card.spec.width}."
        st.checkbox(state.title_of(card.spec.architecture), value=True, key=f"use-{name}", help=help_text)
    st.toggle(
        "Average over left-right flips",
        key="tta",
        help="Each slice is also seen mirrored, and the two probabilities are averaged: twice the time.",
    )
    chosen = _chosen(cards)
    todo = [n for n in chosen if state.prediction_key(study, cards[n], _tta()) not in session.predictions]
    if session.job is not None:
        _progress()
        return
    if not chosen:
        label = "Choose a model"
    elif not todo:
        label = "All results are shown"
    else:
        label = f"Run {len(todo)} model{'s' if len(todo) > 1 else ''}"
    st.button(
        label, key="run", type="primary", width="stretch", disabled=not todo, on_click=_start, args=(todo,)
    )
    if session.stopped:
        st.caption("Stopped. What had finished is kept.")
    for name, sentence in session.failures.items():
        _error(f"{ARCHITECTURES[name].title}: {sentence}")


def _choose_thresholds(session: Session, shown: Sequence[tuple[PredictionKey, Prediction]]) -> None:
    if shown:
        st.markdown("**Thresholds**")
    for key, prediction in shown:
        session.settings[key] = _threshold(prediction, key, *_settings(session, key, prediction))


def _settings(session: Session, key: PredictionKey, prediction: Prediction) -> tuple[float, bool]:
    """Threshold and "largest region only" as last set, as stored with the weights at first."""
    return session.settings.get(key, (prediction.threshold, prediction.keep == "largest"))


def _threshold(
    prediction: Prediction, key: PredictionKey, threshold: float, largest: bool
) -> tuple[float, bool]:
    # Streamlit forgets a widget that is not drawn once; when drawn again it begins where it was left.
    names = [f"{what}-{state.identity(key)}" for what in ("threshold", "largest")]
    for name, value in zip(names, (threshold, largest), strict=True):
        if name not in st.session_state:
            st.session_state[name] = value
    threshold = st.slider(
        f"{ARCHITECTURES[prediction.architecture].title} (stored: {prediction.threshold:.2f})",
        min_value=0.01,
        max_value=0.99,
        step=0.01,
        format="%.2f",
        key=names[0],
        help="A voxel is tumour at or above it. No network runs again.",
    )
    largest = st.toggle(
        "Largest region only",
        key=names[1],
        help="Keeps the largest connected region in three dimensions. As stored with the weights at first.",
    )
    return float(threshold), largest


def _chosen(cards: dict[str, WeightsCard]) -> list[str]:
    return [name for name in cards if st.session_state.get(f"use-{name}", True)]


def _tta() -> bool:
    return bool(st.session_state.get("tta", False))


def _start(names: Sequence[str]) -> None:
    session = _session()
    if session.study is None or session.job is not None:
        return
    session.failures.clear()
    session.stopped = False
    session.job = Job(session.study, names, _tta(), predict).start()


@st.fragment(run_every=_POLL_S)
def _progress() -> None:
    with _one_sentence():
        job = _session().job
        if job is None:
            return
        status = job.status()
        if status.ended or job.ready():
            st.rerun()
        title = ARCHITECTURES[status.name].title
        if status.waiting:
            text = f"{title}: waiting for another run on this computer"
        elif not status.slices:
            text = f"{title} ({status.index + 1} of {status.models}): loading"
        else:
            text = f"{title} ({status.index + 1} of {status.models}): slice {status.done} of {status.slices}"
        st.progress(status.fraction, text)
        st.button("Stop", key="stop", on_click=job.stop, width="stretch", icon=":material/stop_circle:")


# ---- the results


def _welcome() -> None:
    st.title("Lower-grade glioma on brain MRI", anchor=False)
    st.markdown(
        "Four networks find the tumour in a patient's slices, side by side: "
        + ", ".join(a.title for a in ARCHITECTURES.values())
        + ".\n\n"
        "1. Open a patient in the panel on the left: a folder of slices (pre-contrast T1, FLAIR and "
        "post-contrast T1 as the three channels), a zip, or loose files. Reference masks are found too.\n"
        "2. Choose one to four models and run them.\n"
        "3. Scroll through the slices, compare the outlines, and download masks and figures.\n\n"
        "Files are kept in memory for this session alone and are never written to disk."
    )
    st.button("Try it with the synthetic sample", key="try", type="primary", on_click=_take_sample)
    st.caption("A computed brain with a computed lesion, not a patient.")


def _headline(study: Study, synthetic: bool) -> None:
    badge = '<span class="badge">synthetic, not a patient</span>' if synthetic else ""
    facts = " · ".join(state.describe(study))
    st.html(f'<p class="headline"><b>{escape(study.case_id)}</b> {badge} <span>{escape(facts)}</span></p>')


def _provenance(study: Study) -> None:
    used = sum(f.role != "ignored" for f in study.source.files)
    ignored = len(study.source.files) - used
    label = f"Files: {used} used" + (f", {ignored} ignored" if ignored else "")
    with st.expander(label, icon=":material/description:"):
        st.dataframe(state.file_table(study), hide_index=True, width="stretch", height=320)


@st.fragment
def _workspace() -> None:
    """Viewer and figures; what is clicked in here reruns only this."""
    with _one_sentence():
        session, (cards, _) = _session(), installed()
        study = _study(session)
        if study is None:
            return
        readings = _readings(session, study, _shown(session, study, cards))
        _viewer(session, study, readings)
        for note in study.notes:
            st.caption(f":material/info: {components.plain(note)}")
        if readings:
            _figures(study, readings)
            _downloads(session, study, readings)


def _shown(
    session: Session, study: Study, cards: dict[str, WeightsCard]
) -> list[tuple[PredictionKey, Prediction]]:
    keys = [state.prediction_key(study, cards[name], _tta()) for name in _chosen(cards)]
    return [(key, session.predictions[key]) for key in keys if key in session.predictions]


def _readings(
    session: Session, study: Study, predictions: Sequence[tuple[PredictionKey, Prediction]]
) -> list[Reading]:
    """Every prediction at its threshold; measured anew only where something changed."""
    readings: list[Reading] = []
    for key, prediction in predictions:
        threshold, largest = _settings(session, key, prediction)
        keep: Keep = "largest" if largest else "all"
        wanted = (threshold, keep, study.spacing_mm)
        kept = session.readings.get(key)
        if kept is None or kept[0] != wanted:
            kept = (wanted, state.reading_at(study, prediction, threshold, keep))
            session.readings[key] = kept
        readings.append(kept[1])
    return readings


def _viewer(session: Session, study: Study, readings: Sequence[Reading]) -> None:
    gates = {
        attention_id(state.pack_id(study, r.prediction), a.gate): a
        for r in readings
        for a in r.prediction.attention
    }
    wanted = [name for name in components.wanted_gates() if name in gates]
    components.viewer(state.view_message(study, readings, wanted, session.jump))
    with components.hidden("gates"):
        for name in wanted:
            if name not in session.packs:
                owner = next(r for r in readings if name.startswith(state.pack_id(study, r.prediction)))
                session.packs[name] = attention_pack(gates[name], state.pack_id(study, owner.prediction))
            components.pack(name, session.packs[name])


def _study_packs(session: Session, study: Study, cards: dict[str, WeightsCard]) -> None:
    """What never changes while the patient is open, sent outside the part that sliders rerun."""
    with components.hidden("packs"):
        _pack(session, study.source.sha256, partial(study_pack, study))
        for _, prediction in _shown(session, study, cards):
            name = state.pack_id(study, prediction)
            _pack(session, name, partial(prediction_pack, prediction, name))


def _pack(session: Session, name: str, build: Callable[[], bytes]) -> None:
    if name not in session.packs:
        session.packs[name] = build()
    components.pack(name, session.packs[name])


def _figures(study: Study, readings: Sequence[Reading]) -> None:
    st.markdown("#### This patient")
    head, rows = state.figure_table(readings)
    components.figure_table(head, rows, [state.line_of(r.prediction) for r in readings])
    if study.reference is None:
        st.caption("Dice and the other comparisons need a reference mask among the patient's files.")
    if any(r.prediction.seen_in_training for r in readings):
        st.caption(":material/warning: Weights were fitted on this patient: figures so marked flatter them.")
    if len(readings) > 1:
        pairs = state.agreement_lines(readings)
        st.markdown("#### Do the models agree?\nDice of each pair with each other.")
        components.pair_table([state.title_of(r.prediction.architecture) for r in readings], pairs)
        st.caption(votes_sentence([r.finding.mask for r in readings]))
    st.markdown("#### Area in each slice\nClick a point to go to its slice.")
    st.plotly_chart(
        area_chart(study, readings),
        key="areas",
        on_select=_jump,
        selection_mode="points",
        theme=None,
        config={"displayModeBar": False, "scrollZoom": False, "doubleClick": False},
    )


def _jump() -> None:
    session = _session()
    with _one_notice(session):
        points = st.session_state["areas"].selection.points
        nonce = 1 if session.jump is None else session.jump.nonce + 1
        if points:
            session.jump = Jump(int(points[0]["x"]) - 1, nonce)
        elif session.jump is not None:
            # A second click on the same point takes its selection away; it still means that slice.
            session.jump = replace(session.jump, nonce=nonce)


def _downloads(session: Session, study: Study, readings: Sequence[Reading]) -> None:
    st.markdown("#### Download")

    def build() -> None:
        session.answered += 1
        with _one_notice(session):
            session.file = _file(study, readings, components.asked())

    components.downloads(session.file, build, session.answered)
    session.file = None
    if session.notice:
        _error(session.notice)
        session.notice = None


def _file(study: Study, readings: Sequence[Reading], asked: str) -> components.File | None:
    findings = [r.finding for r in readings]
    name = report.safe_name(study.case_id)
    makers: dict[str, tuple[str, Callable[[], bytes]]] = {
        "masks-tif": (f"{name}_masks.zip", lambda: report.masks_zip(study, findings, "tif")),
        "masks-png": (f"{name}_masks_png.zip", lambda: report.masks_zip(study, findings, "png")),
        "overlays": (f"{name}_overlays.zip", lambda: report.overlays_zip(study, findings)),
        "csv": (f"{name}_figures.csv", lambda: report.to_csv(report.report(study, readings))),
        "json": (f"{name}_figures.json", lambda: report.to_json(report.report(study, readings))),
    }
    if asked not in makers:
        return None
    file_name, make = makers[asked]
    return components.File(file_name, make())
