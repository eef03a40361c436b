"""The page, the API and the server around them: what a Space's app.py and ``brainseg gradio`` start."""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from brainseg.ui.gradio import zero  # first: see there

# ruff: noqa: I001
import gradio as gr
import gradio.queueing
import gradio.routes
from starlette.middleware import Middleware

from brainseg.io.limits import MAX_UPLOAD
from brainseg.types import InputError
from brainseg.ui import networks
from brainseg.ui.gradio import api, page, server
from brainseg.ui.gradio.lifetime import Tabs
from brainseg.ui.gradio.memory import Files
from brainseg.ui.headers import Headers, ancestors, headers

WAITING = 64
"""Requests that may wait for their turn; the next is told that the queue is full."""

AT_ONCE = 16
"""Requests to the API that are read and wait for the networks; others wait with their files not yet read."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class _Held:
    """What the page and the routes beside it share."""

    tabs: Tabs
    files: Files


def build() -> gr.Blocks:
    """The page and the endpoint; `launch` starts both with the routes that they need."""
    return _build(_hold())


def launch(host: str | None = None, port: int | None = None) -> None:
    """Run until interrupted.

    Weights that are out of reach are named on the page; `brainseg.ui.networks.fetch` gets them before.

    Args:
        host: address to listen at; None as Gradio's environment variable says (a Space sets it), or
            this computer alone.
        port: 1..65535; None as Gradio's environment variable says, or the first free from 7860.

    Raises:
        InputError: if the port is taken.
    """
    held = _hold()
    blocks = _build(held)
    _log_types_only()
    networks.keep_out_of_collections()

    def forget(name: str) -> None:
        # Gradio keeps for each client what it last showed, figures included.
        blocks.app.state_holder.session_data.pop(name, None)
        blocks.app.state_holder.time_last_used.pop(name, None)

    held.tabs.forget = forget
    if threading.current_thread() is threading.main_thread():
        # A container is stopped by this signal, which would leave the folder behind.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        blocks.launch(
            prevent_thread_lock=True,
            server_name=host,
            server_port=port,
            share=False,
            # Behind it stands a server in front of this one.
            ssr_mode=False,
            show_error=False,
            max_file_size=MAX_UPLOAD,
            allowed_paths=[],
            # Gradio would keep every call and its answer in the browser.
            run_history=False,
            enable_monitoring=False,
            pwa=False,
            mcp_server=True,
            footer_links=["api"],
            theme=page.theme(),
            css=page.CSS,
            js=page.DARK,
            favicon_path=None,
            app_kwargs={
                "routes": server.routes(held.tabs, held.files),
                "middleware": [
                    Middleware(Headers, sent=headers(server.SCRIPTS, ancestors())),
                    Middleware(server.Presence, tabs=held.tabs),
                ],
                "lifespan": server.lifespan(held.tabs, held.files),
            },
        )
    except OSError:
        raise InputError(f"Port {port or 'from 7860'} is taken: choose another one.") from None
    api.name_each_output(blocks)
    blocks.block_thread()


def _hold() -> _Held:
    return _Held(Tabs(zero.predictor()), Files(_folder()))


def _build(held: _Held) -> gr.Blocks:
    names, _ = networks.installed()
    blocks = gr.Blocks(title="brainseg", analytics_enabled=False, fill_width=True)
    with blocks:
        page.draw(blocks, held.tabs)
        gr.Button(visible=False).click(
            api.endpoint(held.tabs, list(names)),
            inputs=[
                api.patient_files(held.files),
                gr.CheckboxGroup(list(names), value=list(names), label="Models", visible=False),
                gr.Number(None, label="Threshold", visible=False),
                gr.Checkbox(False, label="Flips", visible=False),
            ],
            outputs=[
                api.output(held.files, "Masks"),
                gr.JSON(label="Figures", visible=False),
                api.output(held.files, "Figures (CSV)"),
                api.output(held.files, "Attention"),
            ],
            api_name="predict",
            api_description=api.DESCRIPTION,
            concurrency_limit=AT_ONCE,
        )
    blocks.queue(max_size=WAITING, default_concurrency_limit=None, api_open=False)
    return blocks


def _folder() -> Path:
    """Gradio's folder for files, to which nothing is written (see `memory`).

    Should some part of Gradio write there after all, nobody else on the computer can read it, it lies in
    memory where the system has a place for that, and it goes with the server.
    """
    memory = Path("/dev/shm")
    parent = memory if memory.is_dir() and os.access(memory, os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="brainseg-", dir=parent)).resolve()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    return folder


def _log_types_only() -> None:
    """Make Gradio name an unexpected error by its type, where it would print messages and local paths.

    Raises:
        RuntimeError: if Gradio prints them in another way now, so that nobody knows what a log holds.
    """

    def say(*_args: Any, **_kwargs: Any) -> None:
        error = sys.exception()
        _log.error("request failed: %s", type(error).__name__)

    for module in (gradio.queueing, gradio.routes):
        if not hasattr(module, "traceback"):
            raise RuntimeError("Gradio logs in another way now; install the version brainseg names")
        setattr(module, "traceback", SimpleNamespace(print_exc=say))  # noqa: B010 - not theirs to declare
