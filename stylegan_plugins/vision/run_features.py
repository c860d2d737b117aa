"""Features of images by a network that a run has trained, given as PLUGIN:RUN instead of a backbone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from stylegan_plugins import manager
from stylegan_plugins.errors import DataError, OptionError, PluginError
from stylegan_plugins.host import compat, find


@dataclass(frozen=True)
class RunFeatures:
    """A frozen network of a run, which the hook `register_features` returns.

    file  the network snapshot on which its features depend
    load  makes the network: images [N, C, H, W] in [-1, 1], C 1 or 3, of any size, to features [N, F], each of which
          depends on its image alone"""

    file: Path
    load: Callable[[], torch.nn.Module]


def named(text: str, flag: str) -> tuple[str, RunFeatures] | None:
    """Return the plug-in and the features for PLUGIN:RUN, where RUN is a run directory or a snapshot; None for a text
    that does not begin with a plug-in and a colon. If no host is in use, the host of the run is used from now on.

    Raises DataError, HostError, OptionError or PluginError for a run without such features."""
    name, colon, run = text.partition(":")
    found = manager.catalogue()
    if not colon or name not in found.sources:
        return None
    if "register_features" not in found.hooks_of(name):
        raise OptionError(f"{flag}={text}: {name} offers no features of a run; contrad does, for example.")
    if not run or not Path(run).exists():
        raise DataError(f"{flag}={text}: {run!r} does not exist; give a run directory or a network pickle.")
    if not compat.install():
        find.choose_host(None, Path(run))
    offered = found.call(name, "register_features", run=Path(run))
    if not isinstance(offered, RunFeatures):
        raise PluginError(f"--plugin: {name!r} has a faulty hook: register_features() returned {offered!r}.")
    return name, offered
