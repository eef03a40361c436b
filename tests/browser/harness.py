"""What conftest and tests of the browser share."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Browser, Page, expect

CASE = "SYNTHETIC_0001"
# Eight slices around the lesion's edge: masks that are empty, small and large.
NUMBERS = range(9, 17)


class Watch:
    """What a page says and sends while it is open."""

    def __init__(self, page: Page, address: str) -> None:
        self.problems: list[str] = []
        self.sent = 0
        self.received = 0
        page.on("pageerror", lambda error: self.problems.append(f"script: {error}"))
        page.on("request", lambda request: self._request(request.url, address))
        page.on("websocket", self._socket)

    def _request(self, url: str, address: str) -> None:
        if not url.startswith((address, address.replace("http", "ws"), "blob:", "data:")):
            self.problems.append(f"request abroad: {url}")

    def _socket(self, socket: Any) -> None:
        socket.on("framesent", lambda _: setattr(self, "sent", self.sent + 1))
        socket.on("framereceived", lambda data: setattr(self, "received", self.received + len(data)))


def open_page(chromium: Browser, address: str) -> tuple[Page, Watch]:
    """The app in a browser profile of its own, once it answers."""
    context = chromium.new_context(viewport={"width": 1280, "height": 800}, accept_downloads=True)
    page = context.new_page()
    # Generous, for machines that do other work at the same time.
    page.set_default_timeout(120_000)
    expect.set_options(timeout=20_000)
    watch = Watch(page, address)
    page.goto(address)
    page.get_by_role("button", name="Try it with the synthetic sample").wait_for()
    return page, watch
