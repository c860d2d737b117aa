"""Checksums of files. A pickle contains no checksum, so a flipped bit in a weight would not be noticed."""

from __future__ import annotations

import hashlib
from pathlib import Path

from stylegan_plugins.errors import DataError

CHECKSUMS = "network-snapshots.sha256"


def record_checksum(path: Path) -> None:
    """Record the SHA-256 of a snapshot in its folder, in the format of sha256sum."""
    with open(path.parent / CHECKSUMS, "a", encoding="utf-8") as file:
        file.write(f"{_sha256(path)}  {path.name}\n")


def check_checksum(path: Path) -> None:
    """Raise DataError if a snapshot has changed since it was written. A snapshot without a record passes."""
    known = recorded_checksums(path.parent).get(path.name)
    if known is not None and known != _sha256(path):
        raise DataError(f"{path} is truncated or damaged: its SHA-256 is not the one in {CHECKSUMS}. Use another one.")


def recorded_checksums(folder: Path) -> dict[str, str]:
    """Return the recorded SHA-256 of the snapshots in a folder, by file name."""
    record = folder / CHECKSUMS
    lines = record.read_text(encoding="utf-8", errors="replace").splitlines() if record.is_file() else []
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


def digest_of(file: str | Path | None) -> str:
    """Return the start of a file's SHA-256, which identifies its content; "" without a file."""
    return "" if file is None else _sha256(Path(file))[:16]


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
