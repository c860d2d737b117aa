"""The host that commands use, data sets made with its code, and the options that name both."""

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
    """Add the options that control how pictures become a data set."""
    for flag, how in reversed(prepare.OPTIONS.items()):
        command = click.option(flag, **how)(command)
    return command


def on_host(command: Callable, takes_onnx: bool = False) -> Callable:
    """Add --host and --device, and apply both before the command runs. A command with `run_or_pkl` uses the host of the
    run. With `takes_onnx`, an ONNX file needs no host."""

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
    """Use a host and return its folder: `directory`, or else the first host among the run's own, $STYLEGAN_HOST, the
    current folder, and the last one used.

    run: a run directory or a file in it. Its host is used only if the user has used it on this machine before, because
    the code of a host is executed. Raises HostError without a host."""
    found = host_folder(directory, run)
    use_host(found)
    if directory is not None:
        remember_host(found)
    return found


def host_folder(directory: Path | None, run: Path | None = None) -> Path:
    """Return the folder that `choose_host` would use. Arguments and errors are the same."""
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
    """Return the images that were given for a command about a run, or else the run's training images.

    run: a run directory or a file in it. Raises DataError if there are neither."""
    found = given or own_data(run if run.is_dir() else run.parent)
    if found is None:
        raise DataError(f"--data: the data set of {run} is not known, or not there any more. Say where it is.")
    return found


def own_data(run_dir: Path) -> str | None:
    """Return the images that a run was trained on: its data set, or the pictures from which it was made. None if they
    no longer exist.

    Raises DataError if its training_options.json cannot be read."""
    options = run_folders.read_options(run_dir) or {}
    for name, key in (("training_set_kwargs", "path"), ("pictures", "source")):
        found = options.get(name)
        path = found.get(key) if isinstance(found, dict) else None
        if isinstance(path, str) and os.path.exists(path):
            return path
    return None


def open_dataset(data: str | None, run: Path) -> tuple[str, Any]:
    """Return the path of the data set that `data_of` gives, and the host's object of it, with labels. Pictures are
    prepared in the same way as the run's.

    Raises DataError if it cannot be downloaded or used."""
    path = prepare.usable(data_of(run, data), prepare.How.of_run(run if run.is_dir() else run.parent))
    return path, host_module("training.dataset").ImageFolderDataset(path, use_labels=True)
