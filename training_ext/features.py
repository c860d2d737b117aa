"""Reading the features of a discriminator of the hosts, from outside of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

from training_ext.parts import LAYERS


class Reading:
    """A context in which features of D are read by forward hooks, into the dictionary that it gives, [N, F] float32.

    layers: keys of LAYERS, whose output is flattened, or names of blocks of D ('b32'), whose output is averaged over
    its pixels. The hooks are gone afterwards: D is copied and pickled by the host, and nothing of ours may go with it.
    """

    def __init__(self, D: torch.nn.Module, layers: Iterable[str]) -> None:
        self.D = D
        self.layers = sorted(layers)

    def __enter__(self) -> dict[str, torch.Tensor]:
        features: dict[str, torch.Tensor] = {}

        def reader(layer: str):
            def read(module: torch.nn.Module, inputs: Any, output: Any) -> None:
                if layer in LAYERS:
                    features[layer] = output.flatten(1).float()
                else:  # a block gives its features and, in some architectures, an image
                    maps = output[0] if isinstance(output, tuple) else output
                    features[layer] = maps.float().mean(dim=[2, 3])

            return read

        self.hooks = [
            self.D.get_submodule(LAYERS.get(layer, layer)).register_forward_hook(reader(layer)) for layer in self.layers
        ]
        return features

    def __exit__(self, *error: object) -> None:
        for hook in self.hooks:
            hook.remove()


def layers_of(D: torch.nn.Module) -> list[str]:
    """All layers that can be read, from the image to the logits: D's blocks, the last of which is read twice."""
    blocks = [name for name, _ in D.named_children() if re.fullmatch(r"b\d+", name) and name != "b4"]
    return [*sorted(blocks, key=lambda name: -int(name[1:])), *LAYERS]


def minibatch_std_group(D: torch.nn.Module) -> int | None:
    """Group size of D's minibatch-stddev layer; 1 without such a layer, None if a group is the whole batch."""
    layer = getattr(D.get_submodule("b4"), "mbstd", None)
    return 1 if layer is None else layer.group_size


@torch.no_grad()
def features_of(
    D: torch.nn.Module,
    images: Callable[[torch.Tensor], torch.Tensor],
    labels: torch.Tensor,
    layers: Iterable[str],
    batch: int,
) -> Iterator[dict[str, torch.Tensor]]:
    """Features of as many images as there are labels [M, c_dim], in batches of a fixed size; yields {layer: [n, F]} on
    the CPU. images: from indices [n] to images [n, C, H, W] in [-1, 1].

    The last batch is filled up with images from the front, whose features are left out: minibatch standard deviation
    takes groups of a fixed size, and its statistics should be those of full groups."""
    device = next(D.parameters()).device
    for start in range(0, len(labels), batch):
        index = torch.arange(start, start + batch) % len(labels)
        count = min(batch, len(labels) - start)
        with Reading(D, layers) as features:
            D(images(index).to(device), labels[index].to(device))
        yield {layer: value[:count].cpu() for layer, value in features.items()}
