"""The page: widgets that draw a `brainseg.ui.session.Session` and call it. Nothing is computed here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import permutations
from typing import Any

import streamlit as st

from brainseg.io import NamedBytes, collect, expand
from brainseg.measure import Reading, votes_sentence
from brainseg.sample import SYNTHETIC_GLIOMA
from brainseg.types import CHANNELS, RESEARCH_USE, Study
from brainseg.ui import markup, sequences, state, words
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
            shown, described = session.shown, session.described
            if described is not None:
                _about_files(described, shown)
            if shown is not None:
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
    with st.expander(words.OPEN, expanded=session.shown is None, icon=":material/folder_open:"):
        folder, files, public = st.tabs(["Folder", "Zip or files", "Public"])
        with folder:
            _uploader(words.FOLDER, "folder", "directory", words.FOLDER_HINT)
        with files:
            _uploader(words.FILES, "files", True, words.FILES_HINT)
        with public:
            st.button(words.PUBLIC, on_click=_take_public, width="stretch")
            st.caption(words.PUBLIC_HINT)
        st.button(words.SAMPLE, key="sample", on_click=_take_sample, width="stretch")


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
    with st.spinner(words.READING):
        _session().open(lambda: expand([NamedBytes(u.name, u.getvalue()) for u in uploads]))
    lifetime.drop_uploads(list(uploads))
    st.session_state["uploads"] = st.session_state.get("uploads", 0) + 1


def _take_sample() -> None:
    _session().open(lambda: collect(SYNTHETIC_GLIOMA), synthetic=True)


def _take_public() -> None:
    session = _session()
    with st.spinner(words.FETCHING):
        session.open(lambda: words.public_patient(session.cards))


def _list_patients(session: Session) -> None:
    patients = session.patients
    if not patients:
        return
    st.markdown("**Patients**")
    height = 270 if len(patients) > _ROWS_BEFORE_SCROLLING else "content"
    with st.container(height=height, gap="xsmall", border=False):  # type: ignore[arg-type]
        for patient in patients:
            with st.container(
                key=f"patient-{patient.number}", horizontal=True, gap="xsmall", vertical_alignment="center"
            ):
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


def _about_files(patient: Patient, shown: Patient | None) -> None:
    if patient.case.series:
        _sequences(patient, shown)
    else:
        _channel_order(patient)
    if shown is not None and shown.spacing_is_asked:
        _ask_spacing(shown)


def _sequences(patient: Patient, shown: Patient | None) -> None:
    # Open where something is missing; not closed again while the user corrects it.
    is_open = f"sequences-open-{patient.number}"
    if is_open not in st.session_state or patient.error:
        st.session_state[is_open] = not sequences.is_complete(patient)
    with st.expander(words.SEQUENCES, st.session_state[is_open], icon=":material/stacks:"):
        st.caption(
            components.plain(words.SEQUENCES_HINT if patient is shown else words.not_shown(patient.title))
        )
        for line in sequences.lines(patient):
            _sequence(patient, line)
        if sequences.to_register(patient):
            possible = sequences.can_register()
            key = f"register-{patient.number}"
            st.session_state[key] = patient.register
            st.toggle(
                words.REGISTER,
                key=key,
                on_change=_take_register,
                args=(patient.number,),
                disabled=not possible,
                help=words.REGISTER_HELP,
            )
            if not possible:
                st.caption(components.plain(words.NO_REGISTER))


def _sequence(patient: Patient, line: sequences.Line) -> None:
    key = f"role-{patient.number}-{line.key}"
    segments = f"segments-{patient.number}-{line.key}"
    args = (patient.number, line.key, key, segments)
    with st.container(gap="xsmall"):
        st.session_state[key] = sequences.name_of(line.role)
        st.markdown(f":small[{components.plain(line.title)}]")
        # Hidden, a label is no Markdown, and is read aloud as it stands.
        st.selectbox(
            line.title,
            [sequences.name_of(role) for role in line.choices],
            format_func=sequences.title_of,
            label_visibility="collapsed",
            key=key,
            on_change=_take_role,
            args=args,
        )
        if line.segments:
            names = dict(line.segments)
            st.session_state[segments] = list(line.labels)
            st.multiselect(
                words.SEGMENTS,
                list(names),
                format_func=lambda label: f"{label}: {names[label]}",
                key=segments,
                on_change=_take_role,
                args=args,
            )
        st.caption(components.plain(line.why))


def _take_role(number: int, series: str, role: str, segments: str) -> None:
    session = _session()
    patient = session.described
    if patient is None or patient.number != number:
        return
    state_of = st.session_state
    chosen = sequences.role_of(state_of[role])
    roles = sequences.changed(patient, series, chosen, state_of.get(segments))
    with st.spinner(words.READING):
        session.assign(number, roles, register=patient.register)


def _take_register(number: int) -> None:
    session = _session()
    patient = session.described
    if patient is None or patient.number != number:
        return
    with st.spinner(words.READING):
        session.assign(number, patient.roles, register=st.session_state[f"register-{number}"])


def _channel_order(patient: Patient) -> None:
    with st.expander(words.CHANNEL_ORDER, icon=":material/reorder:"):
        key = f"channels-{patient.number}"
        st.session_state[key] = patient.channels
        st.selectbox(
            words.CHANNELS_LABEL,
            [None, *permutations(CHANNELS)],
            format_func=lambda order: ", ".join(order) if order else words.AS_FILES_SAY,
            key=key,
            on_change=_take_channels,
            args=(patient.number,),
            help=words.CHANNELS_HELP,
        )


def _take_channels(number: int) -> None:
    _session().reorder(number, st.session_state[f"channels-{number}"])


def _ask_spacing(patient: Patient) -> None:
    keys = [f"spacing-{axis}-{patient.number}" for axis in words.AXES]
    with st.expander(words.SPACING, icon=":material/straighten:"):
        for axis, key, value in zip(words.AXES, keys, patient.spacing, strict=True):
            if key not in st.session_state:
                st.session_state[key] = value
            st.number_input(
                axis,
                min_value=0.01,
                max_value=100.0,
                step=0.1,
                format="%.4g",
                placeholder="unknown",
                key=key,
                on_change=_take_spacing,
                args=(patient.number, keys),
            )
        st.caption(words.spacing_hint(patient.spacing))


def _take_spacing(number: int, keys: Sequence[str]) -> None:
    between, row, column = (st.session_state[key] for key in keys)
    _session().type_spacing(number, between, row, column)


# ---- choosing and running models


def _choose_models(session: Session, patient: Patient) -> None:
    st.markdown("**Models**")
    for name, sentence in session.damaged.items():
        _error(words.of_network(name, sentence))
    if not session.cards:
        if not session.damaged:
            _error(words.NO_WEIGHTS)
        return
    chosen = []
    for name, card in session.cards.items():
        title = state.title_of(card.spec.architecture)
        if st.checkbox(title, value=True, key=f"use-{name}", help=words.about(card)):
            chosen.append(name)
    flips = st.toggle(words.FLIPS, key="tta", help=words.FLIPS_HELP)
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
        _error(words.of_network(name, sentence))


def _run_button(session: Session, chosen: Sequence[str]) -> None:
    todo = session.todo
    label = words.run_label(chosen, todo)
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
            words.threshold_label(prediction.architecture, prediction.threshold),
            min_value=0.01,
            max_value=0.99,
            step=0.01,
            format="%.2f",
            key=names[0],
            help=words.THRESHOLD_HELP,
        )
        largest = st.toggle(words.LARGEST, key=names[1], help=words.LARGEST_HELP)
        session.cut(key, float(threshold), "largest" if largest else "all")


# ---- the results


def _welcome() -> None:
    st.title(words.TITLE, anchor=False)
    steps = "\n".join(f"{n}. {step}" for n, step in enumerate(words.STEPS, 1))
    st.markdown(f"{words.INTRODUCTION}\n\n{steps}\n\n{words.IN_MEMORY}")
    st.button(words.TRY_SAMPLE, key="try", type="primary", on_click=_take_sample)
    st.caption(words.SAMPLE_HINT)


def _headline(patient: Patient, study: Study) -> None:
    badge = words.SYNTHETIC if patient.synthetic else ""
    st.html(markup.headline(patient.title, study, badge))


def _provenance(study: Study) -> None:
    with st.expander(words.files_label(study), icon=":material/description:"):
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
        for note in state.notes(study, session.cards.values()):
            st.caption(f":material/info: {components.plain(note)}")
        readings = session.readings
        if readings:
            _figures(study, readings)
            _downloads(session)


def _figures(study: Study, readings: Sequence[Reading]) -> None:
    st.markdown(f"#### {words.FIGURES}")
    head, rows = state.figure_table(readings)
    st.html(markup.figure_table(head, rows, [state.line_of(r.prediction) for r in readings]))
    if study.reference is None:
        st.caption(words.NO_REFERENCE)
    if any(r.prediction.seen_in_training for r in readings):
        st.caption(f":material/warning: {words.SEEN}")
    if len(readings) > 1:
        pairs = state.agreement_lines(readings)
        st.markdown(f"#### {words.AGREEMENT}\n{words.AGREEMENT_HINT}")
        st.html(markup.pair_table([state.title_of(r.prediction.architecture) for r in readings], pairs))
        st.caption(votes_sentence([r.finding.mask for r in readings], study.spacing_mm))
    st.markdown(f"#### {words.AREAS}\n{words.AREAS_HINT}")
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
    st.markdown(f"#### {words.DOWNLOAD}")

    def build() -> None:
        st.session_state["answered"] = st.session_state.get("answered", 0) + 1
        with _one_notice():
            st.session_state["file"] = session.download(components.asked())

    file: File | None = st.session_state.pop("file", None)
    components.downloads(session.downloads, file, build, st.session_state.get("answered", 0))
    notice = st.session_state.pop("notice", None)
    if notice:
        _error(notice)
