"""The record of patching in a host: originals of the changed files and a list of checksums, in `.stylegan-plugins/`.

`unpatch` needs only this folder. A host with this folder counts as patched."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path

from stylegan_plugins.errors import PatchError

FOLDER = ".stylegan-plugins"
LIST = "patched.json"
EDITS = "edits.sha256"  # digest of the edits that were made


def is_patched(host: Path) -> bool:
    return (host / FOLDER / LIST).is_file()


def files(host: Path) -> dict[str, str]:
    """Return the sha256 of each file right after patching, by file name; empty if the host is not patched."""
    if not is_patched(host):
        return {}
    try:
        return json.loads((host / FOLDER / LIST).read_text())
    except (OSError, ValueError) as error:
        raise PatchError(
            f"{host / FOLDER / LIST} cannot be read ({error}). Fetch the host again, and patch it."
        ) from error


def original(host: Path, file: str) -> bytes | None:
    """Return the bytes of a host file before it was patched; None if there is no such file."""
    path = host / FOLDER / "originals" / file
    if not path.is_file():
        path = host / file
    return path.read_bytes() if path.is_file() else None


def changed_since(host: Path) -> list[str]:
    """Return the patched files that were changed, removed or restored since patching."""
    return [file for file, digest in files(host).items() if _digest(host / file) != digest]


def edits(host: Path) -> str | None:
    """Return the digest of the edits that a host was patched with; None if an old version patched it without one."""
    file = host / FOLDER / EDITS
    return file.read_text().strip() if file.is_file() else None


def write_edits(host: Path, digest: str) -> None:
    """Record the digest of the edits of a patched host. Raises PatchError if it cannot be written."""
    try:
        (host / FOLDER / EDITS).write_text(digest + "\n")
    except OSError as error:
        raise PatchError(f"{host} cannot be written: {error}; it is as it was.") from error


def write(host: Path, patched: dict[str, bytes], digest: str) -> None:
    """Put patched files in place, all of them or none, and keep their originals. digest: of the edits.

    Originals and list are complete before the first file changes, so `restore` works even after this process was
    killed. Raises PatchError if the host cannot be written."""
    folder, replaced = None, []
    try:
        folder = Path(tempfile.mkdtemp(prefix=FOLDER + "-", dir=host))
        for file, data in patched.items():
            _stage(folder / "originals" / file, (host / file).read_bytes())
            _stage(folder / "new" / file, data)
            shutil.copymode(host / file, folder / "new" / file)
        sums = {file: hashlib.sha256(data).hexdigest() for file, data in patched.items()}
        (folder / LIST).write_text(json.dumps(sums, indent=2) + "\n")
        (folder / EDITS).write_text(digest + "\n")
        folder.chmod(0o755)
        os.replace(folder, host / FOLDER)
        folder = host / FOLDER
        for file in patched:
            replaced.append(file)
            os.replace(folder / "new" / file, host / file)
        shutil.rmtree(folder / "new", ignore_errors=True)
    except BaseException as error:
        for file in replaced:
            _put_back(host, file)
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError):
            raise PatchError(f"{host} cannot be written: {error}; it is as it was.") from error
        raise


def restore(host: Path) -> list[str]:
    """Put the originals back, byte for byte. Raises PatchError if a patched file was changed since, or if the host
    cannot be written; another call then continues."""
    originals = host / FOLDER / "originals"
    lost = [file for file in files(host) if not (originals / file).is_file()]
    if lost:
        raise PatchError(f"{originals} lacks {', '.join(lost)}: nothing was restored. Fetch the host again.")
    changed = [file for file in changed_since(host) if _digest(host / file) != _digest(originals / file)]
    if changed:
        raise PatchError(
            f"{', '.join(changed)} in {host} changed after patching; nothing was restored. Undo those changes, or copy "
            f"the originals by hand from {originals}."
        )
    restored = list(files(host))
    try:
        for file in restored:
            _put_back(host, file)
        shutil.rmtree(host / FOLDER)
    except OSError as error:
        raise PatchError(f"{host} cannot be written: {error}. Make it writable and run this again.") from error
    return restored


def _put_back(host: Path, file: str) -> None:
    temporary = host / FOLDER / "new" / file
    _stage(temporary, (host / FOLDER / "originals" / file).read_bytes())
    shutil.copymode(host / file, temporary)
    os.replace(temporary, host / file)


def _stage(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _digest(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
