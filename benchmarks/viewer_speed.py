"""How long the viewer takes to repaint: `python benchmarks/viewer_speed.py`.

A study of 20 slices of 256 x 256, a reference and four models, shown in eight panels in a real Chromium.
Each row turns through all slices twice: the first time layers are made, the second time those of them that
are still remembered are drawn again. Times are those of the script in one animation frame; what Chromium then
does with the pixels is not in them.
"""

from __future__ import annotations

import base64
import shutil
from dataclasses import replace

import numpy as np
import typer
from playwright.sync_api import Browser, sync_playwright

from brainseg.measure import measure as measure_finding
from brainseg.models import ARCHITECTURES
from brainseg.postprocess import find
from brainseg.types import Prediction, Source, Study
from brainseg.ui import state
from brainseg.ui.modules import asset, script
from brainseg.ui.wire import prediction_pack, study_pack

SHAPE = (20, 256, 256)
MAPS = ("overlay", "probability", "errors")

OPEN = """async ([script, messages]) => {
  window.frames_ = [];
  const next = window.requestAnimationFrame.bind(window);
  window.requestAnimationFrame = (act) => next((time) => {
    const began = performance.now();
    act(time);
    window.frames_.push(performance.now() - began);
  });
  const url = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
  const { default: mount } = await import(url);
  for (const text of messages) {
    const data = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    mount({ data, parentElement: document.body, setStateValue() {}, setTriggerValue() {} });
  }
}"""
TURN = """async (map) => {
  const frame = () => new Promise((done) => setTimeout(() => requestAnimationFrame(() => setTimeout(done))));
  document.querySelector(`button.${map}`).click();
  const slider = document.querySelector(".slice");
  const turns = [];
  for (const turn of [0, 1]) {
    const times = [];
    for (let slice = 0; slice <= Number(slider.max); slice++) {
      slider.value = slice;
      window.frames_.length = 0;
      slider.dispatchEvent(new Event("input"));
      await frame();
      times.push(Math.max(...window.frames_));
    }
    turns.push(times);
  }
  return turns;
}"""


def messages() -> list[str]:
    """What Python would send: the images, the probabilities, the view."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[: SHAPE[1], : SHAPE[2]]
    distance = np.hypot(rows - 128, columns - 128)
    head = np.where(distance < 110, rng.integers(60, 120, SHAPE), 0).astype(np.uint8)
    truth = np.repeat((distance < 40)[None], SHAPE[0], axis=0)
    source = Source("benchmark", (), "b" * 64)
    study = Study(np.stack([head] * 3, axis=-1), "case", source, tuple(range(1, SHAPE[0] + 1)), truth)
    given = [study_pack(study)]
    readings = []
    for i, name in enumerate(ARCHITECTURES):
        # Noise at the edge makes contours as ragged as a network's.
        noisy = distance[None] + rng.normal(0, 2, SHAPE)
        probability = (1 / (1 + np.exp((noisy - 36 - 3 * i) / 3))).astype(np.float32)
        prediction = Prediction(name, name, "case", probability, 0.5, "all")
        prediction = replace(prediction, weights_sha256=name * 8)
        readings.append(measure_finding(study, find(prediction)))
        given.append(prediction_pack(prediction, state.pack_id(study, prediction)))
    given.append(state.view_message(study, readings))
    return [base64.b64encode(data).decode() for data in given]


def measure(browser: Browser) -> dict[str, list[list[float]]]:
    """Milliseconds of each slice in the first and in the second turn, by map."""
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.set_content(f"<style>{asset('viewer.css')}</style>{asset('viewer.html')}")
    page.evaluate(OPEN, [script("streamlit.js"), messages()])
    page.locator(".viewer[data-ready=true]").wait_for()
    times = {name: page.evaluate(TURN, name) for name in MAPS}
    page.close()
    return times


def main() -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        times = measure(browser)
        browser.close()
    typer.echo("ms            first turn: median   p95   second turn: median   p95")
    for name, turns in times.items():
        first, second = (np.percentile(turn, [50, 95]) for turn in turns)
        typer.echo(f"{name:12}{first[0]:21.1f}{first[1]:6.1f}{second[0]:23.1f}{second[1]:6.1f}")


if __name__ == "__main__":
    main()
