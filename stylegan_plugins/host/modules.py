"""The one way in which our code imports modules of the host."""

from __future__ import annotations

import importlib
import sys
import types
from pathlib import Path

from stylegan_plugins.errors import HostError
from stylegan_plugins.host import compat


def host_module(name: str) -> types.ModuleType:
    """Import a module of the host on `sys.path` (`training.loss`, `torch_utils.misc`), with all repairs made.

    Raises HostError if there is no host."""
    if not compat.install():
        raise HostError(f"No host to import {name} from: run this in a host's folder.")
    return importlib.import_module(name)


def use_host(directory: Path) -> None:
    """Put a host first on `sys.path`, for programs that are not scripts of that host."""
    path = str(Path(directory).resolve())
    if path not in sys.path:
        sys.path.insert(0, path)
    compat.install()
