"""Write the requirements.txt of each Space: `make lock` runs it.

A Space on the Hub reads that file alone and installs it anew at each rebuild, months later perhaps. So it
names all that brainseg needs without the other face, to the last package, in the versions of constraints.txt.
"""

from __future__ import annotations

import sys
import tomllib
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

HERE = Path(__file__).resolve().parent
FACES = ("gradio", "streamlit")

# ZeroGPU, which the Gradio Space is for, takes no later ones; the other has what everything is tested with.
TORCH = {"gradio": "2.9.1"}

# The Spaces' machine, which need not be the one this runs on.
_MACHINE = {
    "python_version": "3.12",
    "python_full_version": "3.12.12",
    "sys_platform": "linux",
    "platform_system": "Linux",
    "platform_machine": "x86_64",
    "os_name": "posix",
    "implementation_name": "cpython",
    "platform_python_implementation": "CPython",
}


def text(face: str) -> str:
    """What the requirements.txt of a face must be."""
    lines = (HERE.parent / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {canonicalize_name(one.name): one for one in map(Requirement, filter(_states, lines))}
    others = {name for name in FACES if name != face}
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = _needed(project["dependencies"], others)
    versions = {name: str(pinned[name].specifier) for name in names if name in pinned}
    if face in TORCH:
        versions[canonicalize_name("torch")] = f"=={TORCH[face]}"
    head = [
        f"# What the {face.title()} page needs, all of it, as tested; written by `make lock`.",
        *(f"{pinned[name].name}{versions[name]}" for name in sorted(versions)),
    ]
    return "\n".join(head) + "\n"


def _states(line: str) -> bool:
    return bool(line) and not line.startswith("#")


def _needed(dependencies: list[str], others: set[str]) -> set[NormalizedName]:
    """Names of all that is needed, and what that needs in turn, without `others`."""
    found: set[NormalizedName] = set()
    todo: list[tuple[Requirement, str]] = [(Requirement(line), "") for line in dependencies]
    seen: set[tuple[str, str]] = set()
    while todo:
        one, extra = todo.pop()
        name = canonicalize_name(one.name)
        wanted = one.marker is None or one.marker.evaluate({**_MACHINE, "extra": extra})
        # The builds of PyTorch bring packages of their own, which they pin themselves.
        if not wanted or name in others or name.startswith(("nvidia-", "cuda-", "triton")):
            continue
        found.add(name)
        for asked in {"", *one.extras}:
            if (name, asked) not in seen:
                seen.add((name, asked))
                todo += [(Requirement(line), asked) for line in requires(name) or ()]
    return found


if __name__ == "__main__":
    for face in sys.argv[1:] or FACES:
        (HERE / face / "requirements.txt").write_text(text(face), encoding="utf-8")
