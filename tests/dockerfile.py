"""The steps of a Dockerfile, run without Docker."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import elsewhere

# Users and packages are the machine's; the tests have both already.
_OF_THE_MACHINE = ("useradd ", "pip install ")


@dataclass
class Image:
    """What the steps make of a folder.

    Attributes:
        root: stands for ``/`` of the image, as far as the steps write there.
        base: what follows FROM.
        variables: of the environment, those of ENV over those of the tests.
        said: what the RUN steps wrote.
        skipped: RUN steps that were not run, those of `_OF_THE_MACHINE`.
        workdir, user, command, health, ports: as the steps say.
    """

    root: Path
    variables: dict[str, str]
    base: str = ""
    workdir: Path = Path()
    user: str = "root"
    command: list[str] = field(default_factory=list)
    health: str = ""
    ports: list[int] = field(default_factory=list)
    said: str = ""
    skipped: list[str] = field(default_factory=list)

    def run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        """Run to the end as the image's user."""
        return subprocess.run(
            [*self.prefix(), *command],
            cwd=self.workdir,
            env=self.variables,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def prefix(self) -> list[str]:
        """Before a command: what makes it the image's user's."""
        return [] if self.user == "root" else elsewhere.as_user() or []

    def inside(self, text: str) -> str:
        """Absolute paths of the image in a text, as paths under `root`."""
        return re.sub(r"(?<![\w/.:])/(home|tmp)(?=/)", lambda found: f"{self.root}/{found[1]}", text)


def build(context: Path, root: Path, variables: dict[str, str]) -> Image:
    """Run the steps of ``context/Dockerfile``.

    Args:
        context: the folder.
        root: an empty folder that stands for the image's ``/``.
        variables: of the environment before the first step; its PATH must hold the Python to use.

    Raises:
        AssertionError: if a step fails, or is of a kind not known here.
    """
    image = Image(root, dict(variables), workdir=root)
    (root / "home" / "user").mkdir(parents=True)
    elsewhere.give(root / "home")
    text = (context / "Dockerfile").read_text(encoding="utf-8")
    text = re.sub(r"^#.*\n", "", text, flags=re.M).replace("\\\n", " ")
    for line in filter(None, map(str.strip, text.splitlines())):
        _step(image, context, *line.split(None, 1))
    return image


def _step(image: Image, context: Path, kind: str, rest: str) -> None:
    match kind:
        case "RUN":
            _run(image, rest)
        case "COPY":
            _copy(image, context, rest.split())
        case "WORKDIR":
            image.workdir = Path(image.inside(rest))
            assert image.workdir.is_dir(), f"{rest} would belong to root"
        case "ENV":
            stated = dict(word.split("=", 1) for word in shlex.split(rest))
            image.variables |= {key: image.inside(value) for key, value in stated.items()}
        case "FROM":
            image.base = rest
        case "USER":
            image.user = rest
        case "EXPOSE":
            image.ports.append(int(rest))
        case "HEALTHCHECK":
            image.health = rest.partition("CMD ")[2]
        case "CMD":
            image.command = json.loads(rest)
        case _:
            raise AssertionError(f"the step {kind} is not known here")


def _run(image: Image, command: str) -> None:
    if command.startswith(_OF_THE_MACHINE):
        image.skipped.append(command)
        return
    done = image.run(["sh", "-c", image.inside(command)])
    assert done.returncode == 0, done.stderr
    image.said += done.stdout


def _copy(image: Image, context: Path, words: list[str]) -> None:
    source, target = context / words[-2], Path(image.inside(words[-1]))
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    if words[0] == "--chown=user:user":
        elsewhere.give(target)
