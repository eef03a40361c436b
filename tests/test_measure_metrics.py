"""Every figure against an independent implementation: MONAI, scikit-learn or SciPy."""

from __future__ import annotations

import json
import math
import warnings
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from sklearn.metrics import f1_score, jaccard_score, precision_score, recall_score

from brainseg.measure import (
    FIGURES,
    compare,
    compare_slices,
    figure_to_json,
    format_figure,
    metrics_to_json,
    summarise,
    worst_slice,
)
from brainseg.types import BoolArray, Metrics, Spacing, Undefined

with warnings.catch_warnings():
    # MONAI and what it imports deprecate parts of themselves.
    warnings.simplefilter("ignore")
    import torch
    from monai.metrics import (
        compute_average_surface_distance,
        compute_dice,
        compute_hausdorff_distance,
        compute_iou,
    )

SPACINGS: list[Spacing | None] = [None, (1.0, 1.0, 1.0), (5.0, 0.9, 0.7)]


def blobs(seed: int, shape: tuple[int, ...], level: float = 0.3) -> BoolArray:
    """Smooth random blobs, touching the borders now and then."""
    noise = np.random.default_rng(seed).standard_normal(shape)
    smooth = ndimage.gaussian_filter(noise, 1.5)
    return np.asarray(smooth > level * smooth.std())


def monai(function: object, mask: BoolArray, reference: BoolArray, **options: object) -> float:
    a, b = (torch.from_numpy(x.astype(np.float32))[None, None] for x in (mask, reference))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(function(a, b, include_background=True, **options))  # type: ignore[operator]


def distances_by_transform(
    mask: BoolArray, reference: BoolArray, spacing: Spacing | None
) -> tuple[float, float]:
    """HD95 and ASSD, their definitions by SciPy's distance transform, on an uncropped, padded grid."""
    sampling = None if spacing is None else spacing[-mask.ndim :]
    edges = []
    for x in (mask, reference):
        padded = np.pad(x, 1)
        edges.append(padded & ~ndimage.binary_erosion(padded))
    a, b = edges
    to_b = ndimage.distance_transform_edt(~b, sampling=sampling)[a]
    to_a = ndimage.distance_transform_edt(~a, sampling=sampling)[b]
    hd95 = max(np.quantile(to_b, 0.95), np.quantile(to_a, 0.95))
    return float(hd95), float((to_a.sum() + to_b.sum()) / (to_a.size + to_b.size))


def check_all(mask: BoolArray, reference: BoolArray, spacing: Spacing | None) -> None:
    ours = compare(mask, reference, spacing)
    a, b = mask.ravel(), reference.ravel()
    assert ours.dice == pytest.approx(monai(compute_dice, mask, reference), rel=1e-6)
    assert ours.iou == pytest.approx(monai(compute_iou, mask, reference), rel=1e-6)
    assert ours.dice == pytest.approx(f1_score(b, a), rel=1e-12)
    assert ours.iou == pytest.approx(jaccard_score(b, a), rel=1e-12)
    assert ours.sensitivity == pytest.approx(recall_score(b, a), rel=1e-12)
    assert ours.precision == pytest.approx(precision_score(b, a), rel=1e-12)
    sampling = None if spacing is None else list(spacing[-mask.ndim :])
    theirs = monai(compute_hausdorff_distance, mask, reference, percentile=95, spacing=sampling)
    assert ours.hd95 == pytest.approx(theirs, rel=1e-5)
    theirs = monai(compute_average_surface_distance, mask, reference, symmetric=True, spacing=sampling)
    assert ours.assd == pytest.approx(theirs, rel=1e-5)
    assert (ours.hd95, ours.assd) == pytest.approx(
        distances_by_transform(mask, reference, spacing), rel=1e-12
    )
    assert ours.hd95_unit == ("voxels" if spacing is None else "mm")
    assert (ours.tumour_voxels, ours.reference_voxels) == (mask.sum(), reference.sum())


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("seed", range(6))
def test_volume_equals_monai_scikit_learn_and_scipy(seed: int, spacing: Spacing | None) -> None:
    shape = (7, 24, 19)
    check_all(blobs(seed, shape), blobs(seed + 100, shape, level=0.8), spacing)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("seed", range(4))
def test_slice_equals_monai_scikit_learn_and_scipy(seed: int, spacing: Spacing | None) -> None:
    check_all(blobs(seed, (30, 41)), blobs(seed + 100, (30, 41)), spacing)


def box(shape: tuple[int, ...], *ranges: tuple[int, int]) -> BoolArray:
    mask = np.zeros(shape, dtype=bool)
    mask[tuple(slice(*r) for r in ranges)] = True
    return mask


