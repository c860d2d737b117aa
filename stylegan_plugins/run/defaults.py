"""Defaults that a host's train.py does not have: for a machine without a GPU, on which hosts alone cannot train, and
for options that stylegan3 requires.

Without --cfg, a CPU gets small networks, small pictures, and a run of about an hour. Given options are kept."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from typing import Any

import click

from stylegan_plugins.errors import tell
from stylegan_plugins.host.modules import construct
from stylegan_plugins.run import estimate
from stylegan_plugins.run.progress import duration

# Networks of about a million parameters, and settings by which they learn in minutes, as in ./run.sh
# (docs/inside/results.md).
SMALL = {"cbase": 512, "cmax": 32}
FAST = {"batch": 16, "gamma": 0.05, "glr": 0.006, "dlr": 0.006, "pl_weight": 0, "no_noise_inputs": True}
CPU_SIDE = 32  # side of pictures, at most
SECONDS = 3600.0  # time of a run without a given length
TICKS, SNAPSHOT_TICKS = 30, 5  # ticks in such a run, and ticks between two snapshots
REQUIRED = ("cfg", "gpus", "batch", "gamma")  # required by stylegan3's train.py, beside --data and --outdir


def relax(command: click.Command) -> bool:
    """Let a command that requires --cfg work without it, and without the other options of REQUIRED. Return whether the
    command requires --cfg."""
    parameters = {parameter.name: parameter for parameter in command.params}
    if "cfg" not in parameters or not parameters["cfg"].required:
        return False
    for name in REQUIRED:
        parameters[name].required = False
    return True


def complete(
    command: click.Command, values: Mapping[str, Any], side: int, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the options for a host that requires --cfg. Without --cfg they make a StyleGAN2 like that of
    --cfg=auto in stylegan2-ada-pytorch.

    values    given options, and those that `for_cpu` chose, in the form of the command line
    side      side of the pictures in pixels
    options   all options in the form that the host gets

    Raises click.MissingParameter if --cfg is given, and another required option is not."""
    if "cfg" in values:
        for parameter in command.params:
            if parameter.name in REQUIRED and parameter.name not in values:
                raise click.MissingParameter(ctx=click.get_current_context(), param=parameter)
        return dict(options)
    gpus = values.get("gpus", 1)
    batch = values.get("batch", max(min(gpus * min(4096 // side, 32), 64), gpus))
    chosen = {
        "cfg": "stylegan2",
        "gpus": gpus,
        "batch": batch,
        "gamma": 0.0002 * side**2 / batch,
        "mbstd_group": max(min(values.get("batch_gpu", batch // gpus), 4), 1),
        "map_depth": 2,
        "glr": 0.0025,
        "dlr": 0.0025,
    }
    if side < 512 and "cbase" in options:
        chosen["cbase"] = 16384
    return {**options, **{name: value for name, value in chosen.items() if name not in values}}


def for_cpu(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values of options for a machine without a GPU, and print them. values: given options, by name.

    Empty with --cfg. Networks that are fine-tuned keep their size. They, and networks of a given size, train
    with the host's settings instead of FAST."""
    if "cfg" in values:
        return {}
    networks: dict[str, Any] = {} if values.get("resume") else dict(SMALL)
    if networks and not networks.keys() & values.keys():
        networks |= FAST
    if "batch_gpu" in values or values.get("gpus", 1) > 1:
        networks.pop("batch", None)  # it may not be a multiple of them
    chosen = {name: value for name, value in ({"workers": 0} | networks).items() if name not in values}
    flag = lambda name: f"--{name.replace('_', '-')}"
    told = [flag(name) if value is True else f"{flag(name)}={value}" for name, value in chosen.items()]
    if networks and "size" not in values:
        told.append(f"pictures of at most {CPU_SIDE}x{CPU_SIDE} (--size)")
    if "kimg" not in values:
        told.append("a length of about an hour (--kimg)")
    if told:
        tell(f"No GPU: {', '.join(told)}. Give other values, or --cfg for the host's own.")
    return chosen


def set_length(args: Any, given: Collection[str]) -> str:
    """Set the length of a run to about an hour on this machine, with ticks and snapshots to fit. Return a line that
    says so.

    args    of the training loop, before plug-ins change them
    given   names of given options"""
    dataset = construct(args["training_set_kwargs"])
    shape = dict(c_dim=dataset.label_dim, img_resolution=dataset.resolution, img_channels=dataset.num_channels)
    G, D = (
        construct(in_single_precision(copy.deepcopy(args[name])), **shape).requires_grad_(False)
        for name in ("G_kwargs", "D_kwargs")
    )
    seconds = estimate.seconds_per_image(G, D, args["batch_gpu"])
    kimg = max(int(float(f"{SECONDS / seconds / 1000:.2g}")), 1)
    args["total_kimg"] = kimg
    if "tick" not in given:
        args["kimg_per_tick"] = max(kimg // TICKS, 1)
    if "snap" not in given:
        args["image_snapshot_ticks"] = args["network_snapshot_ticks"] = SNAPSHOT_TICKS
    return (
        f"--kimg={kimg}: about {duration(1000 * kimg * seconds)} on this machine; methods, ADA and metrics add to it."
    )


def in_single_precision(kwargs: Any) -> Any:
    """Switch off half precision in the arguments of a network, in place: it is slow and inexact on a CPU."""
    for these in (kwargs, kwargs.get("synthesis_kwargs", {})):
        if "num_fp16_res" in these:
            these["num_fp16_res"] = 0
    return kwargs
