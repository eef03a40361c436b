"""Uploads and outputs of the API, held in memory under addresses that nobody can guess.

Gradio passes files by their path in its own folder on disk, and serves any of them to whoever names the path.
Here a path names bytes in memory instead: its folder is 256 random bits, and the bytes are freed once they
are read, or after a while. Nothing is written.
"""

from __future__ import annotations

import secrets
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from brainseg.types import InputError

UPLOAD_S = 600.0
"""An upload is there this long for the request that names it, which may have to wait for others."""

OUTPUT_S = 300.0
"""An output is there this long to be fetched, and is freed as soon as it has been."""

MAX_HELD = 3 * 2**29
"""Bytes of uploads and outputs that are waiting, of all clients together."""


@dataclass(frozen=True, eq=False)
class Held:
    """One file."""

    name: str
    data: bytes = field(repr=False)
    until: float


class Files:
    """Files of all clients, by path.

    Args:
        folder: where Gradio would write; a path must lie in it, or Gradio refuses it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._files: dict[str, Held] = {}

    def put(self, name: str, data: bytes, seconds: float) -> str:
        """Hold a file; its path.

        Raises:
            InputError: if too much is held already.
        """
        held = Held(name, data, time.monotonic() + seconds)
        # Its last part names the file that a client saves, so it must be a plain name.
        last = PurePosixPath(name.replace("\\", "/")).name or "file"
        path = str(self._folder / secrets.token_urlsafe(32) / last)
        with self._lock:
            if sum(len(file.data) for file in self._files.values()) + len(data) > MAX_HELD:
                raise InputError("The server holds as many files as it can: try again in a minute.")
            self._files[path] = held
        return path

    def get(self, path: str) -> Held | None:
        """The file of that path, if it is still there."""
        with self._lock:
            return self._files.get(path)

    def take(self, path: str) -> Held | None:
        """The same, and free it."""
        with self._lock:
            return self._files.pop(path, None)

    def expire(self) -> None:
        """Free what nobody came for."""
        now = time.monotonic()
        with self._lock:
            self._files = {path: file for path, file in self._files.items() if file.until > now}

    def __len__(self) -> int:
        return len(self._files)
