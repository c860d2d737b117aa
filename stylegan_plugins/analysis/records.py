"""Lines of metric-*.jsonl: results in the host's format with their identity, and the best snapshot by them.

The identity of a result is its `of`: reference images, labels, weights of the features, numbers of images, seed, and
the snapshot. Results are comparable if all but the snapshot is equal. `key_of` is a hash of all but the snapshot."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from stylegan_plugins.errors import DataError
from stylegan_plugins.files import json_lines
from stylegan_plugins.files.atomic import write_json

BEST = "best.json"
Result = dict[str, Any]  # a result in the host's format, with its identity


def short_hash(content: bytes, letters: int = 16) -> str:
    return hashlib.sha256(content).hexdigest()[:letters]


def key_of(line: Mapping[str, Any]) -> str:
    """Return a name for the identity of a result without its snapshot: eight letters, or "" if the line has no `of`."""
    of = line.get("of")
    if not isinstance(of, dict):
        return ""
    return short_hash(json.dumps({**of, "pickle": None}, sort_keys=True).encode(), 8)


def described(line: Mapping[str, Any]) -> str:
    """Describe the identity of a result in a phrase; "" if the line has no `of`."""
    of = line.get("of")
    if not isinstance(of, dict):
        return ""
    counts = [f"{of[name]} {what}" for name, what in (("samples", "generated"), ("real", "real")) if name in of]
    return ", ".join([*counts, f"key {key_of(line)}"])[:100]


def main_key(lines: Iterable[Mapping[str, Any]]) -> str | None:
    """Return the key of the results that rank snapshots by a metric: the results with the most generated images, then
    the most real ones, then the largest number of results, then the first. None if there are no lines.

    So a quick check on a few images never replaces the evaluation of a run."""
    groups = grouped(lines)

    def weight(key: str) -> tuple[float, float, int]:
        of = groups[key][0].get("of")
        samples, real = (of.get(name) if isinstance(of, dict) else None for name in ("samples", "real"))
        return *(number if isinstance(number, int) else -1 for number in (samples, real)), len(groups[key])  # type: ignore[return-value]

    return max(groups, key=weight, default=None)


def grouped(lines: Iterable[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return results by their key. Keys are in the order of their first results."""
    groups: dict[str, list[Any]] = {}
    for line in lines:
        groups.setdefault(key_of(line), []).append(line)
    return groups


def read_lines(file: Path) -> list[Result]:
    """Read the results in a metric-*.jsonl, except a cut-off line of a killed process. Raises DataError."""
    return [line for line in json_lines.read(file) if line is not None and isinstance(line.get("results"), dict)]


def append_line(file: Path, record: Result) -> None:
    """Append a result. Raises DataError if it cannot be written."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with open(file, "a+b") as out:
            out.seek(max(out.seek(0, os.SEEK_END) - 1, 0))
            if out.read(1) not in (b"\n", b""):  # a cut-off line of a killed process
                out.write(b"\n")
            out.write(json.dumps(record).encode() + b"\n")
    except OSError as error:
        raise DataError(f"{file} cannot be written ({error.strerror or error}).") from error


def best_of(figure: str, higher: bool, lines: Iterable[Result]) -> Result | None:
    """Return the best line by a figure, of lines of one key; None if the figure is finite in none."""
    finite = [line for line in lines if is_finite(line["results"].get(figure))]
    return (max if higher else min)(finite, key=lambda line: line["results"][figure], default=None)


def is_finite(value: Any) -> bool:
    """Return whether a figure is a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer of more than 308 digits
        return False


def mark_best(folder: Path, label: str, figure: str, higher: bool) -> tuple[str | None, dict[str, Result]]:
    """Write the best snapshots by a metric to best.json in the folder. The metric's label names the best of `main_key`,
    `label:key` the best of each other key. Entries of other metrics stay as they are.

    Return the main key, and the best result by key. Raises DataError."""
    lines = read_lines(folder / f"metric-{label}.jsonl")
    tops = {key: best_of(figure, higher, these) for key, these in grouped(lines).items()}
    best = {key: top for key, top in tops.items() if top is not None}
    main = main_key(line for line in lines if key_of(line) in best)
    file = folder / BEST
    try:
        known = json_lines.parse(file.read_text(errors="replace"))
    except (OSError, ValueError):
        known = {}
    others = {name: line for name, line in known.items() if name != label and not name.startswith(f"{label}:")}
    entries = {label if key == main else f"{label}:{key or 'unknown'}": line for key, line in best.items()}
    if best or others != known:
        write_json(file, {**others, **entries})
    return main, best
