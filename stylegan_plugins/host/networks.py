"""Networks of a pickle, rebuilt from the host's own classes."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.util
import inspect
import math
import pickle
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from stylegan_plugins.errors import DataError, HostError, tell
from stylegan_plugins.files import kinds
from stylegan_plugins.files.checksums import check_checksum
from stylegan_plugins.files.pickles import read_pickle
from stylegan_plugins.files.snapshots import Network, Snapshot
from stylegan_plugins.host import devices, generators, limits
from stylegan_plugins.host.families import HOSTS
from stylegan_plugins.host.modules import host_module

# A class name does not identify the module: stylegan3 has two Generators.
MODULES = (*(module for family in HOSTS.values() for module in family.networks), "training.augment")
_MEAN_OF = 10_000  # number of z for w_avg
STYLEGAN2_MODULES = tuple(family.networks[0] for family in HOSTS.values())

# Errors of the host's classes for arguments that they do not know, or cannot use.
UNKNOWN = (TypeError, ValueError, LookupError, AttributeError, AssertionError, ArithmeticError, RuntimeError)


def build(
    network: Network,
    what: str = "The network",
    complete: Callable[[torch.nn.Module], torch.nn.Module] = lambda made: made,
) -> torch.nn.Module:
    """Make a network of the host's class of this name, with the recorded arguments and tensors, in evaluation mode.

    Random numbers stay as they were. Raises HostError if no class of the host takes the arguments and has these
    tensors.

    complete  adds the modules of a plug-in to the host's network
    what      name of the network in errors"""
    reasons = []
    for module, cls in _classes(network):
        try:
            with limits.building_anew(network):
                made = cls(*network.init_args, **in_the_shape_of(cls, network.init_kwargs))
        except UNKNOWN as error:
            reasons.append(f"{module}.{network.class_name}: {error!r}")
            continue
        made = complete(made)
        reason = difference(made, network)
        if reason is None:
            state = made.state_dict()
            for name, tensor in network.tensors.items():
                if name in state and state[name].shape == tensor.shape:
                    state[name] = tensor
            made.load_state_dict(state)
            if "mapping.w_avg" in state.keys() - network.tensors.keys():
                average_w(made)
            return made.eval().requires_grad_(False)
        reasons.append(f"compared with {module}.{network.class_name} it {reason}")
    why = "; ".join(reasons) or f"it has no class {network.class_name}"
    raise HostError(f"{what} cannot be made with this host: {why}. Use the host that the pickle was made with.")


def average_w(G: Any) -> None:
    """Give a G whose file has no `w_avg`, which truncation needs, the mean of w over random z of all classes alike."""
    device = next(G.parameters()).device
    z = torch.randn([_MEAN_OF, G.z_dim], generator=torch.Generator().manual_seed(0)).to(device)
    c = torch.eye(max(G.c_dim, 1), device=device)[torch.arange(_MEAN_OF) % max(G.c_dim, 1), : G.c_dim]
    with torch.no_grad():
        G.mapping.w_avg.copy_(G.mapping(z, c)[:, 0].mean(dim=0))


def has_class(network: Network) -> bool:
    """Return whether the host has a class of the network's name."""
    return any(True for _ in _classes(network))


def host_class(name: str) -> type[torch.nn.Module]:
    """Return a layer of the host's StyleGAN2 networks, by its class name. Raises HostError if the host has none."""
    for module in _import_those_of_host(STYLEGAN2_MODULES):
        if isinstance(cls := vars(module).get(name), type):
            return cls
    raise HostError(f"This host has no class {name} in {' or '.join(STYLEGAN2_MODULES)}.")


def _classes(network: Network) -> Iterator[tuple[str, type[torch.nn.Module]]]:
    """Yield the host's classes with the network's name, first the class with the same source."""
    order = lambda module: (inspect.getsource(module) != network.source, module.__name__)
    for module in sorted(_import_those_of_host(MODULES), key=order):
        cls = vars(module).get(network.class_name)  # the pickle chose the name: call nothing but a network
        if isinstance(cls, type) and issubclass(cls, torch.nn.Module):
            yield module.__name__, cls


def _import_those_of_host(names: Iterable[str]) -> Iterator[types.ModuleType]:
    """Import the named modules, except for modules that the host lacks."""
    host_module("dnnlib")  # raises HostError without a host
    return (importlib.import_module(name) for name in names if importlib.util.find_spec(name) is not None)


