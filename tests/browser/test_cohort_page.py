"""The page of a cohort: opened from the disk, sorted and searched by the keyboard alone."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from brainseg.checkpoint import load
from brainseg.cohort.outcome import in_loop
from brainseg.cohort.patient import Examination
from brainseg.cohort.run import predict_cohort

pytestmark = pytest.mark.browser

NASTY = "<img src=x onerror=window.hit=1>"


@pytest.fixture(scope="module")
def out(dataset: Path, folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cohort")
    shutil.copytree(dataset, root / "set")
    shutil.copytree(dataset / "CASE_A", root / "set" / NASTY)
    (root / "set" / "CASE_D").mkdir()
    models = [load(folders[name]) for name in ("unet", "unetpp")]
    predict_cohort(root / "set", root / "out", Examination(models, device="cpu"), in_loop)
    return root / "out"


def patients(page: Page) -> list[str]:
    return [row.inner_text().split("\n")[0].split("\t")[0] for row in page.locator("tbody tr:visible").all()]


def test_the_page_is_read_sorted_and_searched_by_keyboard(chromium: Browser, out: Path) -> None:
    page = chromium.new_page()
    requests: list[str] = []
    errors: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text))
    page.goto((out / "index.html").as_uri())
    expect(page.get_by_text("Research use only, not a medical device.")).to_be_visible()
    expect(page.get_by_text(re.compile("4 done, 1 failed"))).to_be_visible()
    names = [NASTY, "CASE_A", "CASE_B", "CASE_C", "CASE_D"]
    assert patients(page) == names

    for picture in page.get_by_role("img").all():
        picture.scroll_into_view_if_needed()
        assert picture.evaluate("img => img.decode().then(() => img.naturalWidth)") == 256
    assert page.evaluate("window.hit") is None

    cells = {
        row.locator("td").first.inner_text().split("\n")[0]: row.locator("td").nth(2).inner_text()
        for row in page.locator("tbody tr").all()
        if row.locator("img").count()
    }
    page.get_by_role("button", name="Patient", exact=True).focus()
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Voxels, unet", exact=True)).to_be_focused()
    page.keyboard.press("Enter")
    head = page.get_by_role("columnheader", name="Voxels, unet", exact=True)
    expect(head).to_have_attribute("aria-sort", "descending")
    voxels = {name: int(text.replace(",", "")) for name, text in cells.items()}
    assert patients(page) == [*sorted(voxels, key=lambda name: -voxels[name]), "CASE_D"], "failed: last"
    page.keyboard.press("Space")
    expect(head).to_have_attribute("aria-sort", "ascending")
    assert patients(page) == [*sorted(voxels, key=lambda name: voxels[name]), "CASE_D"]

    search = page.get_by_label("Show patients that contain")
    search.fill("case_b")
    assert patients(page) == ["CASE_B"]
    expect(page.get_by_role("status")).to_have_text("1 of 5 patients")
    search.fill("")
    assert len(patients(page)) == 5

    page.set_viewport_size({"width": 360, "height": 640})
    wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide <= 0, "the table scrolls within itself"
    assert errors == []
    assert all(url.startswith(out.as_uri()) for url in requests)
    page.close()
