"""Memory and time of a large volume: python benchmarks/volumes.py [--planes 600]

A head of 600 x 512 x 512 voxels of 0.4 mm, three sequences and a mask as gzipped NIfTI with slope and
intercept, is read, cut into slices, and a mask is taken back to its grid, in a process of its own.
"""

from __future__ import annotations

import argparse
import gzip
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np


def main() -> None:
    """Write the files, measure, print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--planes", type=int, default=600)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.folder:
        measure(Path(arguments.folder))
        return
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), arguments.planes, arguments.side)
        subprocess.run([sys.executable, __file__, "--folder", folder], check=True)


def write(folder: Path, planes: int, side: int) -> None:
    """Sagittal, oblique by 5 degrees, int16."""
    shape = (side, side, planes)
    tilt = np.deg2rad(5)
    affine = np.eye(4)
    affine[:3, :3] = 0.4 * np.array(
        [[0, 0, 1], [np.cos(tilt), -np.sin(tilt), 0], [np.sin(tilt), np.cos(tilt), 0]]
    )
    axes = [((np.arange(n) - n / 2) / n * 2) ** 2 for n in shape]
    away = axes[0].astype("f4")[:, None, None] + axes[1].astype("f4")[:, None] + axes[2].astype("f4")
    values = (1000 * np.exp(-3 * away)).astype(np.int16)
    for name in ("t1", "flair", "t1ce", "seg"):
        data = (away < 0.02).astype(np.uint8) if name == "seg" else values
        image = nib.Nifti1Image(data, affine)
        if name != "seg":
            image.header.set_slope_inter(0.5, -1.0)
        with gzip.open(folder / f"p_{name}.nii.gz", "wb", compresslevel=1) as file:
            file.write(image.to_bytes())


def measure(folder: Path) -> None:
    """Read and take back, as a prediction would."""
    import brainseg  # noqa: PLC0415
    from brainseg.grid import to_origin  # noqa: PLC0415

    start = time.perf_counter()
    study = brainseg.read_study(folder)
    read = time.perf_counter()
    after_reading = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert study.reference is not None
    back = to_origin(study.reference.astype(np.float32), study)
    figures = {
        "voxels": int(back.size),
        "slices": list(study.shape),
        "reading_seconds": round(read - start, 1),
        "reading_peak_gb": round(after_reading / 2**20, 2),
        "back_seconds": round(time.perf_counter() - read, 1),
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }
    sys.stdout.write(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
