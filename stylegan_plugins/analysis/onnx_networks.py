"""Generators as ONNX: exported from a network of a host, and run by onnxruntime, without a host.

Inputs are z [N, z_dim], truncation [] and, with classes, c [N, classes]. Outputs are image [N, C, H, W] in [-1, 1] and
w [N, num_ws, w_dim]. Noise is constant, weights are in single precision."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from stylegan_plugins.errors import DataError, require
from stylegan_plugins.files import json_lines
from stylegan_plugins.files.portable import KEY, Description
from stylegan_plugins.host.families import HOSTS, STYLEGAN3

OPSET = 18
PACKAGES = ("onnx", "onnxruntime", "onnxscript")
NETWORKS = sorted({name for family in HOSTS.values() for name in family.networks})
SIZES = ("z_dim", "c_dim", "w_dim", "num_ws", "img_resolution", "img_channels")


class NotExpressible(DataError):
    """An error for a network that the exporter cannot express as ONNX."""


class WholeGenerator(torch.nn.Module):
    """A generator of a host, in the form that is exported."""

    def __init__(self, G: Any) -> None:
        super().__init__()
        self.G = G

    def forward(
        self, z: torch.Tensor, truncation: torch.Tensor, c: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return image and w."""
        average = self.G.mapping.w_avg
        w = average + (self.G.mapping(z, c) - average) * truncation
        return self.G.synthesis(w, noise_mode="const"), w


def modulated(
    x: torch.Tensor,
    w: torch.Tensor,
    s: torch.Tensor,
    demodulate: bool = True,
    padding: int | list[int] = 0,
    input_gain: torch.Tensor | None = None,
) -> torch.Tensor:
    """Compute the modulated convolution of StyleGAN3 (Karras et al. 2021, arXiv:2106.12423): scale the inputs,
    convolve, scale the outputs. The host's version has a group of weights for each image, which fixes the batch size.

    x [N, I, H, W], w [O, I, k, k], s [N, I], input_gain broadcast to [N, I]; returns [N, O, H', W']."""
    if demodulate:
        w = w * w.square().mean([1, 2, 3], keepdim=True).rsqrt()
        s = s * s.square().mean().rsqrt()
    scale = s if input_gain is None else s * input_gain
    found = torch.nn.functional.conv2d(x * scale[:, :, None, None].to(x.dtype), w.to(x.dtype), padding=padding)
    if demodulate:
        lengths = (s.square() @ w.square().sum([2, 3]).T + 1e-8).rsqrt()  # [N, O]
        found = found * lengths[:, :, None, None].to(x.dtype)
    return found


@contextlib.contextmanager
def _any_batch() -> Iterator[None]:
    """Let convolutions of the host's networks take any batch size: do not fuse weights and styles."""
    with contextlib.ExitStack() as undo:
        for name in NETWORKS:
            if importlib.util.find_spec(name) is None:
                continue
            module = importlib.import_module(name)
            unfused = (
                modulated if name == STYLEGAN3.networks[1] else partial(_unfused, vars(module)["modulated_conv2d"])
            )
            undo.enter_context(mock.patch.object(module, "modulated_conv2d", unfused))
        yield


def _unfused(host: Callable[..., torch.Tensor], *args: Any, **kwargs: Any) -> torch.Tensor:
    return host(*args, **{**kwargs, "fused_modconv": False})


def write(G: Any, about: Description) -> bytes:
    """Return a generator of either family as an ONNX file. G: on the CPU, in single precision.

    Raises DataError if a package is missing, NotExpressible if the exporter cannot express it."""
    for package in PACKAGES:
        require(package, "share")
    batch = torch.export.Dim("batch")
    z, labels = torch.zeros([2, G.z_dim]), torch.zeros([2, G.c_dim])
    arguments = (z, torch.tensor(0.5), *([labels] if G.c_dim else []))
    dynamic = ({0: batch}, {}, *([{0: batch}] if G.c_dim else []))
    try:
        with _quiet(), _any_batch():
            program = torch.onnx.export(
                WholeGenerator(G).eval(),
                arguments,
                dynamo=True,
                opset_version=OPSET,
                dynamic_shapes=dynamic,
                input_names=["z", "truncation", *(["c"] if G.c_dim else [])],
                output_names=["image", "w"],
                verbose=False,
            )
    except (torch.onnx.OnnxExporterError, RuntimeError, TypeError, ValueError) as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        why = f"{type(cause).__name__}: {' '.join(str(cause).split())[:200]}"
        raise NotExpressible(f"PyTorch's exporter cannot express this network ({why})") from error
    assert program is not None  # None only if it is written to a file
    sizes = {name: getattr(G, name) for name in SIZES}
    described = {"family": about.family, "classes": list(about.classes), **sizes}
    model = program.model_proto
    return _stripped(model, json.dumps(described)).SerializeToString()


