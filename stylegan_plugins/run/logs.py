"""Files that a run appends to. A resumed run truncates them to their length in its training state.

Other files in the folder stay, and so do results of `evaluate` for snapshots that the state knows. No link is
followed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

from stylegan_plugins.files.atomic import whole
from stylegan_plugins.files.checksums import recorded_checksums
from stylegan_plugins.files.run_folders import SNAPSHOT
from stylegan_plugins.files.states import Info

OF_THE_LOOP = ("stats.jsonl", "log.txt")
METRICS = "metric-*.jsonl"


def lengths(run_dir: Path, of_plugins: Iterable[str]) -> dict[str, int]:
    """Return the bytes of all logs of a run, by file name; 0 for a log that does not exist yet."""
    names = {*OF_THE_LOOP, *of_plugins, *(file.name for file in run_dir.glob(METRICS))}
    return {name: file.stat().st_size if (file := run_dir / name).is_file() else 0 for name in sorted(names)}


def cut(run_dir: Path, info: Info) -> list[str]:
    """Cut the logs of a run to their length when a state was written. Later results of metrics stay, except for
    snapshots that the run will write again. Return the names of metrics that lost lines. Raises DataError if a log
    cannot be written."""
    fewer = []
    recorded = recorded_checksums(run_dir)
    known = {name for name, digest in info.snapshots.items() if recorded.get(name) == digest}
    metrics = {file.name for file in run_dir.glob(METRICS)}
    for name in {*info.lengths, *metrics}:
        file, length = run_dir / name, info.lengths.get(name, 0)
        if Path(name).name != name or not file.is_file() or file.stat().st_size <= length:
            continue
        if name not in metrics and not file.is_symlink():
            os.truncate(file, length)
            continue
        data = file.read_bytes()
        kept = [line for line in data[length:].splitlines(True) if name in metrics and _stays(line, known)]
        with whole(file) as out:  # replaces a link, too
            out.write(data[:length] + b"".join(kept))
        if name in metrics:
            fewer.append(name.removeprefix("metric-").removesuffix(".jsonl"))
    return fewer


def _stays(line: bytes, known: set[str]) -> bool:
    """Return whether a metric's result stays: the resumed run does not write its snapshot again.

    known: names of snapshots that have not changed since the state was written"""
    try:
        name = Path(json.loads(line)["snapshot_pkl"]).name
    except (ValueError, LookupError, TypeError, RecursionError):
        return False  # a cut-off line of a killed process
    return name in known or not SNAPSHOT.fullmatch(name)


def snapshots(run_dir: Path) -> dict[str, str]:
    """Return the SHA-256 of all snapshots of a run, by file name."""
    return {name: digest for name, digest in recorded_checksums(run_dir).items() if (run_dir / name).is_file()}
