"""Run directories: their snapshots, and the arguments that they were trained with."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from stylegan_plugins.errors import DataError
from stylegan_plugins.files import json_lines

SNAPSHOT = re.compile(r"network-snapshot-(\d+)\.pkl")
OPTIONS = "training_options.json"


def read_options(run_dir: Path) -> dict[str, Any] | None:
    """Return the arguments of a run's training loop, from its training_options.json; None if there is no such file.

    Raises DataError if it cannot be read or is no JSON object."""
    file = run_dir / OPTIONS
    try:
        if file.exists() and not file.is_file():
            raise ValueError("it is no regular file")
        if file.exists() and file.stat().st_size > 4 * json_lines.MOST_LETTERS:
            raise ValueError("it is too large")
        return json_lines.parse(file.read_text(encoding="utf-8", errors="replace"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read ({getattr(error, 'strerror', None) or error}).") from error


def newest_pickle(path: Path) -> Path:
    """Return the pickle itself, or the newest snapshot of a run directory. Raises DataError if there is none."""
    if path.is_file():
        return path
    if not path.is_dir():
        raise DataError(f"{path} does not exist; give a run directory or a network pickle.")
    return snapshots(path)[-1]


def snapshots(run_dir: Path) -> list[Path]:
    """Return all snapshots of a run directory, the oldest first. Raises DataError if there is none."""
    if not run_dir.is_dir():
        raise DataError(f"{run_dir} is no run directory, which --all needs.")
    found = {int(match[1]): file for file in run_dir.iterdir() if (match := SNAPSHOT.fullmatch(file.name))}
    if not found:
        raise DataError(f"{run_dir} has no network-snapshot-*.pkl; give a run directory or a network pickle.")
    return [found[kimg] for kimg in sorted(found)]
