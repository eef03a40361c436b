"""Space, against nibabel: all 48 axis orders, straight and oblique; a marked corner must not move."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from nibabel.affines import apply_affine
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation

from brainseg.grid import (
    Grid,
    check_spacing,
    edges,
    furthest_mm,
    inside,
    mirror,
    resample,
    to_axial,
    to_origin,
)
from brainseg.types import Affine, Origin, Source, Study

SHAPE = (4, 6, 5)
SPACING = (5.0, 0.9, 1.1)
ORDERS = list(permutations(range(3)))
SIGNS = list(product((1, -1), repeat=3))
every_order = pytest.mark.parametrize("order", ORDERS, ids=lambda order: "".join("RAS"[a] for a in order))
every_sign = pytest.mark.parametrize("signs", SIGNS, ids=lambda signs: "".join("+-"[s < 0] for s in signs))
quick = settings(max_examples=40, deadline=None, derandomize=True)


def affine(order: tuple[int, ...], signs: tuple[int, ...], tilt: float = 0.0) -> Affine:
    """Slices, rows and columns along these world axes, turned by `tilt` degrees about an odd axis."""
    axes = np.zeros((3, 3))
    for column, (axis, sign) in enumerate(zip(order, signs, strict=True)):
        axes[axis, column] = sign * SPACING[column]
    turn = Rotation.from_rotvec(np.deg2rad(tilt) * np.array([2.0, 1.0, -1.0]) / np.sqrt(6)).as_matrix()
    out = np.eye(4)
    out[:3, :3] = turn @ axes
    out[:3, 3] = (-71.5, 33.25, 12.0)
    return out


def marked() -> np.ndarray:
    """One voxel of its own value in a corner, among others that all differ."""
    volume = np.arange(1, 1 + np.prod(SHAPE)).reshape(SHAPE)
    volume[0, 0, 0] = 1000
    return volume


@every_order
@every_sign
@pytest.mark.parametrize("tilt", [0.0, 17.0])
def test_axial_and_back_with_every_voxel_in_its_place(
    order: tuple[int, ...], signs: tuple[int, ...], tilt: float
) -> None:
    grid = Grid(affine(order, signs, tilt), SHAPE)
    axial, turn = to_axial(grid)
    volume = marked()
    turned = turn.apply(volume)
    assert turned.shape == axial.shape
    assert axial.orientation == "LPS"
    assert np.array_equal(turn.undo(turned), volume)
    before, after = (np.argwhere(v == 1000)[0] for v in (volume, turned))
    np.testing.assert_allclose(axial.world(after), grid.world(before), atol=1e-9)
    everywhere = {value: grid.world(np.argwhere(volume == value)[0]) for value in (2, 50, 120)}
    for value, place in everywhere.items():
        np.testing.assert_allclose(axial.world(np.argwhere(turned == value)[0]), place, atol=1e-9)
    assert sorted(axial.spacing_mm) == pytest.approx(sorted(SPACING))


@every_order
@every_sign
@pytest.mark.parametrize("tilt", [0.0, 17.0])
def test_orientation_is_nibabels(order: tuple[int, ...], signs: tuple[int, ...], tilt: float) -> None:
    """nibabel names the voxel axes in order; ours are slice, row, column and are named from columns on."""
    matrix = affine(order, signs, tilt)
    codes = nib.orientations.aff2axcodes(matrix)
    assert Grid(matrix, SHAPE).orientation == "".join(reversed(codes))


@every_order
@every_sign
def test_axial_is_what_nibabel_reorients_to(order: tuple[int, ...], signs: tuple[int, ...]) -> None:
    """nibabel's way there: from the voxel axes as they are to (S, P, L), of slice, row and column."""
    matrix = affine(order, signs, 17.0)
    image = nib.Nifti1Image(marked().astype(np.int16), matrix)
    there = nib.orientations.ornt_transform(
        nib.orientations.io_orientation(matrix), nib.orientations.axcodes2ornt(("S", "P", "L"))
    )
    expected = image.as_reoriented(there)
    axial, turn = to_axial(Grid(matrix, SHAPE))
    assert np.array_equal(turn.apply(marked()), np.asarray(expected.dataobj))
    np.testing.assert_allclose(axial.affine, expected.affine, atol=1e-9)


def test_channels_and_masks_turn_with_the_volume() -> None:
    _, turn = to_axial(Grid(affine((0, 2, 1), (1, -1, 1)), SHAPE))
    colour = np.random.default_rng(0).random((*SHAPE, 3))
    assert np.array_equal(turn.apply(colour)[..., 1], turn.apply(colour[..., 1]))
    assert np.array_equal(turn.undo(turn.apply(colour)), colour)


