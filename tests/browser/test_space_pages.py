"""Each Space from its folder alone, as a user without rights, in a frame of another host's page.

The folder is what `brainseg hub space` writes. No Docker is asked for: the steps of the Streamlit Space's
Dockerfile are run without it (see `dockerfile`), all but the two that make the user and install the packages.
The packages are the tests' own, whose versions `test_spaces` compares; the base image is not tested.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import urlopen

import dockerfile
import elsewhere
import fake_hub
import pytest
from browser.harness import CASE
from dockerfile import Image
from huggingface_hub import metadata_load
from playwright.sync_api import Browser, Page, expect

from brainseg.checkpoint import read_card
from brainseg.spaces import write_space

pytestmark = pytest.mark.browser

NOBODY = "http://127.0.0.1:9"
COMMIT = "1" * 40
WEIGHTS = Path(__file__).resolve().parents[2] / "weights"
OTHERS = ("Attention U-Net", "U-Net++", "Attention U-Net++")


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the commands of an environment that sees the tests' packages, but no brainseg."""
    if elsewhere.as_user() is None:
        pytest.skip("as root this needs setpriv, to run the Space as a user without rights")
    python = elsewhere.environment(tmp_path_factory.mktemp("environment") / "venv")
    streamlit = python.with_name("streamlit")
    streamlit.write_text(f"#!{python}\nfrom streamlit.web.cli import main\nmain()\n", encoding="utf-8")
    streamlit.chmod(0o755)
    code = "import torch, brainseg"
    found = subprocess.run(
        [python, "-c", code], cwd=python.parent, capture_output=True, text=True, check=False
    )
    assert "No module named 'brainseg'" in found.stderr
    return python.parent


@contextmanager
def hub_page() -> Iterator[tuple[str, list[str]]]:
    """A page of another host that shows a Space in a frame.

    Yields:
        Its address, and a list for the Space's.
    """
    shown: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            frame = f'<iframe src="{shown[0]}" style="width: 100%; height: 780px; border: 0"></iframe>'
            body = f"<!doctype html><title>Hub</title>{frame if self.path == '/' else ''}".encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        # A browser takes this for another site than 127.0.0.1, where the Space answers.
        yield f"http://localhost:{server.server_port}", shown
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def image_of(folder: Path, root: Path, clean: Path, hub: str) -> Image:
    """The image of a Streamlit Space's folder, on a port that is free."""
    variables = elsewhere.variables(root, hub)
    del variables["HF_HOME"]  # below the image's own home
    variables["PATH"] = f"{clean}:{variables['PATH']}"
    image = dockerfile.build(folder, root, variables)
    port = str(elsewhere.free_port())
    assert image.ports == [7860]
    assert image.variables["STREAMLIT_SERVER_PORT"] == "7860"
    image.variables["STREAMLIT_SERVER_PORT"] = port
    image.health = image.health.replace("7860", port)
    return image


def gradio_image(folder: Path, root: Path, clean: Path, hub: str) -> Image:
    """What the Hub makes of a Gradio Space's folder: files of user 1000, and the server's variables.

    Not those that tell Gradio where it is: for them it needs the Hub's own package `spaces`.
    """
    home = root / "home" / "user"
    shutil.copytree(folder, home / "app")
    elsewhere.give(home)
    variables = elsewhere.variables(home, hub) | {
        "PATH": f"{clean}:{os.environ['PATH']}",
        "GRADIO_SERVER_NAME": "0.0.0.0",
        "GRADIO_SERVER_PORT": str(elsewhere.free_port()),
        "BRAINSEG_FRAME_ANCESTORS": "https://huggingface.co",
    }
    settings = metadata_load(folder / "README.md")
    assert settings is not None
    return Image(root, variables, workdir=home / "app", user="user", command=["python", settings["app_file"]])


