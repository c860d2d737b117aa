"""`--resume-run=DIR`: from a run directory alone to the arguments of its training loop."""

from __future__ import annotations

import contextlib
import inspect
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import torch

from stylegan_plugins.errors import OptionError, StateError
from stylegan_plugins.files import datasets, prepare, run_folders, states
from stylegan_plugins.files.atomic import write_json
from stylegan_plugins.host import devices
from stylegan_plugins.host.modules import host_module
from stylegan_plugins.manager import recorded
from stylegan_plugins.run import argument_schema, arguments, host_metrics, logs, signals, torchrun
from stylegan_plugins.run.identity import check_identity, identity_of

# Options that may change, with values from 1 on, and the arguments of the loop that they set.
COUNTS = {
    "kimg": ["total_kimg"],
    "snap": ["image_snapshot_ticks", "network_snapshot_ticks"],
    "tick": ["kimg_per_tick"],
}
SAME_RUN = (*COUNTS, *arguments.KEPT, "metrics", "workers", "device", "dry_run")
CHANGEABLE = (*COUNTS, *arguments.KEPT, "data", "metrics", "workers", "device")


class CompleteError(StateError):
    """An error for a run that is already complete."""


class Begun(Exception):
    """An exception for a command whose run already exists. run_dir: its directory"""

    def __init__(self, run_dir: Path) -> None:
        super().__init__(run_dir)
        self.run_dir = run_dir


def begun(outdir: Path, args: Mapping[str, Any]) -> Path | None:
    """Return the newest run in a folder of runs that has the data and arguments of `args`, and a state to resume from;
    None if there is none."""
    identity = identity_of(args)
    mine = (identity["arguments"], identity["data"], identity["labels"], args.get("resume_pkl"))
    for run_dir in reversed(run_folders.runs(outdir)):
        options = run_folders.read_options(run_dir) or {}
        for path in states.states_of(run_dir):
            with contextlib.suppress(StateError):  # a damaged state
                info = states.read_info(path)
                if (info.arguments, info.data, info.labels, options.get("resume_pkl")) == mine:
                    return run_dir
    return None


def resume(command: click.Command, run_dir: Path, given: Mapping[str, Any]) -> None:
    """Resume a run and train it as the host's train.py does. The run is locked from the first check to its end.

    given: the options of this call. Raises OptionError for an option that cannot change in the middle of a run,
    StateError if there is no state to resume from."""
    with states.locked(run_dir):
        source = (run_folders.read_options(run_dir) or {}).get("resume_pkl")
        args, path, info, state = _prepared(run_dir, given)
        signals.forward()
        if not given.get("dry_run"):
            states.set_aside_newer(path)
            for label in logs.cut(run_dir, info):
                host_metrics.mark_best_again(run_dir, label)
            if given.keys() & {*CHANGEABLE}:  # later resumes use the options given last
                write_json(run_dir / run_folders.OPTIONS, {**args, "resume_pkl": source})
            _launch(command, args, path, state)


