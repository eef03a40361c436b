"""The web server around the page: what it keeps, what it says to browsers, how it ends.

``streamlit run app.py`` finds an ``st.App`` in app.py; this module has the parts that one is made of.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from starlette.middleware import Middleware
from streamlit import config

from brainseg.ui.headers import Headers, ancestors, headers, keep_uploads_in_memory
from brainseg.ui.streamlit.lifetime import watch

SCRIPT = Path(__file__).with_name("script.py")

# What Streamlit's own page needs: components as blob: modules, a JavaScript engine for WebAssembly.
_SCRIPTS = "'self' 'unsafe-inline' 'wasm-unsafe-eval' blob:"

MIDDLEWARE = [Middleware(Headers, sent=headers(_SCRIPTS, ancestors()))]


@asynccontextmanager
async def lifespan(_app: Any) -> AsyncIterator[None]:
    """From the start of the server to its end."""
    # Streamlit ends an upload that is a megabyte larger than its setting.
    keep_uploads_in_memory((config.get_option("server.maxUploadSize") + 2) * 2**20)
    watching = asyncio.create_task(watch())
    yield
    watching.cancel()
    with suppress(asyncio.CancelledError):
        await watching
