"""The identity of a run: its data, arguments and versions. A resumed run must have the same data and arguments."""

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
from stylegan_plugins.run.arguments import KEPT

# Arguments that do not change the next iteration, or that a resumed run may change.
FREE = (
    *("run_dir", "resume_pkl", "total_kimg", "kimg_per_tick", "image_snapshot_ticks", "network_snapshot_ticks"),
    *("metrics", "device", "data_loader_kwargs", "trust_pickle", "training_set_kwargs.path", "plugins.files"),
    *("host", "pictures", "class_names", *KEPT),
)


def identity_of(args: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields `data`, `labels`, `arguments` and `versions` of `states.Info` for the arguments of a training
    loop."""
    leaves = _leaves(json.loads(json.dumps(args, default=str)))
    data = args["training_set_kwargs"]
    return {
        "data": datasets.fingerprint(data["path"]),
        "labels": datasets.labels_fingerprint(data["path"]) if data.get("use_labels") else "",
        "arguments": {path: value for path, value in leaves if not f"{path}.".startswith(tuple(f"{n}." for n in FREE))},
        "versions": {"PyTorch": str(torch.__version__), "NumPy": np.__version__, "stylegan-plugins": __version__},
    }


def check_identity(info: Info, args: Mapping[str, Any], accept: bool, report: Callable[[str], None]) -> None:
    """Raise StateError if data or arguments differ from the state's, unless the user accepts the change. Report other
    versions."""
    now = identity_of(args)
    path = args["training_set_kwargs"]["path"]
    changes = [
        f"the {what} of {path} are not those that the run was trained on"
        for what, before, after in (("images", info.data, now["data"]), ("labels", info.labels, now["labels"]))
        if before != after
    ]
    names = {**info.arguments, **now["arguments"]}
    pairs = {name: (info.arguments.get(name), now["arguments"].get(name)) for name in names}
    changes += [
        f"{name} is {after!r} in training_options.json, and the run was trained with {before!r}"
        for name, (before, after) in pairs.items()
        if before != after
    ]
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


def _leaves(value: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield all values of nested dictionaries with their paths."""
    for key, item in value.items():
        where = f"{path}.{key}" if path else key
        if isinstance(item, dict) and item:
            yield from _leaves(item, where)
        elif item is not None:  # None counts as a missing argument
            yield where, item
