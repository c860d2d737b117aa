"""State dicts of the hosts' networks and of other programs, recognised by the names of tensors.

LAYOUTS has a table of names for each program with the hosts' architecture under other names. LACKING has a line for
each program with another architecture, and names the feature that the hosts lack."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from stylegan_plugins.errors import DataError
from stylegan_plugins.files import shapes
from stylegan_plugins.files.shapes import ASSUMED, BUFFER, UNKNOWN, Kwargs, Tensors
from stylegan_plugins.files.snapshots import Network

ROSINALITY = "rosinality's stylegan2-pytorch"


@dataclass(frozen=True)
class Layout:
    """A program's names for the tensors of a network.

    sign       a name that only this program uses
    class_name, kwargs   the hosts' class of this network, and a function of its arguments
    program    name of the program; "" for the hosts' own names
    convert    returns the tensors under the hosts' names; a name that it cannot convert stays as it is"""

    sign: str
    class_name: str
    kwargs: Callable[[Tensors], Kwargs]
    program: str = ""
    convert: Callable[[Tensors], dict[str, torch.Tensor]] = dict


@dataclass
class Found:
    """Networks by key (G, D, G_ema), and notes about them."""

    networks: dict[str, Network] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


# --- rosinality's stylegan2-pytorch: the same functions with the same gains; weights differ in axes of length 1. ---

_LAYER = {
    **{"conv.weight": "weight", "conv.modulation.weight": "affine.weight", "conv.modulation.bias": "affine.bias"},
    **{"noise.weight": "noise_strength", "activate.bias": "bias", "bias": "bias"},
    **{"conv.blur.kernel": "resample_filter", "upsample.kernel": "../resample_filter"},
}
_G_PLACES: tuple[tuple[str, Callable[[int], str]], ...] = (
    (r"style\.(\d{1,2})", lambda n: f"mapping.fc{n - 1}"),
    (r"conv1()", lambda n: "synthesis.b4.conv1"),
    (r"convs\.(\d{1,2})", lambda n: f"synthesis.b{8 << n // 2}.conv{n % 2}"),
    (r"to_rgb1()", lambda n: "synthesis.b4.torgb"),
    (r"to_rgbs\.(\d{1,2})", lambda n: f"synthesis.b{8 << n}.torgb"),
)


def _rosinality_generator(tensors: Tensors) -> dict[str, torch.Tensor]:
    out = {}
    for name, value in tensors.items():
        if name == "input.input":
            out["synthesis.b4.const"] = value[0]
        elif match := re.fullmatch(r"noises\.noise_(\d{1,2})", name):
            layer = int(match[1]) + 1
            place = "b4.conv1" if layer == 1 else f"b{4 << layer // 2}.conv{layer % 2}"
            out[f"synthesis.{place}.noise_const"] = value[0, 0]
        else:
            out.update([_renamed(name, value)])
    return out


def _renamed(name: str, value: torch.Tensor) -> tuple[str, torch.Tensor]:
    for pattern, place in _G_PLACES:
        if match := re.fullmatch(rf"{pattern}\.(.+)", name):
            layer, part = place(int(match[1] or 0)), _LAYER.get(match[2], match[2])
            if part.startswith("../"):
                layer, part = layer.rpartition(".")[0], part[3:]
            return f"{layer}.{part}", _in_shape(part, value)
    return name, value


def _in_shape(part: str, value: torch.Tensor) -> torch.Tensor:
    if part == "weight" and value.ndim == 5:
        return value[0]
    if part == "noise_strength":
        return value.reshape([])
    if part == "resample_filter":
        return value / value.sum()
    return value.flatten() if part == "bias" else value


_D_HEAD = {
    **{"final_conv.0.weight": "b4.conv.weight", "final_conv.1.bias": "b4.conv.bias"},
    **{"final_linear.0.weight": "b4.fc.weight", "final_linear.0.bias": "b4.fc.bias"},
    **{"final_linear.1.weight": "b4.out.weight", "final_linear.1.bias": "b4.out.bias"},
}
_D_LAYERS = {"conv1": "conv0", "conv2": "conv1", "skip": "skip"}


def _rosinality_discriminator(tensors: Tensors) -> dict[str, torch.Tensor]:
    blocks = sum(re.fullmatch(r"convs\.\d{1,2}\.conv1\.0\.weight", name) is not None for name in tensors)
    out = {}
    for name, value in tensors.items():
        new = _D_HEAD.get(name, name)
        if match := re.fullmatch(r"convs\.0\.[01]\.(weight|bias)", name):
            new = f"b{4 << blocks}.fromrgb.{match[1]}"
        elif match := re.fullmatch(r"convs\.(\d{1,2})\.(conv1|conv2|skip)\.\d\.(weight|bias|kernel)", name):
            part = match[3].replace("kernel", "resample_filter")
            new = f"b{8 << blocks - int(match[1])}.{_D_LAYERS[match[2]]}.{part}"
        out[new] = _in_shape(new.rpartition(".")[2], value)
    return out


