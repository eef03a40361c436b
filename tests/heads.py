"""A head made of ellipsoids with a lesion on its left, on any grid, by its place in the world; for tests."""

from __future__ import annotations

from itertools import permutations, product
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from brainseg.io import NamedBytes, find_cases, read_case
from brainseg.types import Study

ORDERS = [(order, signs) for order in permutations(range(3)) for signs in product((1, -1), repeat=3)]
"""All 48: the world axis of each voxel axis, and its sign."""

LESION_MM = np.array([-25.0, 10.0, 18.0])
"""Its centre, RAS+: patient left, front, above."""

Matrix = npt.NDArray[np.float64]


def name_of(order: tuple[tuple[int, ...], tuple[int, ...]]) -> str:
    """For test ids: ``-R+S+A``."""
    return "".join(f"{'-' if sign < 0 else '+'}{'RAS'[axis]}" for axis, sign in zip(*order, strict=True))


def affine_of(
    order: tuple[int, ...] = (0, 1, 2),
    signs: tuple[int, ...] = (-1, -1, 1),
    spacing: tuple[float, ...] = (4.0, 4.0, 6.0),
    shape: tuple[int, ...] = (40, 44, 24),
    tilt: float = 0.0,
) -> Matrix:
    """(4, 4) for NIfTI's (i, j, k), its centre in the world's origin, turned by `tilt` degrees."""
    axes = np.zeros((3, 3))
    for column, (axis, sign) in enumerate(zip(order, signs, strict=True)):
        axes[axis, column] = sign * spacing[column]
    turn = Rotation.from_rotvec(np.deg2rad(tilt) * np.array([2.0, 1.0, -1.0]) / np.sqrt(6)).as_matrix()
    out = np.eye(4)
    out[:3, :3] = turn @ axes
    out[:3, 3] = -out[:3, :3] @ ((np.array(shape) - 1) / 2)
    return out


def places(affine: Matrix, shape: tuple[int, ...]) -> Matrix:
    """(i, j, k, 3): where each voxel lies."""
    voxels = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    return np.asarray(voxels @ affine[:3, :3].T + affine[:3, 3])


def lesion(affine: Matrix, shape: tuple[int, ...], radius: float = 16.0) -> npt.NDArray[np.uint8]:
    """1 within `radius` mm of `LESION_MM`."""
    away = np.linalg.norm(places(affine, shape) - LESION_MM, axis=-1)
    return np.asarray(away < radius, np.uint8)


def head(affine: Matrix, shape: tuple[int, ...], bright: float = 300.0) -> npt.NDArray[np.int16]:
    """A head of 140 x 170 x 140 mm with the lesion in it."""
    where = places(affine, shape)
    inside = ((where / (70.0, 85.0, 70.0)) ** 2).sum(axis=-1)
    values = 100.0 * (inside < 1) + 40.0 * (inside < 0.8) + 0.2 * where[..., 0] * (inside < 0.8)
    values += bright * np.exp(-((np.linalg.norm(where - LESION_MM, axis=-1) / 16.0) ** 2)) * (inside < 1)
    return np.asarray(np.maximum(values, 0), np.int16)


def nifti(values: npt.NDArray[Any], affine: Matrix, cls: type = nib.Nifti1Image) -> bytes:
    """As nibabel writes it."""
    data: bytes = cls(values, affine).to_bytes()
    return data


def patient(
    affine: Matrix, shape: tuple[int, ...] = (40, 44, 24), *, mask: bool = True, **changes: bytes | None
) -> list[NamedBytes]:
    """A BraTS-like folder; `changes` by sequence replace a file's bytes, or leave it out."""
    files: dict[str, bytes | None] = {
        "t1": nifti(head(affine, shape, 50.0), affine),
        "flair": nifti(head(affine, shape), affine),
        "t1ce": nifti(head(affine, shape, 150.0), affine),
        "seg": nifti(lesion(affine, shape), affine) if mask else None,
    }
    return [
        NamedBytes(f"P01/P01_{key}.nii", data) for key, data in (files | changes).items() if data is not None
    ]


def read(files: list[NamedBytes], **options: Any) -> Study:
    """The one patient there."""
    [case] = find_cases(files)
    return read_case(case, **options)


def centre_mm(study: Study, marked: npt.NDArray[np.bool_]) -> Matrix:
    """Where the middle of a mask on a study's grid lies in the world."""
    assert study.affine is not None
    return np.asarray(study.affine[:3, :3] @ np.argwhere(marked).mean(axis=0) + study.affine[:3, 3])
