"""What tools take as RUN_OR_PKL: a run directory, or a network pickle."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path
from typing import Any

import torch

from stylegan_plugins import devices
from stylegan_plugins.errors import DataError, HostError
from stylegan_plugins.finetune import open_pickle
from stylegan_plugins.host import networks
from stylegan_plugins.host.modules import use_host

SNAPSHOT = re.compile(r"network-snapshot-(\d+)\.pkl")


def newest_pickle(path: Path) -> Path:
    """The pickle itself, or the newest snapshot of a run directory. Raises DataError if there is none."""
    if path.is_file():
        return path
    if not path.is_dir():
        raise DataError(f"{path} does not exist; give a run directory or a network pickle.")
    return snapshots(path)[-1]


def snapshots(run_dir: Path) -> list[Path]:
    """All snapshots of a run directory, the oldest first. Raises DataError if there is none."""
    if not run_dir.is_dir():
        raise DataError(f"{run_dir} is no run directory, which --all needs.")
    found = {int(match[1]): file for file in run_dir.iterdir() if (match := SNAPSHOT.fullmatch(file.name))}
    if not found:
        raise DataError(f"{run_dir} has no network-snapshot-*.pkl; give a run directory or a network pickle.")
    return [found[kimg] for kimg in sorted(found)]


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
    """A network of a pickle, made from the host's classes: G, D or G_ema."""
    network = open_pickle(pickle).network(key)
    if devices.device().type == "cpu":  # half precision is for GPUs
        network = dataclasses.replace(network, init_kwargs=_in_single_precision(network.init_kwargs))
    return networks.build(network, f"{key} of {pickle}")


def _in_single_precision(kwargs: dict[str, Any]) -> dict[str, Any]:
    found = {key: _in_single_precision(value) if isinstance(value, dict) else value for key, value in kwargs.items()}
    return {**found, **({"num_fp16_res": 0} if "num_fp16_res" in found else {})}