LAYOUTS = (
    Layout("synthesis.b4.const", "Generator", shapes.stylegan2_generator),
    Layout("synthesis.input.freqs", "Generator", shapes.stylegan3_generator),
    Layout("b4.out.weight", "Discriminator", shapes.discriminator),
    Layout("conv1.conv.modulation.weight", "Generator", shapes.stylegan2_generator, ROSINALITY, _rosinality_generator),
    Layout("final_conv.0.weight", "Discriminator", shapes.discriminator, ROSINALITY, _rosinality_discriminator),
)

# Sign of an architecture that the hosts lack -> its program, and the difference.
LACKING = {
    "blocks.0.to_noise1.weight": (
        "lucidrains' stylegan2-pytorch",
        "it has two modulated convolutions at 4x4, where the hosts have one, a strength of noise for each channel, "
        "where they have one for each layer, and up-sampling with other borders",
    ),
    "synthesis.to_big.weight_orig": ("FastGAN, as in projected-gan", "its generator has no style network"),
    "to_rgbs.0.iwt.ll": ("SWAGAN", "its generator makes wavelets"),
}
_SIGNS = "|".join(re.escape(sign) for sign in (*(layout.sign for layout in LAYOUTS), *LACKING))
_MOST_PREFIXES = 16  # a limit, since each is compared with all names


def networks_of(name: str, data: Mapping[str, Any]) -> Found:
    """Return the networks whose state dicts are in a file, by G, D and G_ema.

    Raises DataError for an architecture that the hosts lack."""
    found, told = Found(), dict[str, list[str]]()
    for key, given in _state_dicts("", data):
        _refuse_lacking(name, given)
        for layout in (layout for layout in LAYOUTS if layout.sign in given):
            network = _network(name, layout, given)
            average = data.get("latent_avg")
            if isinstance(average, torch.Tensor) and average.shape == (network.init_kwargs.get("w_dim"),):
                network.tensors.setdefault("mapping.w_avg", average)
            role = "D" if layout.class_name == "Discriminator" else "G_ema" if re.search("(?i)ema", key) else "G"
            found.networks.setdefault(role, network)
            text = f"converted from {layout.program}" if layout.program else f"shapes do not say, so assumed: {UNKNOWN}"
            told.setdefault(text, []).append(key[:50] or "state dict")
    found.notes += [f"{name}: {', '.join(keys)}: {text}." for text, keys in told.items()]
    if "G" in found.networks and "G_ema" not in found.networks:  # commands use G_ema for images
        found.networks["G_ema"] = found.networks.pop("G")
    return found


def _refuse_lacking(name: str, tensors: Tensors) -> None:
    for sign, (program, why) in LACKING.items():
        if sign in tensors:
            raise DataError(
                f"{name} is of {program}, whose architecture the hosts lack: {why}. Make images with that program, or "
                "train from scratch here."
            )


def _state_dicts(key: str, data: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
    """Yield (key, tensors by name) of all networks in nested dictionaries; prefixes of names count as keys."""
    named = {name: value for name, value in data.items() if isinstance(name, str)}
    tensors = {name: value for name, value in named.items() if isinstance(value, torch.Tensor)}
    ends = (re.fullmatch(rf"((?:.*\.)?)(?:{_SIGNS})", name) for name in tensors)
    for prefix in list(dict.fromkeys(match[1] for match in ends if match))[:_MOST_PREFIXES]:
        inner = {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}
        yield f"{key}.{prefix}".strip("."), inner
    for name, value in named.items():
        if isinstance(value, dict):
            yield from _state_dicts(f"{key}.{name}".strip("."), value)


def _network(name: str, layout: Layout, given: Tensors) -> Network:
    try:
        tensors = {key: value.float() for key, value in layout.convert(given).items()}
        kwargs = layout.kwargs(tensors)
    except (LookupError, ValueError, TypeError, RuntimeError) as error:
        raise DataError(
            f"{name} has a {layout.class_name} that lacks a layer, or has one of another shape ({error!r}). Use "
            "another file."
        ) from error
    if not layout.program:
        kwargs.get("synthesis_kwargs", kwargs).update(ASSUMED)
    parameters = frozenset(key for key in tensors if not BUFFER.fullmatch(key))
    return Network(layout.class_name, (), kwargs, tensors, parameters)
