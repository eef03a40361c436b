"""The whole road in a real browser: folder, four models, scrolling, threshold, attention, figures, files."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from browser.harness import CASE, NUMBERS, Watch
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.browser

MODELS = ("unet", "attention_unet", "unetpp", "attention_unetpp")
TITLES = ("U-Net", "Attention U-Net", "U-Net++", "Attention U-Net++")


def slices(page: Page) -> set[str]:
    """The slice each panel shows; one, when they are in step."""
    shown = page.locator("figure.panel").evaluate_all("panels => panels.map(p => p.dataset.slice)")
    assert shown
    return set(shown)


def pictures(page: Page) -> list[str]:
    """What each panel's canvas holds."""
    urls: list[str] = page.locator("figure.panel canvas").evaluate_all("all => all.map(c => c.toDataURL())")
    return urls


def settle(page: Page) -> None:
    """Let what was asked for be painted."""
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def go_to(page: Page, index: int) -> None:
    page.locator(".slice").fill(str(index))
    settle(page)
    assert slices(page) == {str(index)}


def figures(page: Page) -> dict[str, dict[str, str]]:
    """The table of the patient's figures, by model and column."""
    table = page.locator("table.figures").first
    models = [title.strip() for title in table.locator("thead th").all_inner_texts()[1:]]
    rows = [row.locator("th, td").all_inner_texts() for row in table.locator("tbody tr").all()]
    return {model: {row[0]: row[n] for row in rows} for n, model in enumerate(models, 1)}


def save(page: Page, click: Callable[[], None]) -> tuple[str, bytes]:
    with page.expect_download() as started:
        click()
    return started.value.suggested_filename, Path(started.value.path()).read_bytes()


def test_four_overlays_and_a_screenshot(reading: Page, artifacts: Path) -> None:
    go_to(reading, 4)
    for name, title in zip(MODELS, TITLES, strict=True):
        expect(reading.locator(f"figure[data-panel=overlay-{name}] .title")).to_have_text(title)
    assert reading.locator("figure[data-panel^=input]").count() == 3
    assert len(set(pictures(reading))) >= 4
    reading.screenshot(path=artifacts / "overlays.png")
    reading.set_viewport_size({"width": 1920, "height": 1080})
    settle(reading)
    reading.screenshot(path=artifacts / "overlays_1920.png")
    reading.set_viewport_size({"width": 1280, "height": 800})
    settle(reading)


def test_panels_are_crisp_and_aligned(reading: Page) -> None:
    boxes = [c.bounding_box() for c in reading.locator("figure.panel canvas").all()]
    sizes = {(round(b["width"]), round(b["height"])) for b in boxes if b}
    assert len(sizes) == 1
    assert min(sizes)[0] >= 200
    backing = reading.locator("figure.panel canvas").first.evaluate("c => [c.width, c.height]")
    assert tuple(backing) in sizes


def test_wheel_and_keys_move_all_panels_and_ask_the_server_nothing(reading: Page, watch: Watch) -> None:
    go_to(reading, 3)
    before, sent = pictures(reading), watch.sent
    reading.locator("figure[data-panel=overlay-unetpp] canvas").hover()
    reading.mouse.wheel(0, 120)
    settle(reading)
    assert slices(reading) == {"4"}
    assert all(a != b for a, b in zip(before, pictures(reading), strict=True))
    reading.mouse.wheel(0, -120)
    settle(reading)
    assert slices(reading) == {"3"}
    for key, index in (
        ("ArrowDown", 4),
        ("ArrowUp", 3),
        ("PageDown", 7),
        ("PageUp", 2),
        ("End", 7),
        ("ArrowDown", 7),
        ("Home", 0),
        ("ArrowUp", 0),
    ):
        reading.keyboard.press(key)
        settle(reading)
        assert slices(reading) == {str(index)}, key
    expect(reading.locator(".where")).to_have_text(f"slice 1 / 8 · file number {NUMBERS[0]}")
    assert watch.sent == sent


