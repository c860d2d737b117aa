"""The host that tools use, and networks made from its code."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from stylegan_plugins import devices, generators, run_folders
from stylegan_plugins.errors import DataError, HostError
from stylegan_plugins.finetune import open_pickle
from stylegan_plugins.host import networks
from stylegan_plugins.host.modules import use_host
from stylegan_plugins.manager import recorded
from stylegan_plugins.pickles import Network


def choose_host(directory: Path | None) -> Path:
    """Use the host in `directory`, in $STYLEGAN_HOST or in the current folder, in this order, and return its folder.

    Raises HostError if there is none."""
    for candidate in (directory, os.environ.get("STYLEGAN_HOST"), "."):
        if candidate is None:
            continue
        if Path(candidate, "torch_utils").is_dir() and Path(candidate, "dnnlib").is_dir():
            use_host(Path(candidate))
            return Path(candidate).resolve()
        if candidate == directory:
            break
    named = os.environ.get("STYLEGAN_HOST")
    where = directory or (f"{named} (STYLEGAN_HOST) or the current folder" if named else "the current folder")
    raise HostError(
        f"No host in {where}: networks are made from the host's code. Give its folder with --host, or run this there."
    )


def load_network(pickle: Path, key: str) -> torch.nn.Module:
    """Return a network of a pickle, G, D or G_ema, made from the host's classes and the modules of its run's plug-ins.

    Raises DataError or PluginError if it has such a module and the plug-in is not known or not there."""
    network = open_pickle(pickle).network(key)
    if devices.device().type == "cpu":  # half precision is for GPUs
        network = dataclasses.replace(network, init_kwargs=_in_single_precision(network.init_kwargs))
    return networks.build(network, f"{key} of {pickle}", with_module_of_run(network, pickle))


def with_module_of_run(network: Network, pickle: Path) -> Callable[[torch.nn.Module], torch.nn.Module]:
    """Return a function that puts the module of a plug-in before G's mapping network, if the pickle has one.

    Which plug-in it was is in the run's training_options.json, beside the pickle. Raises DataError if it is not."""
    if not any(name.startswith(f"mapping.{generators.NAME}.") for name in network.tensors):
        return lambda made: made
    args = run_folders.read_options(pickle.parent) or {}
    plugins = recorded(args.get("plugins", {}))
    if not any("register_generator_module" in plugins.hooks_of(name) for name in plugins.names):
        raise DataError(
            f"{pickle} has a module of a plug-in before its mapping network, and no {run_folders.OPTIONS} beside it "
            "says which: put the pickle back into the directory of its run. Stock tools of the host load it as it is."
        )
    return lambda made: generators.with_module(made, plugins, seed=0)


def _in_single_precision(kwargs: dict[str, Any]) -> dict[str, Any]:
    found = {key: _in_single_precision(value) if isinstance(value, dict) else value for key, value in kwargs.items()}
    return {**found, **({"num_fp16_res": 0} if "num_fp16_res" in found else {})}
