"""The host that tools use, data sets made from its code, and the options of commands that name them."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from typing import Any

import click

from stylegan_plugins.errors import HostError
from stylegan_plugins.files import prepare
from stylegan_plugins.host import devices
from stylegan_plugins.host.modules import host_module, use_host

data_option = partial(click.option, "--data", metavar="ZIP|DIR|NAME|URL")
device_option = partial(click.option, "--device", type=click.Choice(devices.CHOICES), default="auto", show_default=True)
host_option = click.option(
    "--host", type=click.Path(path_type=Path), help="The host  [default: $STYLEGAN_HOST, or the current folder]"
)


def picture_options(command: Callable) -> Callable:
    """Add the options that say how pictures become a data set."""
    for flag, how in reversed(prepare.OPTIONS.items()):
        command = click.option(flag, **how)(command)
    return command


def on_host(command: Callable) -> Callable:
    """Add --host and --device, both of which are in use when the command runs."""

    @host_option
    @device_option()
    @wraps(command)
    def wrapped(host: Path | None, device: str, **arguments: Any) -> None:
        devices.choose(device)
        choose_host(host)
        command(**arguments)

    return wrapped


def choose_host(directory: Path | None) -> Path:
    """Use the host in `directory`, in $STYLEGAN_HOST or in the current folder, in this order, and return its folder.

    Raises HostError if there is none."""
    named = os.environ.get("STYLEGAN_HOST")
    for candidate in [directory] if directory else [Path(name) for name in (named, ".") if name is not None]:
        if (candidate / "torch_utils").is_dir() and (candidate / "dnnlib").is_dir():
            use_host(candidate)
            return candidate.resolve()
    where = directory or (f"{named} (STYLEGAN_HOST) or the current folder" if named else "the current folder")
    raise HostError(
        f"No host in {where}: networks are made from the host's code. Give its folder with --host, or run this there."
    )


def open_dataset(data: str, run: Path) -> tuple[str, Any]:
    """Return the path of a data set given as for train.py, and the host's object of it, with labels. Pictures become as
    those of a run, given by its folder or a pickle in it.

    Raises DataError if it cannot be downloaded or used."""
    path = prepare.usable(data, prepare.How.of_run(run if run.is_dir() else run.parent))
    return path, host_module("training.dataset").ImageFolderDataset(path, use_labels=True)
