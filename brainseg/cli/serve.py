"""The commands that open the page, in either face."""

from __future__ import annotations

from typing import Annotated

import typer

# ruff: noqa: PLC0415


Port = Annotated[int, typer.Option(min=1, max=65535, help="Where the page answers.")]
Host = Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 lets other computers in.")]


def serve_page(port: Port = 8501, host: Host = "localhost") -> None:
    """Open the page in a browser: folders in, overlays out."""
    from brainseg.ui.streamlit.launch import serve

    serve(host, port)


def serve_gradio(port: Port = 7860, host: Host = "localhost") -> None:
    """Open the page with an API for scripts and agents beside it (Gradio)."""
    from brainseg.ui import networks
    from brainseg.ui.gradio.app import launch

    networks.fetch()
    launch(host, port)
