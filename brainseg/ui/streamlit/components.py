"""The page's own elements: the viewer, the packs it draws from, downloads, tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from html import escape
from typing import Any

import numpy as np
import streamlit as st

from brainseg.ui.modules import asset, script
from brainseg.ui.session import DOWNLOADS, File
from brainseg.ui.wire import Block, message

_JS = script("streamlit.js")
_CSS = asset("viewer.css")
_viewer = st.components.v2.component("brainseg_viewer", html=asset("viewer.html"), css=_CSS, js=_JS)
_pack = st.components.v2.component("brainseg_pack", js=_JS)
_downloads = st.components.v2.component(
    "brainseg_downloads", html='<div class="downloads"></div>', css=_CSS, js=_JS
)

_STYLE = """
<style>
.stMainBlockContainer { padding: 2rem 1.5rem 3rem; }
[data-testid="stSidebarUserContent"] { padding-top: 0; }
.research-use {
  position: fixed; z-index: 1000000; top: 0; left: 50%; translate: -50% 0; padding: 3px 14px;
  border-radius: 0 0 6px 6px; background: #3a2c0c; color: #ffe3a8; font-size: 13px; white-space: nowrap;
}
.brand { font-size: 1.5rem; margin: 0; padding: 0; }
.headline { margin: 0; font-size: 15px; }
.headline span { color: #a9b1ba; }
.headline .badge { margin: 0 4px; padding: 2px 8px; border-radius: 4px; background: #3a2c0c; color: #ffe3a8; }
.st-key-packs, .st-key-gates { position: absolute; width: 0; height: 0; overflow: hidden; }
table.figures { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 14px; }
table.figures th, table.figures td {
  padding: 6px 10px; border-bottom: 1px solid #2a2f36; text-align: right; vertical-align: top;
  font-weight: 400;
}
table.figures th:first-child { text-align: left; }
table.figures th, table.figures td { white-space: nowrap; }
table.figures td.sentence { white-space: normal; color: #a9b1ba; }
table.figures thead th { color: #a9b1ba; }
.swatch { display: inline-block; width: 26px; height: 3px; margin-right: 4px; vertical-align: middle; }
[data-testid="stBaseButton-primary"]:enabled { color: #14171b; font-weight: 600; }
[data-testid="stSidebarHeader"] { margin-bottom: -2.75rem; }
</style>
"""


def style() -> None:
    """What the theme cannot say."""
    st.html(_STYLE)


def hidden(key: str) -> AbstractContextManager[Any]:
    """A place on the page that takes no room."""
    return st.container(key=key, gap=None)


def viewer(view: bytes) -> None:
    """The slice viewer."""
    _viewer(key="viewer", data=view, on_wanted_change=_nothing)


def wanted_gates() -> list[str]:
    """Ids of the attention packs the viewer has asked for."""
    wanted = st.session_state.get("viewer", {}).get("wanted")
    return [str(name) for name in wanted] if isinstance(wanted, list) else []


def pack(name: str, data: bytes) -> None:
    """Arrays for the viewer. Streamlit sends equal bytes to the same browser once."""
    _pack(key=f"pack-{name}", data=data)


def downloads(file: File | None, build: Callable[[], None], answered: int) -> None:
    """Buttons, and the file that the last click asked for.

    Args:
        file: to be saved now.
        build: called by a click.
        answered: how many clicks have been; a new number frees the buttons, even without a file.
    """
    header: dict[str, Any] = {
        "kind": "downloads",
        "offers": [{"name": d.name, "title": d.title, "hint": d.hint} for d in DOWNLOADS],
        "file": None,
        "answered": answered,
    }
    blocks = {}
    if file is not None:
        header["file"] = {"name": file.name, "number": file.number, "type": "application/octet-stream"}
        blocks["file"] = Block(np.frombuffer(file.data, dtype=np.uint8), "raw")
    _downloads(key="downloads", data=message(header, blocks), on_asked_change=build)


def asked() -> str:
    """Name of the download just asked for."""
    return str(st.session_state.get("downloads", {}).get("asked") or "")


def figure_table(
    head: Sequence[str], rows: Sequence[Sequence[str]], lines: Sequence[tuple[str, Sequence[int]]]
) -> None:
    """A row for each figure and a column for each model: there are more figures than a page is wide.

    Args:
        head: names of the figures, after that of the models' column.
        rows: for each model its title and its figures.
        lines: colour and dash of each model, shown before its title.
    """
    titles = [f"{_swatch(*line)} {escape(row[0])}" for row, line in zip(rows, lines, strict=True)]
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>' + "".join(_td(row[n]) for row in rows) + "</tr>"
        for n, name in enumerate(head[1:], 1)
    )
    _table(["", *titles], body)


def pair_table(titles: Sequence[str], pairs: Sequence[tuple[str, str, str]]) -> None:
    """A triangle of figures, one for each pair of titles."""
    figures = {(a, b): text for a, b, text in pairs}
    body = "".join(
        f'<tr><th scope="row">{escape(a)}</th>'
        + "".join(f"<td>{escape(figures.get((a, b), figures.get((b, a), '')))}</td>" for b in titles)
        + "</tr>"
        for a in titles
    )
    _table(["", *map(escape, titles)], body)


def plain(text: str) -> str:
    """Text in which Markdown finds nothing to do."""
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>()#+-.!|~$:&" else c for c in text)


def _td(cell: str) -> str:
    # A number stays on its line; a sentence in its place may take several.
    sentence = ' class="sentence"' if len(cell) > 30 else ""
    return f"<td{sentence}>{escape(cell)}</td>"


def _table(head: Sequence[str], body: str) -> None:
    top = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    st.html(f'<table class="figures"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>')


def _swatch(colour: str, dash: Sequence[int]) -> str:
    # Painted as a background: Streamlit takes SVG out of HTML.
    stops, at = [], 0
    for i, length in enumerate(dash or (1,)):
        stops.append(f"{colour if i % 2 == 0 else 'transparent'} {at}px {at + length}px")
        at += length
    return (
        f'<span class="swatch" style="background:repeating-linear-gradient(90deg,{",".join(stops)})"></span>'
    )


def _nothing() -> None:
    """A state value needs a callback to be kept."""
