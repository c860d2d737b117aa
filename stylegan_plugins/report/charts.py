"""Line charts: positions of lines and marks. `report.html.jinja` makes SVG of them."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

WIDTH, HEIGHT = 360, 210  # of the drawing; on a phone it is shown at about this size
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 10, 32
MOST_POINTS = 240  # points in a curve: a reader cannot see more than one for every two pixels
SOURCES = {  # kinds of images for one statistic: one chart, with different dashes
    "real": "",
    "train": "",
    "fake": "6 4",
    "generated": "6 4",
    "samples": "6 4",
    "held_out": "1 4",
}
LETTERS = "ABCDEFGH"  # short names of configurations, by their number
Point = tuple[float, float | None]


@dataclass(frozen=True)
class Line:
    """A curve. `run`: number of its configuration; `source`: a key of SOURCES or ""; `dots`: mark every point.
    `spread`: standard deviation by kimg, where a point is a mean; the band is as wide on both sides."""

    run: int
    source: str
    points: Sequence[Point]
    dots: bool = False
    spread: Mapping[float, float] = field(default_factory=dict)

    def ends(self) -> Iterator[float]:
        """Yield all values that are drawn, of the line and the band."""
        for x, y in self.points:
            if y is not None:
                deviation = self.spread.get(x, 0.0)
                yield from {y, *(end for end in (y - deviation, y + deviation) if math.isfinite(end))}


@dataclass(frozen=True)
class Drawn:
    """A line in the coordinates of the drawing. band: a path around it, "" without one; values: text for a pointer,
    "kimg value;..."; dense: it has so many points that a thinner line shows more."""

    run: int
    source: str
    path: str
    band: str
    end: tuple[float, float]
    dots: list[tuple[float, float]]
    values: str
    dense: bool


@dataclass(frozen=True)
class Chart:
    """A chart. key: its name in the files; text: an explanation; alt: a description for those who do not see it."""

    title: str
    key: str
    text: str
    alt: str
    logarithmic: bool
    lines: list[Drawn]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    x_range: tuple[float, float]


def thin(points: Sequence[Point], most: int = MOST_POINTS) -> list[Point]:
    """Return at most `most` points, in their order: the first, the last, and the lowest and highest of each stretch.

    A value of None is a gap; a stretch with gaps keeps one of them. most: 5 or more."""
    assert most >= 5
    if len(points) <= most:
        return list(points)
    stretches = (most - 2) // 3
    kept = {0, len(points) - 1}
    for stretch in range(stretches):
        indices = range(stretch * len(points) // stretches, (stretch + 1) * len(points) // stretches)
        measured = [(value, index) for index in indices if (value := points[index][1]) is not None]
        if measured:
            kept |= {min(measured)[1], max(measured)[1]}
        kept.update([index for index in indices if points[index][1] is None][:1])
    return [points[index] for index in sorted(kept)]


def ticks(low: float, high: float, most: int) -> list[float]:
    """Return at most `most` evenly spaced round numbers from low to high."""
    if not low < high or not math.isfinite(high - low):
        return [low]
    if (high - low) / most < sys.float_info.min:  # a denormal number has lost digits
        return [low]
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    for step in (power, 2 * power, 2.5 * power, 5 * power, 10 * power, 20 * power):
        if step <= 0 or low + step == low:  # the step is below the precision of numbers
            continue
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first < most:
            edge = 1e-6 * (high - low)  # numbers beyond it are rounding errors as large as themselves
            return [value for i in range(first, last + 1) if low - edge <= (value := i * step) <= high + edge] or [low]
    return [low]


def written(value: float | None) -> str:
    """Write a number with four significant digits."""
    if value is None:
        return "–"
    if value and not 1e-4 <= abs(value) < 1e6:
        return f"{value:.3g}".replace("e+0", "e").replace("e-0", "e-").replace("e+", "e")
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"


def is_constant(lines: Iterable[Line]) -> float | None:
    """Return the value of all points of all lines; None if they differ, or if there is only one point."""
    values = [end for line in lines for end in line.ends()]
    return values[0] if len(values) > 1 and min(values) == max(values) else None


def chart(title: str, key: str, lines: Sequence[Line], text: str = "") -> Chart | None:
    """Draw lines, which are thinned first; None if no point has a value.

    The axis is logarithmic if all values are above 0 and the highest is more than 1000 times the lowest."""
    lines = [replace(line, points=thin(line.points)) for line in lines if any(y is not None for _, y in line.points)]
    if not lines:
        return None
    xs = [x for line in lines for x, _ in line.points]
    ys = [end for line in lines for end in line.ends()]
    logarithmic = min(ys) > 0 and max(ys) / 1000 > min(ys)
    scale = math.log10 if logarithmic else float
    x_low, x_high = 0.0 if 0 <= min(xs) <= 0.5 * max(xs) else min(xs), max(xs)
    if not x_low / 2 < x_high / 2:  # there is only one x
        x_low, x_high = min(x_low, 0.0), max(x_high, 0.0)
    if not x_low / 2 < x_high / 2:  # it is 0, or so small that half of it is 0
        x_high = 1.0
    y_low, y_high = scale(min(ys)), scale(max(ys))
    # Halves, and differences of halves: the difference of the values may be too large for a number.
    room = 0.04 * (y_high / 2 - y_low / 2) * 2 if math.isfinite(y_high - y_low) else 0.0
    room = room or 0.05 * abs(y_high) or 0.5
    largest = sys.float_info.max
    y_low, y_high = max(y_low - room, -largest), min(y_high + room, largest)

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x / 2 - x_low / 2) / (x_high / 2 - x_low / 2)
        up = (scale(y) / 2 - y_low / 2) / (y_high / 2 - y_low / 2)
        return (
            round(LEFT + across * (WIDTH - LEFT - RIGHT), 1),
            round(HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM), 1),
        )

    if logarithmic:  # at powers of ten that are normal numbers or at least above 0
        powers = ticks(max(y_low, -323), min(y_high, 308), 5)
        y_marks = [10.0**power for power in powers if power == round(power)]
    else:
        y_marks = ticks(y_low, y_high, 5)
    return Chart(
        title,
        key,
        text,
        _described(title, lines),
        logarithmic,
        [_drawn(line, place) for line in lines],
        [(place(x, ys[0])[0], written(x)) for x in ticks(x_low, x_high, 6)],
        [(place(x_low, y)[1], written(y)) for y in y_marks],
        (x_low, x_high),
    )


def _drawn(line: Line, place: Callable[[float, float], tuple[float, float]]) -> Drawn:
    path, band, placed = "", "", []
    for is_gap, points in itertools.groupby(line.points, lambda point: point[1] is None):
        if not is_gap:
            stretch = list(points)
            here = [place(x, y) for x, y in stretch if y is not None]
            path += f"M{'L'.join(f'{x:g} {y:g}' for x, y in here)}{'h0' if len(here) == 1 else ''}"
            placed += here
            band += _band([(x, y, line.spread.get(x, 0.0)) for x, y in stretch if y is not None], place)
    values = ";".join(
        f"{x:.6g} {y:.4g}" + (f"±{line.spread[x]:.2g}" if x in line.spread else "")
        for x, y in line.points
        if y is not None
    )
    dots = placed if line.dots else []
    return Drawn(line.run, line.source, path, band, placed[-1], dots, values, len(placed) > 60)


def _band(points: Sequence[tuple[float, float, float]], place: Callable[[float, float], tuple[float, float]]) -> str:
    """Return the outline of a band around points (x, y, deviation); "" without deviations."""
    ends = [(x, y, y - d, y + d) for x, y, d in points]
    if len(points) < 2 or not any(d for *_, d in points):
        return ""
    upper = [place(x, high if math.isfinite(high) else y) for x, y, _, high in ends]
    lower = [place(x, low if math.isfinite(low) else y) for x, y, low, _ in ends]
    return f"M{'L'.join(f'{x:g} {y:g}' for x, y in [*upper, *reversed(lower)])}Z"


def _described(title: str, lines: Sequence[Line]) -> str:
    """Describe a chart: start, end, lowest and highest value of each line."""
    parts = []
    for line in lines:
        measured = [(x, y) for x, y in line.points if y is not None]
        at = [f"{written(y)} at {written(x)} kimg" for x, y in (measured[0], measured[-1])]
        low, high = (written(end(y for _, y in measured)) for end in (min, max))
        course = at[0] if len(measured) == 1 else f"from {at[0]} to {at[1]}, between {low} and {high}"
        parts.append(f"{LETTERS[line.run]}{' ' if line.source else ''}{line.source.replace('_', '-')}: {course}")
    return f"{title} over kimg. {'; '.join(parts)}."
