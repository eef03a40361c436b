"""A DICOM disc in a real browser, on both pages: opened as a folder, seen from below, corrected."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dicom_maker as maker
import pytest
from browser.harness import Watch, open_page
from gradio_server import Running, serving
from playwright.sync_api import Browser, Page, expect

pytestmark = pytest.mark.browser

FIRST, SECOND = "MRI BRAIN (study 1 of 2 in time)", "MRI BRAIN (study 2 of 2 in time)"

# Where the brightest of an input lies, as shares of its width and height: the lesion, in FLAIR.
LESION = """canvas => {
  const { width, height } = canvas;
  const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
  let x = 0, y = 0, n = 0;
  for (let i = 0; i < data.length; i += 4) {
    const at = i / 4;
    const [column, row] = [at % width, Math.floor(at / width)];
    // Inside the skull, which is bright too.
    if (Math.hypot(column / width - 0.5, row / height - 0.5) > 0.3 || data[i] < 180) continue;
    x += column; y += row; n++;
  }
  return [x / n / width, y / n / height];
}"""


@pytest.fixture(scope="module")
def disc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With its DICOMDIR, its viewer and the viewer's icons beside."""
    folder = tmp_path_factory.mktemp("disc") / "CD"
    maker.write_disc(folder, maker.two_studies())
    return folder


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serving(tmp_path_factory.mktemp("gradio")) as running:
        yield running
    log = running.log.read_text(encoding="utf-8", errors="replace")
    assert not {name for name in (maker.NAME, maker.PATIENT, "MRI BRAIN") if name in log}
    assert [path for path in running.noted("write") if not path.startswith("/dev/")] == []


@pytest.fixture
def streamlit(chromium: Browser, address: str) -> Iterator[Page]:
    page, watch = open_page(chromium, address)
    yield from _watched(page, watch)


@pytest.fixture
def gradio(chromium: Browser, running: Running) -> Iterator[Page]:
    page, watch = open_page(chromium, running.address)
    page.locator(".drop[data-ready=true]").wait_for()
    yield from _watched(page, watch)


def _watched(page: Page, watch: Watch) -> Iterator[Page]:
    page.set_viewport_size({"width": 1440, "height": 900})
    yield page
    page.context.close()
    assert watch.problems == []


def radiological(page: Page) -> None:
    """Letters say so, and the lesion, in the right frontal lobe, is above at the left."""
    expect(page.locator(".headline b")).to_have_text(FIRST)
    panel = page.locator("figure[data-panel=input-flair]")
    for side, letter in {"left": "R", "right": "L", "top": "A", "bottom": "P"}.items():
        expect(panel.locator(f".edge.{side}")).to_have_text(letter)
    x, y = panel.locator("canvas").evaluate(LESION)
    assert 0.2 < x < 0.45
    assert 0.15 < y < 0.45


def test_a_disc_in_streamlit(streamlit: Page, disc: Path, artifacts: Path) -> None:
    page = streamlit
    page.locator("input[type=file][webkitdirectory]").set_input_files(disc)
    page.locator(".viewer[data-ready=true]").wait_for()
    radiological(page)
    page.screenshot(path=artifacts / "disc.png")
    page.get_by_role("button", name=SECOND).click()
    expect(page.get_by_text("different frames of reference").first).to_be_visible()
    page.get_by_label("5: AX T1, 14 slices").click()
    page.get_by_role("option", name="Not used").click()
    expect(page.locator(".headline b")).to_have_text(SECOND)
    expect(page.get_by_text("Mean Dice with FLAIR in place of both T1 sequences")).to_be_visible()
    page.screenshot(path=artifacts / "disc_corrected.png")


def test_a_disc_in_gradio(gradio: Page, disc: Path, artifacts: Path) -> None:
    page = gradio
    page.locator("input.folder").set_input_files(disc)
    page.locator(".viewer[data-ready=true]").wait_for()
    radiological(page)
    page.get_by_role("button", name="Sequences").click()
    flair, post = (page.locator(f".series[data-series='{key}'] select") for key in ("4", "6"))
    flair.select_option("none")
    expect(page.locator("#main").get_by_text("No FLAIR was recognised")).to_be_visible()
    expect(flair).to_have_value("flair")
    post.select_option("none")
    expect(page.get_by_text("Mean Dice with FLAIR in place of T1 after contrast")).to_be_visible()
    expect(page.locator("#main").get_by_text("No FLAIR was recognised")).to_have_count(0)
    page.locator(".patients").get_by_text(SECOND).click()
    expect(page.get_by_text("cannot be read yet")).to_be_visible()
    page.get_by_label("5: AX T1, 14 slices").select_option("Not used")
    expect(page.locator(".headline b")).to_have_text(SECOND)
    page.get_by_label("1: Oedema").uncheck()
    expect(page.get_by_text("the labels 2 (Enhancing tumour) were taken")).to_be_visible()
    page.screenshot(path=artifacts / "disc_gradio.png")
