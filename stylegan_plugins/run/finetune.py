"""`--resume=PKL`: take the architecture from the pickle, execute nothing in it, and print which tensors were copied."""

from __future__ import annotations

import contextlib
import copy
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from stylegan_plugins.errors import DataError, OptionError, tell
from stylegan_plugins.files import downloads, prepare, run_folders
from stylegan_plugins.files.pickles import UntrustedPickle, read_pickle
from stylegan_plugins.files.snapshots import Network, Snapshot
from stylegan_plugins.host import generators, limits, networks
from stylegan_plugins.host.modules import host_module
from stylegan_plugins.host.networks import layers_above, open_pickle
from stylegan_plugins.manager import Plugins, without_D

# Arguments of networks that change how they train, and not their tensors: this run's values count.
OF_THE_RUN = frozenset({"num_fp16_res", "conv_clamp", "fp16_channels_last", "fused_modconv_default", "freeze_layers"})
OF_THE_RUN |= {"mbstd_group_size", "magnitude_ema_beta"}
OF_THE_DATA = ("c_dim", "img_resolution", "img_channels")
OTHER_G = {"G": "G_ema", "G_ema": "G"}
ARCHITECTURE_FLAGS = {"cbase": "channel_base", "cmax": "channel_max", "map_depth": "num_layers"}
COLORS: dict[Any, str] = {1: "gray", 3: "rgb"}  # values of --colors by the number of channels
ADDRESSES = ("http://", "https://")


def local_pickle(address: str) -> Path:
    """Return the file of --resume: a path, or an address that is downloaded once. Raises DataError."""
    if address.lower().startswith(ADDRESSES):
        return downloads.download(address, downloads.cache_directory() / "pickles", _check_pickle, "--resume", ".pkl")
    if Path(address).is_dir():
        raise DataError(
            f"--resume: {address} is a folder. Give a network-snapshot-*.pkl in it, or resume that run: "
            f"--resume-run={address}."
        )
    if not Path(address).is_file():
        raise DataError(
            f"--resume: {address} does not exist. Give a file, an address, or a name that train.py --help lists."
        )
    return Path(address)


def _check_pickle(path: Path) -> None:
    """Raise DataError if a file is not a network. An untrusted one is kept; opening it raises an error."""
    with contextlib.suppress(UntrustedPickle):
        read_pickle(path)


def like_pickle(how: prepare.How, address: str, trust: bool) -> prepare.How:
    """Return how to prepare pictures for a run that starts from a pickle: with the pickle's size and colors, unless
    they are given.

    address   of --resume: a path, an http(s) address, or a name of the host, which ends in the side (ffhq256)
    trust     --trust-pickle

    Raises DataError if the pickle is missing or cannot be read."""
    side, channels = None, None
    if address.lower().startswith(ADDRESSES) or Path(address).exists():
        network = network_for(open_pickle(local_pickle(address), trust, keys=()), "G")
        if network is not None:
            side, channels = (network.init_kwargs.get(name) for name in ("img_resolution", "img_channels"))
    elif name := re.search(r"\d+$", address):
        side, channels = int(name[0]), 3
    fitted = how
    if how.size is None and side in prepare.SIDES:
        fitted = replace(fitted, size=side)
    if how.colors == "auto" and channels in COLORS:
        fitted = replace(fitted, colors=COLORS[channels])
    if fitted != how:
        tell(f"--resume: --size={fitted.size or 'auto'} and --colors={fitted.colors}, to fit {Path(address).name}.")
    return fitted


def configure(args: Any, given: frozenset[str], trust: bool, labels_of_plugin: bool, plugins: Plugins) -> set[str]:
    """Give this run's G and D the architecture of its starting pickle. args: of the training loop. Return the names of
    the networks that the pickle lacks.

    given: names of given options; trust: --trust-pickle; labels_of_plugin: labels come from a plug-in and not from the
    data set, so they may condition a pickle without labels. Raises OptionError for an option that contradicts the
    pickle, DataError if the pickle's networks do not fit the data set."""
    dataset = host_module("dnnlib").util.construct_class_by_name(**args["training_set_kwargs"])
    path = local_pickle(args["resume_pkl"])
    snapshot = open_pickle(path, trust)
    args["resume_pkl"] = str(path.absolute())
    if trust:
        args["trust_pickle"] = True
    if not snapshot.networks:
        snapshot.network("G")  # its error names the contents of the file
    lacking = set()
    for key, other in OTHER_G.items():
        if key not in snapshot.networks and other in snapshot.networks:
            tell(f"--resume: {path.name} has no {key}; it starts from {other}.")
    for key, kwargs in (("G", "G_kwargs"), ("D", "D_kwargs")):
        network = network_for(snapshot, key)
        if network is None:
            unknown = snapshot.networks.get(key)
            if unknown is not None and key == "G":
                raise DataError(
                    f"--resume: G of {path.name} is a {unknown.class_name}, which this host has not. Use the host that "
                    "it was trained with."
                )
            known = "" if unknown is None else f" but a {unknown.class_name}, which this host has not"
            tell(f"--resume: {path.name} has no {key}{known}; it starts at random.")
            lacking.add(key)
            continue
        classes = network.init_kwargs.get("c_dim", 0)
        labels = 0 if labels_of_plugin and classes == 0 else dataset.label_dim
        if labels_of_plugin and classes not in (0, labels):
            raise DataError(
                f"--resume: {path.name} was trained with labels of width {classes}, the labels of the plug-in have "
                f"{labels}. Use a pickle without labels, or of a run with the same plug-in and options."
            )
        _check_data(path, network, dataset.resolution, dataset.num_channels, labels)
        _check_flags(args[kwargs], network, given)
        adopted = adopt(args[kwargs], network)
        _check_fit(path, key, adopted, network, plugins)
        if _plain(adopted) != _plain(args[kwargs]):
            tell(f"--resume: {key} has the architecture of {path.name}: {_described(adopted)}")
        args[kwargs] = adopted
    plugin = without_D(run_folders.read_options(path.parent))
    if plugin and "D" not in lacking:
        tell(f"--resume: D of {path.name} was not trained in its run, which had --plugin={plugin}.")
        lacking.add("D")
    return lacking


