"""`stylegan-plugins export`: a trained generator in forms that others can use, without its run."""

from __future__ import annotations

import copy
import dataclasses
import math
import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stylegan_plugins.analysis import model_card, onnx_networks, sample
from stylegan_plugins.analysis.loading import LoadedGenerator
from stylegan_plugins.analysis.onnx_networks import NotExpressible, OnnxNetwork
from stylegan_plugins.errors import DataError, OptionError, tell
from stylegan_plugins.files import portable, run_folders
from stylegan_plugins.files.atomic import whole
from stylegan_plugins.files.portable import Description
from stylegan_plugins.files.snapshots import Network
from stylegan_plugins.host import generators, networks
from stylegan_plugins.host.networks import open_pickle
from stylegan_plugins.manager import without_D

TOLERANCE = 1e-3  # largest difference of ONNX from PyTorch, for values in [-1, 1]: an eighth of a gray level
CHECKED = 4  # images compared
PICTURE_SEEDS = range(32)


@dataclass(frozen=True)
class Stock:
    """Networks for stock tools.

    G, D, G_ema  networks of the host's classes
    source       G_ema as data
    drawn        its classes are drawn labels of a plug-in
    converted    converted from networks of another program
    file         the pickle that they come from
    complete     function that adds the module of a plug-in"""

    G: Any
    D: Any
    G_ema: Any
    source: Network
    drawn: bool
    converted: bool
    file: Path
    complete: Callable[[torch.nn.Module], torch.nn.Module]

    def pickled(self) -> bytes:
        """Return a network pickle, which names no file and no folder."""
        data = dict(G=self.G, D=self.D, G_ema=self.G_ema, training_set_kwargs=None, augment_pipe=None)
        return pickle.dumps(data)


def stock_of(path: Path, classes: int, seed: int) -> Stock:
    """Return the networks of a run or pickle. Labels of a plug-in become classes: class k has the label that `sample`
    draws for seed + k, and the layer that embeds labels takes one-hot classes.

    Raises DataError or HostError if they cannot be made."""
    G, sampler, file = sample.load_generator(path, torch.device("cpu"))
    snapshot = open_pickle(file)
    source = snapshot.network("G_ema")
    drawn = sampler is not None and bool(G.c_dim) and not sampler.classes
    complete = generators.with_module_of_run(source, file)
    if sampler is not None and drawn:
        labels = [sample.label_of(sampler, G, seed + k) for k in range(classes)]
        embedded = torch.stack(labels).float().cpu()  # [K, E]
        layer = {  # the hosts' layer is y = W c / sqrt(K) + b
            "mapping.embed.weight": embedded.T.contiguous() * math.sqrt(classes),
            "mapping.embed.bias": torch.zeros_like(source.tensors["mapping.embed.bias"]),
        }
        source = dataclasses.replace(
            source, init_kwargs={**source.init_kwargs, "c_dim": classes}, tensors={**source.tensors, **layer}
        )
    G_ema = networks.build(source, f"G_ema of {file}", complete)
    raw = snapshot.networks.get("G")
    first = copy.deepcopy(G_ema) if drawn or raw is None else networks.build(raw, f"G of {file}", complete)
    D = networks.build(snapshot.network("D"), f"D of {file}")
    return Stock(first, D, G_ema, source, drawn, bool(snapshot.notes), file, complete)


def write_file(path: Path, out: Path, classes: int, seed: int = 0) -> None:
    """Write G_ema and D as safetensors if `out` ends in .safetensors, else as a stock pickle. A pickle needs a run that
    a plug-in conditions, or converted networks of another program.

    Raises DataError for a pickle that stock tools take as it is, for a generator that safetensors cannot hold, or if
    the file cannot be written."""
    if out.suffix.lower() == ".safetensors":
        _write(out, _both(run_folders.newest_pickle(path), out))
        return
    stock = stock_of(path, classes, seed)
    if not stock.drawn and not stock.converted:
        raise DataError(
            f"{stock.file}: this generator is not conditioned by a plug-in, and stock tools take it as it is; or its "
            "pickle does not lie in the directory of its run. To share it, give --outdir, or --out=FILE.safetensors."
        )
    _write(out, stock.pickled())