@quick
@given(
    hnp.arrays(float, (7, 3), elements=st.floats(-50, 50)),
    st.sampled_from(ORDERS),
    st.sampled_from(SIGNS),
    st.floats(-80, 80),
)
def test_world_and_voxels_undo_each_other(
    points: np.ndarray, order: tuple[int, ...], signs: tuple[int, ...], tilt: float
) -> None:
    grid = Grid(affine(order, signs, tilt), SHAPE)
    np.testing.assert_allclose(grid.voxels(grid.world(points)), points, atol=1e-6)
    expected = apply_affine(grid.affine, points)
    np.testing.assert_allclose(grid.world(points), expected, atol=1e-9)
    assert grid.spacing_mm == pytest.approx(SPACING)


# --- resampling --------------------------------------------------------------------------------------------


def in_the_world(volume: np.ndarray, source: Grid, target: Grid, order: int, planes: int) -> np.ndarray:
    """Point by point: each plane of each slice where it lies in the world, and their mean."""
    within = (np.arange(target.shape[0] * planes) - (planes - 1) / 2) / planes
    points = np.meshgrid(within, np.arange(target.shape[1]), np.arange(target.shape[2]), indexing="ij")
    voxels = np.moveaxis(source.voxels(target.world(np.stack(points, axis=-1))), -1, 0)
    ends = np.array(source.shape)[:, None, None, None]
    known = ((voxels > -0.5 - 0.02) & (voxels < ends - 0.5 + 0.02)).all(axis=0)
    values = map_coordinates(volume.astype(float), np.clip(voxels, 0, ends - 1), order=order) * known
    split = (target.shape[0], planes, *target.shape[1:])
    return np.asarray(
        values.reshape(split).sum(axis=1) / np.maximum(known.reshape(split).sum(axis=1), 1), float
    )


@quick
@given(st.integers(0, 10**6), st.sampled_from([0, 1]), st.sampled_from([1, 2, 5]), st.booleans())
def test_resampling_is_done_in_the_world(seed: int, order: int, planes: int, along: bool) -> None:
    """Of grids turned against each other in any way, or only stretched along each other's axes."""
    rng = np.random.default_rng(seed)
    matrices = []
    turn = Rotation.random(random_state=rng).as_matrix()
    for _ in range(2):
        matrix = np.eye(4)
        own = np.eye(3)[rng.permutation(3)] * rng.choice([-1, 1], 3)
        axes = turn @ own if along else Rotation.random(random_state=rng).as_matrix()
        matrix[:3, :3] = axes * rng.uniform(0.5, 3, 3)
        matrix[:3, 3] = rng.normal(0, 3, 3)
        matrices.append(matrix)
    source, target = Grid(matrices[0], (7, 6, 5)), Grid(matrices[1], (3, 5, 6))
    volume = rng.integers(0, 1000, source.shape).astype(np.int16)
    ours = resample(volume, source, target, order=order, planes=planes)  # type: ignore[arg-type]
    np.testing.assert_allclose(ours, in_the_world(volume, source, target, order, planes), atol=1e-2)


@every_order
@every_sign
@pytest.mark.parametrize("planes", [1, 3])
def test_whole_voxels_are_moved_not_interpolated(
    order: tuple[int, ...], signs: tuple[int, ...], planes: int
) -> None:
    """Turned, flipped, cut off at one end, padded at the other; as far away as can be."""
    source = Grid(affine(order, signs), SHAPE)
    axial, _ = to_axial(source)
    for shift in ((0, 0, 0), (1, -2, 3), (-1, 2, -2), (20, 0, 0), (0, -30, 0)):
        matrix = axial.affine.copy()
        matrix[:, 0] *= planes
        matrix[:3, 3] = axial.world(shift) + axial.affine[:3, 0] * (planes - 1) / 2
        target = Grid(matrix, (4, 5, 6))
        volume = marked().astype(np.int16)
        out = resample(volume, source, target, planes=planes)
        np.testing.assert_allclose(out, in_the_world(volume, source, target, 1, planes), atol=1e-3)
        assert out.dtype == (np.int16 if planes == 1 else np.float32)


