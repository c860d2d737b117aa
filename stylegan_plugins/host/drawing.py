"""Support for the hosts' scripts that draw images. A wrong option gives a one-line error, and networks with one color
channel or with classes can be drawn.

Options are checked twice: before anything is loaded, and against the classes and layers of the loaded network. They are
identified by the names of click's parameters, which forks keep."""

from __future__ import annotations

import errno
import inspect
import math
import os
import pickle
import re
import zipfile
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from types import FunctionType
from typing import Any, BinaryIO

import click
import numpy as np
import PIL.Image
import torch

from stylegan_plugins.errors import DataError, HostError, OptionError, UserError, tell
from stylegan_plugins.files import datasets, run_folders
from stylegan_plugins.host import networks
from stylegan_plugins.manager import catalogue, recorded

SEEDS = ("seeds", "row_seeds", "col_seeds")
ONE_SEED = ("seed", "shuffle_seed")
MOST_SEED = 2**32 - 1  # the largest that NumPy takes
FINITE = ("truncation_psi", "translate", "rotate", "mean", "std")
COUNTS = ("num_steps", "w_frames", "num_keyframes")
VIDEOS = (".mp4", ".mkv", ".mov", ".avi")  # containers that take H.264, which gen_video.py writes
LABEL = "class_idx"  # the scripts' own name of --class
GRAY = "stylegan_plugins.gray"  # in click's context: the network that was loaded makes gray images
CLASS_OPTION = click.Option(["--class", LABEL], type=int, metavar="INT", help="Class, for a network trained on labels")
# Errors of the host's loader for a file that is not a pickle, is cut off or comes from another program.
UNREADABLE = (*networks.UNKNOWN, *datasets.BROKEN, pickle.UnpicklingError, ImportError, MemoryError)


def takes_class(command: click.Command) -> bool:
    """Return whether a script that draws needs our --class, because it has none."""
    names = {parameter.name for parameter in command.params}
    callback: Any = inspect.unwrap(command.callback)  # type: ignore[arg-type]
    functions = [callback, *(value for value in callback.__globals__.values() if isinstance(value, FunctionType))]
    loads = any("load_networks" in function.__code__.co_names for function in functions)
    return loads and "network_pkl" in names and not names & {LABEL, "metrics"}


# --- Before anything is loaded. ------------------------------------------------------------------------------------


def check_options(command: click.Command, values: Mapping[str, Any]) -> None:
    """Raise OptionError or DataError for a value with which a script would end in a traceback, or draw nothing."""
    flags = {p.name: next((o for o in p.opts if o.startswith("--")), f"--{p.name}") for p in command.params}
    given = {name: value for name, value in values.items() if value is not None and name in flags}
    for name in (*SEEDS, *ONE_SEED):
        if name in given:
            _check_seeds(flags[name], given[name])
    if "metrics" in given and not given["metrics"]:
        tell(f"{flags['metrics']}: no metric is named, so none is computed.", err=True)
    for name in ("col_styles", "outdir", "output", "network_pkl"):
        if name in given and not given[name]:
            raise OptionError(f"{flags[name]}: nothing is given.")
    for name in FINITE:
        numbers = given.get(name, ())
        for number in numbers if isinstance(numbers, Iterable) else [numbers]:
            if isinstance(number, float) and not math.isfinite(number):
                raise OptionError(f"{flags[name]}={number}: expected a finite number.")
    for name in COUNTS:
        if isinstance(given.get(name), int) and given[name] < 1:
            raise OptionError(f"{flags[name]}={given[name]}: must be 1 or more.")
    _check_grid(flags, given)
    _check_files(flags, given)
    if given.get("outdir"):
        datasets.check_output(given["outdir"])


def _check_seeds(flag: str, seeds: Any) -> None:
    several = isinstance(seeds, list | tuple)
    if several and not seeds:
        raise OptionError(f"{flag}: the range is empty, so nothing would be drawn. Give the lower number first: 0-15.")
    for seed in seeds if several else [seeds]:
        if isinstance(seed, int) and not 0 <= seed <= MOST_SEED:
            raise OptionError(f"{flag}: seeds are 0 to {MOST_SEED}, not {seed}.")


