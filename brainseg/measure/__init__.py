"""Measuring a finding: `measure` gives the `Reading` that everything prints from."""

from __future__ import annotations

from brainseg.measure.agreement import pairs, votes, votes_sentence, voxels_by_votes
from brainseg.measure.metrics import (
    FIGURES,
    compare,
    compare_slices,
    dice,
    figure_to_json,
    format_figure,
    metrics_to_json,
    summarise,
    worst_slice,
)
from brainseg.measure.missing import cost_of_missing
from brainseg.measure.rano import Diameter, Diameters, diameters
from brainseg.measure.reading import (
    NO_REFERENCE,
    SEEN,
    Measurement,
    Reading,
    figures_to_json,
    measure,
    table,
)
from brainseg.measure.size import area, area_per_slice, area_unit, slice_of_largest_area, volume_ml

__all__ = [
    "FIGURES",
    "NO_REFERENCE",
    "SEEN",
    "Diameter",
    "Diameters",
    "Measurement",
    "Reading",
    "area",
    "area_per_slice",
    "area_unit",
    "compare",
    "compare_slices",
    "cost_of_missing",
    "diameters",
    "dice",
    "figure_to_json",
    "figures_to_json",
    "format_figure",
    "measure",
    "metrics_to_json",
    "pairs",
    "slice_of_largest_area",
    "summarise",
    "table",
    "volume_ml",
    "votes",
    "votes_sentence",
    "voxels_by_votes",
    "worst_slice",
]
