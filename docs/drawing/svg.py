"""Boxes, arrows and text as SVG. Widths of text are estimated, and text that does not fit raises ValueError."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

Point = tuple[float, float]

WIDTH = 800  # of all pictures, in pixels
INK, FAINT, RULE, PAPER = "#1c2733", "#54616e", "#d5dbe1", "#ffffff"
SANS = "Helvetica, Arial, 'DejaVu Sans', sans-serif"
MONO = "Menlo, Consolas, 'DejaVu Sans Mono', monospace"
# Widths of characters in em: of DejaVu Sans, which is wider than Helvetica and Arial, rounded up.
NARROW, WIDE = set("iljtfrI.,:;'|!()[] -/"), set("mwMWGOQ%+=±→∑")


@dataclass(frozen=True)
class Style:
    """Colors of a box, and the radius of its corners."""

    fill: str
    line: str
    ink: str = INK
    radius: float = 4


@dataclass(frozen=True)
class Box:
    """A rectangle, with points on its edges. x, y: of its upper left corner."""

    x: float
    y: float
    w: float
    h: float

    def top(self, at: float = 0.5) -> Point:
        return self.x + at * self.w, self.y

    def bottom(self, at: float = 0.5) -> Point:
        return self.x + at * self.w, self.y + self.h

    def left(self, at: float = 0.5) -> Point:
        return self.x, self.y + at * self.h

    def right(self, at: float = 0.5) -> Point:
        return self.x + self.w, self.y + at * self.h

    def overlaps(self, other: Box) -> bool:
        """Return whether two boxes share an area."""
        apart = self.x + self.w <= other.x or other.x + other.w <= self.x
        return not (apart or self.y + self.h <= other.y or other.y + other.h <= self.y)


def text_width(text: str, size: float, bold: bool = False, mono: bool = False) -> float:
    """Return an upper estimate of the width of a text, in pixels."""
    if mono:
        return 0.61 * size * len(text)
    widths = (0.42 if c in NARROW else 0.9 if c in WIDE else 0.72 if c.isupper() else 0.62 for c in text)
    return size * sum(widths) * (1.1 if bold else 1)


def wrapped(text: str, width: float, size: float, bold: bool = False) -> list[str]:
    """Return the lines of a text that is broken at spaces to fit a width."""
    lines: list[str] = []
    for word in text.split():
        if lines and text_width(f"{lines[-1]} {word}", size, bold) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def number(value: float) -> str:
    """Return a coordinate with one decimal at most."""
    return f"{value:.1f}".removesuffix(".0")


class Drawing:
    """A picture that grows from top to bottom. boxes: those that may not overlap each other."""

    def __init__(self, title: str, description: str) -> None:
        self.title, self.description = title, description
        self.elements: list[str] = []
        self.boxes: list[Box] = []

    def rect(self, box: Box, style: Style, dash: str = "", line_width: float = 1.2) -> None:
        """Draw a rectangle, and check nothing."""
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        self.elements.append(
            f'<rect x="{number(box.x)}" y="{number(box.y)}" width="{number(box.w)}" height="{number(box.h)}"'
            f' rx="{number(style.radius)}" fill="{style.fill}" stroke="{style.line}"'
            f' stroke-width="{number(line_width)}"{dashes}/>'
        )

    def text(
        self,
        at: Point,
        text: str,
        size: float = 13,
        ink: str = INK,
        bold: bool = False,
        mono: bool = False,
        anchor: str = "start",
    ) -> None:
        """Write a line. at: the left end of its base line, or its middle or right end by `anchor`."""
        width = text_width(text, size, bold, mono)
        start = at[0] - width * {"start": 0, "middle": 0.5, "end": 1}[anchor]
        if start < 0 or start + width > WIDTH:
            raise ValueError(f"{text!r} leaves the picture: {start:.0f} to {start + width:.0f}")
        more = (' font-weight="bold"' if bold else "") + (f" font-family={quoteattr(MONO)}" if mono else "")
        more += f' text-anchor="{anchor}"' if anchor != "start" else ""
        place = f'x="{number(at[0])}" y="{number(at[1])}"'
        self.elements.append(f'<text {place} font-size="{number(size)}" fill="{ink}"{more}>{escape(text)}</text>')

    def box(self, box: Box, style: Style, name: str, lines: Sequence[str] = (), mono: bool = False) -> Box:
        """Draw a box with a bold name and further lines, centered, and return it."""
        for other in self.boxes:
            if box.overlaps(other):
                raise ValueError(f"the box of {name!r} overlaps another: {box}, {other}")
        self.boxes.append(box)
        self.rect(box, style)
        middle, step = box.x + box.w / 2, 16
        y = box.y + box.h / 2 - step * len(lines) / 2 + 4.5
        for index, line in enumerate([name, *lines]):
            size, first = (13.5, True) if index == 0 else (12.5, False)
            if text_width(line, size, first, first and mono) > box.w - 10:
                raise ValueError(f"{line!r} does not fit its box")
            ink = style.ink if first else INK
            self.text((middle, y + step * index), line, size, ink, first, first and mono, "middle")
        return box

    def path(self, points: Sequence[Point], ink: str = FAINT, width: float = 1.5, dash: str = "") -> None:
        """Draw straight lines through points."""
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        places = " ".join(f"{number(x)},{number(y)}" for x, y in points)
        self.elements.append(
            f'<polyline points="{places}" fill="none" stroke="{ink}" stroke-width="{number(width)}"{dashes}/>'
        )

    def arrow(self, *points: Point, ink: str = FAINT, dash: str = "") -> None:
        """Draw an arrow through points, with its head at the last one. The last line is upright or level."""
        (x0, y0), (x, y) = points[-2:]
        dx, dy = (x > x0) - (x < x0), (y > y0) - (y < y0)
        if dx and dy:
            raise ValueError(f"the end of the arrow to {x}, {y} is neither upright nor level")
        self.path([*points[:-1], (x - 6 * dx, y - 6 * dy)], ink, dash=dash)
        sides = [(x - 8 * dx + 4.5 * dy, y - 8 * dy + 4.5 * dx), (x - 8 * dx - 4.5 * dy, y - 8 * dy - 4.5 * dx)]
        corners = " ".join(f"{number(px)},{number(py)}" for px, py in [(x, y), *sides])
        self.elements.append(f'<polygon points="{corners}" fill="{ink}"/>')

    def dot(self, at: Point) -> None:
        """Draw a dot where lines meet."""
        self.elements.append(f'<circle cx="{number(at[0])}" cy="{number(at[1])}" r="3" fill="{FAINT}"/>')

    def svg(self, height: float) -> str:
        """Return the file, on light ground with a margin."""
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {number(height)}" width="{WIDTH}"'
            f' height="{number(height)}" role="img" font-family={quoteattr(SANS)}>'
        )
        ground = f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{number(height - 1)}" rx="8"'
        ground += f' fill="{PAPER}" stroke="{RULE}"/>'
        texts = [f"<title>{escape(self.title)}</title>", f"<desc>{escape(self.description)}</desc>"]
        return "\n".join([head, *texts, ground, *self.elements, "</svg>"]) + "\n"
