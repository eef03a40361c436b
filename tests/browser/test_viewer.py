"""The viewer on a page of its own: no framework, known arrays, pixels compared with what they must be."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from brainseg.measure import Reading, measure
from brainseg.overlay import palette
from brainseg.postprocess import find
from brainseg.types import AttentionMap, Box, Letterbox, Prediction, Source, Study
from brainseg.ui import state
from brainseg.ui.modules import asset, join
from brainseg.ui.wire import attention_pack, prediction_pack, study_pack

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.browser

# A face in ten lines, as any framework could have one.
FACE = """
import { hold } from "./packs.js";
import { Viewer } from "./viewer.js";
import { parse } from "./wire.js";
export function open(root) {
  const viewer = new Viewer(root, (gates) => (root.dataset.wanted = gates.join()));
  return { viewer, give: (bytes) => {
    const message = parse(bytes);
    return message.header.kind === "pack" ? hold(message, root) : viewer.receive(message);
  } };
}
"""
SCRIPT = join("face.js", lambda name: FACE if name == "face.js" else asset(name))
OPEN = """async (script) => {
  const { open } = await import(URL.createObjectURL(new Blob([script], { type: "text/javascript" })));
  window.face = open(document.querySelector(".viewer"));
}"""
GIVE = "text => window.face.give(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)))"
# The colour that a panel's canvas has in the middle of a slice's pixel.
COLOUR = """([panel, row, column, height, width]) => {
  const canvas = document.querySelector(`figure[data-panel=${panel}] canvas`);
  const at = [(column + 0.5) / width * canvas.width, (row + 0.5) / height * canvas.height].map(Math.floor);
  return [...canvas.getContext("2d").getImageData(...at, 1, 1).data.slice(0, 3)];
}"""

SHAPE = (3, 40, 60)
STUDY = Study(
    np.full((*SHAPE, 3), 128, np.uint8),
    "case",
    Source("test", (), "a" * 64),
    (1, 2, 3),
    np.zeros(SHAPE, np.bool_),
)
STUDY.slices[1, 20:30, 30:50] = 200
assert STUDY.reference is not None
STUDY.reference[1, 20:30, 30:50] = True
# A grid of 2 x 2 over rows -10 to 30 and columns 20 to 60, whose right half is padding.
LETTERBOX = Letterbox(SHAPE[1:], Box(-10, 20, 40, 20), (64, 32), (64, 64))
GATE = AttentionMap("x0", 0, np.array([[[0, 1], [0.2, 0.6]]] * 3, np.float16), LETTERBOX)


def predicted(name: str, columns: slice, *gates: AttentionMap) -> Reading:
    probability = np.full(SHAPE, 0.1, np.float32)
    probability[1, 20:30, columns] = 0.8
    prediction = Prediction(
        name, name, "case", probability, 0.5, "all", weights_sha256=name * 8, attention=gates
    )
    return measure(STUDY, find(prediction))


READINGS = [predicted("unet", slice(30, 40)), predicted("attention_unet", slice(25, 50), GATE)]


def give(page: Page, data: bytes) -> None:
    page.evaluate(GIVE, base64.b64encode(data).decode())


def settle(page: Page) -> None:
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def set_state(page: Page, **changes: Any) -> None:
    page.evaluate("changes => window.face.viewer.set(changes)", changes)
    settle(page)


def colour(page: Page, panel: str, row: int, column: int) -> tuple[int, ...]:
    return tuple(page.evaluate(COLOUR, [panel, row, column, *SHAPE[1:]]))


def map_colour(name: str, value: float) -> tuple[int, ...]:
    return tuple(int(c) for c in palette(name)[round(255 * value)])


@pytest.fixture(scope="module")
def page(chromium: Browser) -> Iterator[Page]:
    context = chromium.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.set_content(f"<style>{asset('viewer.css')}</style>{asset('viewer.html')}")
    page.evaluate(OPEN, SCRIPT)
    give(page, state.view_message(STUDY, READINGS))
    give(page, study_pack(STUDY))
    page.locator(".viewer[data-ready=true]").wait_for()
    for reading in READINGS:
        give(page, prediction_pack(reading.prediction, state.pack_id(STUDY, reading.prediction)))
    set_state(page, fit=False, outline=False)
    yield page
    context.close()
    assert problems == []


def test_it_opens_at_the_largest_slice_and_draws_masks_where_they_are(page: Page) -> None:
    set_state(page, maps=["overlay"], opacity=1)
    assert page.locator(".viewer").get_attribute("data-slice") == "1"
    assert colour(page, "overlay-unet", 25, 35) == (0xE6, 0x9F, 0x00)
    assert len(set(colour(page, "overlay-unet", 25, 45))) == 1
    assert len(set(colour(page, "overlay-unet", 5, 5))) == 1


def test_errors_have_three_colours(page: Page) -> None:
    set_state(page, maps=["errors"], opacity=1)
    assert colour(page, "errors-attention_unet", 25, 35) == (0x00, 0x9E, 0x73)
    assert colour(page, "errors-attention_unet", 25, 27) == (0xD5, 0x5E, 0x00)
    assert colour(page, "errors-unet", 25, 45) == (0x56, 0xB4, 0xE9)


def test_probability_has_the_colour_of_its_value(page: Page) -> None:
    set_state(page, maps=["probability"])
    assert colour(page, "probability-unet", 25, 35) == map_colour("viridis", 0.8)
    assert colour(page, "probability-unet", 5, 5) == map_colour("viridis", 0.1)


def test_attention_lies_where_the_letterbox_lay(page: Page) -> None:
    set_state(page, maps=["attention"])
    gate = f"{state.pack_id(STUDY, READINGS[1].prediction)}/x0"
    panel = page.locator("figure[data-panel=attention-attention_unet]")
    expect(panel.locator(".instead")).to_have_text("Loading the attention map …")
    expect(page.locator(".viewer")).to_have_attribute("data-wanted", gate)
    give(page, attention_pack(GATE, state.pack_id(STUDY, READINGS[1].prediction)))
    expect(panel.locator(".instead")).to_have_text("")
    settle(page)
    for row, column, value in (
        (0, 20, 0),
        (9, 39, 0),
        (9, 41, 1),
        (11, 20, 0.2),
        (29, 39, 0.2),
        (29, 59, 0.6),
    ):
        assert colour(page, "attention-attention_unet", row, column) == map_colour("magma", value), (
            row,
            column,
        )
    for row, column in ((0, 18), (31, 20), (39, 59)):
        assert len(set(colour(page, "attention-attention_unet", row, column))) == 1, (row, column)


def test_agreement_counts_and_hiding_leaves_the_anatomy(page: Page) -> None:
    set_state(page, agreement=True)
    tinted = colour(page, "agreement", 25, 35)
    assert len(set(tinted)) > 1
    set_state(page, hidden=True)
    assert len(set(colour(page, "agreement", 25, 35))) == 1
    set_state(page, hidden=False)
    assert colour(page, "agreement", 25, 35) == tinted


def test_the_benchmark_of_repaints_runs(chromium: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import viewer_speed  # noqa: PLC0415

    monkeypatch.setattr(viewer_speed, "SHAPE", (2, 256, 256))
    times = viewer_speed.measure(chromium)
    assert list(times) == list(viewer_speed.MAPS)
    for turns in times.values():
        assert [len(turn) for turn in turns] == [2, 2]
        assert max(map(max, turns)) > 0


def test_a_closed_viewer_listens_no_more_and_another_takes_its_place(page: Page) -> None:
    viewer = page.locator(".viewer")
    page.evaluate("() => window.face.viewer.close()")
    before = viewer.get_attribute("data-slice")
    viewer.press("ArrowUp")
    page.locator("button.fit").click()
    settle(page)
    assert viewer.get_attribute("data-slice") == before
    page.evaluate(OPEN, SCRIPT)
    give(page, state.view_message(STUDY, READINGS))
    settle(page)
    # What was set is kept for the study, and each key and button counts once.
    assert page.locator("button.fit").get_attribute("aria-pressed") == "false"
    assert page.locator("button.overlay").count() == 1
    viewer.press("ArrowUp")
    settle(page)
    assert viewer.get_attribute("data-slice") == str(int(before or 0) - 1)