def check_frozen(args: Mapping[str, Any], lacking: set[str]) -> None:
    """Raise OptionError if layers of a D that the pickle lacks are to be frozen, or more layers than D has."""
    layers = (args.get("D_kwargs", {}).get("block_kwargs") or {}).get("freeze_layers") or 0
    if not layers:
        return
    side = args["training_set_kwargs"]["resolution"]
    most = layers_above(4, side, args["D_kwargs"].get("architecture", "resnet"))
    if layers > most:
        raise OptionError(
            f"--freezed={layers}: a discriminator of {side}x{side} has {most} layers before its last block. Give "
            f"{most} or less."
        )
    if "D" in lacking:
        raise OptionError(
            f"{layers} layers of D are to be frozen, but the pickle of --resume has no trained D. Use another one."
        )


def network_for(snapshot: Snapshot, key: str) -> Network | None:
    """Return the network of a pickle that a network of this run starts from: the one of the same name, or for G and
    G_ema the other one. None if there is none, or if the host lacks its class."""
    found = snapshot.networks.get(key) or snapshot.networks.get(OTHER_G.get(key, ""))
    return found if found is not None and networks.has_class(found) else None


def adopt(current: Mapping[str, Any], network: Network) -> Any:
    """Return a network's arguments for this run: the pickle's, except those that belong to the run or its data set."""
    cls = host_module("dnnlib").util.get_obj_by_name(current["class_name"])
    old = {key: value for key, value in network.init_kwargs.items() if key not in OF_THE_DATA}
    result = _with_settings_of(current, networks.in_the_shape_of(cls, old), host_module("dnnlib").EasyDict)
    result["class_name"] = current["class_name"]
    return result


def _with_settings_of(current: Mapping[str, Any], pickled: Mapping[str, Any], easy: type) -> Any:
    """Return the arguments of a pickle, with this run's values for OF_THE_RUN, at every level."""
    result = easy({key: copy.deepcopy(value) for key, value in pickled.items() if key not in OF_THE_RUN})
    result.update({key: value for key, value in current.items() if key in OF_THE_RUN})
    for key, value in {**current, **pickled}.items():
        if isinstance(value, dict):
            result[key] = _with_settings_of(current.get(key, {}), pickled.get(key, {}), easy)
    return result


def _check_data(path: Path, network: Network, side: int, channels: int, labels: int) -> None:
    made: dict[str, Any] = network.init_kwargs
    resolution, colors, classes = made.get("img_resolution"), made.get("img_channels"), made.get("c_dim", 0)
    if resolution != side:
        raise DataError(
            f"--resume: {path.name} makes images of {resolution}x{resolution}, the images of --data are {side}x{side}. "
            f"Give --size={resolution}."
        )
    if colors != channels:
        kinds: dict[Any, str] = {1: "gray", 3: "RGB"}
        raise DataError(
            f"--resume: {path.name} makes {kinds.get(colors, colors)} images, the images of --data are "
            f"{kinds[channels]}. Give --colors={COLORS.get(colors, 'rgb')}."
        )
    if classes != labels:
        what = f"labels of width {classes}" if classes else "no labels"
        same = "Give a data set with the same labels and --cond=1, or, if they were a plug-in's, that plug-in"
        cure = "Train with --cond=0" if labels and not classes else same
        raise DataError(
            f"--resume: {path.name} was trained with {what}, this run has labels of width {labels}. {cure}."
        )


