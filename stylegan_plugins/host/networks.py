"""Networks of a pickle, made anew from the host's own classes."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator

import torch

from stylegan_plugins.errors import HostError
from stylegan_plugins.host.modules import host_module
from stylegan_plugins.pickles import Network

# Where the two families keep their networks; a class name alone does not say which (stylegan3 has two Generators).
MODULES = ("training.networks", "training.networks_stylegan2", "training.networks_stylegan3", "training.augment")


def build(network: Network, what: str = "The network") -> torch.nn.Module:
    """The host's class of this name, with the recorded arguments and the tensors of the pickle, in evaluation mode.

    Random numbers are left as they were. Raises HostError if no class of the host takes the arguments and has these
    tensors. what: how to name the network in an error."""
    reasons = []
    for module, cls in _classes(network):
        try:
            with torch.random.fork_rng(devices=[]):
                made = cls(*network.init_args, **network.init_kwargs)
        except TypeError as error:  # an argument that this host does not know
            reasons.append(f"{module}.{network.class_name}: {error}")
            continue
        difference = _difference(made, network)
        if difference is None:
            made.load_state_dict({**made.state_dict(), **_known(made, network)})
            return made.eval().requires_grad_(False)
        reasons.append(f"{module}.{network.class_name} {difference}")
    why = "; ".join(reasons) or f"it has no class {network.class_name}"
    raise HostError(f"{what} cannot be made with this host: {why}. Use the host that the pickle was made with.")


def _classes(network: Network) -> Iterator[tuple[str, type[torch.nn.Module]]]:
    """Classes of the host with the network's name, that of the very same source first."""
    host_module("dnnlib")  # a host must be there, repaired
    found = []
    for name in MODULES:
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:
                raise
            continue
        if hasattr(module, network.class_name):
            found.append((inspect.getsource(module) != network.source, name, getattr(module, network.class_name)))
    for _, name, cls in sorted(found, key=lambda item: item[:2]):
        yield name, cls


def _difference(made: torch.nn.Module, network: Network) -> str | None:
    """What keeps the tensors of a pickle from fitting. Buffers may be missing: they are not trained, and versions of
    the hosts differ in them."""
    shapes = {name: list(value.shape) for name, value in made.named_parameters()}
    for name in sorted(network.parameters | shapes.keys()):
        if name not in shapes:
            return f"has no {name}"
        if name not in network.tensors:
            return f"has a {name}, the pickle has none"
        if list(network.tensors[name].shape) != shapes[name]:
            return f"has {name} of {shapes[name]}, the pickle of {list(network.tensors[name].shape)}"
    return None


def _known(made: torch.nn.Module, network: Network) -> dict[str, torch.Tensor]:
    return {
        name: network.tensors[name]
        for name, value in made.state_dict().items()
        if name in network.tensors and network.tensors[name].shape == value.shape
    }