EDGE_CASES = {
    "single voxel, same": (box((3, 5, 5), (1, 2), (2, 3), (2, 3)), box((3, 5, 5), (1, 2), (2, 3), (2, 3))),
    "single voxels, opposite corners": (
        box((4, 6, 7), (0, 1), (0, 1), (0, 1)),
        box((4, 6, 7), (3, 4), (5, 6), (6, 7)),
    ),
    "full and full": (np.ones((4, 6, 7), dtype=bool), np.ones((4, 6, 7), dtype=bool)),
    "full and one voxel": (np.ones((4, 6, 7), dtype=bool), box((4, 6, 7), (2, 3), (3, 4), (3, 4))),
    "both touch the border": (
        box((5, 8, 8), (0, 3), (0, 4), (0, 8)),
        box((5, 8, 8), (2, 5), (3, 8), (0, 8)),
    ),
    "one slice only": (box((1, 8, 8), (0, 1), (0, 4), (0, 8)), box((1, 8, 8), (0, 1), (2, 8), (1, 5))),
    "two far blobs": (
        box((9, 30, 30), (0, 2), (0, 3), (0, 3)) | box((9, 30, 30), (7, 9), (25, 30), (25, 30)),
        box((9, 30, 30), (0, 2), (0, 3), (0, 3)),
    ),
}


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("name", EDGE_CASES)
def test_edge_cases_equal_the_references(name: str, spacing: Spacing | None) -> None:
    check_all(*EDGE_CASES[name], spacing)


masks_2d = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=6))


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_any_pair_is_bounded_and_symmetric(data: st.DataObject) -> None:
    mask = data.draw(masks_2d)
    reference = data.draw(hnp.arrays(np.bool_, mask.shape))
    there, back = compare(mask, reference, None), compare(reference, mask, None)
    assert there.dice == back.dice
    assert there.iou == back.iou
    for name in ("hd95", "assd"):
        one, other = (figure_to_json(getattr(m, name)) for m in (there, back))
        assert one == pytest.approx(other)
    for name in ("dice", "iou", "sensitivity", "precision"):
        value = figure_to_json(getattr(there, name))
        assert value is None or 0 <= value <= 1
    if mask.any() and reference.any():
        assert (there.hd95, there.assd) == pytest.approx(
            distances_by_transform(mask, reference, None), rel=1e-12
        )


def test_distances_count_mm_between_slices() -> None:
    a, b = box((5, 4, 4), (0, 1), (1, 2), (1, 2)), box((5, 4, 4), (3, 4), (1, 2), (1, 2))
    far, near = compare(a, b, (5.0, 1.0, 1.0)), compare(a, b, None)
    assert (far.hd95, far.assd) == (15.0, 15.0)
    assert (near.hd95, near.assd) == (3.0, 3.0)


EMPTY, LESION = np.zeros((3, 6, 6), dtype=bool), box((3, 6, 6), (1, 2), (2, 4), (2, 4))


def test_both_empty_is_not_computable() -> None:
    found = compare(EMPTY, EMPTY, None)
    for name in FIGURES:
        assert getattr(found, name) == Undefined("both masks are empty")
    assert (found.tumour_voxels, found.reference_voxels) == (0, 0)


def test_missed_lesion_is_dice_zero_without_hd95() -> None:
    found = compare(EMPTY, LESION, None)
    assert (found.dice, found.iou, found.sensitivity) == (0.0, 0.0, 0.0)
    assert found.precision == Undefined("the mask is empty")
    assert found.hd95 == found.assd == Undefined("the mask is empty")


def test_mask_without_a_lesion_is_dice_zero_without_sensitivity() -> None:
    found = compare(LESION, EMPTY, (1.0, 1.0, 1.0))
    assert (found.dice, found.iou, found.precision) == (0.0, 0.0, 0.0)
    assert found.sensitivity == Undefined("the reference is empty")
    assert found.hd95 == found.assd == Undefined("the reference is empty")
    assert found.hd95_unit == "mm"


@pytest.mark.parametrize("spacing", SPACINGS)
def test_slices_equal_one_slice_at_a_time(spacing: Spacing | None) -> None:
    mask, reference = blobs(1, (6, 20, 20)), blobs(2, (6, 20, 20))
    mask[0] = reference[0] = False
    mask[1] = False
    found = compare_slices(mask, reference, spacing)
    assert found == tuple(compare(mask[i], reference[i], spacing) for i in range(6))
    assert found[0].dice == Undefined("both masks are empty")
    assert found[1].dice == 0.0


def test_inputs_are_left_alone() -> None:
    mask, reference = blobs(1, (4, 9, 9)), blobs(2, (4, 9, 9))
    before = mask.copy(), reference.copy()
    compare_slices(mask, reference, None)
    assert np.array_equal(mask, before[0])
    assert np.array_equal(reference, before[1])