def test_overlays_hide_while_h_is_held_and_stay_hidden_when_it_is_tapped(reading: Page) -> None:
    go_to(reading, 4)
    reading.locator(".viewer").focus()
    hide = reading.locator("button.hide")
    shown = pictures(reading)
    reading.keyboard.down("h")
    settle(reading)
    assert pictures(reading) != shown
    reading.wait_for_timeout(450)
    reading.keyboard.up("h")
    settle(reading)
    assert pictures(reading) == shown
    reading.keyboard.press("h")
    expect(hide).to_have_attribute("aria-pressed", "true")
    reading.keyboard.press("h")
    expect(hide).to_have_attribute("aria-pressed", "false")


def test_window_and_level_by_drag_and_back_by_double_click(reading: Page) -> None:
    go_to(reading, 4)
    canvas = reading.locator("figure[data-panel=input-flair] canvas")
    note = reading.locator("figure[data-panel=input-flair] .note")
    text = note.inner_text()
    box = canvas.bounding_box()
    assert box is not None
    reading.mouse.move(box["x"] + 80, box["y"] + 80)
    reading.mouse.down()
    reading.mouse.move(box["x"] + 140, box["y"] + 50)
    reading.mouse.up()
    expect(note).not_to_have_text(text)
    canvas.dblclick()
    expect(note).to_have_text(text)


def test_a_panel_grows_and_escape_brings_the_others_back(reading: Page) -> None:
    reading.get_by_role("button", name="Enlarge U-Net++", exact=True).click()
    expect(reading.locator("figure.panel")).to_have_count(1)
    reading.keyboard.press("Escape")
    expect(reading.locator("figure.panel")).to_have_count(8)


def test_attention_by_level_and_plain_words_for_networks_without_gates(
    reading: Page, artifacts: Path
) -> None:
    go_to(reading, 4)
    reading.locator("button.attention").click()
    for name, title in (("unet", "U-Net"), ("unetpp", "U-Net++")):
        panel = reading.locator(f"figure[data-panel=attention-{name}] .instead")
        expect(panel).to_have_text(f"{title} has no attention gates.")
    gated = reading.locator("figure[data-panel=attention-attention_unet]")
    expect(gated.locator(".instead")).to_have_text("")
    expect(reading.locator("figure[data-panel=attention-attention_unetpp] .instead")).to_have_text("")
    expect(reading.locator(".said")).to_contain_text("where the gate let features pass")
    settle(reading)
    finest = gated.locator("canvas").evaluate("c => c.toDataURL()")
    reading.screenshot(path=artifacts / "attention.png")
    reading.locator("select.level").select_option("2")
    expect(gated.locator(".instead")).to_have_text("")
    settle(reading)
    assert gated.locator("canvas").evaluate("c => c.toDataURL()") != finest
    reading.locator("button.overlay").click()


def test_probability_and_errors_and_readout(reading: Page) -> None:
    go_to(reading, 4)
    reading.locator("button.probability").click()
    panel = reading.locator("figure[data-panel=probability-unet]")
    panel.locator("canvas").hover()
    expect(panel.locator(".value")).to_contain_text("p ")
    expect(panel.locator(".note")).to_contain_text("0")
    reading.locator("button.errors").click()
    panel = reading.locator("figure[data-panel=errors-unet]")
    panel.locator("canvas").hover()
    expect(panel.locator(".value")).to_have_text("TN")
    for meaning in ("TP", "FP", "FN"):
        expect(panel.locator(".note")).to_contain_text(meaning)
    reading.locator("button.overlay").click()


def test_dice_is_what_the_command_line_prints(reading: Page, folder: Path) -> None:
    command = [sys.executable, "-m", "brainseg", "evaluate", str(folder.parent), "--model", "all", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)["models"]
    shown = figures(reading)
    assert set(shown) == set(TITLES)
    for name, title in zip(MODELS, TITLES, strict=True):
        expected = printed[name]["patients"][CASE]
        for figure, column, digits in (
            ("dice", "Dice", 3),
            ("iou", "IoU", 3),
            ("sensitivity", "Sensitivity", 3),
            ("precision", "Precision", 3),
            ("hd95", "HD95 (voxels)", 1),
            ("assd", "ASSD (voxels)", 1),
        ):
            value = expected[figure]
            if value is None:
                assert shown[title][column].startswith("not computable: ")
            else:
                assert shown[title][column] == f"{value:.{digits}f}", (title, figure)


