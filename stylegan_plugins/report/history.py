"""The content of a run directory: settings, statistics over time, metrics, and sheets of samples.

Files are read as they are: the run may still train, may have been killed, or may have diverged."""

from __future__ import annotations

import functools
import itertools
import math
import os
import re
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stylegan_plugins.analysis import metrics, records
from stylegan_plugins.errors import DataError, NotYetError
from stylegan_plugins.files import json_lines
from stylegan_plugins.files.run_folders import OPTIONS, SNAPSHOT, read_options
from stylegan_plugins.report.curves import MOST_NAMES, Log, Table, flattened, number

MOST_RESULTS = 100_000  # of metrics
REALS = "reals.png"  # the host's sheet of training images
METRIC = re.compile(r"metric-.*\.jsonl", re.DOTALL)
TICKS = 10  # number of last ticks that give the speed of a run
SHEET = re.compile(r"fakes(\d+|_init)\.(?:png|jpg)")
# Words in names of metrics that are better when higher; `f` and `score` are precision and recall in one.
OTHER_WAY = {"precision", "recall", "density", "coverage", "accuracy", "score"}
# First words of names. HIGHER: Inception Score, and equivariance in stylegan3, a PSNR. LOWER: distances, path lengths.
HIGHER, LOWER = r"is(\d+k)?|inception|eq[tr](\d+k)?", r"(fid|kid|ppl)(\d.*)?"


@dataclass
class Run:
    """One run directory.

    settings    values of training_options.json, by names with dots
    stats       means of stats.jsonl; diagnostics: of diagnostics.jsonl
    results     lines of metric-*.jsonl, each with its kimg
    sheets      (kimg, file), in order; kimg is None for the sheet from before training
    notes       sentences that a reader should know about these files
    last_time   when the last tick ended, in seconds since 1970
    photographs the host's sheet of training images"""

    path: Path
    settings: dict[str, Any]
    stats: Table
    diagnostics: Table
    results: list[dict[str, Any]]
    sheets: list[tuple[int | None, Path]]
    notes: list[str]
    last_time: float | None = None
    photographs: Path | None = None

    @property
    def kimg(self) -> float | None:
        """Return the kimg trained so far, in thousands of images."""
        return self.stats.kimg[-1] if self.stats.kimg else None

    @property
    def total_kimg(self) -> float | None:
        """Return the length of the whole run, in thousands of images."""
        return number(self.settings.get("total_kimg"))

    @property
    def is_complete(self) -> bool:
        """Return whether the run is complete. Statistics are in float32, so that 6.4 kimg may be 6.3999999."""
        return self.kimg is not None and self.total_kimg is not None and self.kimg >= self.total_kimg * (1 - 1e-6)

    @property
    def seconds_left(self) -> float | None:
        """Return the seconds that the run needs after its last tick, at the median speed of its last ticks, with all
        work between them. None if it is complete, or if it has only one tick: the first takes longer."""
        if self.is_complete or self.kimg is None or self.total_kimg is None or self.total_kimg <= 0:
            return None
        kimg, seconds = self.stats.kimg[-TICKS - 1 :], self.stats.values.get("Timing/total_sec", [])[-TICKS - 1 :]
        steps = [
            (end - begin) / (after - before)
            for (before, begin), (after, end) in itertools.pairwise(zip(kimg, seconds, strict=False))
            if begin is not None and end is not None and end > begin  # after a resume the time may be less
        ]
        return statistics.median(steps) * (self.total_kimg - self.kimg) if steps else None

    @functools.cached_property
    def metrics(self) -> dict[str, dict[str, Table]]:
        """Return `series` of the results."""
        return series(self.results)

    @property
    def plugins(self) -> list[str]:
        active = self.settings.get("plugins.active", [])
        return [str(name) for name in active] if isinstance(active, list) else []


