"""The wheel in an environment outside the clone: models from a Hub, a patient to figures, the page.

The environment sees the packages of the tests, but not the clone, and is installed into without a network.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import elsewhere
import fake_hub
import pytest
from fake_hub import FakeHub, published
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from brainseg.models import ARCHITECTURES
from brainseg.sample import SYNTHETIC_GLIOMA
from brainseg.spaces import write_space

ROOT = Path(__file__).resolve().parent.parent
SPACES = [path.relative_to(ROOT).as_posix() for path in (ROOT / "spaces").glob("*/*") if path.is_file()]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


# --- what is stated ---


def pins(name: str) -> dict[str, str]:
    """Package -> version, of the lines that state one."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    stated = [Requirement(line) for line in lines if line and not line.startswith(("#", "-"))]
    return {canonicalize_name(one.name): str(one.specifier).removeprefix("==") for one in stated}


def test_pins_are_of_the_stated_dependencies_and_within_their_ranges() -> None:
    """A new dependency goes into pyproject.toml as a range and into requirements.txt as a pin."""
    direct = {canonicalize_name(r.name): r for r in map(Requirement, PROJECT["dependencies"])}
    pinned, locked = pins("requirements.txt"), pins("constraints.txt")
    assert pinned.keys() == direct.keys()
    assert all(requirement.specifier.contains(pinned[name]) for name, requirement in direct.items())
    assert pinned.items() <= locked.items()
    extras = [Requirement(text) for extra in PROJECT["optional-dependencies"].values() for text in extra]
    for extra in extras:
        if not extra.extras:
            assert extra.specifier.contains(locked[canonicalize_name(extra.name)]), extra.name


def test_what_only_tests_and_benchmarks_need_is_not_installed_with_the_program() -> None:
    assert not pins("requirements.txt").keys() & {"scikit-image", "nilearn", "albumentations", "pytest"}


# --- the wheel ---


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of what the repository holds, so that nothing of a build stays behind.

    The weights count as published, which is what a release of the package states.
    """
    source, out = tmp_path_factory.mktemp("source") / "clone", tmp_path_factory.mktemp("wheel")
    built = (".*cache", ".venv", ".git", ".hypothesis", "__pycache__", "*.egg-info", "node_modules", "build")
    leave_out = shutil.ignore_patterns(*built, "artifacts", "data", "runs", "tests", "weights")
    shutil.copytree(ROOT, source, ignore=leave_out)
    table = {name: asdict(row) for name, row in published().items()}
    (source / "brainseg/checkpoint/released.json").write_text(json.dumps(table), encoding="utf-8")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "."]
    subprocess.run([*command, "--no-index", "--wheel-dir", out], cwd=source, check=True)
    [path] = out.glob("*.whl")
    return path


@pytest.fixture(scope="session")
def program(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command `brainseg` of a new environment that holds the wheel and nothing of the clone."""
    python = elsewhere.environment(tmp_path_factory.mktemp("environment") / "venv")
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps"]
    subprocess.run([*command, "--no-index", str(wheel)], check=True)
    return python.with_name("brainseg")


@pytest.fixture
def outside(tmp_path: Path, program: Path) -> Iterator[tuple[FakeHub, dict[str, str]]]:
    """A Hub that holds the released weights, and an environment that knows it and has an empty cache."""
    with fake_hub.running() as hub:
        for name, release in published().items():
            hub.publish(release.repo, ROOT / "weights" / name, release.revision)
        yield hub, elsewhere.variables(tmp_path, hub.address)


def run(program: Path, *arguments: str, env: dict[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program, *arguments], env=env, cwd=cwd, capture_output=True, text=True, timeout=300, check=False
    )


def test_the_wheel_holds_the_package_its_sample_and_its_page(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"brainseg"}
    kept = {path.relative_to(ROOT).as_posix() for path in (ROOT / "brainseg").rglob("*.py")}
    assert kept <= set(names)
    for name in (
        "brainseg/py.typed",
        "brainseg/checkpoint/released.json",
        "brainseg/ui/installed/app.py",
        "brainseg/ui/installed/.streamlit/config.toml",
        "brainseg/ui/installed/LICENSE",
        *(f"brainseg/ui/installed/{name}" for name in SPACES),
        *(f"brainseg/sample/synthetic_glioma/{path.name}" for path in SYNTHETIC_GLIOMA.iterdir()),
        *(
            path.relative_to(ROOT).as_posix()
            for kind in ("html", "css", "js")
            for path in (ROOT / "brainseg" / "ui").rglob(f"*.{kind}")
        ),
    ):
        assert name in names
    assert not [name for name in names if name.endswith(".safetensors")]  # under another licence


def test_predict_outside_the_clone_with_weights_from_the_hub(
    program: Path, outside: tuple[FakeHub, dict[str, str]], tmp_path: Path
) -> None:
    hub, environment = outside
    (tmp_path / "patient").mkdir()
    for number in range(12, 16):  # four slices through the lesion
        for path in SYNTHETIC_GLIOMA.glob(f"*_{number}*.tif"):
            shutil.copy(path, tmp_path / "patient")
    command = ("predict", "patient", "--model", "unet", "--json")
    done = run(program, *command, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["models"]["unet"]["dice"] > 0.5
    assert {line.split()[1].partition("/resolve/")[0] for line in hub.asked} == {"/brainseg/unet"}
    hub.asked.clear()
    environment["HF_ENDPOINT"] = "http://127.0.0.1:9"  # nobody listens there
    again = run(program, *command, env=environment, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    other = run(program, "predict", "patient", "--model", "unetpp", env=environment, cwd=tmp_path)
    assert other.returncode == 2
    assert other.stderr == (
        f"error: weights 'unetpp' are not here yet: brainseg/unetpp@{published()['unetpp'].revision} is "
        "neither a folder, nor in the cache, nor within reach on the Hub; check the name and the network "
        "connection, or give a weights folder\n"
    )


def test_a_space_written_by_the_installed_package_is_that_of_the_clone(
    program: Path, outside: tuple[FakeHub, dict[str, str]], tmp_path: Path
) -> None:
    done = run(program, "hub", "space", "gradio", "--to", "space", env=outside[1], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    write_space("gradio", tmp_path / "clone")
    expected, written = files(tmp_path / "clone"), files(tmp_path / "space")
    cards = {name for name in expected if name.startswith("weights/") and name.endswith("README.md")}
    assert len(cards) == 4  # of the weights the Hub's cache holds what is loaded, and no more
    assert written.keys() == expected.keys() - cards
    differ = {name for name in written if written[name] != expected[name]}
    assert differ == {"brainseg/checkpoint/released.json"}  # see `wheel`


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_page_of_the_installed_package_answers_with_its_settings(
    program: Path, outside: tuple[FakeHub, dict[str, str]], tmp_path: Path
) -> None:
    hub, environment = outside
    port = elsewhere.free_port()
    log = tmp_path / "log.txt"
    with log.open("wb") as out:
        server = subprocess.Popen(
            [program, "app", "--port", str(port)], env=environment, cwd=tmp_path, stdout=out, stderr=out
        )
    try:
        assert elsewhere.answer(f"http://localhost:{port}/_stcore/health", server) == "ok", log.read_text()
        # Fetched before the page opened, not while somebody waits.
        fetched = {line.split("/")[2] for line in hub.asked if line.endswith(".safetensors")}
        assert fetched == set(ARCHITECTURES)
    finally:
        server.terminate()
        server.wait(30)
    text = log.read_text()
    assert "Traceback" not in text
    # Streamlit says so at the start unless a setting of ours forbids it.
    assert "usage statistics" not in text
