"""Layouts of published weights: maps from names of other packages to names of our networks.

Each map is data, or a small function on a state dict: name -> tensor. `fitted` tries all of them, and takes the one
with most of the names that a network expects."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Any

import torch

State = dict[str, torch.Tensor]
# Keys of the weights in a checkpoint, which also has an optimiser and more: OpenMMLab, anti-aliased CNNs; Swin, MoBY.
NESTED = ("state_dict", "model")
# Prefixes of the names of a backbone within a larger network: several processes; mmdetection, mmsegmentation; MoBY;
# face normals.
PREFIXES = ("module.", "backbone.", "encoder.", "base_model.")
COUNTERS = "num_batches_tracked"  # of batch normalisation, which PyTorch has since 0.4.1; without effect in evaluation

_MM = (  # OpenMMLab's name of a part of Swin -> the original one
    (r"^stages\.", "layers."),
    (r"^patch_embed\.projection\.", "patch_embed.proj."),
    (r"\.attn\.w_msa\.", ".attn."),
    (r"\.ffn\.layers\.0\.0\.", ".mlp.fc1."),
    (r"\.ffn\.layers\.1\.", ".mlp.fc2."),
)
_VGG = (  # torchvision's name of a classifier's layer -> timm's
    (r"^classifier\.0\.", "pre_logits.fc1."),
    (r"^classifier\.3\.", "pre_logits.fc2."),
    (r"^classifier\.6\.", "head.fc."),
)


def unwrapped(content: Any) -> State:
    """Return the tensors by name of a state dict, or of a checkpoint that contains one; empty without one."""
    while isinstance(content, dict):
        inner = next((content[key] for key in NESTED if isinstance(content.get(key), dict)), None)
        if inner is None:
            return {name: value for name, value in content.items() if isinstance(value, torch.Tensor)}
        content = inner
    return {}


def _renamed(state: State, rules: Collection[tuple[str, str]]) -> State:
    renamed = {}
    for name, value in state.items():
        for pattern, new in rules:
            name = re.sub(pattern, new, name)
        renamed[name] = value
    return renamed


def _swin_of_openmmlab(state: State) -> State:
    """Return a state dict with the original names, and the original order of the four pixels that are merged.
    OpenMMLab has the order of Unfold, with the channel first and rows before columns."""

    def ordered(value: torch.Tensor) -> torch.Tensor:  # [..., 4C]
        return value.unflatten(-1, (-1, 4))[..., [0, 2, 1, 3]].transpose(-1, -2).flatten(-2)

    return {name: ordered(value) if ".downsample." in name else value for name, value in _renamed(state, _MM).items()}


def _swin_of_timm(state: State) -> State:
    """Return a state dict with timm's names. The original merges patches after a stage, timm before the next one, and
    timm has the last normalisation alone."""

    def later(found: re.Match) -> str:
        return f"layers.{int(found[1]) + 1}.downsample."

    moved = {re.sub(r"^layers\.(\d+)\.downsample\.", later, name): value for name, value in state.items()}
    return _renamed(moved, [(r"^norm3\.", "norm."), (r"^head\.(weight|bias)$", r"head.fc.\1")])


def _vgg_of_timm(state: State) -> State:
    """Return a state dict in timm's layout, whose classifier consists of convolutions."""
    shapes = {"pre_logits.fc1.weight": (512, 7, 7), "pre_logits.fc2.weight": (4096, 1, 1)}
    renamed = _renamed(state, _VGG)
    return {
        name: value.reshape(-1, *shapes[name]) if name in shapes and value.ndim == 2 else value
        for name, value in renamed.items()
    }


def _candidates(state: State) -> Iterator[State]:
    """Yield a state dict as each of the known layouts reads it."""
    yield state
    if any(name.startswith("stages.") and ".w_msa." in name for name in state):
        yield (state := _swin_of_openmmlab(state))
    if any(name.startswith("layers.") for name in state):
        yield _swin_of_timm(state)
    if "classifier.0.weight" in state:
        yield _vgg_of_timm(state)


def _readings(state: State) -> Iterator[State]:
    """Yield a state dict, and the parts of it under each prefix, as each of the known layouts reads it."""
    yield from _candidates(state)
    for prefix in PREFIXES:
        within = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        if within:
            yield from _readings(within)


def fitted(state: State, wanted: Collection[str]) -> State:
    """Return a state dict read by the known layout that lacks the fewest of the wanted names.

    state: tensors by name, possibly among the tensors of a larger network"""
    return min(_readings(state), key=lambda reading: len(set(wanted) - set(reading)))
