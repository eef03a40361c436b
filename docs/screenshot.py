"""Makes docs/screenshot.png: the synthetic sample with all four models, in a running app.

make run                                    # in one terminal
.venv/bin/python docs/screenshot.py         # in another; needs Chromium and the test extra
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

OUT = Path(__file__).parent / "screenshot.png"


def main(url: str = "http://localhost:8501") -> None:
    """Open the sample, run every model, go to the largest slice, save the picture."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium") or shutil.which("google-chrome"),
            args=["--no-sandbox", "--disable-gpu"],
        )
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.set_default_timeout(120_000)
        page.goto(url)
        page.get_by_role("button", name="Try it with the synthetic sample").click()
        page.get_by_role("button", name="Run 4 models").click()
        page.get_by_role("button", name="All results are shown").wait_for()
        page.locator("figure[data-panel^=overlay]").nth(3).wait_for()
        page.wait_for_timeout(2000)
        page.screenshot(path=OUT)
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
