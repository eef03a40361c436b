"""The page in Gradio in a real browser: a folder in, overlays, threshold, figures and files out."""

from __future__ import annotations

import csv
import io
import re
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from browser.harness import CASE, Watch
from gradio_server import Running, serving
from playwright.sync_api import Browser, Page, expect

from brainseg.sample import SYNTHETIC_GLIOMA
from brainseg.types import RESEARCH_USE

pytestmark = pytest.mark.browser

# The share of a canvas that is neither grey nor transparent: what overlays draw.
COLOURED = """canvas => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let coloured = 0;
  for (let i = 0; i < data.length; i += 4) {
    const [r, g, b] = data.subarray(i, i + 3);
    if (Math.max(r, g, b) - Math.min(r, g, b) > 24) coloured++;
  }
  return coloured / (data.length / 4);
}"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serving(tmp_path_factory.mktemp("gradio")) as running:
        yield running
    log = running.log.read_text(encoding="utf-8", errors="replace")
    assert CASE not in log
    assert "Traceback" not in log
    assert [path for path in running.noted("write") if not path.startswith("/dev/")] == []


def open_gradio(chromium: Browser, running: Running) -> tuple[Page, Watch]:
    context = chromium.new_context(viewport={"width": 1440, "height": 900}, accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(60_000)
    expect.set_options(timeout=20_000)
    watch = Watch(page, running.address)
    page.on("console", lambda said: watch.problems.append(said.text) if said.type == "error" else None)
    page.goto(running.address)
    page.locator(".drop[data-ready=true]").wait_for()
    return page, watch


@pytest.fixture(scope="module")
def watched(chromium: Browser, running: Running, folder: Path) -> Iterator[tuple[Page, Watch]]:
    """A patient's folder uploaded, two models run."""
    page, watch = open_gradio(chromium, running)
    page.locator("input.folder").set_input_files(folder)
    page.locator(".viewer[data-ready=true]").wait_for()
    page.get_by_label("U-Net++", exact=True).uncheck()
    page.get_by_label("Attention U-Net++", exact=True).uncheck()
    page.get_by_role("button", name="Run 2 models").click()
    page.get_by_role("button", name="All results are shown").wait_for(timeout=120_000)
    page.locator("figure[data-panel^=overlay]").nth(1).wait_for()
    yield page, watch
    page.context.close()
    assert watch.problems == []


@pytest.fixture
def page(watched: tuple[Page, Watch]) -> Page:
    return watched[0]


@pytest.fixture
def other(chromium: Browser, running: Running) -> Iterator[Page]:
    page, watch = open_gradio(chromium, running)
    yield page
    page.context.close()
    assert watch.problems == []


def settle(page: Page) -> None:
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def go_to(page: Page, index: int) -> None:
    page.locator(".viewer .slice").fill(str(index))
    settle(page)


def coloured(page: Page, panel: str) -> float:
    return float(page.locator(f"figure[data-panel={panel}] canvas").evaluate(COLOURED))


def voxels(page: Page) -> int:
    """Tumour voxels of the U-Net in the table of the patient's figures."""
    return int(page.locator("table.figures tbody tr").first.locator("td").first.inner_text().replace(",", ""))


def save(page: Page, name: str) -> tuple[str, bytes]:
    with page.expect_download() as started:
        page.get_by_role("button", name=name).click()
    return started.value.suggested_filename, Path(started.value.path()).read_bytes()


def test_a_folder_becomes_overlays_side_by_side(page: Page, artifacts: Path) -> None:
    expect(page.locator(".headline b")).to_have_text(CASE)
    expect(page.locator("figure[data-panel^=input]")).to_have_count(3)
    go_to(page, 4)
    for model in ("unet", "attention_unet"):
        assert coloured(page, f"overlay-{model}") > 0.01
    page.locator("button.hide").click()
    settle(page)
    assert coloured(page, "overlay-unet") == 0
    page.locator("button.hide").click()
    expect(page.get_by_text(RESEARCH_USE)).to_have_count(1)
    page.screenshot(path=artifacts / "gradio.png")
    page.set_viewport_size({"width": 390, "height": 844})
    settle(page)
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    expect(page.get_by_text(RESEARCH_USE)).to_be_in_viewport()
    page.screenshot(path=artifacts / "gradio_phone.png")
    page.set_viewport_size({"width": 1440, "height": 900})


def test_the_threshold_acts_while_it_is_dragged(page: Page) -> None:
    go_to(page, 4)
    before, drawn = voxels(page), coloured(page, "overlay-unet")
    slider = page.locator("#cuts input[type=range]").first
    box = slider.bounding_box()
    assert box is not None
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 0.4 * box["width"], y)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.7 * box["width"], y)
    page.mouse.move(box["x"] + 0.97 * box["width"], y)
    # The button is still held.
    expect(page.locator("table.figures tbody tr").first.locator("td").first).not_to_have_text(f"{before:,}")
    page.mouse.up()
    page.wait_for_function(f"() => Number({VOXELS}) < {before}")
    settle(page)
    assert coloured(page, "overlay-unet") < drawn
    chart = page.locator("#areas .js-plotly-plot")
    expect(chart).to_be_visible()


VOXELS = 'document.querySelector("table.figures tbody td").textContent.replaceAll(",", "")'


def test_the_wheel_asks_the_server_nothing_and_attention_is_fetched_when_it_is_looked_at(
    page: Page, watched: tuple[Page, Watch]
) -> None:
    go_to(page, 3)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.locator("figure[data-panel=overlay-unet] canvas").hover()
    page.mouse.wheel(0, 120)
    settle(page)
    expect(page.locator(".viewer")).to_have_attribute("data-slice", "4")
    assert asked == []
    page.locator("button.attention").click()
    gated = page.locator("figure[data-panel=attention-attention_unet]")
    expect(gated.locator(".instead")).to_have_text("")
    settle(page)
    assert coloured(page, "attention-attention_unet") > 0.1
    assert len([url for url in asked if "/pack?" in url]) == 1
    page.locator("button.overlay").click()


