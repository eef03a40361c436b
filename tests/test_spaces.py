"""The folders of the Spaces: what they hold, where their weights are from, what is never overwritten."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path

import fake_hub
import pytest
from fake_hub import FakeHub
from huggingface_hub import SpaceHardware, metadata_load
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from brainseg.checkpoint import read_card
from brainseg.cli import main
from brainseg.models import ARCHITECTURES
from brainseg.spaces import FACES, Face, write_space
from brainseg.types import BrainsegError, WeightsError

ROOT = Path(__file__).resolve().parent.parent
FIRST = "1" * 40


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both Spaces as the command writes them."""
    folders: dict[str, Path] = {face: tmp_path_factory.mktemp("spaces") / face for face in FACES}
    for face in FACES:
        assert list(write_space(face, folders[face])) == list(ARCHITECTURES)
    return folders


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    """An empty Hub that the client asks, and an empty cache."""
    with fake_hub.connected(monkeypatch, tmp_path) as connected:
        yield connected


def head(folder: Path) -> dict[str, object]:
    """The settings at the top of a Space's README."""
    found = metadata_load(folder / "README.md")
    assert found is not None
    return found


def tree(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# --- what a folder holds ---


@pytest.mark.parametrize("face", FACES)
def test_the_head_of_the_readme_is_what_the_hub_takes(made: dict[str, Path], face: Face) -> None:
    """The keys and their limits are those of the Hub's reference of Spaces' settings."""
    said = head(made[face])
    assert said["sdk"] == {"streamlit": "docker", "gradio": "gradio"}[face]
    colours = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
    assert {said["colorFrom"], said["colorTo"]} <= colours
    assert len(str(said["emoji"])) == 1
    assert 10 < len(str(said["short_description"])) <= 60
    assert said["license"] == read_card(ROOT / "weights" / "unet").licence
    assert said["suggested_hardware"] in {one.value for one in SpaceHardware}
    assert said["models"] == []  # they are in the folder
    assert "glioma" in list(said["tags"])  # type: ignore[call-overload]
    if face == "streamlit":
        assert said["app_port"] == 7860
    else:
        pinned = (ROOT / "constraints.txt").read_text(encoding="utf-8")
        assert f"\ngradio=={said['sdk_version']}\n" in pinned
        assert said["python_version"] == "3.12"  # as text: YAML reads 3.10 as 3.1
        assert (made[face] / str(said["app_file"])).is_file()


@pytest.mark.parametrize("face", FACES)
def test_the_readme_says_what_matters(made: dict[str, Path], face: Face) -> None:
    text = " ".join((made[face] / "README.md").read_text(encoding="utf-8").split())
    for sentence in (
        "Research use only, not a medical device.",
        "Never upload images of identifiable patients to a public Space.",
        "Duplicate this Space",
        f"brainseg hub space {face}",
    ):
        assert sentence in text


@pytest.mark.parametrize("face", FACES)
def test_a_space_holds_the_program_and_the_weights_and_nothing_of_the_tests(
    made: dict[str, Path], face: Face
) -> None:
    held = tree(made[face])
    program = [*(ROOT / "brainseg").rglob("*.py"), *(ROOT / "brainseg").rglob("*.js")]
    for path in [*program, *(ROOT / "weights").rglob("*")]:
        if path.is_file():
            assert held[path.relative_to(ROOT).as_posix()] == path.read_bytes()
    assert not [name for name in held if name.startswith("tests/") or "__pycache__" in name]
    assert {"LICENSE", "requirements.txt", ".gitattributes", "space.json"} <= set(held)
    # The Hub takes no other binary files into git itself.
    large = re.findall(r"^\*(\.\w+) filter=lfs", held[".gitattributes"].decode(), re.M)
    assert {Path(name).suffix for name, data in held.items() if b"\0" in data} <= set(large)


@pytest.mark.parametrize("face", FACES)
def test_requirements_are_the_tested_versions_of_all_that_is_needed(face: Face) -> None:
    text = runpy.run_path(str(ROOT / "spaces" / "lock.py"))["text"](face)
    assert (ROOT / "spaces" / face / "requirements.txt").read_text(encoding="utf-8") == text, (
        "run `make lock`"
    )
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pins = [Requirement(line) for line in text.splitlines() if not line.startswith("#")]
    stated = {str(canonicalize_name(one.name)): one for one in pins}
    other = {"streamlit", "gradio"} - {face}
    for need in map(Requirement, project["dependencies"]):
        if need.name not in other:
            [pin] = stated[canonicalize_name(need.name)].specifier
            assert pin.operator == "=="
            assert need.specifier.contains(pin.version)
    assert not stated.keys() & other
    if face == "gradio":  # ZeroGPU takes no later PyTorch
        [pin] = stated["torch"].specifier
        assert tuple(map(int, pin.version.split(".")[:2])) <= (2, 11)


# --- weights on the Hub ---


def test_a_space_fetches_named_weights_at_the_commit_that_the_revision_means_today(
    hub: FakeHub, tmp_path: Path
) -> None:
    for name in ("unet", "unetpp"):
        hub.publish(f"someone/my-{name}", ROOT / "weights" / name, FIRST, "main", "v1")
    folder = tmp_path / "space"
    write_space("gradio", folder, ["someone/my-unet@v1", "someone/my-unetpp"])
    held = tree(folder)
    assert not [name for name in held if name.endswith(".safetensors")]
    listed = json.loads(held["brainseg/checkpoint/released.json"])
    assert listed == {
        name: {
            "repo": f"someone/my-{name}",
            "revision": FIRST,
            "sha256": read_card(ROOT / "weights" / name).sha256,
        }
        for name in ("unet", "unetpp")
    }
    assert head(folder)["models"] == ["someone/my-unet", "someone/my-unetpp"]
    assert json.loads(held["space.json"])["weights"]["unet"]["revision"] == FIRST


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [
        (["someone/unet@v9"], "the repository someone/unet has no revision 'v9' on the Hub"),
        (["no/such"], "the Hub shows no repository no/such"),
        (["unet"], "'unet' is not the id of weights on the Hub; give OWNER/NAME@REVISION"),
        (["someone/unet@"], "is not the id of weights on the Hub"),
        (["someone/unet", "someone/unet@main"], "two of the weights are of one architecture, unet"),
    ],
)
def test_bad_weights_are_one_sentence_and_leave_the_folder_as_it_was(
    hub: FakeHub, tmp_path: Path, capsys: pytest.CaptureFixture[str], weights: list[str], sentence: str
) -> None:
    hub.publish("someone/unet", ROOT / "weights" / "unet", FIRST, "main")
    options = [part for one in weights for part in ("--weights", one)]
    with pytest.raises(SystemExit) as ended:
        main(["hub", "space", "gradio", "--to", str(tmp_path / "space"), *options])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert sentence in said
    assert not (tmp_path / "space").exists()


