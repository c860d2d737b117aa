"""A module of a plug-in before G's mapping network, in a form that stock tools load without our package."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from stylegan_plugins.errors import DataError, PluginError
from stylegan_plugins.files import run_folders
from stylegan_plugins.files.snapshots import Network
from stylegan_plugins.host.modules import host_module
from stylegan_plugins.host.randomness import own_random
from stylegan_plugins.manager import Plugins, recorded

NAME = "before"  # of the module in the mapping network: `mapping.before.*` are its parameters
_CLASS = "MappingAfterModule"
_SOURCE = f'''

@persistence.persistent_class
class {_CLASS}({{base}}):
    """A mapping network with a module before it."""

    def forward(self, z, *args, **kwargs):
        return super().forward(self.{NAME}(z.to(torch.float32)), *args, **kwargs)  # scripts give float64
'''
TEMPERATURE = "temperature"  # `mapping.temperature` is a buffer
_TEMPERED = "MappingWithTemperature"
_TEMPERED_SOURCE = f'''

@persistence.persistent_class
class {_TEMPERED}({{base}}):
    """A mapping network whose w are nearer to their average outside of training."""

    def forward(self, *args, **kwargs):
        w = super().forward(*args, **kwargs)
        return w if self.training else self.w_avg.lerp(w, self.{TEMPERATURE})
'''


def with_module(G: Any, plugins: Plugins, seed: int) -> Any:
    """Put a plug-in's module before `G.mapping`, and give `G.mapping` a plug-in's temperature, if there are any. The
    parameters of `G.mapping` keep their names.

    The mapping network gets a new class: the host's source with a few more lines. Pickles contain this source, as they
    do for the hosts' own classes, so stock tools can load them. Raises PluginError for a module that stock tools could
    not load without this package."""
    with own_random("generator-module", seed, torch.device("cpu")):
        module = plugins.only("register_generator_module", G=G)
    temperature = plugins.only("register_temperature")
    if module is not None:
        _check(module)
        G.mapping = _of_class(G.mapping, _CLASS, _SOURCE)
        G.mapping.add_module(NAME, module.to(next(G.parameters()).device))
    if temperature is not None:
        G.mapping = _of_class(G.mapping, _TEMPERED, _TEMPERED_SOURCE)
        G.mapping.register_buffer(TEMPERATURE, torch.tensor(float(temperature), device=next(G.parameters()).device))
    return G


def _check(module: torch.nn.Module) -> None:
    persistence = host_module("torch_utils.persistence")
    for part in module.modules():
        if not (type(part).__module__.startswith("torch.nn.") or persistence.is_persistent(part)):
            raise PluginError(
                f"--plugin: register_generator_module() returned a {type(part).__name__}; stock tools only know "
                "modules of torch.nn and layers of the host."
            )


def _of_class(mapping: Any, name: str, source: str) -> Any:
    """Return the same mapping network with a derived class of this name and source."""
    persistent: Any = type(mapping)
    whole = persistent._orig_module_src + source.format(base=persistent._orig_class_name)
    cls = vars(host_module("torch_utils.persistence")._src_to_module(whole))[name]
    made = cls.__new__(cls)
    made.__dict__.update(vars(mapping))
    return made


def with_module_of_run(network: Network, pickle: Path) -> Callable[[torch.nn.Module], torch.nn.Module]:
    """Return a function that puts the module of a plug-in before G's mapping network, if the pickle has one.

    The run's training_options.json, beside the pickle, names the plug-in. Raises DataError if it does not."""
    if not has_module(network):
        return lambda made: made
    args = run_folders.read_options(pickle.parent) or {}
    plugins = recorded(args.get("plugins", {}))
    if not have_module(plugins):
        raise DataError(
            f"{pickle} has a module of a plug-in before its mapping network, and no {run_folders.OPTIONS} beside it "
            "says which: put the pickle back into the directory of its run. Stock tools of the host load it as it is."
        )
    return lambda made: with_module(made, plugins, seed=0)


def has_module(network: Network) -> bool:
    """Return whether a pickled network has a temperature, or a module of a plug-in before its mapping network."""
    return has_module_before(network) or f"mapping.{TEMPERATURE}" in network.tensors


def has_module_before(network: Network) -> bool:
    """Return whether a pickled network has a module of a plug-in before its mapping network."""
    return any(name.startswith(f"mapping.{NAME}.") for name in network.tensors)


def have_module(plugins: Plugins) -> bool:
    """Return whether one of the plug-ins has a module before G's mapping network, or a temperature."""
    changes = {"register_generator_module", "register_temperature"}
    return any(changes & set(plugins.catalogue.hooks_of(name)) for name in plugins.names)
