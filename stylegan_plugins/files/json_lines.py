"""JSON from run directories, which may be a stranger's: sizes and depth are limited, and only files are opened."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stylegan_plugins.errors import DataError

MOST_LETTERS = 1 << 24  # of an object, for which Python needs up to 20 times as much memory
MOST_DEPTH = 64  # of nested lists and objects; the hosts' files have four levels
MOST_BYTES = 1 << 29  # of a file; statistics of 25,000 kimg are some 30 MB


def parse(text: str) -> dict[str, Any]:
    """Read a JSON object. Raises ValueError if it is not an object, too long, or nested too deeply."""
    if len(text) > MOST_LETTERS:
        raise ValueError(f"it has more than {MOST_LETTERS} letters")
    try:
        found = json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(found, dict):
        raise ValueError("it is not a JSON object")
    if text.count("[") + text.count("{") <= MOST_DEPTH:  # true for nearly every line, and faster than the loop below
        return found
    level: list[Any] = [found]
    for _ in range(MOST_DEPTH):
        values = [value.values() if isinstance(value, dict) else value for value in level]
        level = [inner for these in values for inner in these if isinstance(inner, dict | list)]
    if level:
        raise ValueError("it is nested too deeply")
    return found


def read(path: Path) -> Iterator[dict[str, Any] | None]:
    """Yield the objects of a file of JSON lines. Yield None for an invalid line, and nothing without a file.

    Raises DataError if the file cannot be read, or is too large."""
    return (found for found, _ in read_from(path, 0))


def read_from(path: Path, start: int) -> Iterator[tuple[dict[str, Any] | None, int]]:
    """Yield (object, position to continue at) of the lines after `start` bytes. The position is the end of the line, or
    its beginning if it is incomplete. Otherwise as `read`."""
    try:
        if path.exists() and not path.is_file():
            raise DataError(f"{path} is not a regular file; remove it.")
        with open(path, "rb") as file:
            if path.stat().st_size > MOST_BYTES:
                raise DataError(f"{path} is larger than {MOST_BYTES >> 20} MB, which no run writes; remove it.")
            file.seek(start)
            for line in file:
                if line.endswith(b"\n"):
                    start += len(line)
                if line.strip():
                    yield _parsed(line.decode(errors="replace")), start
    except FileNotFoundError:
        return
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error}).") from error


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        return parse(line)
    except ValueError:
        return None