def test_threshold_moves_masks_and_sends_no_image_again(reading: Page, watch: Watch) -> None:
    go_to(reading, 4)
    before, received = figures(reading), watch.received
    reading.get_by_role("slider", name="U-Net (stored").first.press("End")
    thresholds = reading.locator("table.figures").first.get_by_role("row", name="Threshold")
    expect(thresholds.get_by_role("cell").first).to_have_text("0.99 (largest region)")
    after = figures(reading)
    assert after["U-Net"]["Tumour voxels"] != before["U-Net"]["Tumour voxels"]
    assert after["U-Net++"] == before["U-Net++"]
    reading.wait_for_timeout(500)
    assert slices(reading) == {"4"}
    # The images of these eight slices alone are half a megabyte.
    assert watch.received - received < 250_000
    expect(reading.get_by_role("button", name="All results are shown")).to_be_visible()


def test_a_click_in_the_chart_goes_to_the_slice(reading: Page) -> None:
    go_to(reading, 0)
    reading.locator(".js-plotly-plot .point").nth(5).click(force=True)
    expect(reading.locator("figure.panel").first).to_have_attribute("data-slice", "5")


def test_largest_and_worst_slice(reading: Page) -> None:
    reading.locator("button.largest").click()
    expect(reading.locator(".said")).to_contain_text("Largest area of")
    reading.locator("button.worst").click()
    expect(reading.locator(".said")).to_contain_text("Lowest Dice of")


def test_downloads(reading: Page) -> None:
    name, data = save(reading, reading.locator("button.masks-tif").click)
    assert name == f"{CASE}_masks.zip"
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = archive.namelist()
    assert all(f"{model}/{CASE}_{n}_mask.tif" in names for model in MODELS for n in NUMBERS)
    name, data = save(reading, reading.locator("button.json").click)
    report = json.loads(data)
    assert set(report["models"]) == set(MODELS)
    assert report["models"]["unet"]["threshold"] == 0.99
    name, data = save(reading, reading.locator("button.csv").click)
    assert {row["case_id"] for row in csv.DictReader(io.StringIO(data.decode("utf-8-sig")))} == {CASE}
    name, data = save(reading, reading.locator("button.save").click)
    assert data.startswith(b"\x89PNG")


def test_no_patient_data_behind_an_address(reading: Page) -> None:
    links = reading.evaluate(
        "() => [...document.querySelectorAll('[src],[href]')].map(e => e.src || e.href)"
        ".filter(u => typeof u === 'string' && new URL(u, location).pathname.startsWith('/media/'))"
    )
    assert links == []


def test_bad_upload_is_one_sentence_and_the_page_goes_on(page: Page, tmp_path: Path) -> None:
    bad = tmp_path / "scan_1.tif"
    bad.write_text("not a picture")
    page.get_by_role("tab", name="Zip or files").click()
    page.locator("input[type=file]:not([webkitdirectory])").set_input_files(bad)
    alert = page.get_by_role("alert")
    expect(alert).to_have_count(1)
    expect(alert).to_contain_text("scan_1.tif")
    assert "Traceback" not in page.content()
    page.get_by_role("button", name="Open the synthetic sample").click()
    page.locator(".viewer[data-ready=true]").wait_for()
    expect(page.get_by_role("alert")).to_have_count(0)
    expect(page.get_by_text("synthetic, not a patient")).to_be_visible()


def test_stop_and_single_model(page: Page) -> None:
    page.get_by_role("button", name="Try it with the synthetic sample").click()
    page.locator(".viewer[data-ready=true]").wait_for()
    page.get_by_role("button", name="Run 4 models").click()
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_text("Stopped. What had finished is kept.")).to_be_visible()
    expect(page.get_by_role("button", name="Run ")).to_be_enabled()
