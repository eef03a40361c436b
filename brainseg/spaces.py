"""Folders that are whole Spaces of the Hugging Face Hub: a face, the program, its weights, ready to push.

What only a Space has, its README, requirements and image, stands in ``spaces/`` at the root of a clone; the
wheel holds a copy in ``brainseg/ui/installed`` (see setup.py). The rest is this program itself.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal, get_args

from brainseg import __version__
from brainseg.checkpoint import CONFIG, TENSORS, bundled_names, load, resolve
from brainseg.checkpoint.hub import Release
from brainseg.types import BrainsegError, WeightsCard, WeightsError

Face = Literal["streamlit", "gradio"]
FACES: tuple[Face, ...] = get_args(Face)
SDK: dict[Face, str] = {"streamlit": "docker", "gradio": "gradio"}

ABOUT = "space.json"
"""Says what a folder was made of; the sign of a folder that may be written anew."""

_PACKAGE = Path(__file__).resolve().parent
_INSTALLED = _PACKAGE / "ui" / "installed"
_ROOT = _INSTALLED if _INSTALLED.is_dir() else _PACKAGE.parent
_RELEASED = Path("brainseg", "checkpoint", "released.json")
# What the Hub puts into a new Space, and how its README begins.
_NEW = {".git", ".gitattributes", "README.md"}
_SPACE = re.compile(r"---\n(?:[^\n]+\n)*sdk: ")
_LARGE_FILES = "".join(
    f"*.{kind} filter=lfs diff=lfs merge=lfs -text\n" for kind in ("safetensors", "tif", "png")
)


def write_space(face: Face, folder: Path, weights: Sequence[str] = ()) -> dict[str, WeightsCard]:
    """Write a Space into a folder: new, empty, the clone of a new Space, or a Space written by this before.

    Everything is gathered first, so that a folder is left as it was where something is missing.

    Args:
        face: the page it shows.
        folder: where; what this wrote there before is replaced.
        weights: ids on the Hub, ``owner/name`` or ``owner/name@revision``, of one network each. The Space
            fetches them from there, always at the commit that the revision means today. Without any, the
            bundled weights go into the folder itself.

    Returns:
        The cards of the Space's weights, by the name it shows them under.

    Raises:
        BrainsegError: if the folder holds anything else.
        WeightsError: if weights are out of reach or damaged, or two of them are of one architecture.
        OSError: if the folder cannot be written.
    """
    _check(face, folder)
    with tempfile.TemporaryDirectory() as temporary:
        staged = Path(temporary)
        _lay_out(face, staged)
        if weights:
            cards, sources = _name_on_the_hub(weights, staged)
        else:
            cards, sources = _copy_bundled(staged)
        _describe(staged / "README.md", cards, sources)
        about = {
            "face": face,
            "brainseg": __version__,
            "weights": {name: {**sources[name], "licence": card.licence} for name, card in cards.items()},
        }
        (staged / ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        folder.mkdir(parents=True, exist_ok=True)
        _replace(staged, folder)
    return cards


def _check(face: Face, folder: Path) -> None:
    """Refuse a folder whose contents would be lost."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise BrainsegError(f"{folder} is a file; give a folder for the Space")
    inside = {path.name for path in folder.iterdir()}
    if inside <= _NEW and ("README.md" not in inside or _SPACE.match(_text(folder / "README.md"))):
        return
    try:
        made_for = json.loads(_text(folder / ABOUT))["face"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BrainsegError(
            f"{folder} is not empty and holds no Space of brainseg; "
            "give a new folder, or the clone of a new Space"
        ) from error
    if made_for != face:
        raise BrainsegError(f"{folder} holds the Space {made_for!r}, not {face!r}; give another folder")


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def _lay_out(face: Face, folder: Path) -> None:
    """The program and what is particular to the face."""
    templates = _ROOT / "spaces" / face
    if not templates.is_dir():
        raise BrainsegError(f"{templates} is missing; install brainseg again, or run this in a clone")
    leave_out = shutil.ignore_patterns("__pycache__", "*.d.ts", _INSTALLED.name)
    shutil.copytree(templates, folder, ignore=leave_out, dirs_exist_ok=True)
    shutil.copytree(_PACKAGE, folder / "brainseg", ignore=leave_out)
    shutil.copy(_ROOT / "LICENSE", folder)
    (folder / ".gitattributes").write_text(_LARGE_FILES, encoding="utf-8")
    if face == "streamlit":  # the page's own entry and settings; the other face has none beside the template
        shutil.copy(_ROOT / "app.py", folder)
        (folder / ".streamlit").mkdir()
        shutil.copy(_ROOT / ".streamlit" / "config.toml", folder / ".streamlit")


def _copy_bundled(folder: Path) -> tuple[dict[str, WeightsCard], dict[str, dict[str, str]]]:
    """The bundled weights beside the program, where it looks for them first."""
    cards: dict[str, WeightsCard] = {}
    for name in bundled_names():
        cards[name] = load(name).card
        source, copy = resolve(name), folder / "weights" / name
        copy.mkdir(parents=True)
        for file in (CONFIG, TENSORS, "README.md"):
            if (source / file).is_file():
                shutil.copyfile(source / file, copy / file)
    if not cards:
        raise WeightsError("no bundled weights are installed; name some on the Hub with --weights")
    return cards, {name: {"sha256": card.sha256} for name, card in cards.items()}


def _name_on_the_hub(
    weights: Sequence[str], folder: Path
) -> tuple[dict[str, WeightsCard], dict[str, dict[str, str]]]:
    """The Space's own list of releases: the program fetches from it what is not beside it."""
    cards: dict[str, WeightsCard] = {}
    releases: dict[str, dict[str, str]] = {}
    for text in weights:
        if not re.fullmatch(r"[^/@\s]+/[^/@\s]+(@[^@\s]+)?", text) or Path(text).exists():
            raise WeightsError(f"{text!r} is not the id of weights on the Hub; give OWNER/NAME@REVISION")
        card = load(text).card
        name = card.spec.architecture
        if name in cards:
            raise WeightsError(
                f"two of the weights are of one architecture, {name}; a Space shows one of each"
            )
        # In the Hub's cache a folder bears the commit's name.
        releases[name] = asdict(Release(text.partition("@")[0], resolve(text).name, card.sha256))
        cards[name] = card
    (folder / _RELEASED).write_text(json.dumps(releases, indent=2) + "\n", encoding="utf-8")
    return cards, releases


def _describe(readme: Path, cards: dict[str, WeightsCard], sources: dict[str, dict[str, str]]) -> None:
    """Let the README's head name the weights' licence, and where they are."""
    licences = {card.licence for card in cards.values()}
    models = [source["repo"] for source in sources.values() if "repo" in source]
    text = readme.read_text(encoding="utf-8")
    text = re.sub(
        r"^license: .*$",
        f"license: {licences.pop() if len(licences) == 1 else 'other'}",
        text,
        count=1,
        flags=re.M,
    )
    if models:
        text = re.sub(r"^models: \[\]$", "\n- ".join(["models:", *models]), text, count=1, flags=re.M)
    readme.write_text(text, encoding="utf-8")


def _replace(staged: Path, folder: Path) -> None:
    """Move what is staged into the folder, over what was written there before."""
    old = folder / "weights"
    if old.is_dir() and not (staged / "weights").exists():
        shutil.rmtree(old)
    for path in staged.iterdir():
        target = folder / path.name
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        shutil.move(path, target)