def _check_grid(flags: Mapping[str, str], given: Mapping[str, Any]) -> None:
    """Raise OptionError unless each place of gen_video.py's grid has the same number of seeds."""
    grid, seeds = given.get("grid"), given.get("seeds")
    if not isinstance(grid, list | tuple):
        return
    places = math.prod(grid)
    shown = f"{flags['grid']}={'x'.join(map(str, grid))}"
    if places < 1:
        raise OptionError(f"{shown}: must be 1 or more each.")
    if isinstance(seeds, list | tuple) and "num_keyframes" not in given and len(seeds) % places:
        raise OptionError(
            f"{shown}: {len(seeds)} seeds cannot be shared among {places} places. Give a multiple of {places}, or "
            "--num-keyframes."
        )


def _check_files(flags: Mapping[str, str], given: Mapping[str, Any]) -> None:
    """Raise DataError for an input file that does not exist, or an output file that cannot be made. Addresses are not
    checked."""
    is_path = lambda name: isinstance(given.get(name), str) and not re.match(r"\w+://", given[name])
    for name in ("network_pkl", "projected_w", "npz_file"):
        if is_path(name) and not os.path.isfile(given[name]):
            what = "a folder; give a file in it" if os.path.isdir(given[name]) else "not there"
            raise DataError(f"{flags[name]}: {given[name]} is {what}.")
    for file in given.get("npz_files", ()):
        if not os.path.isfile(file):
            raise DataError(f"{file} is not there.")
    if is_path("source") and not os.path.exists(given["source"]):
        raise DataError(f"{flags['source']}: {given['source']} is not there.")
    if is_path("output"):
        path = Path(given["output"])
        if path.suffix.lower() not in VIDEOS:
            raise OptionError(f"{flags['output']}={path}: give a name that ends in .mp4.")
        if path.is_dir() or not os.access(path.parent, os.W_OK | os.X_OK):
            raise DataError(f"{flags['output']}: {path} cannot be written. Give a file in a folder that is there.")
    if is_path("target_fname"):
        try:
            with PIL.Image.open(given["target_fname"]) as image:
                image.load()
        except datasets.BROKEN as error:
            why = getattr(error, "strerror", None) or " ".join(str(error).split())
            raise DataError(
                f"{flags['target_fname']}: {given['target_fname']} cannot be read as an image ({why})."
            ) from error


# --- The network. --------------------------------------------------------------------------------------------------


def load_networks(
    load: Callable[..., dict[str, Any]], file: BinaryIO, *args: Any, colors: bool = False, **kwargs: Any
) -> dict[str, Any]:
    """Load a pickle as the host does, and make its G_ema fit the options of the script that is running.

    A network with classes gets the class of --class wherever the script gives no label. colors: whether a network of
    gray images gives three equal channels. Raises DataError for a file that is not a network pickle, OptionError for an
    option that does not fit the network."""
    context = click.get_current_context(silent=True)
    values: Mapping[str, Any] = context.params if context is not None else {}
    name = getattr(file, "name", None)
    path = Path(name) if isinstance(name, str) else None
    try:
        data = load(file, *args, **kwargs)
    except UNREADABLE as error:
        if path is not None:
            networks.open_pickle(path)  # raises an error that says what the file is
        raise DataError(
            f"--network: {path or 'the file'} cannot be loaded by this host ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:200]}). To see what is in it: stylegan-plugins inspect {path or 'FILE'}"
        ) from error
    G = data["G_ema"]
    if LABEL in values and not values.get("projected_w"):
        _choose_class(G, values[LABEL], path, context)
    _check_latents(G, values)
    if G.img_channels == 1 and context is not None:
        context.meta[GRAY] = True
    if colors and G.img_channels == 1:
        G.img_channels = 3
        G.synthesis.register_forward_hook(_in_colors)
    return data


