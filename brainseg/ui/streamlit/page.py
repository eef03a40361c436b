"""The page: widgets that draw a `brainseg.ui.session.Session` and call it. Nothing is computed here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape
from itertools import permutations
from typing import Any

import streamlit as st

from brainseg.datasets.lgg import fetch_patient
from brainseg.io import NamedBytes, collect, expand
from brainseg.measure import Reading, votes_sentence
from brainseg.models import ARCHITECTURES
from brainseg.sample import SYNTHETIC_GLIOMA
from brainseg.types import CHANNELS, RESEARCH_USE, BrainsegError, Study
from brainseg.ui import state
from brainseg.ui.chart import area_chart
from brainseg.ui.networks import keep_out_of_collections
from brainseg.ui.session import File, Patient, Session, progress_text, sentence_for
from brainseg.ui.streamlit import components, lifetime

# The browser tab's icon: given as a material icon or an emoji, it would be fetched from a server abroad.
_ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><rect width="16" height="16" rx="3"/>'
    '<ellipse cx="8" cy="8" rx="5" ry="6" fill="#888"/><circle cx="6" cy="6" r="2" fill="#e69f00"/></svg>'
)
# How often the page asks how far its runs are: at work, and while they wait for others.
_AT_WORK_S, _WAITING_S = 0.5, 2.0
_AXES = ("between slices", "between rows", "between columns")
_ROWS_BEFORE_SCROLLING = 6

keep_out_of_collections()


def page() -> None:
    """Draw the whole page."""
    st.set_page_config("brainseg", _ICON, layout="wide", initial_sidebar_state="expanded")
    components.style()
    st.html(f'<div class="research-use">{RESEARCH_USE}</div>')
    with _one_sentence():
        session = _session()
        session.update()
        with st.sidebar:
            st.html('<h1 class="brand">brainseg</h1>')
            _open_patients(session)
            _list_patients(session)
            shown = session.shown
            if shown is not None:
                _about_files(shown)
                _choose_models(session, shown)
                _choose_thresholds(session, shown)
        for sentence in session.troubles:
            _error(sentence)
        study = None if shown is None else shown.study
        if shown is None or study is None:
            _welcome()
            return
        _headline(shown, study)
        _workspace()
        with components.hidden("packs"):
            # What a slider does not change, sent outside the part that sliders rerun.
            for name, data in session.packs().items():
                components.pack(name, data)
        _provenance(study)


def _session() -> Session:
    if "brainseg" not in st.session_state:
        st.session_state["brainseg"] = lifetime.begin()
    session: Session = st.session_state["brainseg"]
    return session


@contextmanager
def _one_sentence() -> Iterator[None]:
    """Whatever goes wrong inside becomes one sentence; the page around it stays usable."""
    try:
        yield
    except Exception as error:
        _error(sentence_for(error))


@contextmanager
def _one_notice() -> Iterator[None]:
    """The same in a callback, which has no place on the page: what is drawn next shows the sentence."""
    st.session_state.pop("notice", None)
    try:
        yield
    except Exception as error:
        st.session_state["notice"] = sentence_for(error)


def _error(sentence: str) -> None:
    st.error(components.plain(sentence), icon=":material/error:")


# ---- patients


def _open_patients(session: Session) -> None:
    with st.expander("Open a patient", expanded=session.shown is None, icon=":material/folder_open:"):
        folder, files, public = st.tabs(["Folder", "Zip or files", "Public"])
        with folder:
            _uploader(
                "Patient folder",
                "folder",
                "directory",
                "Slices such as case_1.tif with masks such as case_1_mask.tif, if there are any.",
            )
        with files:
            _uploader("Zip, or slices and masks", "files", True, "Slices and their masks together, or a zip.")
        with public:
            st.button("Fetch a public TCGA patient", on_click=_take_public, width="stretch")
            st.caption("One patient of the LGG data set, from Kaggle. Needs a network connection.")
        st.button("Open the synthetic sample", key="sample", on_click=_take_sample, width="stretch")


def _uploader(label: str, name: str, multiple: Any, hint: str) -> None:
    # A new key after each upload: the widget gives up files that the session now holds.
    key = f"{name}-{st.session_state.get('uploads', 0)}"
    st.file_uploader(
        label, accept_multiple_files=multiple, key=key, on_change=_take_upload, args=(key,), help=hint
    )


def _take_upload(key: str) -> None:
    uploads: Sequence[Any] = st.session_state[key] or []
    if not uploads:
        return
    with st.spinner("Reading the files …"):
        _session().open(lambda: expand([NamedBytes(u.name, u.getvalue()) for u in uploads]))
    lifetime.drop_uploads(list(uploads))
    st.session_state["uploads"] = st.session_state.get("uploads", 0) + 1


def _take_sample() -> None:
    _session().open(lambda: collect(SYNTHETIC_GLIOMA), synthetic=True)


def _take_public() -> None:
    session = _session()

    def fetch() -> list[NamedBytes]:
        # One that chose thresholds but trained nothing, so that its Dice means something.
        held_out = [p for card in session.cards.values() for p in card.validation_patients]
        if not held_out:
            raise BrainsegError(
                "No weights are installed that name a public patient; upload a folder instead."
            )
        return fetch_patient(held_out[0])

    with st.spinner("Fetching from Kaggle …"):
        session.open(fetch)


def _list_patients(session: Session) -> None:
    patients = session.patients
    if not patients:
        return
    st.markdown("**Patients**")
    height = 270 if len(patients) > _ROWS_BEFORE_SCROLLING else "content"
    with st.container(height=height, gap="xsmall", border=False):  # type: ignore[arg-type]
        for patient in patients:
            with st.container(horizontal=True, gap="xsmall", vertical_alignment="center"):
                st.button(
                    components.plain(patient.title),
                    key=f"show-{patient.number}",
                    icon=_mark(patient, patient is session.shown),
                    type="secondary" if patient is session.shown else "tertiary",
                    on_click=session.show,
                    args=(patient.number,),
                    width="stretch",
                )
                st.button(
                    "Remove",
                    key=f"remove-{patient.number}",
                    type="tertiary",
                    on_click=session.remove,
                    args=(patient.number,),
                )
            if patient.error:
                st.caption(components.plain(patient.error))


def _mark(patient: Patient, shown: bool) -> str | None:
    if patient.job is not None:
        return ":material/progress_activity:"
    if patient.error:
        return ":material/error:"
    return ":material/visibility:" if shown else None


def _about_files(patient: Patient) -> None:
    with st.expander("Channel order", icon=":material/reorder:"):
        key = f"channels-{patient.number}"
        st.session_state[key] = patient.channels
        st.selectbox(
            "Sequences in the files, in this order",
            [None, *permutations(CHANNELS)],
            format_func=lambda order: ", ".join(order) if order else "As the files say",
            key=key,
            on_change=_take_channels,
            args=(patient.number,),
            help="The networks expect pre-contrast T1, FLAIR and post-contrast T1 as the three channels. "
            "Another order in the files makes their results worthless without any sign of it.",
        )
    if patient.spacing_is_asked:
        _ask_spacing(patient)


def _take_channels(number: int) -> None:
    _session().reorder(number, st.session_state[f"channels-{number}"])


def _ask_spacing(patient: Patient) -> None:
    keys = [f"spacing-{axis}-{patient.number}" for axis in _AXES]
    with st.expander("Spacing in mm (optional)", icon=":material/straighten:"):
        for axis, key, value in zip(_AXES, keys, patient.spacing, strict=True):
            if key not in st.session_state:
                st.session_state[key] = value
            st.number_input(
                axis.capitalize(),
                min_value=0.01,
                max_value=100.0,
                step=0.1,
                format="%.4g",
                placeholder="unknown",
                key=key,
                on_change=_take_spacing,
                args=(patient.number, keys),
            )
        if None in patient.spacing and any(value is not None for value in patient.spacing):
            st.caption("Volumes in ml need all three.")
        else:
            st.caption("The files carry no spacing. With all three, areas are in mm² and volumes in ml.")


def _take_spacing(number: int, keys: Sequence[str]) -> None:
    between, row, column = (st.session_state[key] for key in keys)
    _session().type_spacing(number, between, row, column)


# ---- choosing and running models


def _choose_models(session: Session, patient: Patient) -> None:
    st.markdown("**Models**")
    for name, sentence in session.damaged.items():
        _error(f"{ARCHITECTURES[name].title}: {sentence}")
    if not session.cards:
        if not session.damaged:
            _error(
                "No weights are installed: run from a clone of the repository, which holds them in weights/."
            )
        return
    chosen = []
    for name, card in session.cards.items():
        help_text = f"{ARCHITECTURES[card.spec.architecture].paper}. Width {card.spec.width}."
        if st.checkbox(state.title_of(card.spec.architecture), value=True, key=f"use-{name}", help=help_text):
            chosen.append(name)
    flips = st.toggle(
        "Average over left-right flips",
        key="tta",
        help="Each slice is also seen mirrored, and the two probabilities are averaged: twice the time.",
    )
    session.choose(chosen, flips=flips)
    running = [other.job.status() for other in session.patients if other.job is not None]
    if running:
        waiting = all(status.before for status in running)
        st.fragment(_progress, run_every=_WAITING_S if waiting else _AT_WORK_S)(waiting)
    if patient.job is None:
        _run_button(session, chosen)
    if patient.ended:
        st.caption(patient.ended)
    if patient.note:
        st.caption(f":material/info: {patient.note}")
    for name, sentence in patient.failures.items():
        _error(f"{ARCHITECTURES[name].title}: {sentence}")


def _run_button(session: Session, chosen: Sequence[str]) -> None:
    todo = session.todo
    if not chosen:
        label = "Choose a model"
    elif not todo:
        label = "All results are shown"
    else:
        label = f"Run {len(todo)} model{'s' if len(todo) > 1 else ''}"
    st.button(label, key="run", type="primary", width="stretch", disabled=not todo, on_click=session.run)


def _progress(waited: bool) -> None:
    with _one_sentence():
        session = _session()
        jobs = [(patient, job) for patient in session.patients if (job := patient.job) is not None]
        if not jobs or any(job.ready() for _, job in jobs):
            st.rerun()
        running = [(patient, job.status()) for patient, job in jobs]
        if waited != all(status.before for _, status in running):
            st.rerun()  # asks at another pace
        for patient, status in running:
            whose = "" if patient is session.shown else f"{patient.title}: "
            st.progress(status.fraction, components.plain(whose + progress_text(status)))
            st.button(
                "Stop",
                key=f"stop-{patient.number}",
                on_click=session.stop,
                args=(patient.number,),
                width="stretch",
                icon=":material/stop_circle:",
            )


def _choose_thresholds(session: Session, patient: Patient) -> None:
    results = session.results
    if results:
        st.markdown("**Thresholds**")
    for key, prediction in results:
        threshold, keep = patient.cut(key)
        # Streamlit forgets a widget that is not drawn once; when drawn again it begins where it was left.
        names = [f"{what}-{patient.number}-{state.identity(key)}" for what in ("threshold", "largest")]
        for name, value in zip(names, (threshold, keep == "largest"), strict=True):
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
            help="Keeps the largest connected region in three dimensions. At first as the weights say.",
        )
        session.cut(key, float(threshold), "largest" if largest else "all")


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
        "Files are kept in memory for this session alone and are never written to disk. They are freed "
        "when you remove the patient or close this page."
    )
    st.button("Try it with the synthetic sample", key="try", type="primary", on_click=_take_sample)
    st.caption("A computed brain with a computed lesion, not a patient.")


def _headline(patient: Patient, study: Study) -> None:
    badge = '<span class="badge">synthetic, not a patient</span>' if patient.synthetic else ""
    facts = " · ".join(state.describe(study))
    st.html(f'<p class="headline"><b>{escape(patient.title)}</b> {badge} <span>{escape(facts)}</span></p>')


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
        session = _session()
        shown = session.shown
        study = None if shown is None else shown.study
        if shown is None or study is None:
            return
        attention = session.attention_packs(components.wanted_gates())
        components.viewer(session.view(list(attention)))
        with components.hidden("gates"):
            for name, data in attention.items():
                components.pack(name, data)
        for note in study.notes:
            st.caption(f":material/info: {components.plain(note)}")
        readings = session.readings
        if readings:
            _figures(study, readings)
            _downloads(session)


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
        st.caption(votes_sentence([r.finding.mask for r in readings], study.spacing_mm))
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
    with _one_notice():
        points = st.session_state["areas"].selection.points
        # A second click on the same point takes its selection away; it still means that slice.
        _session().jump(int(points[0]["x"]) - 1 if points else None)


def _downloads(session: Session) -> None:
    st.markdown("#### Download")

    def build() -> None:
        st.session_state["answered"] = st.session_state.get("answered", 0) + 1
        with _one_notice():
            st.session_state["file"] = session.download(components.asked())

    file: File | None = st.session_state.pop("file", None)
    components.downloads(file, build, st.session_state.get("answered", 0))
    notice = st.session_state.pop("notice", None)
    if notice:
        _error(notice)
