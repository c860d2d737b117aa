"""What a run directory tells about a run: its settings, statistics over time, metrics, and sheets of samples.

Files are read as they are found: a run may be going on while it is read, may have been killed, or have diverged."""

from __future__ import annotations

import functools
import itertools
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stylegan_plugins.analysis import metrics, records
from stylegan_plugins.errors import DataError
from stylegan_plugins.files import json_lines
from stylegan_plugins.files.run_folders import OPTIONS, SNAPSHOT, read_options

KIMG = "Progress/kimg"
MOST_NAMES = 1000  # of statistics, and of settings: a page of more is of no use, and a file from elsewhere may have any
MOST_VALUES = 5_000_000  # in a table; 25,000 kimg of the hosts are 500,000
MOST_RESULTS = 100_000  # of metrics
SHEET = re.compile(r"fakes(\d+|_init)\.(?:png|jpg)")
# Words in names of metrics of which more is better; `f` and `score` are precision and recall in one.
OTHER_WAY = {"precision", "recall", "density", "coverage", "accuracy", "score"}
# First words of names: Inception Score, and equivariance in stylegan3, a PSNR; distances and path lengths.
HIGHER, LOWER = r"is(\d+k)?|inception|eq[tr](\d+k)?", r"(fid|kid|ppl)(\d.*)?"
Curve = list[float | None]  # None: not measured


@dataclass
class Table:
    """Curves with a common axis: kimg [N], rising, and by name N values, None where there is none."""

    kimg: list[float] = field(default_factory=list)
    values: dict[str, Curve] = field(default_factory=dict)

    def add(self, kimg: float, row: dict[str, float | None]) -> None:
        """Append a row. What was there from this place on is dropped: the run went back, and did it again."""
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

    def measured(self, name: str) -> list[float]:
        return [value for value in self.values.get(name, []) if value is not None]

    def last(self, name: str) -> float | None:
        return next(reversed(self.measured(name)), None)


@dataclass
class Run:
    """One run directory.

    settings    names with dots to values, from training_options.json
    stats       means of stats.jsonl; diagnostics: of diagnostics.jsonl
    results     lines of metric-*.jsonl, each with its kimg
    sheets      (kimg, file), in order; kimg is None for the one from before training
    notes       what a reader should know about these files, in whole sentences"""

    path: Path
    settings: dict[str, Any]
    stats: Table
    diagnostics: Table
    results: list[dict[str, Any]]
    sheets: list[tuple[int | None, Path]]
    notes: list[str]

    @property
    def kimg(self) -> float | None:
        """Return how far the run has come, in thousands of images."""
        return self.stats.kimg[-1] if self.stats.kimg else None

    @functools.cached_property
    def metrics(self) -> dict[str, dict[str, Table]]:
        """Return `series` of the results."""
        return series(self.results)

    @property
    def plugins(self) -> list[str]:
        active = self.settings.get("plugins.active", [])
        return [str(name) for name in active] if isinstance(active, list) else []


def read(path: Path) -> Run:
    """Read a run directory. Raises DataError if it is none, or nothing is known about the run yet."""
    if not path.is_dir():
        raise DataError(f"{path} is no folder; give a run directory, such as runs/00000-faces-auto1.")
    try:
        files = sorted(path.iterdir())
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error}).") from error
    if not {file.name for file in files} & {"stats.jsonl", OPTIONS}:
        inner = [folder for folder in files if (folder / OPTIONS).is_file()]
        hint = f" There is one in it: {inner[0]}." if inner else ""
        raise DataError(f"{path} is no run directory: it has neither stats.jsonl nor training_options.json.{hint}")
    notes: list[str] = []
    run = Run(
        path=path,
        settings=_settings(path, notes),
        stats=_table(path / "stats.jsonl", notes),
        diagnostics=_table(path / "diagnostics.jsonl", notes),
        results=_results(files, notes),
        sheets=_sheets(files),
        notes=notes,
    )
    if not run.stats.kimg:
        if not (run.sheets or run.results or run.diagnostics.kimg):
            raise DataError(f"{path}: stats.jsonl is missing or empty; there is one after the first tick of training.")
        notes.append("There are no statistics: stats.jsonl is missing or empty. It gets a line at every tick.")
    return run


def number(value: Any) -> float | None:
    """Return a finite number, of a statistic of the host ({"num", "mean", "std"}) the mean; None for all else."""
    if isinstance(value, dict):
        value = value.get("mean")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # an integer of more than 308 digits
        return None


def is_higher_better(metric: str) -> bool | None:
    """Tell by its name whether more of a metric's figure is better; None for figures that are not ranked, such as
    deviations, and for unknown ones."""
    words = metric.lower().split("_")
    if "std" in words:
        return None
    if OTHER_WAY.intersection(words) or re.fullmatch(HIGHER, words[0]):
        return True
    if re.fullmatch(LOWER, words[0]):
        return False
    for name, known in metrics.known().items():
        if metric.startswith(f"{name}_") and metric.endswith(known.decides):
            return known.higher
    return None