def _choose_class(G: Any, label: int | None, path: Path | None, context: click.Context | None) -> None:
    if not G.c_dim:
        if label is not None and context is not None and CLASS_OPTION in context.command.params:
            raise OptionError(f"--class={label}: this network has no classes. Leave it out.")
        return  # a script that has --class reports this itself
    if path is not None and has_labels_of_a_plugin(path) and not _has_classes(path):
        raise HostError(
            f"--network: {path} has features of images in the place of classes, which the host's scripts do not know. "
            "Use: stylegan-plugins sample."
        )
    if label is None or not 0 <= label < G.c_dim:
        given = "--class" if label is None else f"--class={label}"
        raise OptionError(f"{given}: this network has {G.c_dim} classes; give one of 0 to {G.c_dim - 1}.")
    G.mapping.register_forward_pre_hook(partial(_with_label, label, G.c_dim), with_kwargs=True)


def _has_classes(snapshot: Path) -> bool:
    """Return whether the labels that a plug-in drew in the run of a snapshot are one-hot classes."""
    record = (run_folders.read_options(snapshot.parent) or {})["plugins"]
    try:
        sampler = recorded(record).only("register_sampler", run_dir=snapshot.parent)
    except DataError:  # the sampler's source, such as a data set, is missing
        return False
    return sampler is not None and sampler.classes


def has_labels_of_a_plugin(snapshot: Path) -> bool:
    """Return whether a plug-in drew the labels in the run of a snapshot. False for a file that `export` wrote."""
    if run_folders.SNAPSHOT.fullmatch(snapshot.name) is None:
        return False
    record = (run_folders.read_options(snapshot.parent) or {}).get("plugins")
    active = record.get("active") if isinstance(record, dict) else None
    found = catalogue()
    known = [name for name in active or () if name in found.sources]
    return any("register_sampler" in found.summary(name)[1] for name in known)


def _with_label(label: int, classes: int, mapping: Any, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict]:
    """Add a class where a script calls G's mapping network with c=None."""
    given = {**dict(zip(("z", "c"), args, strict=False)), **kwargs}
    z, c = given.pop("z"), given.pop("c", None)
    if c is None:
        c = torch.zeros([len(z), classes], device=z.device)
        c[:, label] = 1
    return (z, c, *args[2:]), given


def _in_colors(synthesis: Any, args: Any, images: torch.Tensor) -> torch.Tensor:
    return images.expand(-1, 3, -1, -1)


def _check_latents(G: Any, values: Mapping[str, Any]) -> None:
    """Raise OptionError or DataError if layers, or w from a file, do not fit the network."""
    for style in values.get("col_styles") or ():
        if not 0 <= style < G.num_ws:
            raise OptionError(f"--styles: {style} is not a layer of this network. Its layers are 0 to {G.num_ws - 1}.")
    file = values.get("projected_w")
    if not isinstance(file, str):
        return
    try:
        with np.load(file, allow_pickle=False) as stored:
            shape = stored["w"].shape
    except (*datasets.BROKEN, zipfile.BadZipFile, AttributeError) as error:
        raise DataError(f"--projected-w: {file} holds no w as projector.py writes it ({error}).") from error
    if not shape or not shape[0] or shape[1:] != (G.num_ws, G.w_dim):
        raise DataError(
            f"--projected-w: {file} has w of shape {list(shape)}, this network takes [N, {G.num_ws}, {G.w_dim}]. Use "
            "the network that it was made with."
        )


# --- Pictures. -----------------------------------------------------------------------------------------------------


def picture(pixels: np.ndarray, *mode: Any, **kwargs: Any) -> PIL.Image.Image:
    """Return an image of uint8 pixels, [H, W] or [H, W, C] with C 1 or 3. The mode that the script names is ignored."""
    return PIL.Image.fromarray(pixels[:, :, 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels)


def target(image: PIL.Image.Image, *mode: Any, **kwargs: Any) -> PIL.Image.Image:
    """Return the target of a projection in RGB, converted to gray values if the network makes gray images."""
    context = click.get_current_context(silent=True)
    gray = context is not None and context.meta.get(GRAY)
    return (image.convert("L") if gray else image).convert("RGB")


def one_line(error: OSError) -> UserError:
    """Return a one-line error for a script that cannot read or write a file. A closed pipe is left to click."""
    if error.errno == errno.EPIPE:
        raise error
    why = error.strerror or " ".join(str(error).split())
    return DataError(f"{error.filename or 'A file or an address'} cannot be read or written ({why}).")