class Folder:
    """A run directory that may be read again and again while the run trains."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._logs = [Log(path / name) for name in ("stats.jsonl", "diagnostics.jsonl")]
        self._seen: dict[str, tuple[int, int]] = {}
        self._run: Run | None = None

    def read(self) -> Run:
        """Read new lines and files. Return the same object as before if nothing has changed.

        Raises DataError if this is not a run directory, or the run has nothing to show yet."""
        path = self.path
        if not path.is_dir():
            raise DataError(f"{path} is not a folder; give a run directory, such as runs/00000-faces-auto1.")
        try:
            names = sorted(name for name in os.listdir(path) if is_read(name))
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error.strerror or error}).") from error
        seen = {name: _stamp(path / name) for name in names}
        if self._run is not None and seen == self._seen:
            return self._run
        if not seen.keys() & {"stats.jsonl", OPTIONS}:
            raise DataError(
                f"{path} is not a run directory: it has neither stats.jsonl nor training_options.json, nor runs in it."
            )
        files = [path / name for name in seen]
        for log in self._logs:
            log.read()
        stats, diagnostics = (log.table for log in self._logs)
        notes: list[str] = []
        settings = _settings(path, notes)
        notes += [note for log in self._logs for note in log.notes]
        results = _results(files, notes)
        sheets = _sheets(files)
        if not stats.kimg:
            if not (sheets or results or diagnostics.kimg):
                raise NotYetError(
                    f"{path}: stats.jsonl is missing or empty; there is one after the first tick of training."
                )
            notes.append("There are no statistics: stats.jsonl is missing or empty. It gets a line at every tick.")
        photographs = path / REALS if REALS in seen else None
        self._run = Run(
            path, settings, stats, diagnostics, results, sheets, notes, self._logs[0].last_time, photographs
        )
        self._seen = seen
        return self._run


def _stamp(file: Path) -> tuple[int, int]:
    """Return size and time of a file, to notice a change."""
    try:
        stat = file.stat()
    except OSError:  # a link to nothing, or a file that was removed
        return (-1, -1)
    return (stat.st_size, stat.st_mtime_ns)


def is_read(name: str) -> bool:
    """Return whether a file of a run directory is part of a report."""
    return name in ("stats.jsonl", "diagnostics.jsonl", OPTIONS, REALS) or bool(
        METRIC.fullmatch(name) or SHEET.fullmatch(name)
    )


def runs_in(path: Path) -> list[Path]:
    """Return the run directories in an --outdir, or in the cells of an --outdir of `compare`, in the order of their
    names. Empty if the path is a run directory or not a folder."""
    folders = _folders_in(path) if path.is_dir() and not _is_run(path) else []
    return [
        run for folder in folders for run in ([folder] if _is_run(folder) else filter(_is_run, _folders_in(folder)))
    ]


def _is_run(folder: Path) -> bool:
    return any(os.path.lexists(folder / name) for name in ("stats.jsonl", OPTIONS))


def _folders_in(folder: Path) -> list[Path]:
    try:
        return sorted(inner for inner in folder.iterdir() if inner.is_dir())
    except OSError:  # a folder without permission to read
        return []


def read(path: Path) -> Run:
    """Read a run directory once. Raises DataError like `Folder.read`."""
    return Folder(path).read()


def is_higher_better(metric: str) -> bool | None:
    """Return, by its name, whether a figure of a metric is better when higher. None for unknown figures, and for those
    that do not rank, such as deviations."""
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


def lines(path: Path, notes: list[str]) -> Iterator[dict[str, Any]]:
    """Yield the objects of a file of JSON lines, none if the file is missing. Broken lines are left out, with a note.
    Raises DataError if the file cannot be read."""
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
    """Return the host's sheets of samples in the order of time. The sheet from before training comes first."""
    found = {match[1]: file for file in files if (match := SHEET.fullmatch(file.name))}
    first = found.pop("_init", None)
    sheets: list[tuple[int | None, Path]] = sorted((int(kimg), file) for kimg, file in found.items())
    if first is None:
        return sheets
    # The sheet of 0 kimg was made after the first tick, of some dozen images: it looks the same as the first one.
    return [(None, first), *((kimg, file) for kimg, file in sheets if kimg)]


def _settings(path: Path, notes: list[str]) -> dict[str, Any]:
    try:
        found = read_options(path)
    except DataError as error:
        if isinstance(error.__cause__, OSError):
            raise
        notes.append(f"{OPTIONS} is not a JSON object; settings are left out.")
        return {}
    if found is None:
        notes.append(f"There is no {OPTIONS}; settings are left out.")
    settings = dict(itertools.islice(flattened(found or {}), MOST_NAMES + 1))
    if len(settings) > MOST_NAMES:
        settings.popitem()
        notes.append(f"{OPTIONS} has more than {MOST_NAMES} settings; the others are left out.")
    return settings


def _results(files: list[Path], notes: list[str]) -> list[dict[str, Any]]:
    """Return the results of all metrics that name a snapshot of a run, each with its `kimg`."""
    found: list[dict[str, Any]] = []
    for file in files:
        if not METRIC.fullmatch(file.name):
            continue
        unplaced = 0
        for line in lines(file, notes):
            snapshot = line.get("snapshot_pkl")
            match = SNAPSHOT.fullmatch(re.split(r"[/\\]", snapshot)[-1]) if isinstance(snapshot, str) else None
            kimg = float(match[1]) if match else math.inf  # more digits than a number can have give infinity
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
    """Return curves of metrics by name and `records.key_of`: one curve has only results of the same images, samples,
    weights and seed. If a snapshot has two results, the last counts."""
    found: dict[str, dict[str, dict[float, float]]] = {}
    for line in results:
        for name, value in line["results"].items():
            if (result := number(value)) is not None:
                found.setdefault(name, {}).setdefault(records.key_of(line), {})[line["kimg"]] = result
    return {
        name: {key: Table(sorted(of), {name: [of[kimg] for kimg in sorted(of)]}) for key, of in by_key.items()}
        for name, by_key in found.items()
    }
