"""Several patients in one session, and runs that end with their page, in a real browser."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser.harness import CASE, Watch, open_page
from playwright.sync_api import Browser, Page, expect

from brainseg.sample import SYNTHETIC_GLIOMA

pytestmark = pytest.mark.browser

# A network looks between two batches, of a second or two, whether its page is still there. Shorter than
# `GRACE_S`, after which a closed tab's session ends with its runs in any case.
SOON_S = 8


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some of the sample's slices under another name."""
    patient = tmp_path_factory.mktemp("second") / "SECOND_02"
    patient.mkdir()
    for n in (12, 13, 14):
        for ending in (".tif", "_mask.tif"):
            shutil.copy(SYNTHETIC_GLIOMA / f"{CASE}_{n}{ending}", patient / f"SECOND_02_{n}{ending}")
    return patient


@pytest.fixture
def other(chromium: Browser, address: str) -> Iterator[tuple[Page, Watch]]:
    """Another user's page, which a test may close."""
    page, watch = open_page(chromium, address)
    yield page, watch
    page.context.close()


def upload(page: Page, folder: Path) -> None:
    opener = page.get_by_text("Open a patient")
    area = page.locator("input[type=file][webkitdirectory]")
    if not area.count() or not page.get_by_role("tab", name="Folder").is_visible():
        opener.click()
    area.set_input_files(folder)


def start(page: Page) -> None:
    """Open the sample and run all networks, until one is at work."""
    page.get_by_role("button", name="Try it with the synthetic sample").click()
    page.locator(".viewer[data-ready=true]").wait_for()
    page.get_by_role("button", name="Run 4 models").click()
    # Whichever it is by the time the page is looked at: the first may be done within one of its polls.
    expect(page.get_by_text(re.compile(r"\([1-4] of 4\): slice"))).to_be_visible(timeout=60_000)


def last_wait(page: Page) -> float:
    """Run all networks to the end; how many seconds after the click they last waited for others."""
    page.get_by_role("button", name="Run 4 models").click()
    clicked, waited = time.monotonic(), 0.0
    done = page.get_by_role("button", name="All results are shown")
    waiting = page.get_by_text("waiting for")
    while not done.is_visible():
        if waiting.is_visible():
            waited = time.monotonic() - clicked
        assert time.monotonic() - clicked < 180
        page.wait_for_timeout(150)
    return waited


def test_two_patients_a_third_that_fails_and_back(
    page: Page, folder: Path, second: Path, tmp_path: Path, artifacts: Path
) -> None:
    headline = page.locator(".headline b")
    upload(page, folder)
    expect(headline).to_have_text(CASE)
    page.locator(".viewer[data-ready=true]").wait_for()
    page.get_by_text("U-Net++", exact=True).click()
    page.get_by_text("Attention U-Net++", exact=True).click()
    page.get_by_text("Attention U-Net", exact=True).click()
    page.get_by_role("button", name="Run 1 model").click()
    page.get_by_role("button", name="All results are shown").wait_for(timeout=60_000)
    found = page.locator("table.figures").first.inner_text()

    upload(page, second)
    expect(headline).to_have_text("SECOND_02")
    expect(page.locator("table.figures")).to_have_count(0)
    expect(page.get_by_role("button", name="Run 1 model")).to_be_visible()

    bad = tmp_path / "THIRD_03"
    bad.mkdir()
    (bad / "THIRD_03_1.tif").write_text("not a picture")
    upload(page, bad)
    expect(page.get_by_role("alert")).to_have_count(1)
    expect(page.get_by_role("alert")).to_contain_text("THIRD_03")
    expect(headline).to_have_text("SECOND_02")
    expect(page.locator(".viewer[data-ready=true]")).to_be_visible()
    page.screenshot(path=artifacts / "patients.png")

    page.get_by_role("button", name=CASE).click()
    expect(headline).to_have_text(CASE)
    expect(page.get_by_role("alert")).to_have_count(0)
    expect(page.locator("table.figures").first).to_be_visible()
    assert page.locator("table.figures").first.inner_text() == found

    page.get_by_role("button", name="Remove").nth(1).click()
    expect(page.get_by_role("button", name="Remove")).to_have_count(2)
    expect(headline).to_have_text(CASE)


def test_a_refresh_during_a_run_does_not_stand_in_the_way_of_the_next(page: Page) -> None:
    start(page)
    page.reload()
    page.get_by_role("button", name="Try it with the synthetic sample").click()
    page.locator(".viewer[data-ready=true]").wait_for()
    assert last_wait(page) < SOON_S


def test_a_closed_tab_ends_its_run_and_another_user_has_the_turn(
    page: Page, other: tuple[Page, Watch]
) -> None:
    gone, _ = other
    page.get_by_role("button", name="Try it with the synthetic sample").click()
    page.locator(".viewer[data-ready=true]").wait_for()
    start(gone)
    gone.context.close()
    assert last_wait(page) < SOON_S
