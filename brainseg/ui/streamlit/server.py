"""The web server around the page: what it keeps, what it says to browsers, how it ends.

``streamlit run app.py`` finds an ``st.App`` in app.py; this module has the parts that one is made of.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.formparsers import MultiPartParser
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from streamlit import config

from brainseg.ui.streamlit.lifetime import watch

SCRIPT = Path(__file__).with_name("script.py")

FRAME_ANCESTORS = "BRAINSEG_FRAME_ANCESTORS"
"""Environment variable: origins, separated by spaces, whose pages may show the app in a frame. None by
default; a Space on the Hugging Face Hub needs ``https://huggingface.co``."""

# What Streamlit's own page needs: styles in the page, components as blob: modules, a JavaScript engine for
# WebAssembly. Nothing from another host, whatever a file name or a component may try.
_POLICY = {
    "default-src": "'self'",
    "script-src": "'self' 'unsafe-inline' 'wasm-unsafe-eval' blob:",
    "style-src": "'self' 'unsafe-inline'",
    "img-src": "'self' data: blob:",
    "font-src": "'self' data:",
    "connect-src": "'self' data: blob:",
    "worker-src": "'self' blob:",
    "object-src": "'none'",
    "base-uri": "'self'",
    "form-action": "'self'",
}


def keep_uploads_in_memory() -> None:
    """Make Starlette's parser hold a whole upload in memory, as the page promises.

    By itself it writes what passes 1 MB to a temporary file. Streamlit offers no setting, and ends an upload
    that is a megabyte larger than ``server.maxUploadSize``.

    Raises:
        RuntimeError: if this Starlette has no such limit any more, so that nobody knows where uploads go.
    """
    if not hasattr(MultiPartParser, "spool_max_size"):
        raise RuntimeError("Starlette parses uploads in another way now; install the version brainseg names")
    MultiPartParser.spool_max_size = (config.get_option("server.maxUploadSize") + 2) * 2**20


def headers(ancestors: str = "") -> dict[str, str]:
    """What is sent with every answer.

    Args:
        ancestors: origins that may show the page in a frame, separated by spaces.
    """
    policy = {**_POLICY, "frame-ancestors": ancestors or "'none'"}
    sent = {
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    }
    if not ancestors:  # this older header knows no list of origins
        sent["X-Frame-Options"] = "DENY"
    return sent


class _Headers:
    """Adds headers to every answer."""

    def __init__(self, app: ASGIApp, sent: dict[str, str]) -> None:
        self._app = app
        self._sent = sent

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self._sent)
            await send(message)

        await self._app(scope, receive, send_with if scope["type"] == "http" else send)


MIDDLEWARE = [Middleware(_Headers, sent=headers(os.environ.get(FRAME_ANCESTORS, "").strip()))]


@asynccontextmanager
async def lifespan(_app: Any) -> AsyncIterator[None]:
    """From the start of the server to its end."""
    keep_uploads_in_memory()
    watching = asyncio.create_task(watch())
    yield
    watching.cancel()
    with suppress(asyncio.CancelledError):
        await watching
