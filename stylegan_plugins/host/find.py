"""The host that tools use, data sets made from its code, and the options of commands that name them."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from typing import Any

import click

from stylegan_plugins.cache import known_hosts, remember_host
from stylegan_plugins.errors import DataError, HostError
from stylegan_plugins.files import prepare, run_folders
from stylegan_plugins.host import devices
from stylegan_plugins.host.modules import host_module, use_host

data_option = partial(click.option, "--data", metavar="ZIP|DIR|NAME|URL")
device_option = partial(click.option, "--device", type=click.Choice(devices.CHOICES), default="auto", show_default=True)
host_option = click.option(
    "--host", type=click.Path(path_type=Path), help="The host  [default: the run's own, or the one used last]"
)


def picture_options(command: Callable) -> Callable:
    """Add the options that say how pictures become a data set."""
    for flag, how in reversed(prepare.OPTIONS.items()):
        command = click.option(flag, **how)(command)
    return command


def on_host(command: Callable, takes_onnx: bool = False) -> Callable:
    """Add --host and --device, both of which are in use when the command runs. A command with `run_or_pkl` takes the
    host of the run, and none for ONNX if it `takes_onnx`."""

    @host_option
    @device_option()
    @wraps(command)
    def wrapped(host: Path | None, device: str, **arguments: Any) -> None:
        devices.choose(device)
        run = arguments.get("run_or_pkl")
        if run is None or not (takes_onnx and run_folders.is_onnx(run)):
            choose_host(host, run)
        command(**arguments)

    return wrapped


def choose_host(directory: Path | None, run: Path | None = None) -> Path:
    """Use a host and return its folder: `directory`, or else the first that is one of the host that a run was trained
    with, $STYLEGAN_HOST, the current folder, and the host that was used last.

    run: a run directory or a file in it. Its host is taken only if the user has used it here: the folder may be from
    elsewhere, and the code of a host is executed. Raises HostError if there is no host."""
    found = host_folder(directory, run)
    use_host(found)
    if directory is not None:
        remember_host(found)
    return found


def host_folder(directory: Path | None, run: Path | None = None) -> Path:
    """Return the folder that `choose_host` would use, whose arguments and errors it has."""
    if directory is not None:
        candidates = [directory]
    else:
        named, known = os.environ.get("STYLEGAN_HOST"), known_hosts()
        recorded = None if run is None else _recorded_host(run)
        own = [host for host in known if host == recorded]
        candidates = [*own, *([Path(named)] if named else []), Path(), *known]
    for candidate in candidates:
        if (candidate / "torch_utils").is_dir() and (candidate / "dnnlib").is_dir():
            return candidate.resolve()
    raise HostError(
        f"No host in {directory or 'the current folder'}: networks are made from the host's code. Give its folder with "
        "--host, or run this there."
    )


def _recorded_host(run: Path) -> Path | None:
    recorded = (run_folders.read_options(run if run.is_dir() else run.parent) or {}).get("host")
    return Path(recorded) if isinstance(recorded, str) else None


def data_of(run: Path, given: str | None) -> str:
    """Return the images that were given for a command about a run, or else those that the run was trained on.

    run: a run directory or a file in it. Raises DataError if neither are there."""
    found = given or own_data(run if run.is_dir() else run.parent)
    if found is None:
        raise DataError(f"--data: the data set of {run} is not known, or not there any more. Say where it is.")
    return found


def own_data(run_dir: Path) -> str | None:
    """Return the images that a run was trained on: its data set, or the pictures that it was made of; None if they are
    not there.

    Raises DataError if its training_options.json cannot be read."""
    options = run_folders.read_options(run_dir) or {}
    for name, key in (("training_set_kwargs", "path"), ("pictures", "source")):
        found = options.get(name)
        path = found.get(key) if isinstance(found, dict) else None
        if isinstance(path, str) and os.path.exists(path):
            return path
    return None


def open_dataset(data: str | None, run: Path) -> tuple[str, Any]:
    """Return the path of `data_of` a run as a data set, and the host's object of it, with labels. Pictures become as
    those of the run.

    Raises DataError if it cannot be downloaded or used."""
    path = prepare.usable(data_of(run, data), prepare.How.of_run(run if run.is_dir() else run.parent))
    return path, host_module("training.dataset").ImageFolderDataset(path, use_labels=True)
