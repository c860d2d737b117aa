"""The arguments of the hosts' networks, inferred from the names and shapes of their tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch

Tensors = Mapping[str, torch.Tensor]
Kwargs = dict[str, Any]

# Names of buffers; all other tensors are trained.
BUFFER = re.compile(
    r"(.*\.)?(w_avg|noise_const|resample_filter|freqs|phases|transform|magnitude_ema|up_filter|down_filter)"
)
# Arguments that no shape shows, with the values of the hosts' train.py.
ASSUMED = {"conv_clamp": 256}
UNKNOWN = "conv_clamp 256, activation lrelu, mapping lr_multiplier 0.01"


def stylegan2_generator(tensors: Tensors) -> Kwargs:
    """Return the arguments of a Generator of StyleGAN2, in the order of stylegan2-ada-pytorch."""
    channels = _channels(tensors, r"synthesis\.b(\d{1,5})\.conv1\.weight")
    side = max(channels)
    synthesis = {**_widths(channels), "num_fp16_res": 0}
    if f"synthesis.b{side}.skip.weight" in tensors:
        synthesis["architecture"] = "resnet"
    elif side > 4 and "synthesis.b4.torgb.weight" not in tensors:
        synthesis["architecture"] = "orig"
    if "synthesis.b4.conv1.noise_strength" not in tensors:
        synthesis["use_noise"] = False
    colors = tensors[f"synthesis.b{side}.torgb.weight"].shape[0]
    return {
        **_latents(tensors, tensors["synthesis.b4.conv1.affine.weight"].shape[1]),
        **{"img_resolution": side, "img_channels": colors, "synthesis_kwargs": synthesis},
    }


def stylegan3_generator(tensors: Tensors) -> Kwargs:
    """Return the arguments of a Generator of StyleGAN3: its layers are named L<number>_<size>_<channels>."""
    found = (re.fullmatch(r"synthesis\.(L(\d{1,5})_(\d{1,5})_(\d{1,5}))\.weight", name) for name in tensors)
    layers = sorted((int(m[2]), int(m[3]), int(m[4]), m[1]) for m in found if m)
    last, side, colors, _ = layers[-1]
    first = f"synthesis.{layers[0][3]}"
    kernel = tensors[f"{first}.weight"].shape[-1]
    return {
        **_latents(tensors, tensors[f"{first}.affine.weight"].shape[1]),
        **{"img_resolution": side, "img_channels": colors, "num_layers": last},
        # Channels are channel_base / 2 / cutoff; the cutoff of the last layer before colors is half the resolution.
        **{"channel_base": side * layers[-2][2], "channel_max": max(layer[2] for layer in layers[:-1])},
        **{"conv_kernel": kernel, "use_radial_filters": kernel == 1, "num_fp16_res": 0},
    }


def discriminator(tensors: Tensors) -> Kwargs:
    """Return the arguments of a Discriminator."""
    channels = _channels(tensors, r"b(\d{1,5})\.conv0\.weight")
    side = max(channels, default=4)
    channels[4], seen = tensors["b4.conv.weight"].shape[:2]
    architecture = "skip" if "b4.fromrgb.weight" in tensors else "orig"
    if f"b{side}.skip.weight" in tensors:
        architecture = "resnet"
    kwargs = {
        **{"c_dim": 0, "img_resolution": side, "img_channels": tensors[f"b{side}.fromrgb.weight"].shape[1]},
        **{"architecture": architecture, **_widths(channels), "num_fp16_res": 0},
        "epilogue_kwargs": {"mbstd_num_channels": seen - channels[4]},
    }
    if "mapping.embed.weight" in tensors:
        width = tensors["b4.out.weight"].shape[0]
        mapping = _latents(tensors, width)
        kwargs |= {"c_dim": mapping["c_dim"], "cmap_dim": width, "mapping_kwargs": mapping["mapping_kwargs"]}
    return kwargs


def _latents(tensors: Tensors, w_dim: int) -> Kwargs:
    """Return the arguments of a mapping network."""
    layers = sum(re.fullmatch(r"mapping\.fc\d+\.weight", name) is not None for name in tensors)
    embed = tensors.get("mapping.embed.weight")
    features, c_dim = (0, 0) if embed is None else embed.shape
    kwargs: Kwargs = {"num_layers": layers}
    if features not in (0, w_dim):
        kwargs["embed_features"] = features
    if layers > 1 and (hidden := tensors["mapping.fc0.weight"].shape[0]) != w_dim:
        kwargs["layer_features"] = hidden
    z_dim = tensors["mapping.fc0.weight"].shape[1] - features
    return {"z_dim": z_dim, "c_dim": c_dim, "w_dim": w_dim, "mapping_kwargs": kwargs}


def _channels(tensors: Tensors, pattern: str) -> dict[int, int]:
    """Return the channels of each resolution."""
    found = ((re.fullmatch(pattern, name), value) for name, value in tensors.items())
    return {int(match[1]): value.shape[0] for match, value in found if match}


def _widths(channels: Mapping[int, int]) -> Kwargs:
    """Return a channel_base and channel_max: channels are min(channel_base / resolution, channel_max)."""
    return {
        "channel_base": max(side * width for side, width in channels.items()),
        "channel_max": max(channels.values()),
    }