def _stripped(model: Any, described: str) -> Any:
    """Remove the exporter's notes on this machine, such as paths of source files. Add our description."""
    import onnx

    del model.metadata_props[:]
    for part in (*model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output):
        part.doc_string = ""
        del part.metadata_props[:]
    for function in model.functions:
        for part in function.node:
            part.doc_string = ""
            del part.metadata_props[:]
    del model.graph.metadata_props[:]
    model.graph.doc_string = model.doc_string = ""
    onnx.helper.set_model_props(model, {KEY: described})
    return model


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's messages about itself from the user's terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


class OnnxNetwork(torch.nn.Module):
    """A generator that onnxruntime runs on the CPU, with the attributes and methods of the hosts' networks that this
    package uses.

    Raises DataError for a file that `write` did not make."""

    def __init__(self, file: Path) -> None:
        for package in PACKAGES[:2]:
            require(package, "share")
        super().__init__()
        self.file = file
        self.about, sizes, halves = _halves_of(file)
        self.z_dim, self.c_dim, self.w_dim = (sizes[name] for name in SIZES[:3])
        self.num_ws, self.img_resolution, self.img_channels = (sizes[name] for name in SIZES[3:])
        self.device_of = torch.nn.Parameter(torch.zeros([]), requires_grad=False)
        self._map, self._make = halves
        self.mapping, self.synthesis = _Called(self._mapped), _Called(self._made)

    def _mapped(self, z: torch.Tensor, c: torch.Tensor | None = None, truncation_psi: float = 1) -> torch.Tensor:
        return self._run(self._map, z=z, c=c, truncation=torch.tensor(truncation_psi))

    def _made(self, ws: torch.Tensor, noise_mode: str = "const") -> torch.Tensor:
        if noise_mode != "const":
            raise DataError(f"{self.file} has constant noise. For metrics give the run, its pickle or its safetensors.")
        blank = {"z": torch.zeros([len(ws), self.z_dim]), "c": torch.zeros([len(ws), self.c_dim])}
        return self._run(self._make, w=ws, truncation=torch.ones([]), **blank)

    def _run(self, session: Any, **inputs: torch.Tensor | None) -> torch.Tensor:
        takes = [entry.name for entry in session.get_inputs()]
        arrays = {name: np.asarray(inputs[name], dtype=np.float32) for name in takes}
        return torch.from_numpy(session.run(None, arrays)[0])


class _Called(torch.nn.Module):
    """A part of a generator that is a function."""

    def __init__(self, function: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.forward = function


def _halves_of(file: Path) -> tuple[Description, dict[str, int], tuple[Any, Any]]:
    """Return the description, sizes by name, and sessions of the mapping and the synthesis network of a file."""
    import onnx
    import onnxruntime
    from google.protobuf.message import DecodeError
    from onnxruntime.capi import onnxruntime_pybind11_state as states

    refused = tuple(cls for cls in vars(states).values() if isinstance(cls, type) and issubclass(cls, Exception))
    run = lambda part: onnxruntime.InferenceSession(part.SerializeToString(), providers=["CPUExecutionProvider"])
    try:
        model = onnx.load_from_string(file.read_bytes())
        described = json_lines.parse({entry.key: entry.value for entry in model.metadata_props}[KEY])
        sizes = {name: int(described[name]) for name in SIZES}
        inputs = ["z", "truncation", *(["c"] if sizes["c_dim"] else [])]
        halves = onnx.utils.Extractor(model)
        mapping = run(halves.extract_model(inputs, ["w"]))
        synthesis = run(halves.extract_model([*inputs, "w"], ["image"]))  # it may take the batch size from z
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error.strerror}).") from error
    except (DecodeError, ValueError, TypeError, LookupError, AssertionError, RuntimeError, *refused) as error:
        raise DataError(
            f"{file} is not an ONNX file of `stylegan-plugins export`. Give G_ema.onnx of a folder that it wrote."
        ) from error
    return Description.of(described), sizes, (mapping, synthesis)
