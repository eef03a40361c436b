"""Perpendicular diameters against known shapes, brute force over the whole outline, and scikit-image."""

from __future__ import annotations

import math
import time
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage.measure import label, regionprops
from skimage.morphology import convex_hull_image

from brainseg.measure import Diameter, Diameters, diameters
from brainseg.measure.rano import TOO_RAGGED
from brainseg.types import BoolArray, Spacing, Undefined

SPACINGS: list[tuple[float, float]] = [(1.0, 1.0), (0.5, 0.5), (0.94, 0.94), (0.5, 1.0), (2.0, 0.7)]


def found(mask: BoolArray, spacing: Spacing | None = None) -> Diameters:
    measured = diameters(mask if mask.ndim == 3 else mask[None], spacing)
    assert isinstance(measured, Diameters)
    return measured


def turned(spacing: tuple[float, float], degrees: float) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates in mm along and across a direction, around a centre that is on no pixel's."""
    rows, columns = (np.arange(round(130 / step)) * step - 64.3 for step in spacing)
    y, x = np.meshgrid(rows, columns, indexing="ij")
    angle = math.radians(degrees)
    return x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)


@pytest.mark.parametrize("degrees", [0, 17, 45, 80, 133])
@pytest.mark.parametrize("spacing", SPACINGS)
def test_ellipses_and_rectangles_have_their_own_diameters(
    spacing: tuple[float, float], degrees: float
) -> None:
    along, across = turned(spacing, degrees)
    # On either side the outline is within a pixel of the shape's.
    pixel = 1.5 * math.hypot(*spacing)
    ellipse = found((along / 50) ** 2 + (across / 30) ** 2 <= 1, (5.0, *spacing))
    assert ellipse.longest.length == pytest.approx(100, abs=pixel)
    assert ellipse.perpendicular.length == pytest.approx(60, abs=pixel)
    assert ellipse.product == ellipse.longest.length * ellipse.perpendicular.length
    rectangle = found((abs(along) <= 45) & (abs(across) <= 20), (5.0, *spacing))
    diagonal = math.hypot(90, 40)
    assert rectangle.longest.length == pytest.approx(diagonal, abs=pixel)
    # At a right angle to the diagonal, from one long side to the other.
    assert rectangle.perpendicular.length == pytest.approx(40 * diagonal / 90, abs=pixel)


# Brute force, by another method: a line is cut by every pixel of the lesion, and the cuts must join.
def reach(mask: BoolArray, start: np.ndarray, end: np.ndarray) -> float:
    """The fraction of a line up to which pixels of the mask cover it without a gap."""
    cuts = []
    for pixel in np.argwhere(mask):
        low, high = 0.0, 1.0
        for axis in (0, 1):
            step = end[axis] - start[axis]
            near, far = pixel[axis] - 0.5 - start[axis], pixel[axis] + 0.5 - start[axis]
            if step == 0:
                if near > 0 or far < 0:
                    high = -1.0
                continue
            a, b = sorted((near / step, far / step))
            low, high = max(low, a), min(high, b)
        if low <= high:
            cuts.append((low, high))
    covered = 0.0
    for low, high in sorted(cuts):
        if low > covered + 1e-9:
            break
        covered = max(covered, high)
    return covered


