"""Limits for building a network from a pickle: ranges of arguments, and the number of weights."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from stylegan_plugins.errors import DataError
from stylegan_plugins.files.snapshots import Network, Snapshot

# The largest values of arguments of the hosts' networks, first with PyTorch's names, then with TensorFlow's.
LARGEST = {
    **{"z_dim": 8192, "w_dim": 8192, "c_dim": 1 << 16, "img_resolution": 4096, "img_channels": 64, "num_ws": 256},
    **{"num_layers": 64, "channel_base": 1 << 20, "channel_max": 8192, "num_fp16_res": 64, "filter_size": 64},
    **{"lrelu_upsampling": 16, "margin_size": 256, "conv_kernel": 15, "embed_features": 1 << 16},
    **{"layer_features": 8192, "cmap_dim": 8192, "mbstd_group_size": 4096, "mbstd_num_channels": 64},
    **{"freeze_layers": 256, "num_critical": 64, "resolution": 4096, "num_channels": 64, "label_size": 1 << 16},
    **{"latent_size": 8192, "dlatent_size": 8192, "mapping_layers": 64, "mapping_fmaps": 8192},
    **{"fmap_base": 1 << 20, "fmap_max": 8192, "fmap_min": 8192},
}
OTHERS = 1 << 20  # the largest value of arguments that only a fork has
_FACTORIES = {torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn, torch.eye}


def check_arguments(snapshot: Snapshot) -> None:
    """Raise DataError for recorded arguments out of range, before a network is built with them."""
    for key, network in snapshot.networks.items():
        _check(f"{key} of {snapshot.path}", network.init_kwargs)
        _check(f"{key} of {snapshot.path}", {str(place): value for place, value in enumerate(network.init_args)})
    for key, state in zip(("G", "D", "G_ema"), snapshot.tensorflow):  # noqa: B905  (none, or three)
        for place in _states(state):
            _check(f"{key} of {snapshot.path}", place.get("static_kwargs", {}))


def _states(state: Any) -> Iterator[dict[str, Any]]:
    yield state
    for part in state.get("components", {}).values():
        yield from _states(part)


def _check(what: str, kwargs: Any) -> None:
    if not isinstance(kwargs, Mapping) or not all(isinstance(name, str) for name in kwargs):
        raise DataError(f"{what} was made with arguments that are not a dictionary of names. Use another pickle.")
    for name, value in kwargs.items():
        if name.endswith("_kwargs") or isinstance(value, Mapping):
            _check(what, {} if value is None else value)
        for number in _leaves(value):
            largest: Any = LARGEST.get(name, OTHERS)
            if isinstance(number, str | bool | None):
                good = name not in LARGEST or number is None
            else:
                good = isinstance(number, int | float | np.integer | np.floating) and abs(number) <= largest
            if not good:
                raise DataError(
                    f"{what} was made with {name[:50]}={str(number)[:50]}, which no network has (numbers up to "
                    f"{largest}). Use another pickle."
                )


def _leaves(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):
        return ()
    if isinstance(value, list | tuple):
        return [leaf for item in value for leaf in _leaves(item)]
    return (value,)


class _Counting(TorchFunctionMode):
    """A mode that counts tensors, and their elements, before torch makes them."""

    def __init__(self, tensors: int, numbers: int) -> None:
        super().__init__()
        self.tensors, self.numbers = tensors, numbers

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _FACTORIES:
            size = args[0] if args and isinstance(args[0], list | tuple) else args
            self.tensors -= 1
            self.numbers -= math.prod(length for length in size if isinstance(length, int))
            if min(self.tensors, self.numbers) < 0:
                raise ValueError("its arguments ask for more numbers than it has")
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def building(tensors: int, numbers: int) -> Iterator[None]:
    """A context for building a network of about so many tensors and elements; random numbers stay as they were.

    A network that asks for several times more raises ValueError. (Filters, noise and temporary tensors count.)"""
    with torch.random.fork_rng(devices=[]), _Counting(20 * tensors + 1000, 4 * numbers + (1 << 25)):
        yield


def building_anew(network: Network) -> contextlib.AbstractContextManager[None]:
    """Return `building` for a network of a pickle."""
    return building(len(network.tensors), sum(value.numel() for value in network.tensors.values()))


def not_finite(network: Network) -> list[str]:
    """Return the names of tensors that have NaN or infinity in them."""
    return [name for name, value in network.tensors.items() if not _finite(value)]


def _finite(value: torch.Tensor) -> bool:
    # aminmax() returns NaN if there is one, and does not copy the tensor.
    return not value.is_floating_point() or not value.numel() or all(map(torch.isfinite, torch.aminmax(value)))


def check_finite(network: Network, what: str) -> None:
    """Raise DataError if a network of a pickle has weights that are not finite."""
    names = not_finite(network)
    if names:
        raise DataError(f"{what} has {some(names)} that are not finite: training had failed. Use an earlier snapshot.")


def some(names: list[str], most: int = 3) -> str:
    """Return the first few names as text."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
