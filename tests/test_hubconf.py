"""The four networks through torch.hub, from this repository and without a network."""

from __future__ import annotations

import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement

import brainseg
from brainseg.models import ARCHITECTURES

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MODULES = {"cv2": "opencv-python-headless"}


def test_every_network_is_an_entry_point_with_its_contract() -> None:
    found = runpy.run_path(str(ROOT / "hubconf.py"))
    entries = {name for name, value in found.items() if callable(value) and not name.startswith("_")}
    assert entries == set(ARCHITECTURES)
    for name, architecture in ARCHITECTURES.items():
        text = found[name].__doc__
        assert text.startswith(f"{architecture.title} ({architecture.paper}).")
        assert "(B, 3, H, W) in 0..1, normalised by `brainseg.preprocess.Preprocess` -> logits" in text
        assert "sigmoid" in text
    stated = {requirement.name for requirement in map(Requirement, PROJECT["dependencies"])}
    assert {MODULES.get(name, name) for name in found["dependencies"]} <= stated


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_pretrained_is_what_load_gives(name: str) -> None:
    network = torch.hub.load(str(ROOT), name, source="local", pretrained=True)
    own = brainseg.load(name)
    assert not network.training
    x = torch.rand(1, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        logits = network(x)
        assert torch.equal(logits, own.network(x))
    assert logits.shape == (1, 1, 32, 48)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_untrained_has_the_released_shapes_and_other_values(name: str) -> None:
    fresh = torch.hub.load(str(ROOT), name, source="local", pretrained=False).state_dict()
    released = brainseg.load(name).network.state_dict()
    assert {key: value.shape for key, value in fresh.items()} == {
        key: value.shape for key, value in released.items()
    }
    assert not all(torch.equal(value, released[key]) for key, value in fresh.items())


def test_an_empty_process_needs_no_network(tmp_path: Path) -> None:
    """Nothing of brainseg is on the path but what torch.hub puts there."""
    code = (
        "import socket, sys, torch\n"
        "def refuse(*_): raise AssertionError('the network was asked')\n"
        "socket.socket.connect = refuse\n"
        f"network = torch.hub.load({str(ROOT)!r}, 'unet', source='local')\n"
        "print(type(network).__name__, sys.modules['brainseg'].__file__)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["UNet", str(ROOT / "brainseg" / "__init__.py")]
