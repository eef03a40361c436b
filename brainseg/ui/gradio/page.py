"""The page: components that draw a `brainseg.ui.session.Session` and call it. Nothing is computed here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from itertools import permutations
from typing import Any

import gradio as gr

from brainseg.io import collect
from brainseg.measure import votes_sentence
from brainseg.sample import SYNTHETIC_GLIOMA
from brainseg.types import CHANNELS, RESEARCH_USE
from brainseg.ui import markup, networks, sequences, state, words
from brainseg.ui.chart import area_chart
from brainseg.ui.gradio.api import one_sentence
from brainseg.ui.gradio.lifetime import Tab, Tabs
from brainseg.ui.modules import asset
from brainseg.ui.session import DOWNLOADS, Patient, Session, progress_text

# How often the page asks how far its runs are.
_AT_WORK_S = 0.5

DARK = "() => document.body.classList.add('dark')"
"""Run when the page opens: dark whatever the system says, as in a reading room."""

CSS = markup.STYLE + asset("gradio.css")

_ON_LOAD = """
import(new URL("brainseg/viewer.js", document.baseURI).href).then((page) => {{
  page.{function}({{ element, props, watch, trigger, events: {events} }});
}});
"""

Changes = dict[Any, Any]


def theme() -> gr.themes.Base:
    """Dark, on near-black, with the fonts of the system: nothing is fetched."""
    sans = [gr.themes.Font("system-ui"), gr.themes.Font("sans-serif")]
    mono = [gr.themes.Font("ui-monospace"), gr.themes.Font("monospace")]
    orange = gr.themes.Color(*["#e69f00"] * 11)
    made = gr.themes.Base(primary_hue=orange, neutral_hue="gray", font=sans, font_mono=mono, radius_size="sm")
    dark = {
        "body_background_fill": "#0b0d10",
        "body_text_color": "#e8ebee",
        "body_text_color_subdued": "#a9b1ba",
        "background_fill_primary": "#0b0d10",
        "background_fill_secondary": "#14171b",
        "border_color_primary": "#2a2f36",
        "block_background_fill": "#0f1215",
        "block_border_color": "#2a2f36",
        "block_label_background_fill": "#14171b",
        "block_label_text_color": "#a9b1ba",
        "block_title_text_color": "#e8ebee",
        "block_title_text_weight": "500",
        "block_info_text_color": "#a9b1ba",
        "input_background_fill": "#14171b",
        "input_border_color": "#2a2f36",
        "input_border_color_focus": "#e69f00",
        "input_placeholder_color": "#8b949e",
        "button_primary_background_fill": "#e69f00",
        "button_primary_background_fill_hover": "#f0b429",
        "button_primary_text_color": "#14171b",
        "button_border_width": "1px",
        "button_secondary_background_fill": "#14171b",
        "button_secondary_background_fill_hover": "#1c2126",
        "button_secondary_border_color": "#2a2f36",
        "button_secondary_border_color_hover": "#6b7480",
        "button_secondary_text_color": "#e8ebee",
        "checkbox_background_color": "#14171b",
        "checkbox_background_color_selected": "#e69f00",
        "checkbox_border_color": "#6b7480",
        "checkbox_label_background_fill": "#14171b",
        "checkbox_label_background_fill_hover": "#1c2126",
        "checkbox_label_background_fill_selected": "#1c2126",
        "checkbox_label_text_color": "#e8ebee",
        "checkbox_label_text_color_selected": "#e8ebee",
        "slider_color": "#e69f00",
        "link_text_color": "#56b4e9",
        "panel_background_fill": "#0f1215",
    }
    for name, value in list(vars(made).items()):
        plain = name.removesuffix("_dark")
        if plain != name:  # the same by day and by night
            setattr(made, name, dark.get(plain, value))
            setattr(made, plain, dark.get(plain, value) or getattr(made, plain))
    return made


def draw(blocks: gr.Blocks, tabs: Tabs) -> None:  # noqa: PLR0915 - the parts of one page, in reading order
    """The page and its events, inside `blocks`."""
    cards, _ = networks.installed()
    gr.HTML(f'<div class="research-use">{RESEARCH_USE}</div>')
    with gr.Row(elem_id="page"):
        with gr.Column(scale=0, min_width=340, elem_id="side"):
            gr.HTML('<h1 class="brand">brainseg</h1>')
            with gr.Accordion(words.OPEN, open=True) as opener:
                drop = _element("dropzone", asset("gradio_drop.html"), "opened")
                sample = gr.Button(words.SAMPLE, size="md")
                public = gr.Button(words.PUBLIC, size="md")
                gr.HTML(_hint(words.PUBLIC_HINT))
            patients = _element("buttons", "${value}", "show_patient", "remove_patient")
            with gr.Accordion(words.CHANNEL_ORDER, open=False, visible=False) as order_box:
                orders = [
                    (words.AS_FILES_SAY, ""),
                    *((", ".join(o), ",".join(o)) for o in permutations(CHANNELS)),
                ]
                order = gr.Dropdown(orders, value="", label=words.CHANNELS_LABEL, info=words.CHANNELS_HELP)
            with gr.Accordion(words.SEQUENCES, open=True, visible=False) as series_box:
                series = _element("sequences", "${value}", "assign")
            with gr.Accordion(words.SPACING, open=False, visible=False) as spacing_box:
                spacing = [
                    gr.Number(None, label=axis, minimum=0.01, maximum=100, step=0.1, placeholder="unknown")
                    for axis in words.AXES
                ]
                spacing_hint = gr.HTML()
            with gr.Column(visible=False) as models_box:
                choices = [(state.title_of(card.spec.architecture), name) for name, card in cards.items()]
                models = gr.CheckboxGroup(choices, value=list(cards), label="Models")
                flips = gr.Checkbox(False, label=words.FLIPS, info=words.FLIPS_HELP)
                progress = _element("buttons", "${value}", "stop_run")
                run = gr.Button(words.run_label((), ()), variant="primary", elem_id="run")
                said = gr.HTML()
            sliders: dict[str, tuple[gr.Column, gr.Slider, gr.Checkbox]] = {}
            with gr.Column(visible=False, elem_id="cuts") as cuts:
                gr.HTML('<h2 class="part">Thresholds</h2>' + _hint(words.THRESHOLD_HELP))
                for name, card in cards.items():
                    with gr.Column(visible=False) as box:
                        slider = gr.Slider(
                            0.01,
                            0.99,
                            card.threshold,
                            step=0.01,
                            label=words.threshold_label(card.spec.architecture, card.threshold),
                            buttons=[],
                        )
                        largest = gr.Checkbox(False, label=words.LARGEST)
                    sliders[name] = box, slider, largest
                gr.HTML(_hint(f"{words.LARGEST}: {words.LARGEST_HELP}"))
        with gr.Column(scale=1, min_width=320, elem_id="main"):
            troubles = gr.HTML()
            with gr.Column(elem_id="welcome") as welcome:
                steps = "".join(f"<li>{step}</li>" for step in words.STEPS)
                gr.HTML(
                    f"<h1>{words.TITLE}</h1><p>{words.INTRODUCTION}</p><ol>{steps}</ol><p>{words.IN_MEMORY}</p>"
                )
                trial = gr.Button(words.TRY_SAMPLE, variant="primary", elem_id="try")
                gr.HTML(_hint(words.SAMPLE_HINT))
            headline = gr.HTML()
            viewer = _element("viewer", asset("viewer.html"), css=asset("viewer.css"), elem_id="viewer")
            with gr.Column(visible=False) as results:
                figures = gr.HTML(apply_default_css=False)
                with gr.Column(visible=False) as charted:
                    gr.HTML(f'<h2 class="part">{words.AREAS}</h2>{_hint(words.AREAS_HINT)}')
                    chart = gr.Plot(show_label=False, container=False, elem_id="areas")
                    gr.HTML(f'<h2 class="part">{words.DOWNLOAD}</h2>')
                    downloads = _element("downloads", _offers(), css=asset("viewer.css"))
                with gr.Accordion("Files", open=False) as files_box:
                    files = gr.HTML()
    timer = gr.Timer(_AT_WORK_S, active=False)
    everything = [
        *(
            opener,
            drop,
            patients,
            order_box,
            order,
            series_box,
            series,
            spacing_box,
            *spacing,
            spacing_hint,
            models_box,
            progress,
        ),
        *(run, said, cuts, *(part for parts in sliders.values() for part in parts), troubles),
        *(welcome, headline, viewer, results, figures, charted, chart, downloads, files_box, files, timer),
    ]

    # ---- from the session to the page

    def of(request: gr.Request) -> Tab:
        return tabs.of(str(request.session_hash))

    def shown(tab: Tab) -> Changes:
        """What a threshold changes."""
        session = tab.session
        patient = session.shown
        study = None if patient is None else patient.study
        readings = session.readings
        tab.revision += 1
        told = {
            "key": tab.key,
            "revision": tab.revision,
            "packs": list(session.packs()),
            "offers": [one.name for one in session.downloads],
            "shown": bool(study),
        }
        return {
            viewer: told,
            downloads: told,
            figures: "" if study is None else _figures(session),
            chart: area_chart(study, readings) if study is not None and readings else None,
        }

    def models_of(tab: Tab) -> Changes:
        """What choosing models changes."""
        session = tab.session
        results_by_name = {prediction.model: key for key, prediction in session.results}
        patient = session.shown
        changes: Changes = {
            cuts: gr.update(visible=bool(results_by_name)),
            charted: gr.update(visible=bool(results_by_name)),
            run: gr.update(
                value=words.run_label(session.chosen, session.todo),
                interactive=bool(session.todo),
                visible=patient is not None and patient.job is None,
            ),
        }
        for name, (box, slider, largest) in sliders.items():
            key = results_by_name.get(name)
            changes[box] = gr.update(visible=key is not None)
            if patient is not None and key is not None:
                threshold, keep = patient.cut(key)
                changes[slider], changes[largest] = threshold, keep == "largest"
        return changes

    def everywhere(tab: Tab) -> Changes:
        session = tab.session
        session.update()
        patient, described = session.shown, session.described
        study = None if patient is None else patient.study
        changes = shown(tab) | models_of(tab)
        changes |= {
            opener: gr.update(open=patient is None),
            drop: {"key": tab.key},
            patients: _patients(session),
            models_box: gr.update(visible=patient is not None),
            progress: _progress(session),
            said: "" if patient is None else _said(session, patient),
            troubles: _errors(session.troubles),
            welcome: gr.update(visible=patient is None),
            results: gr.update(visible=patient is not None),
            order_box: gr.update(visible=described is not None and not described.case.series),
            series_box: gr.update(visible=False),
            series: "" if described is None else _sequences(described, patient),
            spacing_box: gr.update(visible=patient is not None and patient.spacing_is_asked),
            timer: gr.update(active=any(other.job is not None for other in session.patients)),
        }
        if described is not None and described.case.series:
            changes[series_box] = gr.update(visible=True)
            # Open where something is missing; not closed again while the user corrects it.
            if described.number != tab.described:
                tab.described = described.number
                changes[series_box] = gr.update(visible=True, open=not sequences.is_complete(described))
        if patient is None or study is None:
            return changes | {headline: ""}
        badge = words.SYNTHETIC if patient.synthetic else ""
        changes |= dict(zip(spacing, patient.spacing, strict=True))
        return changes | {
            headline: markup.headline(patient.title, study, badge),
            order: ",".join(patient.channels or ()),
            spacing_hint: _hint(words.spacing_hint(patient.spacing)),
            files_box: gr.update(label=words.files_label(study)),
            files: markup.rows_table(state.file_table(study)),
        }

    # ---- from the page to the session

    def begin(request: gr.Request) -> Changes:
        with one_sentence():
            return everywhere(of(request))

    def open_sample(request: gr.Request) -> Changes:
        with one_sentence():
            of(request).session.open(lambda: collect(SYNTHETIC_GLIOMA), synthetic=True)
            return everywhere(of(request))

    def open_public(request: gr.Request) -> Changes:
        with one_sentence():
            session = of(request).session
            session.open(lambda: words.public_patient(session.cards))
            return everywhere(of(request))

    def show_patient(request: gr.Request, event: gr.EventData) -> Changes:
        with one_sentence():
            of(request).session.show(int(event.number))
            return everywhere(of(request))

    def remove_patient(request: gr.Request, event: gr.EventData) -> Changes:
        with one_sentence():
            of(request).session.remove(int(event.number))
            return everywhere(of(request))

    def stop_run(request: gr.Request, event: gr.EventData) -> Changes:
        with one_sentence():
            of(request).session.stop(int(event.number))
            return everywhere(of(request))

    def reorder(request: gr.Request, value: str) -> Changes:
        with one_sentence():
            session = of(request).session
            if session.shown is not None:
                session.reorder(session.shown.number, value.split(",") if value else None)
            return everywhere(of(request))

    def assign(request: gr.Request, event: gr.EventData) -> Changes:
        with one_sentence():
            tab = of(request)
            patient = tab.session.described
            if patient is not None and patient.number == int(event.number):
                roles = patient.roles
                if event.series is not None:
                    role = sequences.role_of(str(event.role))
                    labels = None if event.labels is None else [int(label) for label in event.labels]
                    roles = sequences.changed(patient, str(event.series), role, labels)
                tab.session.assign(patient.number, roles, register=bool(event.register))
            changes = everywhere(tab)
            described = tab.session.described
            if described is not None:
                # Even where nothing changed, the page draws what is, in place of what was asked for.
                changes[series] = _sequences(described, tab.session.shown, tab.revision)
            return changes

    def type_spacing(
        request: gr.Request, between: float | None, row: float | None, column: float | None
    ) -> Changes:
        with one_sentence():
            session = of(request).session
            if session.shown is None:
                return {}
            session.type_spacing(session.shown.number, between, row, column)
            changes = everywhere(of(request))
            return {part: change for part, change in changes.items() if part not in spacing}

    def choose(request: gr.Request, names: list[str], average: bool) -> Changes:
        with one_sentence():
            tab = of(request)
            tab.session.choose(names, flips=average)
            return shown(tab) | models_of(tab)

    def start(request: gr.Request) -> Changes:
        with one_sentence():
            of(request).session.run()
            return everywhere(of(request))

    def tick(request: gr.Request) -> Changes:
        with one_sentence():
            tab = of(request)
            jobs = [job for patient in tab.session.patients if (job := patient.job) is not None]
            if not jobs or any(job.ready() for job in jobs):
                return everywhere(tab)
            return {progress: _progress(tab.session)}

    def cut(name: str) -> Callable[..., Changes]:
        def cut_one(request: gr.Request, threshold: float, only_largest: bool) -> Changes:
            with one_sentence():
                tab = of(request)
                for key, prediction in tab.session.results:
                    if prediction.model == name:
                        tab.session.cut(key, threshold, "largest" if only_largest else "all")
                return shown(tab)

        return cut_one

    # `queue=False`: answered at once, beside the requests that wait for a turn.
    at_once: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "queue": False}
    all_of_it: dict[str, Any] = {"outputs": everything, **at_once}
    # What is set while an answer is under way is sent after it, where a click would be dropped.
    as_set: dict[str, Any] = {**all_of_it, "trigger_mode": "always_last"}
    blocks.load(begin, **all_of_it)
    gr.on([sample.click, trial.click], open_sample, **all_of_it)
    public.click(
        open_public, **{**all_of_it, "queue": True, "show_progress": "minimal"}, show_progress_on=public
    )
    drop.opened(begin, **all_of_it)
    patients.show_patient(show_patient, **all_of_it)
    patients.remove_patient(remove_patient, **all_of_it)
    series.assign(assign, **{**all_of_it, "trigger_mode": "multiple"})
    progress.stop_run(stop_run, **all_of_it)
    order.input(reorder, order, **as_set)
    gr.on([one.input for one in spacing], type_spacing, spacing, **as_set)
    gr.on([models.input, flips.input], choose, [models, flips], **as_set)
    run.click(start, **all_of_it)
    timer.tick(tick, **all_of_it, trigger_mode="once")
    for name, (_, slider, largest) in sliders.items():
        gr.on(
            [slider.input, largest.input],
            cut(name),
            [slider, largest],
            [viewer, downloads, figures, chart],
            trigger_mode="always_last",
            **at_once,
        )


def _element(
    function: str, template: str, *events: str, css: str = "", elem_id: str | None = None
) -> gr.HTML:
    """Elements that a function of gradio.js brings to life."""
    return gr.HTML(
        "",
        html_template=template,
        css_template=css,
        js_on_load=_ON_LOAD.format(function=function, events=list(events)).replace("'", '"'),
        apply_default_css=False,
        elem_id=elem_id,
    )


def _hint(text: str) -> str:
    return f'<p class="hint">{escape(text)}</p>'


def _errors(sentences: Sequence[str]) -> str:
    return "".join(f'<p class="error" role="alert">{escape(sentence)}</p>' for sentence in sentences)


def _button(text: str, event: str, number: int, kind: str = "", **attributes: str) -> str:
    more = "".join(f' {name.replace("_", "-")}="{escape(value)}"' for name, value in attributes.items())
    return (
        f'<button type="button" class="{kind}" data-event="{event}" data-number="{number}"{more}>'
        f"{escape(text)}</button>"
    )


def _patients(session: Session) -> str:
    rows = []
    for patient in session.patients:
        here = patient is session.shown
        kind = "patient shown" if here else "patient"
        mark = {"aria_current": "true"} if here else {}
        rows.append(
            "<li>"
            + _button(patient.title, "show_patient", patient.number, kind, **mark)
            + _button(
                "Remove", "remove_patient", patient.number, "remove", aria_label=f"Remove {patient.title}"
            )
            + (f'<p class="error">{escape(patient.error)}</p>' if patient.error else "")
            + "</li>"
        )
    return f'<h2 class="part">Patients</h2><ul class="patients">{"".join(rows)}</ul>' if rows else ""


def _sequences(patient: Patient, shown: Patient | None, stamp: int = 0) -> str:
    lines = sequences.lines(patient)
    if not lines:
        return ""
    hint = words.SEQUENCES_HINT if patient is shown else words.not_shown(patient.title)
    rows = [_sequence(line) for line in lines]
    if sequences.to_register(patient):
        possible = sequences.can_register()
        marks = f"{' checked' if patient.register else ''}{'' if possible else ' disabled'}"
        rows.append(
            f'<label class="register"><input type="checkbox" name="register"{marks}> {words.REGISTER}</label>'
            + _hint(words.REGISTER_HELP if possible else words.NO_REGISTER)
        )
    return (
        f'{_hint(hint)}<fieldset class="sequences" data-number="{patient.number}" data-stamp="{stamp}">'
        f'{"".join(rows)}<p class="doing" role="status" hidden>{words.READING}</p></fieldset>'
    )


def _sequence(line: sequences.Line) -> str:
    options = "".join(
        f'<option value="{sequences.name_of(role)}"{" selected" if role == line.role else ""}>'
        f"{sequences.ROLE_TITLES[role]}</option>"
        for role in line.choices
    )
    segments = "".join(
        f'<label><input type="checkbox" value="{label}"{" checked" if label in line.labels else ""}> '
        f"{label}: {escape(name)}</label>"
        for label, name in line.segments
    )
    if segments:
        segments = f'<p class="hint">{words.SEGMENTS}</p><div class="segments">{segments}</div>'
    return (
        f'<div class="series" data-series="{escape(line.key)}"><label>{escape(line.title)}'
        f"<select>{options}</select></label>{segments}{_hint(line.why)}</div>"
    )


def _progress(session: Session) -> str:
    bars = []
    for patient in session.patients:
        if patient.job is None:
            continue
        status = patient.job.status()
        whose = "" if patient is session.shown else f"{patient.title}: "
        bars.append(
            f'<div class="run"><p>{escape(whose + progress_text(status))}</p>'
            f'<progress max="1" value="{status.fraction:.3f}"></progress>'
            + _button("Stop", "stop_run", patient.number, "stop")
            + "</div>"
        )
    return "".join(bars)


def _said(session: Session, patient: Patient) -> str:
    hints = [text for text in (patient.ended, patient.note) if text]
    wrong = [words.of_network(name, text) for name, text in (session.damaged | patient.failures).items()]
    if not session.cards and not session.damaged:
        wrong.append(words.NO_WEIGHTS)
    return "".join(map(_hint, hints)) + _errors(wrong)


def _figures(session: Session) -> str:
    patient = session.shown
    study = None if patient is None else patient.study
    if study is None:
        return ""
    parts = [_hint(note) for note in state.notes(study, session.cards.values())]
    readings = session.readings
    if not readings:
        return "".join(parts)
    head, rows = state.figure_table(readings)
    lines = [state.line_of(reading.prediction) for reading in readings]
    parts += [f'<h2 class="part">{words.FIGURES}</h2>', _scrolling(markup.figure_table(head, rows, lines))]
    if study.reference is None:
        parts.append(_hint(words.NO_REFERENCE))
    if any(reading.prediction.seen_in_training for reading in readings):
        parts.append(f'<p class="hint warning">{escape(words.SEEN)}</p>')
    if len(readings) > 1:
        titles = [state.title_of(reading.prediction.architecture) for reading in readings]
        pairs = markup.pair_table(titles, state.agreement_lines(readings))
        parts += [f'<h2 class="part">{words.AGREEMENT}</h2>', _hint(words.AGREEMENT_HINT), _scrolling(pairs)]
        parts.append(_hint(votes_sentence([reading.finding.mask for reading in readings], study.spacing_mm)))
    return "".join(parts)


def _scrolling(table: str) -> str:
    return f'<div class="scrolling">{table}</div>'


def _offers() -> str:
    offers = "".join(
        f'<button type="button" data-name="{one.name}" title="{escape(one.hint)}">'
        f"{escape(one.title)}</button>"
        for one in DOWNLOADS
    )
    return f'<div class="downloads">{offers}</div><p class="error" role="alert" hidden></p>'
