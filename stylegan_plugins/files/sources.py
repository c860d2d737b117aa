"""A user's folder or zip of pictures: its files, without files that operating systems leave behind."""

from __future__ import annotations

import os
import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO

from stylegan_plugins.errors import DataError
from stylegan_plugins.files import kinds

# Folders of macOS, Synology's disks and Windows.
FOLDERS = frozenset({"__macosx", "@eadir", "$recycle.bin", "system volume information"})
FILES = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"})
LARGEST = 1 << 30  # bytes of a picture, or of labels
# Compression methods that Python's zipfile lacks.
COMPRESSION = {9: "Deflate64, as Windows' Explorer does with more than 2 GB"}


def is_clutter(name: str) -> bool:
    """Return whether a name is of a hidden file, of a system's file, or of a file in such a folder."""
    parts = [part.lower() for part in PurePosixPath(name).parts]
    return any(part.startswith(".") or part in FOLDERS for part in parts) or parts[-1] in FILES


@dataclass
class Source:
    """The files in a folder or zip. Names have forward slashes.

    files     the name in the folder or zip by our name
    sizes     in bytes
    identity  of each file, for a cache: a zip's checksums, a folder's times
    clutter   names of ignored files, including empty ones"""

    path: Path
    archive: zipfile.ZipFile | None
    files: dict[str, str] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    identity: dict[str, int] = field(default_factory=dict)
    clutter: list[str] = field(default_factory=list)

    def add(self, actual: str, size: int, identity: int) -> None:
        name = str(PurePosixPath(actual.replace("\\", "/").lstrip("/")))
        if size == 0 or is_clutter(name):
            self.clutter.append(name)
        else:
            self.files[name], self.sizes[name], self.identity[name] = actual, size, identity

    def open(self, name: str) -> IO[bytes]:
        """Open a file for reading. Raises one of datasets.BROKEN if this fails."""
        if self.sizes[name] > LARGEST:
            raise ValueError(f"it has {self.sizes[name] >> 20} MiB")
        if self.archive is None:
            return open(self.path / self.files[name], "rb")
        return self.archive.open(self.files[name])


@contextmanager
def opened(path: Path) -> Iterator[Source]:
    """Open a folder or zip. Links to folders are followed. Raises DataError if it is neither."""
    if path.is_dir():
        source = Source(path, None)
        for name, stats in walk(path).items():
            source.add(name, stats.st_size, stats.st_mtime_ns)
        yield source
        return
    with open_zip(path) as archive:
        source = Source(path, archive)
        for entry in archive.infolist():
            if not entry.is_dir():
                source.add(entry.filename, entry.file_size, entry.CRC)
        yield source


def walk(folder: Path, links: bool = True) -> dict[str, os.stat_result]:
    """Return the files below a folder, by their path in it. Each folder is visited once, even with several links to it.

    links: whether to follow links to folders"""
    found: dict[str, os.stat_result] = {}
    seen = set()
    for top, folders, names in os.walk(folder, followlinks=links):
        real = os.path.realpath(top)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        for file in (os.path.join(top, name) for name in names):
            stats = os.stat(file) if os.path.exists(file) else os.lstat(file)  # the host opens a broken link, too
            if stat.S_ISREG(stats.st_mode) or stat.S_ISLNK(stats.st_mode):
                found[os.path.relpath(file, folder)] = stats
    return found


def open_zip(path: Path) -> zipfile.ZipFile:
    """Open a zip whose files can be read. Raises DataError, with the kind of file and a remedy, for anything else."""
    if not path.exists():
        raise DataError(f"--data: {path} does not exist.")
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, ValueError, LookupError, RuntimeError, zipfile.BadZipFile) as error:
        raise DataError(f"--data: {path} {_instead(path, error)}") from error
    for entry in archive.infolist():
        method = entry.compress_type
        if entry.flag_bits & 1:
            why = "is encrypted"
        elif method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
            why = f"is compressed with {COMPRESSION.get(method, f'method {method}')}, which Python cannot read"
        else:
            continue
        archive.close()
        raise DataError(f"--data: {path} {why}. Unpack it, and give the folder.")
    return archive


def _instead(path: Path, error: BaseException) -> str:
    """Describe a file that is not a zip, with a remedy."""
    try:
        with open(path, "rb") as file:
            first = file.read(kinds.HEAD)
    except OSError as failed:
        return f"cannot be read ({failed.strerror})."
    if first.startswith(b"PK"):
        reason = " ".join(str(error).split())
        return f"cannot be read as a zip ({reason:.200}); it may be truncated. Copy or download it again."
    what, _ = kinds.kind_of(first) or ("neither a folder nor a zip", "")
    packed = "archive" in what or "compressed" in what
    return f"is {what}. {'Unpack it, and give the folder.' if packed else 'Give a folder or zip of pictures.'}"
