"""Processes started by torchrun, on one machine or several. The first one sets the run up, as train.py does for
`--gpus`, and the others wait for its arguments.

They meet at torchrun's store (env://). The first process replaces torch.multiprocessing.spawn: it sends the arguments
to the others and trains, too. If all see the same folders, the run equals that of `--gpus=WORLD_SIZE` on one
machine."""

from __future__ import annotations

import functools
import os
import pickle
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch

from stylegan_plugins.errors import DataError, OptionError
from stylegan_plugins.host import devices
from training_ext.distributed import TIMEOUT

RESTARTS = "TORCHELASTIC_MAX_RESTARTS"
AGENT_STORE = "TORCHELASTIC_USE_AGENT_STORE"  # torchrun itself listens at MASTER_PORT
LOOK_SECONDS = 0.1  # between two looks for a process that is still starting


@dataclass(frozen=True)
class World:
    """The processes of a run. rank: of this process; restarts: torchrun starts all of them again if one is lost. The
    number of restarts differs between machines, so the first process cannot tell a restart from a start."""

    rank: int
    size: int
    restarts: bool = False

    @functools.cached_property
    def store(self) -> Any:  # torch's types allow only text
        """The store that all processes share. torchrun may keep it, with its contents, over restarts."""
        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        listens = self.rank == 0 and os.environ.get(AGENT_STORE) != str(True)
        shared = torch.distributed.TCPStore(
            host, port, is_master=listens, wait_for_workers=False, timeout=TIMEOUT, multi_tenant=True
        )
        return torch.distributed.PrefixStore("stylegan_plugins", shared)


@functools.cache
def world() -> World | None:
    """Return the processes that this one belongs to; None if torchrun did not start it."""
    if not devices.by_torchrun():
        return None
    return World(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), os.environ.get(RESTARTS, "0") != "0")


def take_gpus(command: click.Command, size: int) -> None:
    """Set --gpus of a command to the number of processes. Any other number is an OptionError."""

    def check(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
        if value not in (None, size):
            raise OptionError(f"--gpus={value}: torchrun has started {size} processes. Leave the option out.")
        return size

    for parameter in command.params:
        if parameter.name == "gpus":
            parameter.required, parameter.callback = False, check


def leading(mine: World, callback: Callable) -> Callable:
    """Return the first process's train.py. Where the host would start processes, it sends the arguments to the others.
    They end if it ends without training."""

    @functools.wraps(callback)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        trained = []

        def spawn(fn: Callable[..., None], args: tuple = (), nprocs: int = 1, **_: Any) -> None:
            trained.append(fn)
            _join(mine, _hand_out(mine, pickle.dumps((args, os.environ.get(devices.VARIABLE)))))
            fn(0, *args)

        torch.multiprocessing.spawn = spawn  # type: ignore[assignment]
        result = callback(*args, **kwargs)
        if mine.size > 1 and not trained:
            _hand_out(mine, b"")
        return result

    return wrapped


def follow(mine: World, subprocess_fn: Callable[..., None]) -> None:
    """Train with the arguments of the first process, if it trains, in another process. Raises DataError if this machine
    lacks the data set."""
    start, message = _receive(mine)
    if not message:
        return
    args, device = pickle.loads(message)  # from this run's first process
    if device is not None:
        devices.choose(device)
    data = args[0]["training_set_kwargs"]["path"]
    if not Path(data).exists():
        raise DataError(
            f"--data: {data} is not on this machine. Put it on a disk that all machines see; "
            "STYLEGAN_PLUGINS_CACHE names the folder of prepared pictures."
        )
    _join(mine, start)
    subprocess_fn(mine.rank, *args)


def _hand_out(mine: World, message: bytes) -> str:
    """Send a message to all other processes. Return the name of this start.

    Entries of an earlier start's processes may remain in the store and look current, but only a living process
    answers."""
    start = uuid.uuid4().hex
    for rank in range(1, mine.size):
        while not mine.store.check([f"answer/{start}/{rank}"]):
            mine.store.set(f"ask/{mine.store.get(f'here/{rank}').decode()}", start)
            time.sleep(LOOK_SECONDS)
    mine.store.set(f"message/{start}", message)
    return start


def _receive(mine: World) -> tuple[str, bytes]:
    """Wait for the first process. Return the name of this start, and the message."""
    me = uuid.uuid4().hex
    mine.store.set(f"here/{mine.rank}", me)
    start = mine.store.get(f"ask/{me}").decode()
    mine.store.set(f"answer/{start}/{mine.rank}", "")
    return start, mine.store.get(f"message/{start}")


def _join(mine: World, start: str) -> None:
    """Let the hosts' process group meet at the store, not at a file of one machine."""
    init = torch.distributed.init_process_group
    store = torch.distributed.PrefixStore(f"group/{start}", mine.store)

    @functools.wraps(init)
    def ours(backend: str | None = None, init_method: str | None = None, **how: Any) -> None:
        init(backend, store=store, **how)

    torch.distributed.init_process_group = ours  # type: ignore[assignment]
