"""A running app and a real Chromium."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser.harness import CASE, NUMBERS, Watch, open_page
from playwright.sync_api import Browser, Page, sync_playwright

from brainseg.sample import SYNTHETIC_GLIOMA

ROOT = Path(__file__).resolve().parents[2]
ARTIFACTS = ROOT / "artifacts"

_CHROMIUM_ARGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), None)
    if path is None:
        pytest.fail(
            "no Chromium: install one (apt-get install chromium) or set CHROMIUM to its path", pytrace=False
        )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=_CHROMIUM_ARGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where ``streamlit run app.py`` answers."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("server") / "log.txt"
    command = [sys.executable, "-m", "streamlit", "run", "app.py", "--server.port", str(port)]
    with log.open("wb") as out:
        server = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT)
    url = f"http://localhost:{port}"
    try:
        _wait_for(f"{url}/_stcore/health", server)
        yield url
    finally:
        server.terminate()
        server.wait(20)
    # Nothing a patient's files are called may stand in a log.
    assert CASE not in log.read_text(encoding="utf-8", errors="replace")


def _wait_for(url: str, server: subprocess.Popen[bytes]) -> None:
    for _ in range(300):
        if server.poll() is not None:
            break
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except OSError:
            time.sleep(0.2)
    pytest.fail("the app did not start", pytrace=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of one patient in the LGG layout."""
    patient = tmp_path_factory.mktemp("data") / CASE
    patient.mkdir()
    for n in NUMBERS:
        for name in (f"{CASE}_{n}.tif", f"{CASE}_{n}_mask.tif"):
            shutil.copy(SYNTHETIC_GLIOMA / name, patient / name)
    return patient


@pytest.fixture
def page(chromium: Browser, address: str) -> Iterator[Page]:
    page, watch = open_page(chromium, address)
    yield page
    page.context.close()
    assert watch.problems == []


@pytest.fixture(scope="module")
def watched(chromium: Browser, address: str, folder: Path) -> Iterator[tuple[Page, Watch]]:
    """A patient folder uploaded and all four models run; the tests of a module share it."""
    page, watch = open_page(chromium, address)
    page.locator("input[type=file][webkitdirectory]").set_input_files(folder)
    page.locator(".viewer[data-ready=true]").wait_for()
    page.get_by_role("button", name="Run 4 models").click()
    page.get_by_role("button", name="All results are shown").wait_for(timeout=150_000)
    page.locator("figure[data-panel^=overlay]").nth(3).wait_for()
    yield page, watch
    page.context.close()
    assert watch.problems == []


@pytest.fixture
def reading(watched: tuple[Page, Watch]) -> Page:
    return watched[0]


@pytest.fixture
def watch(watched: tuple[Page, Watch]) -> Watch:
    return watched[1]


@pytest.fixture(scope="session")
def artifacts() -> Path:
    ARTIFACTS.mkdir(exist_ok=True)
    return ARTIFACTS
