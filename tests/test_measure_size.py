from __future__ import annotations

import numpy as np
import pytest

from brainseg.measure import area, area_per_slice, area_unit, slice_of_largest_area, volume_ml
from brainseg.types import Undefined


def test_volume() -> None:
    assert volume_ml(2000, (2.0, 0.5, 0.5)) == 1.0
    assert volume_ml(0, (1.0, 1.0, 1.0)) == 0.0
    assert volume_ml(10, None) == Undefined("the spacing is unknown")
    with pytest.raises(ValueError, match="negative"):
        volume_ml(-1, None)
    with pytest.raises(ValueError, match="spacing"):
        volume_ml(1, (1.0, -1.0, 1.0))


def test_areas() -> None:
    mask = np.zeros((4, 5, 5), dtype=bool)
    assert slice_of_largest_area(mask) is None
    mask[1, :2] = mask[3, 3:] = True
    mask[2, 0, 0] = True
    assert area_per_slice(mask).tolist() == [0, 10, 1, 10]
    assert slice_of_largest_area(mask) == 1
    with pytest.raises(ValueError, match="axes"):
        area_per_slice(mask[0])


def test_area_is_in_pixels_until_the_spacing_is_known() -> None:
    assert (area(12, None), area_unit(None)) == (12, "pixels")
    assert (area(12, (5.0, 0.5, 2.0)), area_unit((5.0, 0.5, 2.0))) == (12.0, "mm²")
