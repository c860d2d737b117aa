"""The claims of docs/inside/results.md as intervals: docs/pictures/claims.svg, of benchmarks/claims.toml and results/.

For the first figure of each claim: the difference of the two means, positive where the claim's better side is better,
in percent of the larger mean, with the interval of Welch at 90%. It lies on one side of 0 where the one-sided test at
5%, by which benchmarks/claims.py tells whether a claim holds, is decided."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

import claims
import scipy.stats

from drawing.svg import FAINT, INK, RULE, WIDTH, Box, Drawing, Style, wrapped

TITLE = "Claims of the papers, in small runs"
COLORS = {"holds": "#15803d", "cannot be told": "#66727f", "does not": "#c2253f", "not run": "#66727f"}
MARKS = {"holds": "holds", "cannot be told": "cannot be told", "does not": "does not hold"}
TEXT, AXIS, VERDICT = 24, (352, 640), 656  # the column of claims, the ends of the axis, the column of verdicts
LIMIT = 100  # percent, the ends of the axis; an interval that is longer ends in an arrow
LINE = 16


@dataclass(frozen=True)
class Row:
    """A claim. told: as claims.verdict says; difference, reach: middle and half width of the interval, in percent."""

    text: str
    figure: str
    told: str
    difference: float = 0
    reach: float = 0

    @property
    def verdict(self) -> str:
        return self.told.partition(" (")[0]


def rows() -> list[Row]:
    """Return all claims with what their runs gave for the first figure."""
    return [_row(claim) for claim in claims.claims()]


def _row(claim: claims.Claim) -> Row:
    figure = claim.figure[0]
    better, worse, higher = claims.sides_of(claim, figure)
    name = claims.NAMES.get(figure, figure)
    if not better:
        return Row(claim.text, name, "not run")
    difference, reach = interval(better, worse)
    return Row(claim.text, name, claims.verdict(better, worse, higher), difference * (1 if higher else -1), reach)


def interval(first: list[float], second: list[float]) -> tuple[float, float]:
    """Return mean(first) - mean(second), and how far its interval reaches on each side, in percent of the mean that is
    larger in size."""
    means = [statistics.mean(side) for side in (first, second)]
    scale = 100 / (max(map(abs, means)) or 1)
    difference = scale * (means[0] - means[1])
    if not statistics.pstdev(first) and not statistics.pstdev(second):
        return difference, 0
    found = scipy.stats.ttest_ind(first, second, equal_var=False).confidence_interval(1 - 2 * claims.LEVEL)
    return difference, scale * (found.high - found.low) / 2


def claims_picture() -> str:
    """Return the picture."""
    found = rows()
    drawing = Drawing(TITLE, "; ".join(f"{row.text}: {row.told}" for row in found))
    drawing.text((TEXT, 38), TITLE, 20, bold=True)
    notes = (
        "The first figure of each claim: the difference of its two sides, in percent of the larger mean.",
        "Lines are 90% intervals (Welch). A claim holds if its line lies to the right of 0.",
    )
    for index, note in enumerate(notes):
        drawing.text((TEXT, 62 + 18 * index), note, 13, FAINT)
    y, top, places = 142.0, 132.0, []
    for row in found:
        lines = wrapped(row.text, AXIS[0] - TEXT - 24, 13)
        height = max(len(lines), 2) * LINE + 16
        places.append((row, lines, y, height))
        y += height
    _axis(drawing, top, y)
    for index, (row, lines, start, height) in enumerate(places):
        if index:
            drawing.path([(16, start), (WIDTH - 16, start)], RULE, 1)
        _draw(drawing, row, lines, start, height)
    return drawing.svg(y + 14)


def _x(percent: float) -> float:
    return AXIS[0] + (percent + LIMIT) / (2 * LIMIT) * (AXIS[1] - AXIS[0])


def _axis(drawing: Drawing, top: float, bottom: float) -> None:
    for percent in range(-LIMIT, LIMIT + 1, 50):
        x, zero = _x(percent), percent == 0
        drawing.path([(x, top), (x, bottom)], FAINT if zero else RULE, 1.5 if zero else 1, "" if zero else "3 3")
        drawing.text((x, top - 6), f"{percent:+d}%".replace("-", "−") if percent else "0", 12, FAINT, anchor="middle")
    drawing.text((_x(0) - 12, top - 24), "← the opposite", 12.5, INK, anchor="end")
    drawing.text((_x(0) + 12, top - 24), "as claimed →", 12.5, INK)


def _draw(drawing: Drawing, row: Row, lines: list[str], y: float, height: float) -> None:
    """Draw a row: the claim, its interval and mark, and the verdict."""
    middle, color = y + height / 2, COLORS[row.verdict]
    base = middle - LINE * (len(lines) - 1) / 2 + 4.5
    for index, line in enumerate(lines):
        drawing.text((TEXT, base + LINE * index), line, 13, INK)
    if row.verdict == "not run":
        drawing.text((VERDICT, middle + 4.5), "not run", 13, color)
        return
    drawing.text((VERDICT, middle - 3), MARKS[row.verdict], 12.5, color, bold=True)
    p = row.told.partition("(")[2].rstrip(")")
    for index, line in enumerate(wrapped(f"{row.figure}, {p}", WIDTH - VERDICT - 16, 12)):
        drawing.text((VERDICT, middle + 13 + 14 * index), line, 12, FAINT)
    ends = [max(-LIMIT, min(LIMIT, row.difference + side * row.reach)) for side in (-1, 1)]
    drawing.path([(_x(ends[0]), middle), (_x(ends[1]), middle)], color, 2.5)
    for end, side in zip(ends, (-1, 1), strict=True):
        if abs(row.difference + side * row.reach) > LIMIT:
            drawing.arrow((_x(end), middle), (_x(end) + 9 * side, middle), ink=color)
        else:
            drawing.path([(_x(end), middle - 5), (_x(end), middle + 5)], color, 2)
    _mark(drawing, row.verdict, _x(max(-LIMIT, min(LIMIT, row.difference))), middle, color)


def _mark(drawing: Drawing, verdict: str, x: float, y: float, color: str) -> None:
    """Draw a dot, filled where the claim is decided; a square where it does not hold."""
    radius = 0 if verdict == "does not" else 6
    fill = "#ffffff" if verdict == "cannot be told" else color
    drawing.rect(Box(x - 6, y - 6, 12, 12), Style(fill, color, radius=radius), line_width=2)
