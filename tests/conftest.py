"""What several test files share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import HealthCheck, settings
from PIL import Image

from brainseg.checkpoint import save
from brainseg.models import ARCHITECTURES, build
from brainseg.types import ModelSpec, WeightsCard

# How quick a machine is, and what else it does, is no property of the code.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

ROOT = Path(__file__).resolve().parent.parent
SIZE = 64
PATIENTS = [f"SYN_{place}_{number:04d}_20000101" for place in ("AA", "BB") for number in (1, 2)]


@pytest.fixture(scope="session")
def lgg(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four patients of four slices, a bright disc in three of them, in the layout of the LGG data."""
    root = tmp_path_factory.mktemp("lgg")
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    for patient in PATIENTS:
        (root / patient).mkdir()
        for number in range(1, 5):
            pixels = rng.integers(20, 70, (SIZE, SIZE, 3)).astype(np.uint8)
            row, column = rng.integers(SIZE // 3, 2 * SIZE // 3, 2)
            mask = ((rows - row) ** 2 + (columns - column) ** 2 < (SIZE // 7) ** 2) & (number > 1)
            pixels[mask] += 130
            name = f"{patient}_{number}"
            tifffile.imwrite(root / patient / f"{name}.tif", pixels, photometric="rgb")
            tifffile.imwrite(root / patient / f"{name}_mask.tif", mask.astype(np.uint8) * 255)
    (root / "folds.json").write_text(json.dumps({"folds": [PATIENTS[:1], PATIENTS[1:]]}))
    return root


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny random weights of all four networks; the head lets some pixels be tumour."""
    root = tmp_path_factory.mktemp("weights")
    for name in ARCHITECTURES:
        torch.manual_seed(0)
        spec = ModelSpec(name, width=4)
        network = build(spec)
        with torch.no_grad():
            head = network.get_submodule("head")
            head.get_parameter("weight")[:] = torch.tensor([1.0, -1.0, 1.0, -1.0]).view(1, 4, 1, 1)
            head.get_parameter("bias").zero_()
        card = WeightsCard(
            name, spec, {"size": SIZE}, 0.5, "all", "", "cc-by-nc-sa-4.0", ("CASE_A",), ("CASE_B", "CASE_C")
        )
        save(root / name, network, card)
    return {name: root / name for name in ARCHITECTURES}


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three patients in the LGG layout; the third has no tumour."""
    root = tmp_path_factory.mktemp("dataset")
    rng = np.random.default_rng(0)
    for case in ("CASE_A", "CASE_B", "CASE_C"):
        (root / case).mkdir()
        for number in range(1, 4):
            image = rng.integers(0, 255, (SIZE, SIZE, 3), np.uint8)
            mask = np.zeros((SIZE, SIZE), np.uint8)
            if case != "CASE_C":
                mask[20:40, 10 : 20 + 4 * number] = 255
            Image.fromarray(image).save(root / case / f"{case}_{number}.tif")
            Image.fromarray(mask).save(root / case / f"{case}_{number}_mask.tif")
    return root


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as `make docs` builds it; a warning ends the build."""
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)]
    # The variable leaves out the theme's notice of its successor.
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return out
