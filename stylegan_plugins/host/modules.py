"""Import of host modules, for all of this package."""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stylegan_plugins.errors import HostError
from stylegan_plugins.host import compat


def host_module(name: str) -> types.ModuleType:
    """Import a module of the host on `sys.path` (`training.loss`, `torch_utils.misc`), with all repairs made.

    Raises HostError if there is no host."""
    if not compat.install():
        raise HostError(f"No host to import {name} from: run this in a host's folder.")
    return importlib.import_module(name)


def host_directory() -> Path:
    """Return the folder of the host on `sys.path`. Raises HostError if there is none."""
    return Path(str(host_module("dnnlib").__file__)).resolve().parents[1]


def use_host(directory: Path) -> None:
    """Put a host first on `sys.path`, for programs that are not its scripts."""
    path = str(Path(directory).resolve())
    if path not in sys.path:
        sys.path.insert(0, path)
    compat.install()


def construct(kwargs: Mapping[str, Any], **changes: Any) -> Any:
    """Make an object of a host's class from its `class_name` and arguments."""
    return host_module("dnnlib").util.construct_class_by_name(**{**kwargs, **changes})


def raw_indices(kwargs: Mapping[str, Any], max_size: int | None) -> np.ndarray:
    """Return the indices [m] of the images that the host chooses for a data set of at most max_size images."""
    chosen = construct(kwargs, max_size=max_size, xflip=False, use_labels=False)
    return np.array([chosen.get_details(index).raw_idx for index in range(len(chosen))])
