"""The site in a real browser: read from its folder, without a server and without a network."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

pytestmark = pytest.mark.browser


def test_the_site_is_read_and_searched_from_its_folder(chromium: Browser, site: Path) -> None:
    page = chromium.new_page()
    asked: list[str] = []
    problems: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: problems.append(str(error)))
    for path in sorted(site.rglob("*.html")):
        page.goto(path.as_uri())
    page.goto((site / "index.html").as_uri())
    page.get_by_role("textbox", name="Search").fill("missed lesions")
    expect(page.locator(".md-search-result__link").first).to_be_visible(timeout=20_000)
    page.close()
    assert problems == []
    assert {url.partition(":")[0] for url in asked} <= {"file", "data", "blob"}
