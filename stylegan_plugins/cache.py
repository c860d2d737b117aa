"""The user's cache folder, with records of the hosts and the plug-in files that the user has run."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from stylegan_plugins.errors import PluginError

MOST_HOSTS = 20  # number of remembered hosts


def cache_directory() -> Path:
    """Return $STYLEGAN_PLUGINS_CACHE, or else a folder in the user's cache."""
    usual = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "stylegan-plugins")
    return Path(os.environ.get("STYLEGAN_PLUGINS_CACHE") or usual)


def trust(files: Mapping[str, Mapping[str, Any]]) -> None:
    """Note that the user gave these plug-ins on a command line. files: `path` and `sha256` of each, by name."""
    new = {file["sha256"] for file in files.values()} - _trusted()
    if new:
        cache_directory().mkdir(parents=True, exist_ok=True)
        with open(_record(), "a", encoding="utf-8") as out:
            out.writelines(f"{digest}\n" for digest in sorted(new))


def check_trust(files: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise PluginError if a plug-in of a recorded run is a file that has changed, or that the user has never given on
    a command line on this machine. The run would execute it."""
    for file in files.values():
        path = Path(file["path"])
        found = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
        if found is None:
            raise PluginError(f"--plugin={path}: there is no such file, which the run was trained with. Put it back.")
        if found != file["sha256"]:
            raise PluginError(
                f"--plugin={path} has changed since the run began. Put it back as it was, or start a run elsewhere."
            )
        if found not in _trusted():
            raise PluginError(
                f"--plugin={path}: the run was trained with this file, which would be executed, and which you have not "
                f"used here so far. Read it, then allow it with: stylegan-plugins info {path}"
            )


def _record() -> Path:
    return cache_directory() / "plugin-files.sha256"


def _trusted() -> set[str]:
    return set(_record().read_text(encoding="utf-8").split()) if _record().is_file() else set()


def remember_host(directory: Path) -> None:
    """Note that the user has used a host, for commands without --host. A cache that cannot be written is not an error:
    the user can still give --host."""
    directory, known = directory.resolve(), known_hosts()
    kept = [directory, *(host for host in known if host != directory)][:MOST_HOSTS]
    if kept == known:
        return
    with suppress(OSError):
        cache_directory().mkdir(parents=True, exist_ok=True)
        _hosts().write_text("".join(f"{host}\n" for host in kept), encoding="utf-8", errors="surrogateescape")


def known_hosts() -> list[Path]:
    """Return the folders of hosts that the user has patched, trained with or given, latest first."""
    try:
        return [Path(line) for line in _hosts().read_text("utf-8", errors="surrogateescape").splitlines()]
    except OSError:
        return []


def _hosts() -> Path:
    return cache_directory() / "hosts.txt"
