"""The page's own elements: the viewer, the packs it draws from, downloads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import streamlit as st

from brainseg.ui import markup
from brainseg.ui.modules import asset, script
from brainseg.ui.session import Download, File
from brainseg.ui.wire import Block, message

_JS = script("streamlit.js")
_CSS = asset("viewer.css")
_viewer = st.components.v2.component("brainseg_viewer", html=asset("viewer.html"), css=_CSS, js=_JS)
_pack = st.components.v2.component("brainseg_pack", js=_JS)
_downloads = st.components.v2.component(
    "brainseg_downloads", html='<div class="downloads"></div>', css=_CSS, js=_JS
)

_STYLE = (
    f"<style>{markup.STYLE}"
    + """
.stMainBlockContainer { padding: 2rem 1.5rem 3rem; }
[data-testid="stSidebarUserContent"] { padding-top: 0; }
.research-use {
  position: fixed; z-index: 1000000; top: 0; left: 50%; translate: -50% 0; padding: 3px 14px;
  border-radius: 0 0 6px 6px; background: #3a2c0c; color: #ffe3a8; font-size: 13px; white-space: nowrap;
}
.brand { font-size: 1.5rem; margin: 0; padding: 0; }
.st-key-packs, .st-key-gates { position: absolute; width: 0; height: 0; overflow: hidden; }
[class*="st-key-patient-"] { flex-wrap: nowrap; }
[class*="st-key-patient-"] > :first-child { min-width: 0; }
[class*="st-key-patient-"] button * { white-space: normal; text-overflow: clip; }
[class*="st-key-patient-"] > :last-child button * { white-space: nowrap; }
[data-testid="stBaseButton-primary"]:enabled { color: #14171b; font-weight: 600; }
[data-testid="stSidebarHeader"] { margin-bottom: -2.75rem; }
</style>
"""
)


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


def downloads(
    offers: Sequence[Download], file: File | None, build: Callable[[], None], answered: int
) -> None:
    """Buttons, and the file that the last click asked for.

    Args:
        offers: what there is to save.
        file: to be saved now.
        build: called by a click.
        answered: how many clicks have been; a new number frees the buttons, even without a file.
    """
    header: dict[str, Any] = {
        "kind": "downloads",
        "offers": [{"name": d.name, "title": d.title, "hint": d.hint} for d in offers],
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


def plain(text: str) -> str:
    """Text in which Markdown finds nothing to do."""
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>()#+-.!|~$:&" else c for c in text)


def _nothing() -> None:
    """A state value needs a callback to be kept."""
