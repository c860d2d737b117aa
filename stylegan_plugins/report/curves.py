"""Statistics over kimg, from files that a run appends to. Only new lines are read."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stylegan_plugins.files import json_lines

KIMG = "Progress/kimg"
MOST_NAMES = 1000  # of statistics, and of settings: a page of more is useless, and a file may have any number
MOST_VALUES = 5_000_000  # in a table; 25,000 kimg of the hosts are 500,000
TAIL = 64  # bytes that identify the file that was read: times differ in each line
Curve = list[float | None]  # None: not measured


@dataclass
class Table:
    """Curves with a common axis.

    kimg            [N], rising
    values          N values by name; None where nothing was measured
    deviations      if `values` are means over runs: N standard deviations by name
    not_finite      names whose last values are NaN or infinite, with the kimg of the first of these values"""

    kimg: list[float] = field(default_factory=list)
    values: dict[str, Curve] = field(default_factory=dict)
    deviations: dict[str, Curve] = field(default_factory=dict)
    not_finite: dict[str, float] = field(default_factory=dict)

    def add(self, kimg: float, row: dict[str, float | None]) -> None:
        """Append a row. Rows from this kimg on are removed first: the run has resumed from an earlier state."""
        while self.kimg and self.kimg[-1] >= kimg:
            self.kimg.pop()
            for values in self.values.values():
                values.pop()
        for name in row:
            self.values.setdefault(name, [None] * len(self.kimg))
        self.kimg.append(kimg)
        for name, values in self.values.items():
            values.append(row.get(name))

    def points(self, name: str) -> list[tuple[float, float | None]]:
        return list(zip(self.kimg, self.values[name], strict=True))

    def spread(self, name: str) -> dict[float, float]:
        """Return standard deviations by kimg."""
        found = zip(self.kimg, self.deviations.get(name, []), strict=False)
        return {kimg: value for kimg, value in found if value is not None}

    def measured(self, name: str) -> list[float]:
        return [value for value in self.values.get(name, []) if value is not None]

    def last(self, name: str) -> float | None:
        return next(reversed(self.measured(name)), None)


class Log:
    """A file of statistics: one JSON object a line, in the host's format or of plain, nested numbers."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._forget()

    def _forget(self) -> None:
        self.table = Table()
        self.last_time: float | None = None  # `timestamp` of the last line, in seconds since 1970
        self._seen: tuple[int, int] | None = None  # size and time of the file when it was read
        self._start, self._before, self._is_cut, self._is_full = 0, b"", False, False
        self._names: set[str] = set()
        self._odd: Counter[str] = Counter()
        self._broken, self._last_is_broken, self._nowhere = 0, False, 0

    def read(self) -> bool:
        """Read the new lines of the file, and return whether it has changed. Raises DataError if it cannot be read."""
        try:
            stat = self.path.stat()
            now: tuple[int, int] | None = (stat.st_size, stat.st_mtime_ns)
        except OSError:
            now = None
        if now == self._seen and now is not None:
            return False
        if not self._goes_on():
            self._forget()
        for line, end in json_lines.read_from(self.path, self._start) if not self._is_full else ():
            self._is_cut, self._start = end == self._start, end
            self._last_is_broken = line is None
            if line is not None:
                self._add(line)
            elif not self._is_cut:
                self._broken += 1
            if self._is_full:
                break
        self._before = self._bytes_before() if self._start else b""
        self._seen = now
        return True

    def _goes_on(self) -> bool:
        """Return whether the lines read so far are still there and were whole. A resumed run may have cut the file."""
        return not self._is_cut and (not self._start or self._bytes_before() == self._before)

    def _bytes_before(self) -> bytes:
        try:
            if self.path.is_file():
                with open(self.path, "rb") as file:
                    file.seek(max(self._start - TAIL, 0))
                    return file.read(min(self._start, TAIL))
        except OSError:
            pass  # it is read again, which raises the error
        return b""

    def _add(self, line: dict[str, Any]) -> None:
        kimg = number(line.get(KIMG, line.get("kimg")))
        if kimg is None:
            self._nowhere += 1
            return
        self.last_time = number(line.get("timestamp"))
        row: dict[str, float | None] = {}
        for name, value in line.items():
            if name in ("timestamp", "kimg"):
                continue
            is_leaf = isinstance(value, dict) and "mean" in value
            for leaf, inner in [(name, value)] if is_leaf else flattened(value, name, "/"):
                if leaf not in self._names:
                    if len(self._names) >= MOST_NAMES:
                        continue
                    self._names.add(leaf)
                row[leaf] = number(inner)
                if row[leaf] is not None:
                    self.table.not_finite.pop(leaf, None)
                elif _is_odd(inner):
                    self._odd[leaf] += 1
                    first = self.table.not_finite.get(leaf, kimg)
                    self.table.not_finite[leaf] = min(first, kimg)
        self.table.add(kimg, row)
        self._is_full = len(self.table.kimg) * len(self._names) > MOST_VALUES

    @property
    def notes(self) -> list[str]:
        """Return sentences that a reader of the curves should know about the file."""
        name, found = self.path.name, []
        broken = self._broken - (self._last_is_broken and not self._is_cut)
        if self._last_is_broken:
            found.append(f"The last line of {name} is not whole and was left out: it is being written, or was cut off.")
        if broken:
            found.append(f"{broken} broken lines of {name} were left out.")
        if self._is_full:
            last = f"{self.table.kimg[-1]:.6g}"
            found.append(f"{name} has more than {MOST_VALUES} values; those after {last} kimg are left out.")
        if len(self._names) >= MOST_NAMES:
            found.append(f"{name} has {MOST_NAMES} statistics or more; the others are left out.")
        if self._nowhere:
            found.append(f"{self._nowhere} lines of {name} have no kimg and were left out.")
        if self._odd:
            listed = [f"{odd} ({count})" for odd, count in self._odd.most_common(5)] + ["..."] * (len(self._odd) > 5)
            found.append(f"Values that are not finite, and are gaps in the curves: {', '.join(listed)}.")
        return found


def number(value: Any) -> float | None:
    """Return a finite number, or the mean of a statistic of the host ({"num", "mean", "std"}); None for all else."""
    if isinstance(value, dict):
        value = value.get("mean")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # an integer of more than 308 digits
        return None


def _is_odd(value: Any) -> bool:
    """Return whether a measured value is NaN. The hosts also write NaN for a statistic that was not measured."""
    if isinstance(value, dict):
        return bool(value) and value.get("num") != 0
    return value is not None


def flattened(value: Any, name: str = "", separator: str = ".") -> Iterator[tuple[str, Any]]:
    """Yield ("a.b", 1) for {"a": {"b": 1}}."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from flattened(inner, f"{name}{separator}{key}" if name else str(key), separator)
    else:
        yield name, value