@contextmanager
def running(image: Image, log: Path, path: str = "/_stcore/health") -> Iterator[str]:
    """The address at which an image's command answers."""
    port = image.variables.get("STREAMLIT_SERVER_PORT") or image.variables["GRADIO_SERVER_PORT"]
    address = f"http://127.0.0.1:{port}"
    with log.open("wb") as out:
        server = subprocess.Popen(
            [*image.prefix(), *image.command], cwd=image.workdir, env=image.variables, stdout=out, stderr=out
        )
    try:
        assert elsewhere.answer(address + path, server), log.read_text()
        yield address
    finally:
        server.terminate()
        server.wait(30)
    said = log.read_text(encoding="utf-8", errors="replace")
    assert "Traceback" not in said
    assert CASE not in said


@contextmanager
def framed(image: Image, chromium: Browser, log: Path, path: str = "/_stcore/health") -> Iterator[Page]:
    """A page of another host that shows the running Space in a frame, as the Hub's page does."""
    with hub_page() as (outer, shown):
        allowed = "https://huggingface.co " + outer
        variables = image.variables | {"BRAINSEG_FRAME_ANCESTORS": allowed}
        with running(replace(image, variables=variables), log, path) as address:
            with urlopen(address) as answer:
                assert f"frame-ancestors {allowed}" in answer.headers["Content-Security-Policy"]
            shown.append(address)
            page = chromium.new_page(viewport={"width": 1280, "height": 800})
            page.set_default_timeout(120_000)
            expect.set_options(timeout=20_000)
            page.goto(outer)
            yield page
            page.context.close()


# --- the Streamlit Space ---


@pytest.fixture(scope="module")
def streamlit_image(tmp_path_factory: pytest.TempPathFactory, clean: Path) -> Image:
    root = tmp_path_factory.mktemp("image")
    write_space("streamlit", root / "space")
    return image_of(root / "space", root, clean, NOBODY)


def test_the_image_belongs_to_user_1000_and_holds_its_own_program(streamlit_image: Image) -> None:
    assert re.fullmatch(r"python:3\.12\.\d+-slim-\w+", streamlit_image.base)
    assert [step.split()[0] for step in streamlit_image.skipped] == ["useradd", "pip"]
    assert "--uid 1000" in streamlit_image.skipped[0]
    assert "--requirements /tmp/requirements.txt" in streamlit_image.skipped[1]
    assert (streamlit_image.root / "tmp" / "requirements.txt").is_file()
    assert streamlit_image.user == "user"
    code = "import os, brainseg; print(os.getuid(), os.access('/usr', os.W_OK), brainseg.__file__)"
    said = streamlit_image.run(["python", "-c", code]).stdout.split()
    assert said[0] != "0"
    assert said[1:] == ["False", str(streamlit_image.workdir / "brainseg" / "__init__.py")]
    owners = {path.stat().st_uid for path in (streamlit_image.workdir, *streamlit_image.workdir.rglob("*"))}
    assert owners == {int(said[0])}
    assert "fetched when they are needed" not in streamlit_image.said
    assert streamlit_image.variables["BRAINSEG_FRAME_ANCESTORS"] == "https://huggingface.co"


def test_streamlit_in_a_frame_of_another_host(
    streamlit_image: Image, chromium: Browser, folder: Path, tmp_path: Path, artifacts: Path
) -> None:
    with framed(streamlit_image, chromium, tmp_path / "log.txt") as page:
        checked = streamlit_image.run(["sh", "-c", streamlit_image.health])
        assert checked.returncode == 0, checked.stderr
        space = page.frame_locator("iframe")
        space.get_by_role("button", name="Try it with the synthetic sample").click()
        space.locator(".viewer[data-ready=true]").wait_for()
        for title in OTHERS:
            space.get_by_text(title, exact=True).first.click()
        space.get_by_role("button", name="Run 1 model").click()
        space.locator("figure[data-panel=overlay-unet]").wait_for()
        expect(space.get_by_text("synthetic, not a patient")).to_be_visible()
        page.screenshot(path=artifacts / "space_streamlit.png")
        space.get_by_text("Open a patient").click()
        space.locator("input[type=file][webkitdirectory]").set_input_files(folder)
        expect(space.locator(".headline")).to_contain_text("8 slices")
        for title in OTHERS:
            space.get_by_text(title, exact=True).first.click()
        space.get_by_role("button", name="Run 4 models").click()
        space.get_by_role("button", name="All results are shown").wait_for(timeout=150_000)
        expect(space.locator("figure[data-panel^=overlay]")).to_have_count(4)


