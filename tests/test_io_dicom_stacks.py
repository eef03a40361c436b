"""Order, gaps and shear of stacks, without any file."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainseg.io.dicom.stacks import Plane, stacks

AXES = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def plane(
    z: float,
    at: int = 0,
    *,
    axes: tuple[float, ...] | None = AXES,
    x: float = 0.0,
    size: tuple[int, int] = (4, 6),
    traits: Mapping[str, Hashable] | None = None,
    thickness: float | None = 5.0,
) -> Plane:
    position = (x, 2.0, z)
    return Plane(at, 0, f"uid{at}", size, position, axes, (0.5, 0.7), thickness, traits or {})


@given(st.permutations(range(9)), st.floats(-300, 300), st.floats(0.5, 9))
def test_slices_are_ordered_along_the_normal_whatever_their_order(
    order: list[int], start: float, step: float
) -> None:
    (stack,) = stacks([plane(start + step * at, at) for at in order])
    assert [one.file for one in stack.planes] == list(range(9))
    assert stack.grid is not None
    assert stack.grid.shape == (9, 4, 6)
    assert np.allclose(stack.grid.spacing_mm, (step, 0.5, 0.7))
    # DICOM's left and back are negative in RAS+.
    assert np.allclose(stack.grid.world((3, 1, 2)), (-2 * 0.7, -2 - 0.5, start + 3 * step), atol=1e-6)
    assert stack.remarks == ()


def test_the_normal_decides_and_not_the_height() -> None:
    (stack,) = stacks([plane(5.0 * at, at, axes=(1, 0, 0, 0, -1, 0)) for at in range(4)])
    assert [one.file for one in stack.planes] == [3, 2, 1, 0]
    assert stack.grid is not None
    assert np.allclose(stack.grid.world((0, 0, 0)), (0, -2, 15))


def test_a_gap_is_filled_and_many_are_not() -> None:
    (stack,) = stacks([plane(5.0 * at, at) for at in range(10) if at != 6])
    assert [len(place) for place in stack.places] == [1, 1, 1, 1, 1, 1, 0, 1, 1, 1]
    assert stack.remarks == ("lacks 1 slice after slice 6, which were left blank: no tumour is found there",)
    (stack,) = stacks([plane(z, at) for at, z in enumerate([0, 5, 10, 40, 45])])
    assert stack.grid is None
    assert stack.problem.startswith("has slices at irregular distances, from 5 to 30 mm")


def test_small_deviations_are_said_and_rounding_is_not() -> None:
    (stack,) = stacks([plane(5.0 * at + 0.01 * (-1) ** at, at) for at in range(6)])
    assert stack.remarks == ()
    (stack,) = stacks([plane(5.0 * at + 0.2 * (-1) ** at, at) for at in range(6)])
    assert stack.grid is not None
    assert "mm apart" in stack.remarks[0]


def test_a_shift_sideways_that_is_no_line_is_refused() -> None:
    (stack,) = stacks([plane(5.0 * at, at, x=float(at % 2) * 3) for at in range(6)])
    assert stack.problem.startswith("has slices at irregular distances")
    (stack,) = stacks([plane(5.0 * at, at, x=6.0 * at) for at in range(6)])
    assert stack.problem == "has slices that are shifted sideways: export the series again"
    (stack,) = stacks([plane(5.0, at, x=30.0 * at) for at in range(3)])
    assert stack.problem.startswith("has slices side by side in one plane")


@pytest.mark.parametrize("trait", ["echo", "temporal position", "acquisition", "image type"])
def test_two_volumes_in_one_place_are_told_apart(trait: str) -> None:
    planes = [plane(5.0 * (at % 4), at, traits={trait: at // 4}) for at in range(8)]
    first, second = stacks(planes)
    assert [one.file for one in first.planes] == [0, 1, 2, 3]
    assert [one.file for one in second.planes] == [4, 5, 6, 7]


def test_by_two_traits_together_where_one_is_not_enough() -> None:
    planes = [
        plane(5.0 * (at % 4), at, traits={"echo": at // 4 % 2, "image type": at // 8}) for at in range(16)
    ]
    assert len(stacks(planes)) == 4


def test_what_differs_from_slice_to_slice_tells_no_volumes_apart() -> None:
    planes = [plane(5.0 * at, at, traits={"acquisition": at}) for at in range(6)]
    assert len(stacks(planes)) == 1
    twice = [*planes, plane(10.0, 9, traits={"acquisition": 9})]
    (stack,) = stacks(twice)
    assert [len(place) for place in stack.places] == [1, 1, 2, 1, 1, 1]


def test_a_time_series_is_one_row_with_a_problem() -> None:
    planes = [plane(5.0 * (at % 4), at, traits={"temporal position": at // 4}) for at in range(40)]
    (stack,) = stacks(planes)
    assert (stack.volumes, stack.grid) == (10, None)
    nameless = [plane(5.0 * (at % 4), at) for at in range(40)]
    (stack,) = stacks(nameless)
    assert stack.volumes == 10


def test_sizes_and_spacings_are_volumes_of_their_own() -> None:
    planes = [plane(5.0 * at, at) for at in range(4)]
    small = [plane(5.0 * at, at + 4, size=(2, 3)) for at in range(4)]
    first, second = stacks([*planes, *small])
    assert first.grid is not None
    assert second.grid is not None
    assert (first.grid.shape, second.grid.shape) == ((4, 4, 6), (4, 2, 3))


@pytest.mark.parametrize(
    ("planes", "problem"),
    [
        ([plane(0, axes=None)], "does not say where its slices lie"),
        ([plane(0, axes=(1, 0, 0, 1, 0, 0)), plane(5, 1, axes=(1, 0, 0, 1, 0, 0))], "directions of rows"),
        ([plane(0, axes=(0, 0, 0, 0, 0, 0)), plane(5, 1, axes=(0, 0, 0, 0, 0, 0))], "directions of rows"),
        ([plane(0, thickness=None)], "is one slice of unknown thickness"),
        ([plane(0), plane(400, 1), plane(800, 2)], "gives a place in space that no scanner has"),
    ],
)
def test_what_makes_no_volume_says_why(planes: list[Plane], problem: str) -> None:
    (stack,) = stacks(planes)
    assert stack.grid is None
    assert stack.problem.startswith((problem, f"gives {problem}"))
