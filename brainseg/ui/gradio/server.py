"""The web server around the page: routes of its own, routes of Gradio that it closes, who is connected.

Gradio's own routes for files write what is uploaded to disk and serve what is there to anybody who knows a
path; the routes here stand before them and hold everything in memory. What the page's viewer draws comes from
addresses that hold a tab's secret key, which only the answers to that tab's own events name: raw bytes, a
quarter smaller than as text inside an event's JSON, and fetched side by side while other events go on.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext, suppress
from typing import Any
from urllib.parse import quote

from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from brainseg.io import NamedBytes, expand
from brainseg.io.limits import MAX_FILES, MAX_UPLOAD
from brainseg.types import InputError
from brainseg.ui.gradio.api import too_large
from brainseg.ui.gradio.lifetime import Tab, Tabs
from brainseg.ui.gradio.memory import UPLOAD_S, Files
from brainseg.ui.headers import keep_uploads_in_memory
from brainseg.ui.modules import script
from brainseg.ui.session import MAX_UPLOADED, sentence_for

SCRIPTS = "'self' 'unsafe-inline' 'unsafe-eval'"
"""Sources of scripts: gr.HTML and gr.Plot make functions out of text, all of it from this server."""

# Parts of Gradio that keep, fetch or show what is not theirs here: a page's state on disk, addresses abroad,
# use by others, recordings, an editor.
_CLOSED = (
    "/gradio_api/deep_link",
    "/gradio_api/proxy={path:path}",
    "/gradio_api/file/{path:path}",
    "/gradio_api/stream/{path:path}",
    "/gradio_api/process_recording",
    "/gradio_api/component_server",
    "/gradio_api/component_server/",
    "/gradio_api/custom_component/{path:path}",
    "/gradio_api/vibe-edit",
    "/gradio_api/vibe-edit/",
    "/gradio_api/undo-vibe-edit",
    "/gradio_api/undo-vibe-edit/",
    "/gradio_api/vibe-code",
    "/gradio_api/vibe-code/",
    "/gradio_api/vibe-starter-queries",
    "/gradio_api/vibe-starter-queries/",
    "/monitoring",
    "/monitoring/{path:path}",
)
_METHODS = ["GET", "HEAD", "POST"]

# The connections on which a client of the API listens; the last part, or `session_hash`, is its name.
_LISTENING = re.compile(r"/gradio_api/call/(?:v2/)?[^/]+/([^/]+)$")
_QUEUE = "/gradio_api/queue/data"

# How often a tab's connection carries something, so that no proxy takes it for dead.
_BEAT_S = 2.0

_NO_STORE = {"Cache-Control": "no-store"}
_GONE = "This page's session has ended: reload the page."


def routes(tabs: Tabs, files: Files) -> list[Route]:
    """Those that stand before Gradio's."""

    def tab_of(request: Request) -> Tab:
        tab = tabs.keyed(request.path_params["key"])
        if tab is None:
            raise HTTPException(404, _GONE)
        return tab

    async def here(request: Request) -> Response:
        tab = tab_of(request)

        async def beat() -> AsyncIterator[bytes]:
            with tabs.connected(tab.name):
                while True:
                    yield b": here\n\n"
                    await asyncio.sleep(_BEAT_S)

        return StreamingResponse(beat(), media_type="text/event-stream", headers=_NO_STORE)

    async def view(request: Request) -> Response:
        session = tab_of(request).session
        return _bytes(await run_in_threadpool(session.view))

    async def pack(request: Request) -> Response:
        session, name = tab_of(request).session, request.query_params.get("id", "")

        def find() -> bytes | None:
            return session.packs().get(name) or session.attention_packs([name]).get(name)

        data = await run_in_threadpool(find)
        return Response(status_code=404) if data is None else _bytes(data)

    async def download(request: Request) -> Response:
        session = tab_of(request).session
        try:
            file = await run_in_threadpool(session.download, request.query_params.get("name", ""))
        except Exception as error:
            return PlainTextResponse(sentence_for(error), 500)
        return Response(status_code=404) if file is None else _bytes(file.data, file.name)

    async def take(request: Request) -> Response:
        session = tab_of(request).session
        try:
            body = await _body(request, MAX_UPLOADED)
            given = await run_in_threadpool(_unpack, body)
            del body
            await run_in_threadpool(session.open, lambda: expand(given))
        except Exception as error:
            return _refused(sentence_for(error), 413 if isinstance(error, InputError) else 500)
        return Response(status_code=204)

    async def upload(request: Request) -> Response:
        try:
            await _body_fits(request, MAX_UPLOAD + 2**20)
            return JSONResponse([files.put(name, data, UPLOAD_S) for name, data in await _form(request)])
        except (InputError, MultiPartException) as error:
            return _refused(str(error), 413)

    async def fetch(request: Request) -> Response:
        path = request.path_params["path"]
        held = files.get(path)
        if held is None:
            return PlainTextResponse("This file is not here, or was fetched before.", 404)

        async def free() -> None:
            files.take(path)

        # Once all of it is sent: a client whose download breaks off can ask again.
        return _bytes(held.data, held.name, BackgroundTask(free) if request.method == "GET" else None)

    async def viewer(_request: Request) -> Response:
        return Response(_JS, media_type="text/javascript", headers={"Cache-Control": "no-cache"})

    async def closed(_request: Request) -> Response:
        return Response(status_code=404)

    return [
        Route("/brainseg/viewer.js", viewer),
        Route("/brainseg/{key}/here", here),
        Route("/brainseg/{key}/view", view),
        Route("/brainseg/{key}/pack", pack),
        Route("/brainseg/{key}/download", download),
        Route("/brainseg/{key}/files", take, methods=["POST"]),
        Route("/gradio_api/upload", upload, methods=["POST"]),
        Route("/gradio_api/upload/", upload, methods=["POST"]),
        Route("/gradio_api/file={path:path}", fetch),
        *(Route(path, closed, methods=_METHODS) for path in _CLOSED),
    ]