def _prepared(run_dir: Path, given: Mapping[str, Any]) -> tuple[dict[str, Any], Path, states.Info, dict[str, Any]]:
    """Return the arguments of the training loop, the path of the newest state, its info and the state itself."""
    refused = sorted(given.keys() - {*CHANGEABLE, "accept_changes", "dry_run"})
    if refused:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in refused)
        may = ", ".join(f"--{name.replace('_', '-')}" for name in CHANGEABLE)
        raise OptionError(
            f"--resume-run: {flags} cannot change in the middle of a run; leave it out. These can: {may}."
        )
    args = run_folders.read_options(run_dir)
    if args is None:
        raise StateError(f"--resume-run: {run_dir} has no training_options.json; give a run directory.")
    where = f"--resume-run: {run_dir / run_folders.OPTIONS}: "
    argument_schema.check(args, where)
    args["run_dir"] = str(run_dir)  # it may have been moved
    args["resume_pkl"] = None  # the state already has its tensors
    plugins = recorded(args.get("plugins", {}))
    argument_schema.check_names(args, plugins, where)
    host_metrics.register()  # also metrics of plug-ins that are files
    _change(args, given)
    argument_schema.check(args)  # options of this call are named by flag
    data = args["training_set_kwargs"]
    if not Path(data["path"]).exists() and args.get("pictures"):  # the cache was emptied
        data["path"] = prepare.usable(args["pictures"]["source"], prepare.How.of_run(run_dir))
    if not Path(data["path"]).exists():
        raise StateError(
            f"--resume-run: the data set {data['path']} is not there. Say where it is now with --data, or put it back."
        )
    count, side, _ = datasets.check_dataset(data["path"])
    if data.get("resolution") not in (None, side):
        raise StateError(
            f"--resume-run: images in {data['path']} have {side} pixels a side, the networks of the run are for "
            f"{data['resolution']}. Give the data set that it was trained on."
        )
    if data.get("max_size") is not None and count < data["max_size"]:
        raise StateError(
            f"--resume-run: {data['path']} has {count} images, the run began with {data['max_size']}. Put it back."
        )
    arguments.use_labels(args, plugins)
    host_metrics.check_metrics(args.get("metrics", []), data["path"], args.get("metric_samples"))
    path, info, state = states.newest_state(run_dir, click.echo)
    check_identity(info, args, bool(given.get("accept_changes")), click.echo)
    gpus = args.get("num_gpus", 1)
    world = torchrun.world()
    if world is not None and world.size != gpus:
        raise StateError(
            f"--resume-run: the run has {gpus} processes, torchrun has started {world.size}. Start {gpus}."
        )
    if devices.device().type == "cuda" and torch.cuda.device_count() < devices.local_processes(gpus):
        raise StateError(
            f"--resume-run: the run has {gpus} GPUs, here are {torch.cuda.device_count()}. Or start a new run "
            "from its newest snapshot: --resume=PKL."
        )
    if info.ranks != gpus:
        raise StateError(
            f"--resume-run: {path} is of {info.ranks} processes, not {gpus}: num_gpus in "
            "training_options.json was changed. Put it back."
        )
    if info.nimg >= args["total_kimg"] * 1000:
        raise CompleteError(
            f"--resume-run: the run is complete at {info.nimg / 1000:g} kimg. Give a larger --kimg to train longer."
        )
    click.echo(f"Going on from {path}, at {info.nimg / 1000:.1f} of {args['total_kimg']} kimg.")
    return args, path, info, state


def _launch(command: click.Command, args: dict[str, Any], path: Path, state: dict[str, Any]) -> None:
    """Train by the host's subprocess_fn, as its train.py does: in this process, or in one process for each GPU."""
    easy = _easy(args)
    callback = inspect.unwrap(command.callback)  # type: ignore[arg-type]
    subprocess_fn = callback.__globals__["subprocess_fn"]
    torch.multiprocessing.set_start_method("spawn")
    with tempfile.TemporaryDirectory() as temporary:
        if args["num_gpus"] == 1:
            easy["resumed"] = state
            subprocess_fn(0, easy, temporary)
        else:
            easy["resumed"] = str(path)  # each process reads it
            torch.multiprocessing.spawn(fn=subprocess_fn, args=(easy, temporary), nprocs=args["num_gpus"])


def _change(args: dict[str, Any], new: Mapping[str, Any]) -> None:
    for option, keys in COUNTS.items():
        if option in new:
            if new[option] < 1:
                raise OptionError(f"--{option}={new[option]}: must be 1 or more.")
            args.update(dict.fromkeys(keys, new[option]))
    if "data" in new:
        data = prepare.prepared(new["data"], prepare.How.of_run(Path(args["run_dir"])))
        args["training_set_kwargs"]["path"], args["pictures"] = data.path, data.pictures or None
    if "metrics" in new:
        names = new["metrics"]
        if isinstance(names, str):
            names = [] if names.lower() == "none" else [name.strip() for name in names.split(",") if name.strip()]
        known = host_module("metrics.metric_main").list_valid_metrics()
        unknown = [name for name in names if name not in known]
        if unknown:
            raise OptionError(f"--metrics: {unknown[0]!r} is not known. Known: {', '.join(known)}.")
        args["metrics"] = names
    if "workers" in new:
        loader = args["data_loader_kwargs"]
        loader["num_workers"] = new["workers"]
        if new["workers"] == 0:
            loader.pop("prefetch_factor", None)
        else:
            loader.setdefault("prefetch_factor", 2)
    args.update({name: new[name] for name in ("device", *arguments.KEPT) if name in new})


def _easy(value: Any) -> Any:
    """Return dictionaries as the host's type, whose keys are attributes."""
    if isinstance(value, dict):
        return host_module("dnnlib").EasyDict({key: _easy(item) for key, item in value.items()})
    return value