def _check_flags(current: Mapping[str, Any], network: Network, given: frozenset[str]) -> None:
    """Raise OptionError for an option that names another architecture than the pickle's. The pickle overrides --cfg and
    defaults."""
    for flag, key in ARCHITECTURE_FLAGS.items():
        asked, recorded = _find(current, key), _find(network.init_kwargs, key)
        if flag in given and None not in (asked, recorded) and asked != recorded:
            raise OptionError(
                f"--{flag.replace('_', '-')}={asked}: the pickle of --resume has {recorded}. Leave the option out: the "
                "architecture comes from the pickle."
            )
    without = [_find(kwargs, "use_noise") is False for kwargs in (current, network.init_kwargs)]
    if "no_noise_inputs" in given and without == [True, False]:
        raise OptionError("--no-noise-inputs: G of --resume has noise inputs. Leave the option out.")


def _find(kwargs: Mapping[str, Any], key: str) -> Any:
    """Return the value of an argument at any level; None if it is missing."""
    if key in kwargs:
        return kwargs[key]
    nested = [_find(value, key) for value in kwargs.values() if isinstance(value, Mapping)]
    return next((value for value in nested if value is not None), None)


def _check_fit(path: Path, key: str, kwargs: Mapping[str, Any], network: Network, plugins: Plugins) -> None:
    """Build the network once. Raises DataError if the tensors do not fit: --cfg may name another kind of generator."""
    has_module = generators.has_module_before(network)
    if has_module and not any(
        "register_generator_module" in plugins.catalogue.hooks_of(name) for name in plugins.names
    ):
        raise DataError(
            f"--resume: {path.name} has a module of a plug-in before its mapping network. Add that --plugin, or start "
            "from another pickle."
        )
    of_data = {name: network.init_kwargs[name] for name in OF_THE_DATA if name in network.init_kwargs}
    try:
        with limits.building_anew(network):
            made = host_module("dnnlib").util.construct_class_by_name(**kwargs, **of_data)
            if has_module:
                made = generators.with_module(made, plugins, seed=0)
        reason = networks.difference(made, network)
    except networks.UNKNOWN as error:
        reason = f"cannot be made ({error!r})"
    if reason is not None:
        raise DataError(
            f"--resume: {key} of {path.name} is not a {kwargs['class_name']}: it {reason}. Give the --cfg, and the "
            "host, that it was trained with."
        )


def _plain(value: Any) -> Any:
    return {key: _plain(item) for key, item in value.items() if item != {}} if isinstance(value, dict) else value


def _described(kwargs: Mapping[str, Any]) -> str:
    keys = ("channel_base", "channel_max", "num_layers", "architecture")
    found = {key: _find(kwargs, key) for key in keys}
    return ", ".join(f"{key} {value}" for key, value in found.items() if value is not None) or "the host's defaults"


def copy_tensors(network: Network | None, module: torch.nn.Module) -> dict[str, str]:
    """Copy tensors of the same name and shape. Return the parameters that stay random: {name: reason}.

    A mapping network with labels may start from one without: at first its labels change nothing."""
    left = {}
    tensors = {} if network is None else network.tensors
    parameters = dict(module.named_parameters())
    starts_with_labels = "mapping.embed.weight" in parameters.keys() - tensors.keys()
    for name, target in [*parameters.items(), *module.named_buffers()]:
        source = tensors.get(name) if name != f"mapping.{generators.TEMPERATURE}" else None  # the run's value counts
        if source is not None and starts_with_labels and name == "mapping.fc0.weight":  # labels are inputs beside z
            source = _widened(source, target.shape[1])
        if source is not None and source.shape == target.shape:
            with torch.no_grad():
                target.copy_(source)
        elif name in parameters:
            left[name] = "not in the pickle" if source is None else f"{list(target.shape)}, pickle {list(source.shape)}"
    if tensors and "mapping.w_avg" in dict(module.named_buffers()).keys() - tensors.keys():
        networks.average_w(module)
    return left


def _widened(weight: torch.Tensor, width: int) -> torch.Tensor:
    """Widen a layer [K, F] to [K, width] so that it ignores added inputs. The hosts multiply by 1 / sqrt(inputs)."""
    wide = weight.new_zeros([weight.shape[0], width])
    wide[:, : weight.shape[1]] = weight * (width / weight.shape[1]) ** 0.5
    return wide


def table(module_name: str, module: torch.nn.Module, left: Mapping[str, str]) -> str:
    """Return a line on the copied tensors, and a line for each of the first few that stay random."""
    parameters, buffers = (sum(1 for _ in tensors) for tensors in (module.parameters(), module.buffers()))
    count = parameters + buffers if len(left) < parameters else len(left)  # all random: buffers do not count
    lines = [f"  {module_name:<6} {count - len(left):>4} tensors copied, {len(left)} at random"]
    lines += [f"         at random: {name} ({why})" for name, why in list(left.items())[:8]]
    return "\n".join([*lines, f"         and {len(left) - 8} more"] if len(left) > 8 else lines)