def outline(mask: BoolArray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Middles of all edges between a pixel of the mask and one outside, and which way is out."""
    padded = np.pad(mask, 1)
    return [
        (np.asarray((row + down / 2, column + right / 2)), np.asarray((down, right)))
        for row, column in np.argwhere(mask)
        for down, right in ((-1, 0), (1, 0), (0, -1), (0, 1))
        if not padded[row + 1 + down, column + 1 + right]
    ]


def largest_part(mask: BoolArray) -> BoolArray:
    labels = label(mask, connectivity=2)
    return np.asarray(labels == np.bincount(labels[mask]).argmax())


def brute_force(mask: BoolArray, scale: np.ndarray) -> float:
    points = [point for point, _ in outline(mask)]
    return max(
        float(np.linalg.norm((b - a) * scale)) for a, b in combinations(points, 2) if reach(mask, a, b) >= 1
    )


def brute_force_across(mask: BoolArray, scale: np.ndarray, longest: Diameter) -> float:
    down, right = (np.asarray(longest.end) - np.asarray(longest.start)) * scale
    ray = np.asarray((-right, down)) / scale
    ray *= 40 / np.abs(ray).max()
    whole = float(np.linalg.norm(ray * scale))
    return max(
        whole * reach(mask, point, point + sense * ray)
        for point, out in outline(mask)
        for sense in (-1, 1)
        if sense * ray @ out < 0
    )


@pytest.mark.parametrize("scale", [(1.0, 1.0), (0.5, 1.25)])
@pytest.mark.parametrize("seed", range(10))
def test_no_line_within_the_lesion_is_longer(seed: int, scale: tuple[float, float]) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((6, 7)) < rng.uniform(0.4, 0.9)
    d, part = found(mask, (3.0, *scale)), largest_part(mask)
    assert d.longest.length == pytest.approx(brute_force(part, np.asarray(scale)), rel=1e-12)
    assert d.perpendicular.length == pytest.approx(
        brute_force_across(part, np.asarray(scale), d.longest), rel=1e-9
    )


@pytest.mark.parametrize("radius", [0.4, 1, 2.5, 4, 7, 11.3, 20])
@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.5, 0.8)])
def test_of_what_is_convex_it_is_scikit_images_feret_diameter(
    radius: float, spacing: tuple[float, float]
) -> None:
    rows, columns = (np.arange(-45, 46) * step for step in spacing)
    mask = np.hypot(*np.meshgrid(rows, columns, indexing="ij")) <= radius
    # It takes more pixels for the hull than there are in a disc; what it takes has the hull that it has.
    while not np.array_equal(mask, hull := convex_hull_image(mask)):
        mask = hull
    feret = regionprops(mask.astype(np.uint8), spacing=spacing)[0].feret_diameter_max
    assert found(mask, (1.0, *spacing)).longest.length == pytest.approx(feret, rel=1e-12)


@settings(max_examples=50, deadline=None)
@given(
    hnp.arrays(np.bool_, hnp.array_shapes(min_dims=3, max_dims=3, max_side=9)),
    st.sampled_from([None, (5.0, 1.0, 1.0), (2.0, 0.5, 1.3)]),
)
def test_what_holds_for_every_mask(mask: BoolArray, spacing: Spacing | None) -> None:
    measured = diameters(mask, spacing)
    if isinstance(measured, Undefined):
        assert not mask.any()
        return
    row, column = (1.0, 1.0) if spacing is None else spacing[1:]
    lines = (measured.longest, measured.perpendicular)
    steps = [(np.asarray(d.end) - np.asarray(d.start)) * (row, column) for d in lines]
    assert measured.longest.length >= measured.perpendicular.length > 0
    for line, step in zip(lines, steps, strict=True):
        assert line.length == pytest.approx(math.hypot(*step))
        one = mask[measured.slice]
        assert reach(one, np.asarray(line.start), np.asarray(line.end)) == pytest.approx(1)
    assert steps[0] @ steps[1] == pytest.approx(0, abs=1e-9)
    # The same lesion elsewhere, in a unit of half the size.
    moved = found(np.pad(mask, ((2, 0), (3, 1), (0, 4))), (10.0, 2 * row, 2 * column))
    assert moved.slice == measured.slice + 2
    for line, there in zip(lines, (moved.longest, moved.perpendicular), strict=True):
        assert there.start == (line.start[0] + 3, line.start[1])
        assert there.length == pytest.approx(2 * line.length)


def test_one_pixel_is_one_pixel_long() -> None:
    mask = np.zeros((3, 5, 5), dtype=bool)
    mask[1, 2, 3] = True
    d = found(mask, (5.0, 0.5, 2.0))
    assert (d.longest.length, d.perpendicular.length) == (2.0, 0.5)
    assert {d.longest.start, d.longest.end} == {(2.0, 2.5), (2.0, 3.5)}
    assert {d.perpendicular.start, d.perpendicular.end} == {(1.5, 3.0), (2.5, 3.0)}
    assert (d.slice, d.lesions, d.product) == (1, 1, 1.0)


def test_unknown_spacing_gives_pixels_taken_as_square() -> None:
    mask = np.zeros((2, 30, 30), dtype=bool)
    mask[0, 4:8, 5:25] = True
    assert found(mask, None) == found(mask, (7.0, 1.0, 1.0))


def test_neither_a_bay_nor_a_hole_is_crossed() -> None:
    y, x = np.mgrid[-40:41, -40:41]
    ring = (np.hypot(y, x) <= 30) & (np.hypot(y, x) > 20)
    d = found(ring)
    # The longest chord of a ring touches the hole.
    assert d.longest.length == pytest.approx(2 * math.sqrt(30**2 - 20**2), abs=2)
    bay = np.zeros((40, 60), dtype=bool)
    bay[5:35, 5:55] = True
    bay[5:25, 15:45] = False
    # From one of the lower corners over the edge of the bay, and not from one upper corner to the other.
    assert found(bay).longest.length == pytest.approx(math.hypot(50, 10), abs=1)
    pierced = (np.hypot(y, x) <= 30) & ((y != 0) | (x != 0))
    assert found(pierced).longest.length > 59


def test_the_largest_lesion_is_measured_where_it_is_largest() -> None:
    mask = np.zeros((9, 40, 40), dtype=bool)
    mask[1, 2:22, 2:22] = True  # larger in one slice than the other lesion in any, yet smaller
    mask[4:8, 10:20, 10:25] = True
    mask[6, 10:22, 10:25] = True
    mask[6, 30:33, 30:33] = True  # apart, in the same slice
    d = found(mask, (5.0, 1.0, 1.0))
    assert (d.slice, d.lesions) == (6, 3)
    alone = np.zeros_like(mask)
    alone[6, 10:22, 10:25] = True
    assert (d.longest, d.perpendicular) == (found(alone).longest, found(alone).perpendicular)


def test_parts_that_join_in_another_slice_are_one_lesion_and_the_larger_part_is_measured() -> None:
    mask = np.zeros((2, 20, 30), dtype=bool)
    mask[0, 5, :] = True
    mask[1, 5, :9] = mask[1, 5:12, 15:24] = True
    d = found(mask)
    assert d.lesions == 1
    assert d.slice == 1
    part = np.zeros_like(mask)
    part[1, 5:12, 15:24] = True
    assert d.longest == found(part).longest


def test_nothing_and_noise_have_no_diameters() -> None:
    assert diameters(np.zeros((2, 4, 4), dtype=bool), None) == Undefined("the mask is empty")
    noise = np.random.default_rng(0).random((1, 120, 120)) > 0.4
    assert diameters(noise, None) == TOO_RAGGED


@pytest.mark.parametrize(
    ("mask", "spacing", "words"),
    [
        (np.zeros((4, 4), dtype=bool), None, "axes"),
        (np.zeros((1, 4, 4), dtype=np.uint8), None, "bool"),
        (np.zeros((1, 4, 4), dtype=bool), (1.0, 0.0, 1.0), "spacing"),
    ],
)
def test_what_is_no_mask_is_refused(mask: BoolArray, spacing: Spacing | None, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        diameters(mask, spacing)


def test_a_large_lesion_takes_no_time_to_speak_of() -> None:
    z, y, x = np.ogrid[-77:78, -120:120, -120:120]
    ball = np.asarray(z * z + y * y + x * x <= 39**2)
    assert ball.sum() > 240_000
    seconds = []
    for _ in range(3):
        begun = time.process_time()
        diameters(ball, (1.0, 1.0, 1.0))
        seconds.append(time.process_time() - begun)
    assert min(seconds) < 0.05
