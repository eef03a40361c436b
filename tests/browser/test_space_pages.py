"""Each Space from its folder alone, as a user without rights, in a frame of another host's page.

The folder is what `brainseg hub space` writes. No Docker is asked for: the steps of the Streamlit Space's
Dockerfile are run without it (see `dockerfile`), all but the two that make the user and install the packages.
The packages are the tests' own, whose versions `test_spaces` compares; the base image is not tested.
"""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import urlopen

import dockerfile
import elsewhere
import pytest
from browser.harness import CASE
from dockerfile import Image
from playwright.sync_api import Browser, FrameLocator, expect

from brainseg.spaces import write_space

pytestmark = pytest.mark.browser

NOBODY = "http://127.0.0.1:9"


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
    del variables["HF_HOME"]  # where the image itself says, or below its home
    variables["PATH"] = f"{clean}:{variables['PATH']}"
    image = dockerfile.build(folder, root, variables)
    port = str(elsewhere.free_port())
    assert image.ports == [7860]
    assert image.variables["STREAMLIT_SERVER_PORT"] == "7860"
    image.variables["STREAMLIT_SERVER_PORT"] = port
    image.health = image.health.replace("7860", port)
    return image


@contextmanager
def running(image: Image, log: Path) -> Iterator[str]:
    """The address at which an image's command answers."""
    with log.open("wb") as out:
        server = subprocess.Popen(
            [*image.prefix(), *image.command], cwd=image.workdir, env=image.variables, stdout=out, stderr=out
        )
    address = f"http://127.0.0.1:{image.variables['STREAMLIT_SERVER_PORT']}"
    try:
        assert elsewhere.answer(f"{address}/_stcore/health", server) == "ok", log.read_text()
        yield address
    finally:
        server.terminate()
        server.wait(30)
    said = log.read_text(encoding="utf-8", errors="replace")
    assert "Traceback" not in said
    assert CASE not in said


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


def test_streamlit_in_a_frame_of_another_host(
    streamlit_image: Image, chromium: Browser, folder: Path, tmp_path: Path, artifacts: Path
) -> None:
    with hub_page() as (outer, shown):
        assert streamlit_image.variables["BRAINSEG_FRAME_ANCESTORS"] == "https://huggingface.co"
        streamlit_image.variables["BRAINSEG_FRAME_ANCESTORS"] += f" {outer}"
        with running(streamlit_image, tmp_path / "log.txt") as address:
            checked = streamlit_image.run(["sh", "-c", streamlit_image.health])
            assert checked.returncode == 0, checked.stderr
            with urlopen(address) as answer:
                policy = answer.headers["Content-Security-Policy"]
            assert f"frame-ancestors https://huggingface.co {outer}" in policy
            shown.append(address)
            page = chromium.new_page(viewport={"width": 1280, "height": 800})
            page.set_default_timeout(120_000)
            page.goto(outer)
            space = page.frame_locator("iframe")
            _sample_and_one_model(space)
            page.screenshot(path=artifacts / "space_streamlit.png")
            _folder_and_four_models(space, folder)
            page.context.close()


def _sample_and_one_model(space: FrameLocator) -> None:
    space.get_by_role("button", name="Try it with the synthetic sample").click()
    space.locator(".viewer[data-ready=true]").wait_for()
    for title in ("Attention U-Net", "U-Net++", "Attention U-Net++"):
        space.get_by_text(title, exact=True).first.click()
    space.get_by_role("button", name="Run 1 model").click()
    space.locator("figure[data-panel=overlay-unet]").wait_for()
    expect(space.get_by_text("synthetic, not a patient")).to_be_visible()


def _folder_and_four_models(space: FrameLocator, folder: Path) -> None:
    space.get_by_text("Open a patient").click()
    space.locator("input[type=file][webkitdirectory]").set_input_files(folder)
    expect(space.locator(".headline b")).to_have_text(CASE)
    for title in ("Attention U-Net", "U-Net++", "Attention U-Net++"):
        space.get_by_text(title, exact=True).first.click()
    space.get_by_role("button", name="Run 4 models").click()
    space.get_by_role("button", name="All results are shown").wait_for(timeout=150_000)
    expect(space.locator("figure[data-panel^=overlay]")).to_have_count(4)