def in_the_shape_of(cls: type, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Convert arguments of one family for a class of the other. ada's Generator takes the synthesis network's arguments
    in `synthesis_kwargs`, stylegan3's takes them directly."""
    names = _arguments(cls)
    takes = names.get("synthesis_kwargs")
    if takes is None:
        return kwargs
    own = {key: value for key, value in kwargs.items() if key in names and key != "synthesis_kwargs"}
    others = {key: value for key, value in kwargs.items() if key not in names}
    if others and "synthesis_kwargs" in kwargs:  # arguments of neither family
        return kwargs
    synthesis = {**others, **kwargs.get("synthesis_kwargs", {})}
    return {**own, **(synthesis if takes.kind is inspect.Parameter.VAR_KEYWORD else {"synthesis_kwargs": synthesis})}


def _arguments(cls: type) -> Mapping[str, inspect.Parameter]:
    """Return the arguments of a host's class, which its persistence decorator hides behind *args and **kwargs."""
    for base in cls.__mro__:
        if "__init__" in vars(base):
            names = inspect.signature(vars(base)["__init__"]).parameters
            if any(p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD for name, p in names.items() if name != "self"):
                return names
    return {}


def difference(made: torch.nn.Module, network: Network) -> str | None:
    """Describe why the tensors of a pickle do not fit a network; None if they fit.

    Buffers may be missing, since they are not trained and differ between versions of the hosts. If they are present,
    their shapes must be equal."""
    trained = {name for name, _ in made.named_parameters()}  # without frozen weights, which are buffers
    shapes = {name: list(value.shape) for name, value in made.state_dict().items()}
    for name in sorted(network.parameters | trained):
        if name not in shapes:
            return f"has a {name}, which the host's has not"
        if name not in network.tensors:
            return f"lacks {name}"
    for name in sorted(shapes.keys() & network.tensors.keys()):
        if list(network.tensors[name].shape) != shapes[name]:
            return f"has {name} of {list(network.tensors[name].shape)} instead of {shapes[name]}"
    return None


def describe(module: torch.nn.Module) -> Network:
    """Convert a network that the host has loaded to a `Network`, as `read_pickle` returns it."""
    return Network(
        class_name=type(module).__name__,
        init_args=tuple(getattr(module, "init_args", ())),
        init_kwargs=dict(getattr(module, "init_kwargs", {})),
        tensors={name: value.detach() for name, value in [*module.named_parameters(), *module.named_buffers()]},
        parameters=frozenset(name for name, _ in module.named_parameters()),
    )


def converted(snapshot: Snapshot) -> Snapshot:
    """Convert the networks of a TensorFlow pickle with the host's own converter; return other snapshots as they are."""
    if not snapshot.tensorflow:
        return snapshot
    legacy = host_module("legacy")
    found = {}
    for key, state in zip(("G", "D", "G_ema"), snapshot.tensorflow, strict=True):
        convert = legacy.convert_tf_discriminator if key == "D" else legacy.convert_tf_generator
        try:
            with limits.building(1000, Path(snapshot.path).stat().st_size // 4):
                found[key] = describe(convert(_stub(state)))
        except UNKNOWN as error:  # an old version, or arguments that the converter does not know
            raise DataError(f"{snapshot.path} is of TensorFlow, and the host cannot convert it: {error!r}.") from error
    return Snapshot(snapshot.path, found, {"training_set_kwargs": None, "augment_pipe": None})


def _stub(state: Any) -> Any:
    """Give the state of a TensorFlow network the attributes that the host's converter reads."""
    easy = host_module("dnnlib").EasyDict
    components = {name: _stub(value) for name, value in state.get("components", {}).items()}
    return easy({**state, "components": easy(components)})


def open_pickle(path: Path, trust: bool = False, keys: Iterable[str] = ("G", "D", "G_ema")) -> Snapshot:
    """Read a network pickle. With `trust` the host's loader reads it, which executes code in the pickle.

    Raises DataError for a file that cannot be read, a network that cannot be built with its arguments, and weights of
    `keys` that are not finite."""
    check_checksum(path)
    snapshot = _trusted(path) if trust else read_pickle(path)
    if not trust:
        for note in snapshot.notes:
            _tell_once(note)
        limits.check_arguments(snapshot)
        snapshot = converted(snapshot)
    for key in keys:
        if key in snapshot.networks:
            limits.check_finite(snapshot.networks[key], f"{key} of {path}")
    return snapshot


@functools.cache
def _tell_once(note: str) -> None:
    tell(note, err=True)


def _trusted(path: Path) -> Snapshot:
    try:
        with open(path, "rb") as file:
            kinds.refuse_other_kinds(str(path), file.read(kinds.HEAD))
            file.seek(0)
            data = host_module("legacy").load_network_pkl(file)
    except (pickle.UnpicklingError, EOFError, *UNKNOWN) as error:
        raise DataError(
            f"{path} is not a pickle that the host can load ({error!r}). Leave --trust-pickle out."
        ) from error
    found = {name: describe(value) for name, value in data.items() if isinstance(value, torch.nn.Module)}
    return Snapshot(str(path), found, {name: value for name, value in data.items() if name not in found})


def load_network(file: Path, key: str) -> torch.nn.Module:
    """Make a network of a pickle from the host's classes: G, D or G_ema."""
    network = open_pickle(file, keys=[key]).network(key)
    if devices.device().type == "cpu":  # half precision is for GPUs only
        network = in_single_precision(network)
    return build(network, f"{key} of {file}", generators.with_module_of_run(network, file))


def in_single_precision(network: Network) -> Network:
    """Return the network with all layers in single precision."""
    return dataclasses.replace(network, init_kwargs=_without_half(network.init_kwargs))


def _without_half(kwargs: dict[str, Any]) -> dict[str, Any]:
    found = {key: _without_half(value) if isinstance(value, dict) else value for key, value in kwargs.items()}
    return {**found, **({"num_fp16_res": 0} if "num_fp16_res" in found else {})}


def host_family() -> str:
    """Return the family of the host in use. Raises HostError without a host, or if it has the networks of neither
    family."""
    host_module("dnnlib")
    for family in HOSTS.values():
        if importlib.util.find_spec(family.networks[0]) is not None:
            return family.name
    raise HostError(f"This host has neither {' nor '.join(STYLEGAN2_MODULES)}.")


def layers_above(side: int, resolution: int, architecture: str) -> int:
    """Return the number of layers of D in all blocks of more than side x side pixels. The host's order in a block is
    from_rgb, conv0, conv1, skip."""
    blocks = max(int(math.log2(resolution / side)), 0)
    if architecture == "skip":
        return 3 * blocks  # each block has a from_rgb
    return 1 + (3 if architecture == "resnet" else 2) * blocks if blocks else 0
