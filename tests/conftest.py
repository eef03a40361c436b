"""What several test files share."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile

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
