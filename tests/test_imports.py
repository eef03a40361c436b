"""Who may import whom, read from the source and proved in fresh interpreters."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# A module imports its own package and lower layers, never its own layer or a higher one. A new module
# of brainseg goes in here.
LAYERS = {
    "types": 0,
    "sample": 0,
    "grid": 1,
    "io": 2,
    "head": 1,
    "preprocess": 2,
    "datasets": 3,
    "measure": 2,
    "overlay": 1,
    "postprocess": 1,
    "fields": 0,
    "files": 0,
    "report": 4,
    "models": 3,
    "checkpoint": 4,
    "inference": 5,
    "spaces": 5,
    "cohort": 6,
    "evaluation": 7,
    "training": 8,
    "ui": 8,
    "cli": 9,
    "__main__": 10,
    "app": 10,
}
# Heavy or replaceable libraries, and the parts that may know them.
KEEPERS = {
    "torch": {"models", "checkpoint", "inference", "cohort", "training"},
    "safetensors": {"checkpoint", "training"},
    "huggingface_hub": {"checkpoint", "evaluation"},
    "albumentations": {"training"},
    "accelerate": {"training"},
    "streamlit": {"ui", "app"},
    "starlette": {"ui"},
    "gradio": {"ui", "app"},
    "plotly": {"ui"},
    "onnx": {"checkpoint"},
    "onnxruntime": {"checkpoint"},
    "jinja2": {"cohort"},
    "filelock": {"cohort"},
    "ray": {"cohort"},
    "nibabel": {"io", "report"},
    "pydicom": {"io", "report"},
    "highdicom": {"io", "report"},
    "SimpleITK": {"io"},
    "kagglehub": set[str](),
    "pickle": set[str](),
}
SOURCES = [ROOT / "app.py", *sorted((ROOT / "brainseg").rglob("*.py"))]


def part(path: Path) -> str:
    """``brainseg/io/text.py`` -> ``io``; ``brainseg/types.py`` -> ``types``; ``app.py`` -> ``app``."""
    return (
        "app" if path == ROOT / "app.py" else path.relative_to(ROOT / "brainseg").parts[0].removesuffix(".py")
    )


def imports(path: Path) -> Iterator[str]:
    """Full names of all that a file imports, at any depth of its code."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def inner(path: Path) -> set[str]:
    """Parts of brainseg a file imports."""
    names = {name.split(".")[1] for name in imports(path) if name.startswith("brainseg.")}
    return names - {"__version__"}


def test_every_module_has_a_layer() -> None:
    unplaced = {part(path) for path in SOURCES} - LAYERS.keys() - {"__init__"}
    assert not unplaced, f"place {unplaced} in LAYERS"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    own = part(path)
    if own == "__init__":  # the front door: types at once, the rest on first use
        assert inner(path) == {"types", "checkpoint", "inference", "io", "postprocess"}
        return
    wrong = {name for name in inner(path) - {own} if LAYERS[name] >= LAYERS[own]}
    assert not wrong, f"{own} must not import {wrong}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_all_stands_in_packages_alone_and_is_true(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    lists = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    ]
    if path.name != "__init__.py":
        assert not lists, "a module's public names are those without an underscore"
        return
    package = ".".join(path.parent.relative_to(ROOT).parts)
    offered = {name for node in tree.body for name in names_offered(node, package)}
    assert offered == set(*lists)
    assert not lists or len(lists[0]) == len(set(lists[0]))


def names_offered(node: ast.stmt, package: str) -> set[str]:
    """Public names that a statement of a package brings in from its own modules or defines."""
    found: set[str] = set()
    if isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith(f"{package}."):
        found = {alias.asname or alias.name for alias in node.names}
    elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        found = {name for one in node.body for name in names_offered(one, package)}
    elif isinstance(node, ast.FunctionDef | ast.ClassDef):
        found = {node.name}
    elif isinstance(node, ast.Assign):
        found = {ast.unparse(target) for target in node.targets}
    return {name for name in found if not name.startswith("_")}


def test_the_app_never_imports_training() -> None:
    faces = [path for path in SOURCES if part(path) in ("ui", "app")]
    assert len(faces) > 3
    assert not [path for path in faces if "training" in inner(path)]


@pytest.mark.parametrize("library", KEEPERS)
def test_libraries_stay_behind_their_keepers(library: str) -> None:
    users = {part(path) for path in SOURCES if library in {name.split(".")[0] for name in imports(path)}}
    assert users <= KEEPERS[library]


@pytest.mark.parametrize("face", ["streamlit", "gradio"])
def test_only_its_face_knows_a_framework(face: str) -> None:
    users = [path for path in SOURCES if face in {name.split(".")[0] for name in imports(path)}]
    faces = [path for path in users if path.name != "app.py" or path.parent != ROOT]
    assert faces
    assert all(path.parent == ROOT / "brainseg" / "ui" / face for path in faces)


def test_albumentations_stands_behind_one_module() -> None:
    users = [
        path.name for path in SOURCES if any(name.startswith("albumentations") for name in imports(path))
    ]
    assert users == ["data.py"]


def loaded(*modules: str) -> list[set[str]]:
    """Import modules one after another in a fresh interpreter: what is loaded after each."""
    code = (
        "import importlib, json, sys\n"
        f"for name in {list(modules)!r}:\n"
        "    importlib.import_module(name)\n"
        "    print(json.dumps(sorted(sys.modules)))\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    return [set(json.loads(line)) for line in run.stdout.splitlines()]


TORCH_FREE = (
    "files",
    "grid",
    "datasets",
    "io",
    "measure",
    "preprocess",
    "overlay",
    "postprocess",
    "report",
    "sample",
    "cli",
)


def test_reading_measuring_and_drawing_load_no_torch_and_no_face() -> None:
    names = ["brainseg", *(f"brainseg.{name}" for name in TORCH_FREE)]
    steps = loaded(*names)
    assert not steps[0] & {"torch", "scipy", "cv2", "skimage"}
    forbidden = {
        "torch",
        "safetensors",
        "huggingface_hub",
        "streamlit",
        "gradio",
        "albumentations",
        "nilearn",
        "nibabel",
        "pydicom",
        "highdicom",
        "SimpleITK",
    }
    for name, modules in zip(names, steps, strict=True):
        assert name in modules
        assert not modules & forbidden, name


def test_inference_loads_nothing_of_training_and_no_face() -> None:
    [modules] = loaded("brainseg.inference")
    assert "torch" in modules
    forbidden = {"albumentations", "streamlit", "gradio", "accelerate", "kagglehub", "tensorboard", "monai"}
    assert not modules & forbidden
    assert not [name for name in modules if name.startswith(("brainseg.training", "brainseg.ui"))]


def test_names_of_the_package_arrive_on_first_use() -> None:
    code = (
        "import sys, brainseg\n"
        "brainseg.read_study; assert 'torch' not in sys.modules\n"
        "brainseg.load; assert 'torch' in sys.modules\n"
        "from brainseg import *\n"
        "from brainseg import Finding, Prediction, Predictor, Study, find, load, read_study, segment\n"
        "assert set(brainseg.__all__) <= set(dir(brainseg))\n"
        "assert all(hasattr(brainseg, name) for name in brainseg.__all__)\n"
        "try:\n    brainseg.nothing\nexcept AttributeError as error:\n    print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert run.stdout.strip() == "module 'brainseg' has no attribute 'nothing'"