@pytest.mark.parametrize(
    ("mask", "reference", "spacing", "words"),
    [
        (EMPTY.astype(np.uint8), EMPTY, None, "bool"),
        (EMPTY, EMPTY.astype(np.uint8), None, "bool"),
        (EMPTY, EMPTY[:2], None, "reference is"),
        (EMPTY[0, 0], EMPTY[0, 0], None, "axes"),
        (EMPTY, EMPTY, (1.0, 0.0, 1.0), "spacing"),
        (EMPTY, EMPTY, (1.0, math.nan, 1.0), "spacing"),
        (EMPTY, EMPTY, (1.0, 1.0), "spacing"),
    ],
)
def test_compare_rejects(mask: BoolArray, reference: BoolArray, spacing: Spacing, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        compare(mask, reference, spacing)


def test_worst_slice() -> None:
    reference = np.zeros((5, 4, 4), dtype=bool)
    mask = reference.copy()
    assert worst_slice(mask, reference) is None
    reference[1:4, :2] = True
    mask[1:4, :2] = True
    assert worst_slice(mask, reference) == 1
    mask[2, 0] = False
    assert worst_slice(mask, reference) == 2
    mask[0, 0, 0] = True
    assert worst_slice(mask, reference) == 0
    mask[3], reference[4, :3] = False, True
    assert worst_slice(mask, reference) == 4, "of three slices with Dice 0, 12 wrong pixels are the most"


@pytest.mark.parametrize("seed", range(5))
def test_worst_slice_has_the_lowest_dice_of_compare_slices(seed: int) -> None:
    mask, reference = blobs(seed, (8, 12, 12), level=1.5), blobs(seed + 50, (8, 12, 12), level=1.5)
    dice = [figure_to_json(m.dice) for m in compare_slices(mask, reference, None)]
    worst = worst_slice(mask, reference)
    assert worst is not None
    assert dice[worst] == min(d for d in dice if d is not None)


def patient(dice: float, hd95: float, unit: Literal["mm", "voxels"] = "voxels") -> Metrics:
    return Metrics(dice, dice, dice, dice, hd95, hd95 / 2, unit, 1, 1)


def test_summary() -> None:
    given_metrics = {
        "a": patient(0.8, 4.0),
        "b": patient(0.9, 2.0),
        "missed": compare(EMPTY, LESION, None),
        "elsewhere": compare(np.roll(LESION, 2, axis=1), LESION, None),
        "nothing": compare(EMPTY, EMPTY, None),
        "invented": compare(LESION, EMPTY, None),
    }
    found = summarise(given_metrics)
    dice = [0.8, 0.9, 0.0, 0.0, 0.0]
    assert found == {
        "cases": 6,
        "dice_mean": pytest.approx(np.mean(dice)),
        "dice_median": 0.0,
        "dice_std": pytest.approx(np.std(dice)),
        "dice_count": 5,
        "not_computable": 1,
        "missed": 2,
        "hd95_mean": pytest.approx((4 + 2 + 2) / 3),
        "hd95_count": 3,
        "hd95_unit": "voxels",
    }
    json.dumps(found, allow_nan=False)


def test_missed_lesions_are_those_the_mask_does_not_touch() -> None:
    elsewhere = np.roll(LESION, 2, axis=1)
    assert summarise({"elsewhere": compare(elsewhere, LESION, None)})["missed"] == 1
    assert summarise({"nothing there": compare(EMPTY, EMPTY, None)})["missed"] == 0
    assert summarise({"invented": compare(LESION, EMPTY, None)})["missed"] == 0


def test_missing_a_lesion_never_improves_the_dice_mean() -> None:
    good = {"a": patient(0.8, 4.0), "b": patient(0.6, 8.0)}
    worse = summarise({**good, "b": compare(EMPTY, LESION, None)})
    assert worse["dice_mean"] < summarise(good)["dice_mean"]
    assert (worse["hd95_count"], worse["missed"]) == (1, 1)


def test_summary_of_nothing_computable() -> None:
    for found in (summarise({}), summarise({"a": compare(EMPTY, EMPTY, None)})):
        assert found["dice_mean"] is None
        assert found["dice_std"] is None
        assert found["hd95_mean"] is None
        assert found["hd95_unit"] is None
        assert found["not_computable"] == found["cases"]


def test_summary_refuses_nan_and_mixed_units() -> None:
    with pytest.raises(ValueError, match="finite"):
        summarise({"a": patient(0.9, 1.0), "b": patient(math.nan, 1.0)})
    with pytest.raises(ValueError, match="finite"):
        summarise({"a": patient(0.9, 1.0), "b": patient(0.9, math.inf)})
    with pytest.raises(ValueError, match="mm"):
        summarise({"a": patient(0.9, 1.0), "b": patient(0.9, 1.0, unit="mm")})


def test_figures_as_text_and_json() -> None:
    assert format_figure(0.81549, 3) == "0.815"
    assert format_figure(Undefined("the mask is empty"), 3) == "not computable: the mask is empty"
    assert figure_to_json(0.5) == 0.5
    assert figure_to_json(Undefined("x")) is None
    found = metrics_to_json(compare(EMPTY, LESION, None))
    assert found == {
        "dice": 0.0,
        "iou": 0.0,
        "sensitivity": 0.0,
        "precision": None,
        "hd95": None,
        "hd95_unit": "voxels",
        "assd": None,
        "assd_unit": "voxels",
        "tumour_voxels": 0,
        "reference_voxels": 4,
        "not_computable": dict.fromkeys(("precision", "hd95", "assd"), "the mask is empty"),
    }
