"""What every face says to browsers with each answer, and where it keeps uploads."""

from __future__ import annotations

import os
from collections.abc import Mapping

from starlette.datastructures import MutableHeaders
from starlette.formparsers import MultiPartParser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

FRAME_ANCESTORS = "BRAINSEG_FRAME_ANCESTORS"
"""Environment variable: origins, separated by spaces, whose pages may show the app in a frame. None by
default; a Space on the Hugging Face Hub needs ``https://huggingface.co``."""

# What both faces' pages need. Nothing from another host, whatever a file name or a component may try.
_POLICY = {
    "default-src": "'self'",
    "style-src": "'self' 'unsafe-inline'",
    "img-src": "'self' data: blob:",
    "font-src": "'self' data:",
    "connect-src": "'self' data: blob:",
    "worker-src": "'self' blob:",
    "object-src": "'none'",
    "base-uri": "'self'",
    "form-action": "'self'",
}


def ancestors() -> str:
    """The origins named in the environment."""
    return os.environ.get(FRAME_ANCESTORS, "").strip()


def headers(scripts: str, frames: str = "") -> dict[str, str]:
    """What is sent with every answer.

    Args:
        scripts: sources of scripts, as the framework's own page needs them.
        frames: origins that may show the page in a frame, separated by spaces.
    """
    policy: Mapping[str, str] = {
        **_POLICY,
        "script-src": scripts,
        "frame-ancestors": frames or "'none'",
    }
    sent = {
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    }
    if not frames:  # this older header knows no list of origins
        sent["X-Frame-Options"] = "DENY"
    return sent


class Headers:
    """Adds headers to every answer of an app."""

    def __init__(self, app: ASGIApp, sent: dict[str, str]) -> None:
        self._app = app
        self._sent = sent

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self._sent)
            await send(message)

        await self._app(scope, receive, send_with if scope["type"] == "http" else send)


def keep_uploads_in_memory(size: int) -> None:
    """Make Starlette's parser hold an upload of up to `size` bytes in memory, as the pages promise.

    By itself it writes what passes 1 MB to a temporary file, and no framework offers a setting.

    Raises:
        RuntimeError: if this Starlette has no such limit any more, so that nobody knows where uploads go.
    """
    if not hasattr(MultiPartParser, "spool_max_size"):
        raise RuntimeError("Starlette parses uploads in another way now; install the version brainseg names")
    MultiPartParser.spool_max_size = size
