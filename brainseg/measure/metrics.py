"""How well a mask agrees with a reference: overlap and surface distance, of a patient and of a data set.

A figure that cannot be computed is an `Undefined` with its reason, never NaN and never a flattering 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import KDTree

from brainseg.measure.checks import bounding_box, check_pair, check_spacing
from brainseg.measure.size import area_per_slice
from brainseg.types import BoolArray, Figure, Metrics, Spacing, Undefined

FIGURES = ("dice", "iou", "sensitivity", "precision", "hd95", "assd")
"""Names of the figures in a `Metrics`, in the order they are shown."""

BOTH_EMPTY = Undefined("both masks are empty")
MASK_EMPTY = Undefined("the mask is empty")
REFERENCE_EMPTY = Undefined("the reference is empty")


def dice(mask: BoolArray, reference: BoolArray) -> Figure:
    """2 TP / (2 TP + FP + FN) of two bool arrays of one shape; `Undefined` when both are empty."""
    size = int(np.count_nonzero(mask)) + int(np.count_nonzero(reference))
    return 2 * int(np.count_nonzero(mask & reference)) / size if size else BOTH_EMPTY


def compare(mask: BoolArray, reference: BoolArray, spacing_mm: Spacing | None) -> Metrics:
    """Agreement of one mask with a reference over a whole volume or over one slice.

    Surface distances are those from each surface voxel of one mask to the nearest surface voxel of the other,
    both ways; a surface voxel has a face neighbour outside its mask, and beyond the border of the array is
    outside. HD95 is the larger of the 95th percentiles (linear interpolation) of the two ways. ASSD, the
    average symmetric surface distance, is the mean over the surface voxels of both masks together
    (Yeghiazaryan and Voiculescu 2018, doi 10.1117/1.JMI.5.1.015006).

    Args:
        mask: (S, H, W) or (H, W) bool.
        reference: bool, same shape.
        spacing_mm: between slices, rows, columns, in mm; a single slice uses the last two. None when
            unknown, which gives distances in voxels of unit size.

    Raises:
        ValueError: if the masks are not bool, differ in shape, have neither two nor three axes, or the
            spacing is not three positive numbers.
    """
    check_pair(mask, reference, (2, 3))
    check_spacing(spacing_mm)
    unit: Literal["mm", "voxels"] = "voxels" if spacing_mm is None else "mm"
    found = int(np.count_nonzero(mask))
    real = int(np.count_nonzero(reference))
    if not found and not real:
        return Metrics(BOTH_EMPTY, BOTH_EMPTY, BOTH_EMPTY, BOTH_EMPTY, BOTH_EMPTY, BOTH_EMPTY, unit, 0, 0)
    if not found:
        return Metrics(0.0, 0.0, 0.0, MASK_EMPTY, MASK_EMPTY, MASK_EMPTY, unit, 0, real)
    if not real:
        return Metrics(0.0, 0.0, REFERENCE_EMPTY, 0.0, REFERENCE_EMPTY, REFERENCE_EMPTY, unit, found, 0)
    common = int(np.count_nonzero(mask & reference))
    there, back = _distances(mask, reference, None if spacing_mm is None else spacing_mm[-mask.ndim :])
    return Metrics(
        dice=dice(mask, reference),
        iou=common / (found + real - common),
        sensitivity=common / real,
        precision=common / found,
        hd95=max(float(np.percentile(there, 95)), float(np.percentile(back, 95))),
        assd=float(np.concatenate([there, back]).mean()),
        hd95_unit=unit,
        tumour_voxels=found,
        reference_voxels=real,
    )


def compare_slices(mask: BoolArray, reference: BoolArray, spacing_mm: Spacing | None) -> tuple[Metrics, ...]:
    """`compare` for every slice by itself, surfaces and distances within the slice.

    Args:
        mask: (S, H, W) bool.
        reference: (S, H, W) bool.
        spacing_mm: as in `compare`.

    Returns:
        S metrics in slice order.

    Raises:
        ValueError: as `compare`, and if the masks do not have three axes.
    """
    check_pair(mask, reference, (3,))
    return tuple(compare(m, r, spacing_mm) for m, r in zip(mask, reference, strict=True))


def worst_slice(mask: BoolArray, reference: BoolArray) -> int | None:
    """Index of the slice with the lowest Dice; among equals the one with the most wrong pixels.

    Slices on which both masks are empty have no Dice and are left out; None when no slice is left.

    Args:
        mask: (S, H, W) bool.
        reference: (S, H, W) bool.

    Raises:
        ValueError: if the masks are not (S, H, W) bool of one shape.
    """
    check_pair(mask, reference, (3,))
    both = area_per_slice(mask) + area_per_slice(reference)
    common = area_per_slice(mask & reference)
    candidates = np.flatnonzero(both)
    if not candidates.size:
        return None
    dice = 2 * common[candidates] / both[candidates]
    wrong = both[candidates] - 2 * common[candidates]
    return int(candidates[np.lexsort((-wrong, dice))[0]])


def summarise(metrics: Mapping[str, Metrics]) -> dict[str, Any]:
    """Figures of a data set from the volumetric metrics of its patients, ready for JSON.

    Figures that cannot be computed are left out of the means and counted. A lesion that was missed
    altogether has Dice 0, so it lowers the Dice mean; HD95 is not computable for an empty mask, so
    `hd95_mean` is to be read together with `missed` and `hd95_count`.

    Args:
        metrics: by patient, each from `compare` over the whole volume.

    Returns:
        Figures by name.

        - ``cases``: patients given;
        - ``dice_mean``, ``dice_median``, ``dice_std`` (population standard deviation): over the
          ``dice_count`` patients with a Dice, None when there are none;
        - ``not_computable``: patients without a Dice, both masks being empty;
        - ``missed``: patients whose lesion the mask does not touch, whether it is empty or elsewhere;
        - ``hd95_mean``: over the ``hd95_count`` patients with an HD95, in ``hd95_unit``; None when
          there are none.

    Raises:
        ValueError: if a figure is NaN or infinite, or if some HD95 are in mm and others in voxels.
    """
    dice = [x for m in metrics.values() if (x := figure_to_json(m.dice)) is not None]
    distances = [(x, m.hd95_unit) for m in metrics.values() if (x := figure_to_json(m.hd95)) is not None]
    units = {unit for _, unit in distances}
    if len(units) > 1:
        raise ValueError("HD95 of some patients is in mm and of others in voxels; they have no common mean")
    return {
        "cases": len(metrics),
        "dice_mean": float(np.mean(dice)) if dice else None,
        "dice_median": float(np.median(dice)) if dice else None,
        "dice_std": float(np.std(dice)) if dice else None,
        "dice_count": len(dice),
        "not_computable": len(metrics) - len(dice),
        "missed": sum(m.sensitivity == 0 for m in metrics.values()),
        "hd95_mean": float(np.mean([x for x, _ in distances])) if distances else None,
        "hd95_count": len(distances),
        "hd95_unit": units.pop() if units else None,
    }


def figure_to_json(figure: Figure) -> float | None:
    """The number, or None when it is not computable.

    Raises:
        ValueError: if the number is NaN or infinite.
    """
    if isinstance(figure, Undefined):
        return None
    if not math.isfinite(figure):
        raise ValueError(f"a figure must be finite or Undefined, got {figure}")
    return float(figure)


def format_figure(figure: Figure, digits: int) -> str:
    """The figure with `digits` decimals, or "not computable: reason"."""
    return str(figure) if isinstance(figure, Undefined) else f"{figure:,.{digits}f}"


def metrics_to_json(metrics: Metrics) -> dict[str, Any]:
    """The fields of `metrics` for JSON; figures that are not computable are None.

    Their reasons stand under ``not_computable``, by name of the figure.

    Raises:
        ValueError: if a figure is NaN or infinite.
    """
    figures: dict[str, Figure] = {name: getattr(metrics, name) for name in FIGURES}
    return {
        **{name: figure_to_json(figure) for name, figure in figures.items()},
        "hd95_unit": metrics.hd95_unit,
        "assd_unit": metrics.hd95_unit,
        "tumour_voxels": metrics.tumour_voxels,
        "reference_voxels": metrics.reference_voxels,
        "not_computable": {name: f.reason for name, f in figures.items() if isinstance(f, Undefined)},
    }


def _distances(
    mask: BoolArray, reference: BoolArray, spacing: Sequence[float] | None
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """From each surface voxel of one mask that is not empty to the nearest of the other, both ways."""
    box = bounding_box(mask | reference)
    scale = np.ones(mask.ndim) if spacing is None else np.asarray(spacing, dtype=np.float64)
    a = np.argwhere(_surface(mask[box])) * scale
    b = np.argwhere(_surface(reference[box])) * scale
    # A tree over surface points stays fast when two blobs lie far apart, where a distance
    # transform has to fill the whole box between them.
    return KDTree(b).query(a)[0], KDTree(a).query(b)[0]


def _surface(mask: BoolArray) -> BoolArray:
    return np.asarray(mask & ~ndimage.binary_erosion(mask), dtype=np.bool_)
