"""Area of the tumour in each slice, as a chart whose points can be clicked."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from brainseg.measure import Reading, area, area_per_slice, area_unit
from brainseg.overlay import REFERENCE
from brainseg.types import Study
from brainseg.ui.state import line_of, title_of

_AXIS = {"gridcolor": "#2a2f36", "zeroline": False, "automargin": True}
_TEXT = "#c9d1d9"


def area_chart(study: Study, readings: Sequence[Reading]) -> go.Figure:
    """A line a model, in its colour and dash, and the reference; x counts slices from 1."""
    unit = area_unit(study.spacing_mm)
    figure = go.Figure()
    positions = list(range(1, study.shape[0] + 1))

    def add(name: str, pixels: Sequence[int], colour: str, dash: Sequence[int]) -> None:
        figure.add_trace(
            go.Scatter(
                x=positions,
                y=[area(p, study.spacing_mm) for p in pixels],
                customdata=study.slice_numbers,
                name=name,
                mode="lines+markers",
                line={"color": colour, "dash": ",".join(f"{d}px" for d in dash) or "solid", "width": 2},
                marker={"size": 7, "color": colour},
                # A click selects its point; the others must not fade.
                selected={"marker": {"size": 11}},
                unselected={"marker": {"opacity": 1}},
                hovertemplate=f"%{{y:,.0f}} {unit} (file number %{{customdata}})",
            )
        )

    if study.reference is not None:
        add("Reference", [int(p) for p in area_per_slice(study.reference)], REFERENCE, ())
    for reading in readings:
        add(title_of(reading.prediction.architecture), reading.areas, *line_of(reading.prediction))
    figure.update_layout(
        height=300,
        margin={"l": 8, "r": 8, "t": 8, "b": 8},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": _TEXT, "size": 13},
        hovermode="x unified",
        hoverlabel={"bgcolor": "#14171b", "font": {"color": "#e8ebee"}},
        dragmode=False,
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        xaxis={**_AXIS, "title": "Slice"},
        yaxis={**_AXIS, "title": f"Area ({unit})", "rangemode": "tozero"},
    )
    return figure