def test_a_point_of_the_chart_leads_to_its_slice(page: Page) -> None:
    go_to(page, 0)
    point = page.locator("#areas .scatterlayer .trace").first.locator(".point").nth(5)
    point.scroll_into_view_if_needed()
    box = point.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2 - 3, box["y"] + box["height"] / 2)
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.up()
    expect(page.locator(".viewer")).to_have_attribute("data-slice", "5")


def test_masks_and_figures_are_saved(page: Page) -> None:
    name, data = save(page, "Masks (TIFF)")
    assert name == f"{CASE}_masks.zip"
    assert len([n for n in zipfile.ZipFile(io.BytesIO(data)).namelist() if n.endswith("_mask.tif")]) == 16
    name, data = save(page, "Figures (CSV)")
    assert name == f"{CASE}_figures.csv"
    rows = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"))))
    assert int(next(row for row in rows if row["scope"] == "patient")["tumour_voxels"]) == voxels(page)


def test_spacing_that_is_typed_gives_millilitres(page: Page) -> None:
    page.get_by_role("button", name="Spacing in mm (optional)").click()
    for axis, value in (("Between slices", "5"), ("Between rows", "1"), ("Between columns", "1")):
        field = page.get_by_label(axis)
        field.fill(value)
        field.press("Tab")
    expect(page.locator(".headline")).to_contain_text("5 mm between slices")
    expect(page.locator("table.figures").first).to_contain_text("ml")


def test_a_second_patient_one_that_fails_and_back(page: Page, tmp_path: Path) -> None:
    second = tmp_path / "SECOND_02.zip"
    with zipfile.ZipFile(second, "w") as archive:
        for n in (12, 13):
            archive.write(SYNTHETIC_GLIOMA / f"{CASE}_{n}.tif", f"SECOND_02/SECOND_02_{n}.tif")
    page.locator("input.files").set_input_files(second)
    expect(page.locator(".headline b")).to_have_text("SECOND_02")
    expect(page.locator("table.figures")).to_have_count(0)
    text = tmp_path / "notes.txt"
    text.write_text("not a picture")
    page.locator("input.files").set_input_files(text)
    expect(page.get_by_role("alert").filter(visible=True)).to_contain_text("No image")
    expect(page.locator(".headline b")).to_have_text("SECOND_02")
    page.get_by_role("button", name=CASE, exact=True).click()
    expect(page.locator(".headline b")).to_have_text(CASE)
    expect(page.locator("table.figures").first).to_be_visible()
    page.get_by_role("button", name="Remove SECOND_02").click()
    expect(page.get_by_role("button", name=re.compile("^Remove"))).to_have_count(1)


def test_another_tab_reaches_nothing_of_this_one(page: Page, other: Page, running: Running) -> None:
    seen: list[str] = []
    page.on("request", lambda request: seen.append(request.url))
    page.get_by_role("checkbox", name="Largest region only").first.click()
    page.wait_for_timeout(1500)
    view = next(url for url in seen if url.endswith("/view"))
    key = view.split("/")[-2]
    assert len(key) == 43
    expect(other.locator(".headline")).to_have_count(0)
    assert other.request.get(view.replace(key, key[::-1])).status == 404


def test_a_run_is_stopped_and_a_closed_tab_is_freed(chromium: Browser, running: Running, other: Page) -> None:
    other.get_by_role("button", name="Try it with the synthetic sample").click()
    other.locator(".viewer[data-ready=true]").wait_for()
    other.get_by_text("Average over left-right flips").click()
    other.get_by_role("button", name="Run 4 models").click()
    leaving, _ = open_gradio(chromium, running)
    seen: list[str] = []
    leaving.on("request", lambda request: seen.append(request.url))
    leaving.get_by_role("button", name="Try it with the synthetic sample").click()
    leaving.locator(".viewer[data-ready=true]").wait_for()
    leaving.get_by_role("button", name="Run 4 models").click()
    expect(leaving.get_by_text("waiting for another run on this computer")).to_be_visible()
    leaving.get_by_role("button", name="Stop").click()
    expect(leaving.get_by_text("Stopped. What had finished is kept.")).to_be_visible()
    view = next(url for url in seen if url.endswith("/view"))
    assert other.request.get(view).status == 200
    leaving.context.close()
    for _ in range(60):
        if other.request.get(view).status == 404:
            break
        other.wait_for_timeout(250)
    assert other.request.get(view).status == 404
    other.get_by_role("button", name="Stop").click()
    expect(other.get_by_text("Stopped. What had finished is kept.")).to_be_visible()


def test_a_page_of_another_site_may_show_it_where_that_is_allowed(chromium: Browser, tmp_path: Path) -> None:
    with (
        serving(tmp_path, BRAINSEG_FRAME_ANCESTORS="http://localhost:*") as running,
        around(running) as outer,
    ):
        context = chromium.new_context()
        page = context.new_page()
        page.goto(outer)
        frame = page.frame_locator("iframe")
        frame.get_by_role("button", name="Try it with the synthetic sample").click(timeout=60_000)
        frame.locator(".viewer[data-ready=true]").wait_for(timeout=60_000)
        context.close()


@contextmanager
def around(running: Running) -> Iterator[str]:
    """The address of a page of another site that shows it in a frame."""

    class Outer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(f'<iframe src="{running.address}" width="1200" height="800"></iframe>'.encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("localhost", 0), Outer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://localhost:{server.server_port}/"
        server.shutdown()
