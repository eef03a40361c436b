"""The page's own elements: the viewer, the packs it draws from, downloads, tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from html import escape
from itertools import count
from typing import Any

import numpy as np
import streamlit as st

from brainseg.ui.modules import asset, script
from brainseg.ui.wire import Block, message

_JS = script("streamlit.js")
_CSS = asset("viewer.css")
_viewer = st.components.v2.component("brainseg_viewer", html=asset("viewer.html"), css=_CSS, js=_JS)
_pack = st.components.v2.component("brainseg_pack", js=_JS)
_downloads = st.components.v2.component(
    "brainseg_downloads", html='<div class="downloads"></div>', css=_CSS, js=_JS
)

_numbers = count(1)

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
table.figures { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 14px; }
table.figures th, table.figures td {
  padding: 6px 10px; border-bottom: 1px solid #2a2f36; text-align: right; vertical-align: top;
  font-weight: 400;
}
table.figures th:first-child { text-align: left; white-space: nowrap; }
table.figures td { white-space: nowrap; }
table.figures td.sentence { white-space: normal; color: #a9b1ba; }
table.figures thead th { color: #a9b1ba; }
table.figures.pairs { width: auto; }
.swatch { display: inline-block; width: 26px; height: 3px; margin-right: 4px; vertical-align: middle; }
[data-testid="stBaseButton-primary"]:enabled { color: #14171b; font-weight: 600; }
[data-testid="stSidebarHeader"] { margin-bottom: -2.75rem; }
</style>
"""


@dataclass(frozen=True)
class File:
    """A file for the browser to save; each has its own number, so that it is saved once."""

    name: str
    data: bytes
    number: int = field(default_factory=lambda: next(_numbers))


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
        "offers": [
            {"name": "masks-tif", "title": "Masks (TIFF)", "hint": "A zip of mask slices, 0 and 255"},
            {"name": "masks-png", "title": "Masks (PNG)", "hint": "A zip of mask slices, 0 and 255"},
            {
                "name": "overlays",
                "title": "Overlays (PNG)",
                "hint": "A zip of every slice, models side by side",
            },
            {"name": "csv", "title": "Figures (CSV)", "hint": "A row for the patient and one for each slice"},
            {
                "name": "json",
                "title": "Report (JSON)",
                "hint": "All figures, with weights, threshold and time",
            },
        ],
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
    """Figures with a line sample before each row's title."""
    body = "".join(
        f'<tr><th scope="row">{_swatch(*line)} {escape(row[0])}</th>'
        + "".join(_td(cell) for cell in row[1:])
        + "</tr>"
        for row, line in zip(rows, lines, strict=True)
    )
    _table("", head, body)


def pair_table(titles: Sequence[str], pairs: Sequence[tuple[str, str, str]]) -> None:
    """A triangle of figures, one for each pair of titles."""
    figures = {(a, b): text for a, b, text in pairs}
    body = "".join(
        f'<tr><th scope="row">{escape(a)}</th>'
        + "".join(f"<td>{escape(figures.get((a, b), figures.get((b, a), '')))}</td>" for b in titles)
        + "</tr>"
        for a in titles
    )
    _table(" pairs", ["", *titles], body)


def plain(text: str) -> str:
    """Text in which Markdown finds nothing to do."""
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>()#+-.!|~$:&" else c for c in text)


def _td(cell: str) -> str:
    # A number stays on its line; a sentence in its place may take several.
    sentence = ' class="sentence"' if len(cell) > 30 else ""
    return f"<td{sentence}>{escape(cell)}</td>"


def _table(kind: str, head: Sequence[str], body: str) -> None:
    top = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    st.html(f'<table class="figures{kind}"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>')


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
