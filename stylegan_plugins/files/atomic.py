"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from stylegan_plugins.errors import DataError


@contextmanager
def whole(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing. It gets its final name after a block without an error, when it is on the disk. Parent
    folders are made. A device or a pipe is written directly, because it must not be replaced.

    Raises DataError if it cannot be written."""
    partial = path.parent / f"{path.name}.{os.getpid()}.tmp"  # `with_name` fails for `.` and `/`
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_file():
            with open(path, "wb") as file:
                yield file
            return
        with open(partial, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        raise DataError(f"{path} cannot be written ({why(error, path)}).") from error
    finally:
        if path.parent.is_dir():
            partial.unlink(missing_ok=True)


def why(error: BaseException, path: Path) -> str:
    """Return why a file could not be read or written; for a full disk, with the free space."""
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        return f"no space left, {shutil.disk_usage(path.parent).free / 1e6:.0f} MB free"
    return getattr(error, "strerror", None) or " ".join(str(error).split())


def write_json(path: Path, value: Any) -> None:
    """Write JSON for people to read. Raises DataError if it cannot be written."""
    with whole(path) as file:
        file.write((json.dumps(value, indent=2) + "\n").encode())
