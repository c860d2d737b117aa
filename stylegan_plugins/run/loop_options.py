"""Options of train.py that set arguments of the host's loop, networks and optimisers, for hosts that lack them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from stylegan_plugins.errors import OptionError
from stylegan_plugins.files import datasets, decoded

COUNT = click.IntRange(min=1)
# Nested arguments of the loop that an option sets.
NESTED = {"glr": ("G_opt_kwargs", "lr"), "dlr": ("D_opt_kwargs", "lr"), "pl_weight": ("loss_kwargs", "pl_weight")}


def option(flag: str, help: str, kind: Any = None, metavar: str | None = "INT", **how: Any) -> click.Option:
    """Return an option without a default. metavar: of its value."""
    return click.Option([flag], help=help, type=kind, metavar=metavar, **how)


def options() -> list[click.Option]:
    """Return the options."""
    rate = click.FloatRange(min=0)
    cache_help = (
        "Decoded images in memory, once for all workers and ranks. auto: if they fit into a quarter of the free "
        "memory  [default: auto]"
    )
    inputs_help = "Train StyleGAN2's G without noise inputs, which can cover small pictures with speckle"
    return [
        option("--cbase", "Channels times resolution  [default: by --cfg]", COUNT),
        option("--cmax", "Most channels of a layer  [default: 512]", COUNT),
        option("--glr", "Learning rate of G  [default: by --cfg]", rate, "FLOAT"),
        option("--dlr", "Learning rate of D  [default: by --cfg]", rate, "FLOAT"),
        option("--pl-weight", "Weight of G's path lengths, 0 = off  [default: by --cfg]", rate, "FLOAT"),
        option("--ema-kimg", "Half-life of the weights that G_ema averages  [default: by --cfg]", rate, "KIMG"),
        option("--tick", "Length of a tick  [default: 4]", COUNT, "KIMG"),
        option("--batch-gpu", "Images that a GPU takes at a time", COUNT),
        option("--cache", cache_help, click.Choice(decoded.MODES), None),
        option("--subset", "Train with so many images  [default: all]", COUNT),
        click.Option(["--no-noise-inputs"], is_flag=True, default=None, help=inputs_help),
    ]


def apply(args: Any, extra: Mapping[str, float]) -> None:
    """Set the arguments of given options. Raises OptionError for a value that does not fit the others."""
    networks = args.get("G_kwargs", {})
    generator = networks.get("synthesis_kwargs", networks)
    for name, key in (("cbase", "channel_base"), ("cmax", "channel_max")):
        if name in extra:
            generator[key] = args["D_kwargs"][key] = extra[name]
    for name, (of, key) in NESTED.items():
        if name in extra:
            args[of][key] = extra[name]
    if "no_noise_inputs" in extra:
        if "networks_stylegan3" in networks["class_name"]:
            raise OptionError("--no-noise-inputs: StyleGAN3's generator has no noise inputs. Leave the option out.")
        generator["use_noise"] = False
    if "tick" in extra:
        args["kimg_per_tick"] = extra["tick"]
    if "subset" in extra:
        data, subset = args["training_set_kwargs"], extra["subset"]
        count, _, _ = datasets.check_dataset(data["path"])
        if subset > count:
            raise OptionError(f"--subset={subset}: the data set has {count} images.")
        data["max_size"] = subset
    if "batch_gpu" in extra:
        batch, gpus, batch_gpu = args["batch_size"], args["num_gpus"], extra["batch_gpu"]
        if batch % (gpus * batch_gpu):
            raise OptionError(f"--batch-gpu={batch_gpu}: --batch={batch} must be a multiple of --gpus={gpus} times it.")
        args["batch_gpu"] = batch_gpu