def _both(pickle: Path, out: Path) -> bytes:
    """Return G_ema, and D if it was trained, unchanged, as safetensors."""
    snapshot = open_pickle(pickle)
    G = snapshot.network("G_ema")
    plugin = without_D(run_folders.read_options(pickle.parent))
    D = None if plugin else snapshot.network("D")
    if plugin:
        tell(f"Without D: it was not trained, as the run had --plugin={plugin}.", err=True)
    if generators.has_module(G):
        raise DataError(f"--out={out}: {pickle} has a module of a plug-in before its mapping network. Give --outdir.")
    return portable.dump(G, _about(pickle, G.init_kwargs.get("c_dim", 0)), D)


def _about(file: Path, classes: int) -> Description:
    names = run_folders.class_names(file)
    return Description(networks.host_family(), names if len(names) == classes else ())


def write_folder(path: Path, outdir: Path, classes: int, seed: int, report: Callable[[str], None]) -> None:
    """Write a folder that others can use: network.pkl, G_ema.safetensors, G_ema.onnx, samples.png and README.md.

    It appears when it is complete. report: called with lines about the progress. Raises DataError, HostError or
    OptionError, also if images of ONNX and of PyTorch differ by more than TOLERANCE."""
    if outdir.exists() and not (outdir.is_dir() and not any(outdir.iterdir())):
        raise OptionError(f"--outdir={outdir}: is there already. Give a folder that is not there, or an empty one.")
    stock = stock_of(path, classes, seed)
    about = Description(networks.host_family()) if stock.drawn else _about(stock.file, stock.G_ema.c_dim)
    pickle_name, safetensors_name, onnx_name = run_folders.SHARED
    building = outdir.with_name(f"{outdir.name}.{os.getpid()}.tmp")
    try:
        _write(building / pickle_name, stock.pickled())
        notes = {}
        if generators.has_module(stock.source):
            notes[safetensors_name] = "it has a module of a plug-in before its mapping network"
        else:
            _write(building / safetensors_name, portable.dump(stock.source, about))
        G: Any = networks.build(networks.in_single_precision(stock.source), f"G_ema of {stock.file}", stock.complete)
        report(f"{onnx_name}: tracing the network, half a minute or more")
        try:
            _write(building / onnx_name, onnx_networks.write(G, about))
        except NotExpressible as error:
            notes[onnx_name] = str(error)
        else:
            report(f"{onnx_name}: {_check(G, building / onnx_name)}")
        for name, reason in notes.items():
            report(f"Without {name}: {reason}.")
        loaded = LoadedGenerator(G, None, building / pickle_name, about.classes)
        labels = [k % G.c_dim if G.c_dim else None for k in PICTURE_SEEDS]
        images = [loaded.sample(k, class_=label, as_="array") for k, label in zip(PICTURE_SEEDS, labels, strict=True)]
        with whole(building / "samples.png") as out:
            sample.sheet(images).save(out, format="PNG")
        text = model_card.text(stock.file, loaded, about, stock.drawn, notes)
        _write(building / "README.md", text.encode(errors="backslashreplace"))
        _put_in_place(building, outdir)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _write(file: Path, content: bytes) -> None:
    with whole(file) as out:
        out.write(content)


def _put_in_place(building: Path, outdir: Path) -> None:
    try:
        if outdir.is_dir():  # empty
            outdir.rmdir()
        building.rename(outdir)
    except OSError as error:
        raise DataError(f"{outdir} cannot be written ({error.strerror}).") from error


def _check(G: Any, file: Path) -> str:
    """Return a line on the largest difference between images of an ONNX file and of G. Raises DataError if it is above
    TOLERANCE."""
    theirs = OnnxNetwork(file)
    z = torch.from_numpy(np.random.RandomState(0).randn(CHECKED, G.z_dim)).float()
    c = torch.eye(G.c_dim)[torch.arange(CHECKED) % G.c_dim] if G.c_dim else torch.zeros([CHECKED, 0])
    with torch.no_grad():
        largest = max(
            float((G.synthesis(G.mapping(z, c, truncation_psi=psi), noise_mode="const") - other).abs().max())
            for psi in (sample.TRUNCATION, 1.0)
            for other in [theirs.synthesis(theirs.mapping(z, c, truncation_psi=psi))]
        )
    if not largest <= TOLERANCE:
        raise DataError(
            f"{file.name}: images differ from PyTorch's by up to {largest:.2g} of values in [-1, 1]; {TOLERANCE:g} is "
            "allowed. Nothing was written. Try another version of onnx or onnxruntime."
        )
    return f"the largest difference from PyTorch is {largest:.1e}, of values in [-1, 1] ({TOLERANCE:g} is allowed)"
