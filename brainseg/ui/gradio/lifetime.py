"""Sessions live as long as their browser tabs.

Gradio names each tab, and each client of the API, by a random text of its own (`session_hash`). A tab holds a
connection open as long as it lives, and opens it again when it breaks, which Gradio's own heartbeat does not.
Runs end when it has been gone for `RUNS_S`; all is freed when it has been for `GRACE_S`.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from brainseg.ui import networks
from brainseg.ui.job import Predict
from brainseg.ui.session import Session

RUNS_S = 2.0
"""A tab whose connection is interrupted shorter than this keeps its runs."""

GRACE_S = 10.0
"""A tab that lost its connection finds its patients again within this time."""

UNSEEN_S = 60.0
"""Who asks for something may take this long to open the connection on which the answer comes."""

_LOOK_S = 0.5


@dataclass(eq=False)
class Tab:
    """A browser tab.

    Attributes:
        name: Gradio's for it.
        session: what its user has open.
        key: part of the addresses at which its data are, known to nobody else.
        revision: counts what the viewer has been told.
        described: number of the patient whose series were drawn last.
    """

    name: str
    session: Session
    key: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)
    revision: int = 0
    described: int = 0


class Tabs:
    """All tabs, and who is there.

    Args:
        predict: runs a network.
        forget: told the name of a tab or client that has gone for good.
    """

    def __init__(self, predict: Predict) -> None:
        self._predict = predict
        self._lock = threading.Lock()
        self._tabs: dict[str, Tab] = {}
        self._open: dict[str, int] = {}
        self._gone: dict[str, float] = {}
        self.forget: Callable[[str], None] = lambda name: None

    def of(self, name: str) -> Tab:
        """The tab of that name; begun if there is none."""
        with self._lock:
            self._know(name)
            if name not in self._tabs:
                self._tabs[name] = Tab(name, self.session(name))
            return self._tabs[name]

    def keyed(self, key: str) -> Tab | None:
        """The tab whose data lie at that address."""
        with self._lock:
            # Compared in constant time: how long a wrong key takes says nothing about the right one.
            match = [
                tab for tab in self._tabs.values() if secrets.compare_digest(tab.key.encode(), key.encode())
            ]
        return match[0] if match else None

    def session(self, name: str) -> Session:
        """A session whose runs end when that tab or client goes."""
        return Session(self._predict, networks.installed, partial(self.here, name))

    def here(self, name: str) -> bool:
        """Whether anyone still waits under that name."""
        with self._lock:
            since = self._gone.get(name)
            return name in self._open or (since is not None and time.monotonic() - since < RUNS_S)

    @contextmanager
    def connected(self, name: str) -> Iterator[None]:
        """The tab or client is there inside."""
        with self._lock:
            self._open[name] = self._open.get(name, 0) + 1
            self._gone.pop(name, None)
        try:
            yield
        finally:
            with self._lock:
                self._open[name] -= 1
                if not self._open[name]:
                    del self._open[name]
                    self._gone[name] = time.monotonic()

    def expect(self, name: str) -> None:
        """Whoever has that name has asked for something and is about to listen for it."""
        with self._lock:
            self._know(name)

    def sweep(self) -> None:
        """Free what belongs to those who have gone."""
        now = time.monotonic()
        with self._lock:
            names = [name for name, since in self._gone.items() if now - since >= GRACE_S]
            for name in names:
                del self._gone[name]
            closing = [self._tabs.pop(name) for name in names if name in self._tabs]
        for tab in closing:
            tab.session.close()
        for name in names:
            self.forget(name)

    async def watch(self) -> None:
        """Look for who has gone; runs on the server's event loop until it is cancelled."""
        while True:
            await asyncio.sleep(_LOOK_S)
            # A session's lock may be held by a thread that measures.
            await asyncio.to_thread(self.sweep)

    def __len__(self) -> int:
        return len(self._tabs)

    def _know(self, name: str) -> None:
        # Never seen: as if it went in the future.
        if name not in self._open and name not in self._gone:
            self._gone[name] = time.monotonic() + UNSEEN_S