def test_damaged_weights_make_no_space(hub: FakeHub, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(ROOT / "weights" / "unet", damaged)
    (damaged / "model.safetensors").write_bytes(b"not weights")
    hub.publish("someone/unet", damaged, FIRST, "main")
    with pytest.raises(WeightsError, match="is not the file its card describes"):
        write_space("gradio", tmp_path / "space", ["someone/unet"])


# --- what is never overwritten ---


def test_a_space_is_written_anew_without_what_it_no_longer_holds(hub: FakeHub, tmp_path: Path) -> None:
    hub.publish("someone/unet", ROOT / "weights" / "unet", FIRST, "main")
    folder = tmp_path / "space"
    folder.mkdir()
    # As the Hub makes a new Space.
    (folder / ".git").mkdir()
    (folder / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    (folder / "README.md").write_text("---\ntitle: x\nsdk: gradio\n---\n")
    write_space("gradio", folder)
    first = tree(folder)
    (folder / "brainseg" / "gone.py").touch()
    (folder / "notes.txt").write_text("mine")
    write_space("gradio", folder)
    assert tree(folder) == {**first, "notes.txt": b"mine"}
    write_space("gradio", folder, ["someone/unet"])
    assert not (folder / "weights").exists()
    assert (folder / ".git" / "HEAD").is_file()


@pytest.mark.parametrize(
    ("inside", "sentence"),
    [
        ({"thesis.tex": "years of work"}, "is not empty and holds no Space of brainseg"),
        ({"README.md": "# My own project\n"}, "is not empty and holds no Space of brainseg"),
        ({"README.md": "---\nsdk: gradio\n---\n", "app.py": "mine"}, "holds no Space of brainseg"),
        ({"space.json": "[]"}, "holds no Space of brainseg"),
        ({"space.json": '{"face": "streamlit"}'}, "holds the Space 'streamlit', not 'gradio'"),
    ],
)
def test_other_peoples_folders_are_refused(tmp_path: Path, inside: dict[str, str], sentence: str) -> None:
    for name, text in inside.items():
        (tmp_path / name).write_text(text)
    before = tree(tmp_path)
    with pytest.raises(BrainsegError, match=sentence):
        write_space("gradio", tmp_path)
    assert tree(tmp_path) == before


def test_a_file_in_the_place_of_the_folder_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    for target in ("file", "file/below"):
        with pytest.raises(SystemExit) as ended:
            main(["hub", "space", "gradio", "--to", str(tmp_path / target)])
        assert ended.value.code == 2
        assert capsys.readouterr().err.count("\n") == 1
