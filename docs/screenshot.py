"""Makes docs/screenshot.png and docs/screenshots/: the synthetic sample in a running page.

    .venv/bin/python docs/screenshot.py

Starts the page by itself; needs Chromium and the test extra. Every picture is of the sample that comes with
brainseg, which is computed and no patient.
"""

from __future__ import annotations

import io
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import Locator, Page, sync_playwright

HERE = Path(__file__).resolve().parent
FIRST = HERE / "screenshot.png"
OTHERS = HERE / "screenshots"
# The viewer draws, and packs of probability and attention arrive, after the last click was answered.
SETTLE_MS = 2_500
GREY = 12
"""Largest difference of the channels of a colour that the greys stand for."""


@contextmanager
def served() -> Iterator[str]:
    """The page's address, while it runs."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "brainseg", "app", "--port", str(port)]
    with subprocess.Popen(
        command, cwd=HERE.parent, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as server:
        try:
            for _ in range(600):
                try:
                    urllib.request.urlopen(f"http://localhost:{port}/_stcore/health", timeout=1).close()
                    break
                except OSError:
                    time.sleep(0.2)
            yield f"http://localhost:{port}"
        finally:
            server.terminate()


def save(png: bytes, path: Path) -> None:
    """Store a picture in 256 colours, 128 of them greys for the anatomy: a third of its size."""
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    # Each colour counts once: counted by pixels, the greys would leave few to the others.
    colours = np.unique(np.asarray(picture).reshape(-1, 3), axis=0)
    marked = Image.fromarray(colours[np.newaxis][:, np.ptp(colours, axis=1) > GREY]).quantize(128, kmeans=2)
    palette = Image.new("P", (1, 1))
    greys = [level for grey in range(0, 256, 2) for level in (grey, grey, grey)]
    palette.putpalette([*greys, *(marked.getpalette() or [])[: 128 * 3]])
    picture.quantize(palette=palette, dither=Image.Dither.NONE).save(path, optimize=True)


def region(page: Page, *parts: Locator, margin: int = 4) -> bytes:
    """A picture of the rectangle around these parts of the page."""
    boxes = [box for part in parts if (box := part.bounding_box())]
    left, top = (min(box[side] for box in boxes) - margin for side in ("x", "y"))
    right = max(box["x"] + box["width"] for box in boxes) + margin
    bottom = max(box["y"] + box["height"] for box in boxes) + margin
    left, top = max(left, 0), max(top, 0)
    clip = {"x": left, "y": top, "width": right - left, "height": bottom - top}
    return page.screenshot(clip=clip, full_page=True)  # type: ignore[arg-type]


def take(page: Page) -> None:
    """Go through the page as a reader does, and save a picture at each stop."""

    def shot(name: str, picture: Callable[[], bytes]) -> None:
        page.wait_for_timeout(SETTLE_MS)
        path = OTHERS / f"{name}.png"
        # The shades of a map are what it says.
        if name in ("probability", "attention"):
            path.write_bytes(picture())
        else:
            save(picture(), path)

    page.get_by_role("button", name="Try it with the synthetic sample").wait_for()
    shot("welcome", lambda: page.screenshot(clip={"x": 0, "y": 0, "width": 1440, "height": 450}))
    page.get_by_role("button", name="Try it with the synthetic sample").click()
    page.get_by_role("button", name="Run 4 models").click()
    page.get_by_role("button", name="All results are shown").wait_for()
    page.locator("figure[data-panel^=overlay]").nth(3).wait_for()
    page.wait_for_timeout(SETTLE_MS)
    FIRST.write_bytes(page.screenshot())

    bars, grid = page.locator(".viewer .bar"), page.locator(".viewer .grid")
    shot("controls", lambda: region(page, bars.first, bars.last))
    shot("inputs", lambda: region(page, *page.locator("figure[data-panel^=input]").all()))
    page.get_by_role("button", name="Enlarge Agreement of the models", exact=True).click()
    shot("agreement", lambda: region(page, page.locator("figure[data-panel=agreement]")))
    page.keyboard.press("Escape")
    page.locator("button.inputs").click()
    page.locator("button.agreement").click()
    for name in ("overlay", "probability", "attention", "errors"):
        page.locator(f"button.{name}").click()
        shot(name, lambda: region(page, grid))
    # High enough that all of the page is there at once.
    page.set_viewport_size({"width": 1440, "height": 3200})
    tables = page.locator("table.figures")
    shot("figures", lambda: region(page, page.get_by_role("heading", name="This patient"), tables.first))
    shot("pairs", lambda: region(page, tables.nth(1)))
    areas = page.get_by_role("heading", name="Area in each slice")
    shot("areas", lambda: region(page, areas, page.locator(".stPlotlyChart")))


def main() -> None:
    """Start the page and a browser, and take every picture."""
    OTHERS.mkdir(exist_ok=True)
    with served() as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium") or shutil.which("google-chrome"),
            args=["--no-sandbox", "--disable-gpu"],
        )
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.set_default_timeout(240_000)
        page.goto(address)
        take(page)
        browser.close()


if __name__ == "__main__":
    main()