def flattened(value: Any, name: str = "", separator: str = ".") -> Iterator[tuple[str, Any]]:
    """Yield ("a.b", 1) for {"a": {"b": 1}}."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from flattened(inner, f"{name}{separator}{key}" if name else str(key), separator)
    else:
        yield name, value


def lines(path: Path, notes: list[str]) -> Iterator[dict[str, Any]]:
    """Yield the objects of a file of JSON lines; none if there is no file. What cannot be read is left out, with a
    note. Raises DataError if the file cannot be read."""
    broken, last = 0, True
    for found in json_lines.read(path):
        last = found is not None
        if found is None:
            broken += 1
        else:
            yield found
    if not last:
        broken -= 1
        notes.append(
            f"The last line of {path.name} is not whole and was left out: it is being written, or was cut off."
        )
    if broken:
        notes.append(f"{broken} broken lines of {path.name} were left out.")


def _sheets(files: list[Path]) -> list[tuple[int | None, Path]]:
    """Return the host's sheets of samples in the order of time; the one from before training comes first."""
    found = {match[1]: file for file in files if (match := SHEET.fullmatch(file.name))}
    first = found.pop("_init", None)
    sheets: list[tuple[int | None, Path]] = sorted((int(kimg), file) for kimg, file in found.items())
    if first is None:
        return sheets
    # The one of 0 kimg was made after the first tick, of some dozen images: it looks the same.
    return [(None, first), *((kimg, file) for kimg, file in sheets if kimg)]


def _settings(path: Path, notes: list[str]) -> dict[str, Any]:
    try:
        found = read_options(path)
    except DataError as error:
        if isinstance(error.__cause__, OSError):
            raise
        notes.append(f"{OPTIONS} is no JSON object; settings are left out.")
        return {}
    if found is None:
        notes.append(f"There is no {OPTIONS}; settings are left out.")
    settings = dict(itertools.islice(flattened(found or {}), MOST_NAMES + 1))
    if len(settings) > MOST_NAMES:
        settings.popitem()
        notes.append(f"{OPTIONS} has more than {MOST_NAMES} settings; the others are left out.")
    return settings


def _table(path: Path, notes: list[str]) -> Table:
    """Read statistics over kimg, from the host's format or plain, nested numbers."""
    table = Table()
    odd: Counter[str] = Counter()
    names: set[str] = set()
    nowhere = 0
    for line in lines(path, notes):
        kimg = number(line.get(KIMG, line.get("kimg")))
        if kimg is None:
            nowhere += 1
            continue
        row: dict[str, float | None] = {}
        for name, value in line.items():
            if name in ("timestamp", "kimg"):
                continue
            is_leaf = isinstance(value, dict) and "mean" in value
            for leaf, inner in [(name, value)] if is_leaf else flattened(value, name, "/"):
                if leaf not in names:
                    if len(names) >= MOST_NAMES:
                        continue
                    names.add(leaf)
                row[leaf] = number(inner)
                if row[leaf] is None and _is_odd(inner):
                    odd[leaf] += 1
        table.add(kimg, row)
        if len(table.kimg) * len(names) > MOST_VALUES:
            notes.append(f"{path.name} has more than {MOST_VALUES} values; those after {kimg:.6g} kimg are left out.")
            break
    if len(names) >= MOST_NAMES:
        notes.append(f"{path.name} has {MOST_NAMES} statistics or more; the others are left out.")
    if nowhere:
        notes.append(f"{nowhere} lines of {path.name} have no kimg and were left out.")
    if odd:
        listed = ", ".join(f"{name} ({count})" for name, count in odd.most_common(5)) + (
            ", ..." if len(odd) > 5 else ""
        )
        notes.append(f"Values that are no finite number, and are gaps in the curves: {listed}.")
    return table


def _is_odd(value: Any) -> bool:
    """Return whether a measured value is NaN. The hosts also write NaN for a statistic that was not measured."""
    if isinstance(value, dict):
        return bool(value) and value.get("num") != 0
    return value is not None


def _results(files: list[Path], notes: list[str]) -> list[dict[str, Any]]:
    """Read the results of all metrics that name a snapshot of a run; `kimg` is added to each."""
    found: list[dict[str, Any]] = []
    for file in files:
        if not (file.name.startswith("metric-") and file.suffix == ".jsonl"):
            continue
        unplaced = 0
        for line in lines(file, notes):
            snapshot = line.get("snapshot_pkl")
            match = SNAPSHOT.fullmatch(re.split(r"[/\\]", snapshot)[-1]) if isinstance(snapshot, str) else None
            kimg = float(match[1]) if match else math.inf  # so many digits may be more than a number has
            if len(found) >= MOST_RESULTS:
                notes.append(f"There are more than {MOST_RESULTS} results of metrics; the others are left out.")
                return found
            if not isinstance(line.get("results"), dict) or not math.isfinite(kimg):
                unplaced += 1
            else:
                found.append({**line, "kimg": kimg})
        if unplaced:
            notes.append(f"{unplaced} lines of {file.name} name no snapshot of a run and were left out.")
    return found


def series(results: list[dict[str, Any]]) -> dict[str, dict[str, Table]]:
    """Return curves of metrics by name and `records.key_of`: only results of the same images, samples, weights and
    seed are in one curve. Two results of one snapshot: the last."""
    found: dict[str, dict[str, dict[float, float]]] = {}
    for line in results:
        for name, value in line["results"].items():
            if (result := number(value)) is not None:
                found.setdefault(name, {}).setdefault(records.key_of(line), {})[line["kimg"]] = result
    return {
        name: {key: Table(sorted(of), {name: [of[kimg] for kimg in sorted(of)]}) for key, of in by_key.items()}
        for name, by_key in found.items()
    }
