"""Files that a run goes on from: training-state-*.pt, written whole or not at all, and checked before they are used."""

from __future__ import annotations

import contextlib
import json
import lzma
import os
import pickle
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from stylegan_plugins.errors import DataError, StateError
from stylegan_plugins.files.atomic import whole

PATTERN = re.compile(r"training-state-(\d+)\.pt")
FORMAT = 2

# What a damaged file raises: zipfile and torch have no base class for it.
_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, pickle.UnpicklingError, struct.error),
    *(EOFError, RuntimeError, ValueError, LookupError, OSError),
)


def state_path(run_dir: str | Path, cur_nimg: int) -> Path:
    """Named by the real images shown so far."""
    return Path(run_dir, f"training-state-{cur_nimg:09d}.pt")


def states_of(run_dir: str | Path) -> list[Path]:
    """All states of a run, the newest first."""
    found = {file: int(match[1]) for file in Path(run_dir).iterdir() if (match := PATTERN.fullmatch(file.name))}
    return sorted(found, key=lambda file: -found[file])


def info_path(path: Path) -> Path:
    """The small file beside a state that says what it is."""
    return path.with_suffix(".json")


def write_state(path: Path, state: dict[str, Any], info: dict[str, Any], keep: int) -> None:
    """Write a state beside its final name, move it there when it is on the disk, then remove all but the `keep` newest.

    info    what can be told without reading the state: images shown, processes, lengths of the logs; written first, so
            that no state is without it
    Raises StateError if it cannot be written; older states stay."""
    try:
        for left in path.parent.glob("training-state-*.tmp"):  # of a run that was killed while it wrote
            left.unlink()
        with whole(info_path(path)) as out:
            out.write(json.dumps({"format": FORMAT, **info}).encode())
        with whole(path) as out:
            torch.save(state, out)
    except (DataError, OSError, RuntimeError) as error:  # torch's writer makes a RuntimeError of a full disk
        if not path.exists():
            info_path(path).unlink(missing_ok=True)
        why = getattr(error.__cause__ or error, "strerror", None) or str(error).splitlines()[0]
        raise StateError(f"{path} cannot be written ({why}). Make room, or give --keep-states=1.") from error
    for old in states_of(path.parent)[keep:]:
        old.unlink()
        info_path(old).unlink(missing_ok=True)


def lock(run_dir: Path) -> int | None:
    """Hold a run directory until this process ends. Raises StateError if another process does.

    Returns a file descriptor to close, None where there are no such locks (Windows)."""
    try:
        import fcntl
    except ModuleNotFoundError:
        return None
    if not run_dir.is_dir():  # a loop that writes nothing
        return None
    descriptor = os.open(run_dir, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return descriptor
    except OSError as error:
        os.close(descriptor)
        if not isinstance(error, BlockingIOError):  # a network disk without locks
            return None
        raise StateError(
            f"{run_dir}: the run is still going on, in another process. Wait for it, or end it."
        ) from error


@contextlib.contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """A context in which a run directory is held. Raises StateError if another process holds it."""
    descriptor = lock(run_dir)
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def set_aside_newer(path: Path) -> None:
    """Rename states newer than the one that a run goes on from: they could not be read, yet would count as newest."""
    for other in states_of(path.parent):
        if other.name > path.name:
            other.rename(other.with_name(other.name + ".damaged"))
            info_path(other).unlink(missing_ok=True)


def read_state(path: Path) -> dict[str, Any]:
    """Read a state; nothing in it is executed. Raises StateError if it is truncated, damaged, or none."""
    try:
        with zipfile.ZipFile(path) as archive:  # torch itself does not look at the checksums
            broken = archive.testzip()
        if broken is not None:
            raise zipfile.BadZipFile(f"wrong checksum of {broken}")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except _DAMAGE as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise StateError(f"{path} is truncated or damaged ({why}).") from error
    return _of_this_format(state, path)


def read_info(path: Path) -> dict[str, Any]:
    """Read what a state is from the file beside it. Raises StateError."""
    try:
        info = json.loads(info_path(path).read_text())
    except (OSError, ValueError) as error:
        raise StateError(f"{info_path(path)} is missing or cannot be read, so {path.name} is of no use.") from error
    return _of_this_format(info, path)


def _of_this_format(value: Any, path: Path) -> dict[str, Any]:
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise StateError(
            f"{path} is no training state of this version of stylegan-plugins. Start a new run from a snapshot: "
            "--resume=PKL."
        )
    return value


def newest_state(run_dir: Path, report: Callable[[str], None]) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    """Return the newest state of a run that can be read: its path, its info and the state; `report` is told of each
    that cannot. Raises StateError if none is left."""
    found = states_of(run_dir)
    for path in found:
        try:
            return path, read_info(path), read_state(path)
        except StateError as error:
            report(f"{error} Going back to the one before.")
    raise StateError(
        f"{run_dir} has no training-state-*.pt{' that can be read' if found else ''}: the run cannot go on exactly. "
        "Start a new one from its newest snapshot, with --resume=PKL."
    )
