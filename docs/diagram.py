"""Draws docs/images/networks.svg: the two topologies, where their gates are, and one gate.

python docs/diagram.py
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

OUT = Path(__file__).resolve().parent / "images" / "networks.svg"

DEPTH = 4
STEP_X, STEP_Y, RADIUS = 82, 66, 15
ENCODER, DECODER, GATE, LINE, TEXT, DIM = "#56B4E9", "#E69F00", "#AA66FF", "#7b8591", "#E8EBEE", "#A9B1BA"

Point = tuple[float, float]


class Drawing:
    """SVG elements, with the few shapes that the picture needs."""

    def __init__(self) -> None:
        self.elements: list[str] = []

    def text(self, at: Point, words: str, size: int = 13, colour: str = TEXT, anchor: str = "middle") -> None:
        x, y = at
        self.elements.append(
            f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{colour}" text-anchor="{anchor}">'
            f"{words}</text>"
        )

    def circle(self, at: Point, colour: str, label: str) -> None:
        x, y = at
        self.elements.append(
            f'<circle cx="{x:g}" cy="{y:g}" r="{RADIUS}" fill="#14171b" stroke="{colour}" stroke-width="2"/>'
        )
        self.text((x, y + 4), label, 11)

    def arrow(self, start: Point, end: Point, bend: float = 0.0, cut: float = RADIUS + 2) -> Point:
        """A line that ends `cut` before both points, bent upwards by `bend`; returns its gate's place."""
        (x0, y0), (x1, y1) = start, end
        control = ((x0 + x1) / 2, (y0 + y1) / 2 - 2 * bend)
        x0, y0 = _towards((x0, y0), control, cut)
        x1, y1 = _towards((x1, y1), control, cut and cut + 4)
        self.elements.append(
            f'<path d="M{x0:.1f} {y0:.1f} Q{control[0]:.1f} {control[1]:.1f} {x1:.1f} {y1:.1f}" fill="none" '
            f'stroke="{LINE}" stroke-width="1.4" marker-end="url(#head)"/>'
        )
        return _towards((x1, y1), control, 16)

    def gate(self, at: Point) -> None:
        x, y = at
        self.elements.append(
            f'<path d="M{x - 5:.1f} {y:.1f} l5 -5 l5 5 l-5 5z" fill="{GATE}" stroke="#0b0d10"/>'
        )

    def box(self, at: Point, words: str, colour: str = LINE, width: float = 96) -> None:
        x, y = at
        self.elements.append(
            f'<rect x="{x - width / 2:g}" y="{y - 15:g}" width="{width:g}" height="30" rx="5" fill="#14171b" '
            f'stroke="{colour}" stroke-width="1.6"/>'
        )
        self.text((x, y + 4), words, 12)


def _towards(start: Point, end: Point, distance: float) -> Point:
    (x0, y0), (x1, y1) = start, end
    length = ((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5
    return x0 + (x1 - x0) * distance / length, y0 + (y1 - y0) * distance / length


def topology(drawing: Drawing, left: float, top: float, nested: bool) -> None:
    """Nodes of level i (down) and column j (across): the chain of U-Net, or the triangle of U-Net++."""

    def at(i: int, j: int) -> Point:
        return left + j * STEP_X + i * STEP_X / 2, top + i * STEP_Y

    title = ("U-Net++", "Attention U-Net++") if nested else ("U-Net", "Attention U-Net")
    drawing.text((left + 2 * STEP_X, top - 70), title[0], 17)
    drawing.text((left + 2 * STEP_X, top - 52), f"with gates: {title[1]}", 12, GATE)
    decoder = [(i, j) for j in range(1, DEPTH + 1) for i in range(DEPTH - j + 1) if nested or i + j == DEPTH]
    for i in range(DEPTH):
        drawing.arrow(at(i, 0), at(i + 1, 0))
    gates = []
    for i, j in decoder:
        drawing.arrow(at(i + 1, j - 1), at(i, j))
        for earlier in range(j) if nested else (0,):
            bend = 13.0 * (j - earlier - 1) if nested else 0.0
            gates.append(drawing.arrow(at(i, earlier), at(i, j), bend))
    for place in gates:
        drawing.gate(place)
    for i in range(DEPTH + 1):
        drawing.circle(at(i, 0), ENCODER, f"{i},0" if nested else f"{i}")
    for i, j in decoder:
        drawing.circle(at(i, j), DECODER, f"{i},{j}" if nested else f"{i}")


def gate(drawing: Drawing, left: float, y: float) -> None:
    """The parts of one gate, from left to right."""
    drawing.text((left, y - 62), "One gate", 17, anchor="start")
    skip, below = (left + 40, y - 22), (left + 40, y + 30)
    theta, phi = (left + 190, y - 22), (left + 190, y + 30)
    columns = [left + 340, left + 456, left + 572, left + 688, left + 804]
    names = ["add, ReLU", "conv 1x1", "sigmoid", "resample", "multiply"]
    drawing.box(skip, "skip", ENCODER)
    drawing.box(below, "from below", DECODER)
    drawing.box(theta, "conv 2x2, stride 2", width=130)
    drawing.box(phi, "conv 1x1", width=130)
    right, line = 48, y + 4
    drawing.arrow((skip[0] + right, skip[1]), (theta[0] - 67, theta[1]), cut=0)
    drawing.arrow((below[0] + right, below[1]), (phi[0] - 67, phi[1]), cut=0)
    for source, height in ((theta, -6), (phi, 6)):
        drawing.arrow((source[0] + 65, source[1]), (columns[0] - 46, line + height), cut=0)
    for x, name in zip(columns, names, strict=True):
        drawing.box((x, line), name, GATE if name in ("sigmoid", "multiply") else LINE, 88)
    for x, following in pairwise(columns):
        drawing.arrow((x + 44, line), (following - 46, line), cut=0)
    drawing.arrow((skip[0] + right - 4, skip[1] - 15), (columns[-1], line - 17), bend=30, cut=0)
    drawing.text((columns[2], y + 38), "0 to 1: the attention map", 11, DIM)


def svg() -> str:
    """The whole picture."""
    drawing = Drawing()
    topology(drawing, 50, 110, nested=False)
    topology(drawing, 520, 110, nested=True)
    legend = [(ENCODER, "encoder"), (DECODER, "decoder"), (GATE, "gate, on the skips of the gated networks")]
    x = 50.0
    for colour, words in legend:
        drawing.elements.append(f'<circle cx="{x:g}" cy="420" r="6" fill="{colour}"/>')
        drawing.text((x + 12, 424), words, 12, DIM, "start")
        x += 100
    gate(drawing, 50, 530)
    body = "\n".join(drawing.elements)
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 930 600" font-family="sans-serif" role="img" '
        'aria-label="U-Net and U-Net++ with the places of their gates, and the parts of one gate">\n'
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        f'orient="auto"><path d="M0 0 L8 4 L0 8z" fill="{LINE}"/></marker></defs>\n'
        f'<rect width="930" height="600" rx="6" fill="#0b0d10"/>\n{body}\n</svg>\n'
    )


if __name__ == "__main__":
    OUT.write_text(svg(), encoding="utf-8")