def test_weights_go_into_the_image_once_and_a_hub_that_is_down_is_a_sentence_on_the_page(
    chromium: Browser, clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fake_hub.connected(monkeypatch, tmp_path) as hub:
        hub.publish("someone/mine", WEIGHTS / "unet", COMMIT, "main")
        write_space("streamlit", tmp_path / "space", ["someone/mine"])
        (tmp_path / "image").mkdir()
        image = image_of(tmp_path / "space", tmp_path / "image", clean, hub.address)
        assert "fetched when they are needed" not in image.said
    # The Hub is gone now, and the image has what it needs.
    code = "from brainseg.checkpoint import load; print(load('unet').card.sha256)"
    image.variables["HF_ENDPOINT"] = NOBODY
    assert image.run(["python", "-c", code]).stdout.strip() == read_card(WEIGHTS / "unet").sha256
    # As after a build that could not reach it.
    shutil.rmtree(image.root / "home" / "user" / ".cache")
    with framed(image, chromium, tmp_path / "log.txt") as page:
        alert = page.frame_locator("iframe").get_by_role("alert")
        expect(alert).to_contain_text(
            f"someone/mine@{COMMIT} is neither a folder, nor in the cache, nor within reach"
        )
        expect(alert).to_have_count(1)


# --- the Gradio Space ---


def test_gradio_in_a_frame_of_another_host(
    chromium: Browser, clean: Path, folder: Path, tmp_path: Path, artifacts: Path
) -> None:
    write_space("gradio", tmp_path / "space")
    image = gradio_image(tmp_path / "space", tmp_path / "image", clean, NOBODY)
    with framed(image, chromium, tmp_path / "log.txt", "/") as page:
        space = page.frame_locator("iframe")
        space.get_by_role("button", name="Try it with the synthetic sample").click()
        space.locator(".viewer[data-ready=true]").wait_for()
        for title in OTHERS:
            space.get_by_label(title, exact=True).uncheck()
        space.get_by_role("button", name="Run 1 model").click()
        space.locator("figure[data-panel=overlay-unet]").wait_for()
        expect(space.get_by_text("synthetic, not a patient")).to_be_visible()
        page.screenshot(path=artifacts / "space_gradio.png")
        space.locator("input[type=file][webkitdirectory]").set_input_files(folder)
        expect(space.locator(".headline")).to_contain_text("8 slices")
        for title in OTHERS:
            space.get_by_label(title, exact=True).check()
        space.get_by_role("button", name="Run 4 models").click()
        space.get_by_role("button", name="All results are shown").wait_for(timeout=150_000)
        expect(space.locator("figure[data-panel^=overlay]")).to_have_count(4)


def test_gradio_with_a_hub_that_is_down_says_so_on_its_page(
    chromium: Browser, clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fake_hub.connected(monkeypatch, tmp_path) as hub:
        hub.publish("someone/mine", WEIGHTS / "unet", COMMIT, "main")
        write_space("gradio", tmp_path / "space", ["someone/mine"])
    image = gradio_image(tmp_path / "space", tmp_path / "image", clean, NOBODY)
    with framed(image, chromium, tmp_path / "log.txt", "/") as page:
        alert = page.frame_locator("iframe").get_by_role("alert")
        expect(alert).to_contain_text(
            f"someone/mine@{COMMIT} is neither a folder, nor in the cache, nor within reach"
        )
        expect(alert).to_have_count(1)
