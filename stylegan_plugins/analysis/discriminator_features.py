"""Features of images in a discriminator of the hosts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

import torch

from training_ext.passes import read

LAYERS: dict[str, str] = {"conv": "b4.conv", "fc": "b4.fc"}
"""D's last layers: `conv` is the flattened output of the last convolution, `fc` that of the last hidden layer."""


def layers_of(D: torch.nn.Module) -> list[str]:
    """Return all layers that can be read, from the image to the logits: D's blocks, the last of which is read twice."""
    blocks = [name for name, _ in D.named_children() if re.fullmatch(r"b\d+", name) and name != "b4"]
    return [*sorted(blocks, key=lambda name: -int(name[1:])), *LAYERS]


@torch.no_grad()
def features_of(
    D: torch.nn.Module,
    images: Callable[[torch.Tensor], torch.Tensor],
    labels: torch.Tensor,
    layers: Iterable[str],
    batch: int,
) -> Iterator[dict[str, torch.Tensor]]:
    """Yield features {layer: [n, F]} on the CPU of as many images as there are labels [M, c_dim], in batches of a fixed
    size. Blocks are averaged over their pixels. images: from indices [n] to images [n, C, H, W] in [-1, 1].

    The last batch is filled up with images from the front, whose features are left out: minibatch standard deviation
    takes groups of a fixed size, and its statistics should be those of full groups."""
    device = next(D.parameters()).device
    names = {layer: LAYERS.get(layer, layer) for layer in sorted(layers)}
    for start in range(0, len(labels), batch):
        index = torch.arange(start, start + batch) % len(labels)
        count = min(batch, len(labels) - start)
        _, found = read(D, names.values(), images(index).to(device), labels[index].to(device))
        yield {layer: _vectors(layer, found[name])[:count].cpu() for layer, name in names.items()}


def _vectors(layer: str, output: torch.Tensor) -> torch.Tensor:
    return output.flatten(1) if layer in LAYERS else output.mean(dim=[2, 3])