class Presence:
    """Tells `Tabs` who is connected."""

    def __init__(self, app: ASGIApp, tabs: Tabs) -> None:
        self._app = app
        self._tabs = tabs

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        name = _listener(scope) if scope["type"] == "http" else None
        with nullcontext() if name is None else self._tabs.connected(name):
            await self._app(scope, receive, send)


def lifespan(tabs: Tabs, files: Files) -> Callable[[Any], Any]:
    """From the start of the server to its end."""

    async def expire() -> None:
        while True:
            await asyncio.sleep(1)
            files.expire()

    @asynccontextmanager
    async def alive(_app: Any) -> AsyncIterator[None]:
        keep_uploads_in_memory(MAX_UPLOAD + 2**20)
        tasks = [asyncio.create_task(one) for one in (tabs.watch(), expire())]
        yield
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task

    return alive


_JS = script("gradio.js")


def _listener(scope: Scope) -> str | None:
    if scope["method"] != "GET":
        return None
    path = scope["path"]
    if path.endswith(_QUEUE):
        return Request(scope).query_params.get("session_hash")
    match = _LISTENING.search(path)
    return match[1] if match else None


def _bytes(data: bytes, name: str | None = None, background: BackgroundTask | None = None) -> Response:
    sent = dict(_NO_STORE)
    if name is not None:
        sent["Content-Disposition"] = f"attachment; filename*=UTF-8''{quote(name)}"
    return Response(data, media_type="application/octet-stream", headers=sent, background=background)


def _refused(sentence: str, status: int) -> Response:
    # What is still on its way is not waited for.
    return PlainTextResponse(sentence, status, headers={"Connection": "close"})


async def _body(request: Request, most: int) -> bytes:
    await _body_fits(request, most)
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise InputError(_too_much(most))
        parts.append(part)
    return b"".join(parts)


async def _body_fits(request: Request, most: int) -> None:
    """Refuse by the size that is announced, and end a stream that passes it."""
    announced = request.headers.get("Content-Length", "")
    if announced.isdigit() and int(announced) > most:
        raise InputError(_too_much(most))


def _too_much(most: int) -> str:
    return f"These files are larger than {most / 2**20:,.0f} MB together: send one patient's slices alone."


def _unpack(body: bytes) -> list[NamedBytes]:
    """Files as gradio.js sends them: the length of a JSON list of names and sizes, the list, all bytes."""
    try:
        start = 4 + int.from_bytes(body[:4], "little")
        listed = json.loads(body[4:start])
        sizes = [(str(name), int(size)) for name, size in listed]
    except (ValueError, TypeError):
        raise InputError("The upload broke off: send the files again.") from None
    if len(sizes) > MAX_FILES:
        raise InputError(f"More than {MAX_FILES:,} files were given: choose one patient or one data set.")
    if start + sum(size for _, size in sizes) != len(body) or any(size < 0 for _, size in sizes):
        raise InputError("The upload broke off: send the files again.")
    files, content = [], memoryview(body)
    for name, size in sizes:
        if size > MAX_UPLOAD:
            raise InputError(too_large())
        files.append(NamedBytes(name, bytes(content[start : start + size])))
        start += size
    return files


async def _form(request: Request) -> list[tuple[str, bytes]]:
    limited = Request(request.scope, _limited(request.receive, MAX_UPLOAD + 2**20))
    found: list[tuple[str, bytes]] = []
    async with limited.form(max_files=MAX_FILES) as form:
        for _, part in form.multi_items():
            if isinstance(part, UploadFile):
                found.append((part.filename or "file", await part.read()))
                await part.close()
    return found


def _limited(receive: Receive, most: int) -> Callable[[], Awaitable[Message]]:
    size = 0

    async def counted() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > most:
            raise InputError(too_large())
        return message

    return counted
