"""The command that opens the page."""

from __future__ import annotations

from typing import Annotated

import typer

# ruff: noqa: PLC0415


def serve_page(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Where the page answers.")] = 8501,
    host: Annotated[
        str, typer.Option(help="Address to listen at; 0.0.0.0 lets other computers in.")
    ] = "localhost",
) -> None:
    """Open the page in a browser: folders in, overlays out."""
    from brainseg.ui.streamlit.launch import serve

    serve(host, port)
