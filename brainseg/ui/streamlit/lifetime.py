"""Sessions live as long as their browser tabs.

Streamlit keeps a tab's uploads and state for two minutes after it was closed, and longer if nobody comes.
Here runs end as soon as the tab has gone, and `GRACE_S` later, if it has not come back, all is freed.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial

from streamlit import runtime
from streamlit.runtime import Runtime
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager
from streamlit.runtime.scriptrunner import get_script_run_ctx
from streamlit.runtime.uploaded_file_manager import UploadedFile

from brainseg.ui import networks
from brainseg.ui.session import Session

GRACE_S = 10.0
"""A tab that lost its connection finds its patients again within this time. Streamlit's
``server.disconnectedSessionTTL`` must be longer."""

_LOOK_S = 0.5

# What Streamlit's own AppTest calls its tab.
_TEST_TAB = "test session id"

_sessions: dict[str, Session] = {}


def begin() -> Session:
    """The session of the tab for which the script runs now."""
    name = _tab()
    if name is None:
        return Session(networks.predict, networks.installed)
    session = Session(networks.predict, networks.installed, partial(_alive, name))
    _sessions[name] = session
    return session


def drop_uploads(files: list[UploadedFile]) -> None:
    """Free files that a session has taken over."""
    name = _tab()
    if name is None:
        return
    for file in files:
        _uploads(runtime.get_instance()).remove_file(name, file.file_id)


async def watch() -> None:
    """Free the sessions whose tabs have gone; runs on the server's event loop until it is cancelled."""
    server = runtime.get_instance()
    gone: dict[str, float] = {}
    while True:
        await asyncio.sleep(_LOOK_S)
        now = time.monotonic()
        known = _known(server)
        gone = {name: gone.get(name, now) for name in known if not server.is_active_session(name)}
        for name in [name for name, since in gone.items() if now - since >= GRACE_S]:
            server.close_session(name)
            # An upload under way when the tab was closed may have ended after Streamlit forgot the tab.
            _uploads(server).remove_session_files(name)
            session = _sessions.pop(name, None)
            if session is not None:
                # Its lock may be held by a thread that measures.
                await asyncio.to_thread(session.close)


def _tab() -> str | None:
    """Streamlit's name of the tab for which the script runs; None in a test without a server."""
    context = get_script_run_ctx()
    return None if context is None or context.session_id == _TEST_TAB else context.session_id


def _known(server: Runtime) -> set[str]:
    """Every tab of which anything is held."""
    return {*_sessions, *_uploads(server).file_storage}


def _uploads(server: Runtime) -> MemoryUploadedFileManager:
    manager = server.uploaded_file_mgr
    if not isinstance(manager, MemoryUploadedFileManager):
        raise RuntimeError("Streamlit keeps uploads elsewhere now; install the version brainseg names")
    return manager


def _alive(name: str) -> bool:
    return runtime.exists() and runtime.get_instance().is_active_session(name)
