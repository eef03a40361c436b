"""Tables as HTML, the same on every page; a face puts them where its framework takes HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from brainseg.types import Study
from brainseg.ui import state

STYLE = """
.headline { margin: 0; font-size: 15px; }
.headline span { color: #a9b1ba; }
.headline .badge { margin: 0 4px; padding: 2px 8px; border-radius: 4px; background: #3a2c0c; color: #ffe3a8; }
table.figures { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 14px; }
table.figures th, table.figures td {
  padding: 6px 10px; border-bottom: 1px solid #2a2f36; text-align: right; vertical-align: top;
  font-weight: 400;
}
table.figures th:first-child { text-align: left; }
table.figures th, table.figures td { white-space: nowrap; }
table.figures td.sentence { white-space: normal; color: #a9b1ba; }
table.figures thead th { color: #a9b1ba; }
.swatch { display: inline-block; width: 26px; height: 3px; margin-right: 4px; vertical-align: middle; }
"""
"""How they look, on a dark ground."""


def headline(title: str, study: Study, badge: str = "") -> str:
    """Whose slices these are, and what is known of them."""
    mark = f'<span class="badge">{escape(badge)}</span>' if badge else ""
    # What is saved bears the case's name, which may differ from what the page calls it.
    own = () if title.startswith(study.case_id) else (study.case_id,)
    facts = " · ".join((*own, *state.describe(study)))
    return f'<p class="headline"><b>{escape(title)}</b> {mark} <span>{escape(facts)}</span></p>'


def figure_table(
    head: Sequence[str], rows: Sequence[Sequence[str]], lines: Sequence[tuple[str, Sequence[int]]]
) -> str:
    """A row for each figure and a column for each model: there are more figures than a page is wide.

    Args:
        head: names of the figures, after that of the models' column.
        rows: for each model its title and its figures.
        lines: colour and dash of each model, shown before its title.
    """
    titles = [f"{_swatch(*line)} {escape(row[0])}" for row, line in zip(rows, lines, strict=True)]
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>' + "".join(_td(row[n]) for row in rows) + "</tr>"
        for n, name in enumerate(head[1:], 1)
    )
    return _table(["", *titles], body)


def pair_table(titles: Sequence[str], pairs: Sequence[tuple[str, str, str]]) -> str:
    """A triangle of figures, one for each pair of titles."""
    figures = {(a, b): text for a, b, text in pairs}
    body = "".join(
        f'<tr><th scope="row">{escape(a)}</th>'
        + "".join(f"<td>{escape(figures.get((a, b), figures.get((b, a), '')))}</td>" for b in titles)
        + "</tr>"
        for a in titles
    )
    return _table(["", *map(escape, titles)], body)


def rows_table(rows: Sequence[Mapping[str, str]]) -> str:
    """Plain rows under the names of their columns."""
    if not rows:
        return ""
    top = "".join(f'<th scope="col">{escape(name)}</th>' for name in rows[0])
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row.values()) + "</tr>" for row in rows
    )
    table = f'<table class="files"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>'
    return f'<div class="filetable">{table}</div>'


def _td(cell: str) -> str:
    # A number stays on its line; a sentence in its place may take several.
    sentence = ' class="sentence"' if len(cell) > 30 else ""
    return f"<td{sentence}>{escape(cell)}</td>"


def _table(head: Sequence[str], body: str) -> str:
    top = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    return f'<table class="figures"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>'


def _swatch(colour: str, dash: Sequence[int]) -> str:
    # Painted as a background: Streamlit takes SVG out of HTML.
    stops, at = [], 0
    for i, length in enumerate(dash or (1,)):
        stops.append(f"{colour if i % 2 == 0 else 'transparent'} {at}px {at + length}px")
        at += length
    return (
        f'<span class="swatch" style="background:repeating-linear-gradient(90deg,{",".join(stops)})"></span>'
    )
