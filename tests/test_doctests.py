"""The examples in docstrings and in README.md run and give what they say."""

from __future__ import annotations

import doctest
import re
import shutil
from importlib import import_module
from pathlib import Path

import pytest

import brainseg
from brainseg.sample import SYNTHETIC_GLIOMA

PACKAGE = Path(brainseg.__file__).parent
ROOT = Path(__file__).resolve().parent.parent


def with_examples() -> list[str]:
    """Full names of the modules whose source holds a prompt."""
    paths = [path for path in PACKAGE.rglob("*.py") if ">>> " in path.read_text(encoding="utf-8")]
    names = [".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in paths]
    return sorted(name.removesuffix(".__init__") for name in names)


def test_the_front_door_has_examples() -> None:
    assert "brainseg" in with_examples()


@pytest.mark.parametrize("name", with_examples())
def test_examples_of_a_module(name: str) -> None:
    result = doctest.testmod(import_module(name), optionflags=doctest.FAIL_FAST)
    assert result.attempted > 0
    assert result.failed == 0


def test_python_of_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each block, in one namespace, beside a patient's folder of the name it uses."""
    (tmp_path / "patient_folder").mkdir()
    for number in range(12, 16):  # four slices through the lesion
        for path in SYNTHETIC_GLIOMA.glob(f"*_{number}*.tif"):
            shutil.copy(path, tmp_path / "patient_folder")
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert blocks
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    study = names["study"]
    assert isinstance(study, brainseg.Study)
    finding = names["finding"]
    assert isinstance(finding, brainseg.Finding)
    assert finding.mask.shape == study.shape
    assert finding.mask.any()
