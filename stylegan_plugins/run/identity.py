"""What a run is of: its data, its arguments, and versions. A resumed run must have the same data and arguments."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from stylegan_plugins import __version__
from stylegan_plugins.errors import StateError
from stylegan_plugins.files import datasets
from stylegan_plugins.files.states import Info

# Arguments that make no difference to the next iteration, or that a resumed run may be given anew.
FREE = (
    *("run_dir", "resume_pkl", "total_kimg", "kimg_per_tick", "image_snapshot_ticks", "network_snapshot_ticks"),
    *("metrics", "device", "data_loader_kwargs", "state_minutes", "keep_states", "metric_samples", "on_nan"),
    *("trust_pickle", "training_set_kwargs.path", "plugins.files."),
)


def identity_of(args: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields `data`, `arguments` and `versions` of `states.Info` for the arguments of a training loop."""
    plain = json.loads(json.dumps(args, default=str))
    found = {path: value for path, value in _leaves(plain) if not path.startswith(FREE)}
    versions = {"PyTorch": str(torch.__version__), "NumPy": np.__version__, "stylegan-plugins": __version__}
    return {"data": datasets.fingerprint(args["training_set_kwargs"]["path"]), "arguments": found, "versions": versions}


def check_identity(info: Info, args: Mapping[str, Any], accept: bool, report: Callable[[str], None]) -> None:
    """Raise StateError if data or arguments are not those of a state, unless the user accepts it; tell of other
    versions."""
    now = identity_of(args)
    name = next((name for name in {**info.arguments, **now["arguments"]} if _differs(name, info.arguments, now)), None)
    changes = []
    if info.data != now["data"]:
        changes.append(f"the images of {args['training_set_kwargs']['path']} are not those that the run was trained on")
    if name is not None:
        before, after = info.arguments.get(name), now["arguments"].get(name)
        changes.append(f"{name} is {after!r} in training_options.json, and the run was trained with {before!r}")
    for change in changes:
        if not accept:
            raise StateError(f"--resume-run: {change}. Put that back, or give --accept-changes.")
        report(f"Accepted: {change}.")
    for package, version in now["versions"].items():
        if info.versions.get(package) != version:
            report(
                f"{package} is {version}, and was {info.versions.get(package)}: the run goes on, with numbers that may "
                "differ in their last digits."
            )


def _differs(name: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    return before.get(name) != now["arguments"].get(name)


def _leaves(value: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield all values of nested dictionaries, by their path."""
    for key, item in value.items():
        where = f"{path}.{key}" if path else key
        if isinstance(item, dict) and item:
            yield from _leaves(item, where)
        elif item is not None:  # None is what an argument that is not there is
            yield where, item
