"""Run directories: their snapshots, and the arguments that they were trained with."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from pickle import STOP
from typing import Any

import click

from stylegan_plugins.errors import DataError
from stylegan_plugins.files import json_lines, portable
from stylegan_plugins.files.checksums import check_checksum

RUN = re.compile(r"\d{5,}-")  # the hosts' numbers of runs in an --outdir
SNAPSHOT = re.compile(r"network-snapshot-(\d+)\.pkl")
OPTIONS = "training_options.json"
SHARED = ("network.pkl", portable.FILE, "G_ema.onnx")  # files of `export`, the preferred one first


def read_options(run_dir: Path) -> dict[str, Any] | None:
    """Return the arguments of a run's training loop, from its training_options.json; None if there is no such file.

    Raises DataError if it cannot be read or is not a JSON object."""
    file = run_dir / OPTIONS
    try:
        if file.exists() and not file.is_file():
            raise ValueError("it is not a regular file")
        if file.exists() and file.stat().st_size > 4 * json_lines.MOST_LETTERS:
            raise ValueError("it is too large")
        return json_lines.parse(file.read_text(encoding="utf-8", errors="replace"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read ({getattr(error, 'strerror', None) or error}).") from error


def check_name(path: str | Path, flag: str) -> None:
    """Raise DataError if the path of a run has bytes that are not text: TensorBoard cannot write there."""
    try:
        os.path.abspath(path).encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{flag}: {path} is not text in the encoding of this system. Give a folder of another name."
        ) from error


def class_names(path: Path) -> tuple[str, ...]:
    """Return the names of classes that a run, or the folder of a shared generator, records; empty if it records none.

    path: the folder, or a file in it. Raises DataError if its training_options.json cannot be read."""
    folder = path if path.is_dir() else path.parent
    recorded = (read_options(folder) or {}).get("class_names")
    if isinstance(recorded, list):
        return tuple(map(str, recorded))
    about = portable.description_of(path if path.suffix == ".safetensors" else folder / portable.FILE)
    return () if about is None else about.classes


def class_number(names: Sequence[str], given: str) -> int:
    """Return the number of a class, given as a number or a name. Raises DataError for neither."""
    if given in names:
        return list(names).index(given)
    if given.isdecimal() and len(given) < 7:
        return int(given)
    known = f"one of {', '.join(names[:20])}, or a" if names else "a"
    raise DataError(f"--class={given}: must be {known} number from 0.")


def is_onnx(path: Path) -> bool:
    """Return whether a path is a generator as ONNX: the file, or a folder without other networks."""
    return (newest_pickle(path) if path.is_dir() and (path / SHARED[-1]).is_file() else path).suffix == ".onnx"


def newest_pickle(path: Path) -> Path:
    """Return the file itself, or the newest snapshot of a run directory, or the first file of a shared generator.

    Raises DataError if there is none."""
    if path.is_file():
        return path
    if not path.is_dir():
        raise DataError(f"{path} does not exist; give a run directory or a network pickle.")
    shared = [path / name for name in SHARED if (path / name).is_file()]
    if shared and not snapshots_in(path):
        return shared[0]
    for file in reversed(found := snapshots(path)):
        if _is_whole(file):
            return file
        click.echo(f"{file} is cut off or damaged, so the one before it is taken.", err=True)
    raise DataError(f"{path}: all of its {len(found)} network-snapshot-*.pkl are cut off or damaged.")


def _is_whole(pickle: Path) -> bool:
    """Return whether a snapshot is complete, judging by its folder and its last byte."""
    try:
        check_checksum(pickle)
    except DataError:
        return False
    with open(pickle, "rb") as file:
        file.seek(max(file.seek(0, os.SEEK_END) - 1, 0))
        return file.read(1) == STOP


def snapshots(run_dir: Path) -> list[Path]:
    """Return all snapshots of a run directory, the oldest first. Raises DataError if there is none."""
    if not run_dir.is_dir():
        raise DataError(f"{run_dir} is not a run directory, which --all needs.")
    if not (found := snapshots_in(run_dir)):
        raise DataError(f"{run_dir} has no network-snapshot-*.pkl; give a run directory or a network pickle.")
    return found


def snapshots_in(folder: Path) -> list[Path]:
    """Return all snapshots in a folder, oldest first; empty if there are none."""
    found = {int(match[1]): file for file in folder.iterdir() if (match := SNAPSHOT.fullmatch(file.name))}
    return [found[kimg] for kimg in sorted(found)]


def newest_run(folder: Path) -> Path:
    """Return a run directory itself, or the newest run in an --outdir."""
    if (folder / OPTIONS).is_file():
        return folder
    return next(reversed(runs(folder)), folder)


def runs(folder: Path) -> list[Path]:
    """Return the runs in an --outdir, the newest last; none if it does not exist."""
    found = folder.iterdir() if folder.is_dir() else ()
    kept = (run for run in found if RUN.match(run.name) and (run / OPTIONS).is_file())
    return sorted(kept, key=lambda run: int(run.name.split("-")[0]))
