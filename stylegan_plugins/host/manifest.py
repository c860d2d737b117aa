"""What patching wrote into a host: originals of the changed files and a list of checksums, in `.stylegan-plugins/`.

The folder is all that `unpatch` needs, and all that tells a patched host from another."""

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


def is_patched(host: Path) -> bool:
    return (host / FOLDER / LIST).is_file()


def files(host: Path) -> dict[str, str]:
    """Patched files and the sha256 of each as patching left it; empty if the host is not patched."""
    return json.loads((host / FOLDER / LIST).read_text()) if is_patched(host) else {}


def original(host: Path, file: str) -> bytes | None:
    """The bytes of a host file before it was patched; None if there is no such file."""
    path = host / FOLDER / "originals" / file
    if not path.is_file():
        path = host / file
    return path.read_bytes() if path.is_file() else None


def changed_since(host: Path) -> list[str]:
    """Patched files that were changed, or removed, after patching."""
    return [
        file
        for file, digest in files(host).items()
        if not (host / file).is_file() or hashlib.sha256((host / file).read_bytes()).hexdigest() != digest
    ]


def write(host: Path, patched: dict[str, bytes]) -> None:
    """Put patched files in place, all of them or none, and keep their originals."""
    staging = Path(tempfile.mkdtemp(prefix=".stylegan-plugins-", dir=host))
    replaced: list[str] = []
    try:
        for file, data in patched.items():
            for target, content in (
                (staging / "originals" / file, (host / file).read_bytes()),
                (staging / "new" / file, data),
            ):
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
            shutil.copymode(host / file, staging / "new" / file)
        for file in patched:
            os.replace(staging / "new" / file, host / file)
            replaced.append(file)
        shutil.rmtree(staging / "new")
        sums = {file: hashlib.sha256(data).hexdigest() for file, data in patched.items()}
        (staging / LIST).write_text(json.dumps(sums, indent=2) + "\n")
        staging.chmod(0o755)
        os.replace(staging, host / FOLDER)
    except BaseException:
        for file in replaced:
            (host / file).write_bytes((staging / "originals" / file).read_bytes())
        shutil.rmtree(staging, ignore_errors=True)
        raise


def restore(host: Path) -> list[str]:
    """Put the originals back, byte for byte. Raises PatchError if a patched file was changed since."""
    changed = changed_since(host)
    if changed:
        raise PatchError(
            f"{', '.join(changed)} in {host} changed after patching; nothing was restored. Undo those changes, or copy "
            f"the originals by hand from {host / FOLDER / 'originals'}."
        )
    restored = list(files(host))
    for file in restored:
        temporary = host / (file + ".stylegan-plugins-tmp")
        temporary.write_bytes((host / FOLDER / "originals" / file).read_bytes())
        shutil.copymode(host / file, temporary)
        os.replace(temporary, host / file)
    shutil.rmtree(host / FOLDER)
    return restored
