"""Files to resume a run from: training-state-*.pt, written whole or not at all, and checked before use."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct, field

from stylegan_plugins.errors import DamagedStateError, DataError, StateError
from stylegan_plugins.files import trees
from stylegan_plugins.files.atomic import whole, why

PATTERN = re.compile(r"training-state-(\d+)\.pt")
FORMAT = 3
Counter = Annotated[int, Meta(ge=0, le=2**50)]


def state_path(run_dir: str | Path, cur_nimg: int) -> Path:
    """Return the path of a state, which contains the number of real images shown so far."""
    return Path(run_dir, f"training-state-{cur_nimg:09d}.pt")


def states_of(run_dir: str | Path) -> list[Path]:
    """Return all states of a run, newest first."""
    found = {file: int(match[1]) for file in Path(run_dir).iterdir() if (match := PATTERN.fullmatch(file.name))}
    return sorted(found, key=lambda file: -found[file])


def info_path(path: Path) -> Path:
    """Return the path of the small file beside a state that describes it."""
    return path.with_suffix(".json")


class Info(Struct):
    """Metadata of a training state, in the file beside it.

    nimg, ranks     images shown, and processes of the run
    size, sha256    of the state
    lengths         bytes of each log of the run at that moment, by file name
    snapshots       SHA-256 of each network snapshot at that moment, by file name
    data, labels    fingerprints of the data set; labels: "" if the run uses none
    arguments       of the training loop, without those that may change when the run is resumed
    versions        of torch and others, by name"""

    nimg: Counter
    ranks: Annotated[int, Meta(ge=1, le=1024)]
    format: int = FORMAT
    size: int = 0
    sha256: str = ""
    lengths: dict[str, Annotated[int, Meta(ge=0)]] = field(default_factory=dict)
    snapshots: dict[str, str] = field(default_factory=dict)
    data: str = ""
    labels: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)


def write_state(path: Path, state: dict[str, Any], info: Info, keep: int) -> None:
    """Write a state beside its final name, move it there when it is on the disk, then remove all but the `keep` newest.

    info    written first, so that every state has it
    Raises StateError if it cannot be written; older states stay."""
    pieces, digest = list(trees.pieces(state)), hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    info.size, info.sha256 = sum(map(len, pieces)), digest.hexdigest()
    try:
        for left in path.parent.glob("*.tmp"):  # left by a run that was killed while writing
            if left.name.startswith(("training-state-", "network-snapshot-")):
                left.unlink()
        with whole(info_path(path)) as out:
            out.write(msgspec.json.encode(info))
        with whole(path) as out:
            out.writelines(pieces)
    except (DataError, OSError) as error:
        if not path.exists():
            info_path(path).unlink(missing_ok=True)
        reason = error.__cause__ if isinstance(error.__cause__, OSError) else error
        less = ", or give --keep-states=1" if keep > 1 else ""
        raise StateError(
            f"{path} cannot be written ({why(reason, path)}; it takes {info.size / 1e6:.0f} MB). Make room{less}."
        ) from error
    for old in states_of(path.parent)[keep:]:
        old.unlink()
        info_path(old).unlink(missing_ok=True)


def lock(run_dir: Path) -> int | None:
    """Lock a run directory until this process ends. Raises StateError if another process has locked it.

    Returns a file descriptor to close, None where such locks are not available (Windows)."""
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
    """A context in which a run directory is locked. Raises StateError if another process has locked it."""
    descriptor = lock(run_dir)
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def set_aside_newer(path: Path) -> None:
    """Rename states newer than the one to resume from. They could not be read, but would count as newest later."""
    for other in states_of(path.parent):
        if other.name > path.name:
            other.rename(other.with_name(other.name + ".damaged"))
            info_path(other).unlink(missing_ok=True)


def read_state(path: Path, info: Info | None = None) -> dict[str, Any]:
    """Read a state; nothing in it is executed. Raises DamagedStateError if it differs from the state that was written,
    and StateError if the disk or the memory fails.

    info: the result of `read_info`, if it was called already"""
    info = info or read_info(path)
    try:
        data = path.read_bytes()
    except (OSError, MemoryError) as error:
        raise _unreadable(path, error) from error
    if len(data) != info.size or hashlib.sha256(data).hexdigest() != info.sha256:
        raise DamagedStateError(
            f"{path} is truncated or damaged: its SHA-256 is not the one in {info_path(path).name}."
        )
    try:
        state = trees.from_bytes(data)
        msgspec.convert(state, _State)
        return state
    except (DataError, msgspec.ValidationError) as error:
        raise DamagedStateError(f"{path} is not a training state ({error}).") from error
    except MemoryError as error:
        raise _unreadable(path, error) from error


def read_info(path: Path) -> Info:
    """Read the description of a state from the file beside it. Raises StateError as `read_state` does."""
    file = info_path(path)
    try:
        data = file.read_bytes()
        if msgspec.json.decode(data, type=_Format).format != FORMAT:
            raise DamagedStateError(
                f"{path} is not a training state of this version of stylegan-plugins. Start a new run from a snapshot: "
                "--resume=PKL."
            )
        return msgspec.json.decode(data, type=Info)
    except FileNotFoundError as error:
        raise DamagedStateError(f"{file} is missing, so {path.name} is of no use.") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DamagedStateError(f"{file} is damaged ({error}), so {path.name} is of no use.") from error
    except (OSError, MemoryError) as error:
        raise _unreadable(file, error) from error


class _Format(Struct):
    format: Any = None


class _Position(Struct):
    cur_nimg: Counter
    cur_tick: Counter
    tick_start_nimg: Counter
    batch_idx: Counter


class _State(Struct):
    torch: str
    position: _Position
    networks: dict[str, dict[str, Any]]
    optimizers: dict[str, dict[str, Any]]
    session: dict[str, Any]
    grid_z: Any
    ranks: Annotated[list[dict[str, Any]], Meta(min_length=1)]


def _unreadable(path: Path, error: BaseException) -> StateError:
    """Return the error for a failing disk or memory. The file itself may be undamaged."""
    what = "not enough memory" if isinstance(error, MemoryError) else why(error, path)
    return StateError(f"{path} cannot be read ({what}). Nothing was changed; mend that, and give the command again.")


def newest_state(run_dir: Path, report: Callable[[str], None]) -> tuple[Path, Info, dict[str, Any]]:
    """Return the newest undamaged state of a run: its path, its info and the state. `report` gets a message for each
    damaged one. Raises StateError if there is none, or if the disk or the memory fails."""
    found = states_of(run_dir)
    for path in found:
        try:
            info = read_info(path)
            return path, info, read_state(path, info)
        except DamagedStateError as error:
            report(f"{error} Going back to the one before.")
    raise StateError(
        f"{run_dir} has no training-state-*.pt{' that is whole' if found else ''}: the run cannot be resumed exactly. "
        "Start a new one from its newest snapshot, with --resume=PKL."
    )