def placed(grid: Grid, origin: Grid) -> Study:
    return Study(
        slices=np.zeros((*grid.shape, 3), np.uint8),
        case_id="x",
        source=Source("nifti", (), ""),
        slice_numbers=tuple(range(1, 1 + grid.shape[0])),
        spacing_mm=grid.spacing_mm,
        orientation=grid.orientation,
        affine=grid.affine,
        origin=Origin(origin.affine, origin.shape, "nifti"),
    )


@every_order
@every_sign
@pytest.mark.parametrize("tilt", [0.0, 17.0])
def test_results_go_back_to_the_order_of_the_files(
    order: tuple[int, ...], signs: tuple[int, ...], tilt: float
) -> None:
    grid = Grid(affine(order, signs, tilt), SHAPE)
    axial, turn = to_axial(grid)
    for dtype in (np.bool_, np.float32, np.int16):
        volume = marked().astype(dtype)
        back = to_origin(turn.apply(volume), placed(axial, grid))
        assert back.dtype == dtype
        assert np.array_equal(back, volume)


def test_results_without_a_place_do_not_go_back() -> None:
    grid = Grid(affine((2, 1, 0), (1, -1, -1)), SHAPE)
    study = placed(grid, grid)
    with pytest.raises(ValueError, match="the volume is"):
        to_origin(np.zeros((1, 2, 3)), study)
    with pytest.raises(ValueError, match="know no space"):
        to_origin(np.zeros(SHAPE), replace(study, affine=None, origin=None, orientation=None))


def test_how_much_of_a_grid_lies_in_another() -> None:
    one = Grid(affine((2, 1, 0), (1, -1, -1)), SHAPE)
    assert inside(one, one) == 1
    half = one.affine.copy()
    half[:3, 3] += half[:3, 0] * 2
    other = Grid(half, SHAPE)
    assert inside(one, other) == pytest.approx(0.5)
    assert furthest_mm(one, other) == pytest.approx(10.0)


# --- directions --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tilt", "oblique"), [(0.0, False), (0.01, False), (1.0, True), (40.0, True)])
def test_oblique_is_more_than_rounding(tilt: float, oblique: bool) -> None:
    assert Grid(affine((2, 1, 0), (1, -1, -1), tilt), SHAPE).is_oblique == oblique


def test_two_axes_nearest_to_one_are_told_apart() -> None:
    """At 44 degrees about two axes a voxel axis may be nearest to a world axis that is taken."""
    rng = np.random.default_rng(3)
    for _ in range(200):
        matrix = np.eye(4)
        matrix[:3, :3] = Rotation.random(random_state=rng).as_matrix() * SPACING
        assert len({letter in "RL" for letter in Grid(matrix, SHAPE).orientation}) == 2
        assert to_axial(Grid(matrix, SHAPE))[0].orientation == "LPS"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda m: m[:3], "4 x 4"),
        (lambda m: m * np.nan, "finite"),
        (lambda m: m + np.array([[0], [0], [0], [1]]), "last row"),
        (lambda m: m * np.array([0, 1, 1, 1]), "spacing"),
        (lambda m: m * np.array([1, 1e4, 1, 1]), "spacing"),
        (lambda m: m[:, [0, 0, 2, 3]], "one plane"),
    ],
)
def test_an_affine_of_no_scanner_is_refused(change: object, says: str) -> None:
    assert callable(change)
    with pytest.raises(ValueError, match=says):
        Grid(change(affine((2, 1, 0), (1, -1, -1))), SHAPE)


@pytest.mark.parametrize("spacing", [(0.0, 1, 1), (1, 101, 1), (1, 1, float("nan")), (1, 1), (1, 1, -1.0)])
def test_spacing_out_of_range(spacing: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"0\.01 to 100 mm"):
        check_spacing(spacing)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [
        (None, None),
        ("LPS", {"left": "R", "right": "L", "top": "A", "bottom": "P"}),
        ("RAS", {"left": "R", "right": "L", "top": "A", "bottom": "P"}),
        ("LSA", {"left": "R", "right": "L", "top": "S", "bottom": "I"}),
        ("AIL", {"left": "A", "right": "P", "top": "S", "bottom": "I"}),
    ],
)
def test_side_letters_only_when_the_orientation_is_known(
    orientation: str | None, expected: dict[str, str] | None
) -> None:
    assert edges(orientation) == expected


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [(None, (False, False)), ("LPS", (False, False)), ("RAS", (True, True)), ("RPS", (False, True))],
)
def test_patient_right_comes_to_screen_left(orientation: str | None, expected: tuple[bool, bool]) -> None:
    assert mirror(orientation) == expected
