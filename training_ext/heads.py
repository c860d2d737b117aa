"""Layers of heads that several methods share, and averages of modules.

Initial draws come from torch's default generator."""

from __future__ import annotations

import math

import torch

from training_ext.parts import Average


class EqualizedLinear(torch.nn.Module):
    """y = x W^T / sqrt(F) + b: a linear layer with equalised learning rate, x [N, F], y [N, K].

    W [K, F] ~ N(0, 1), b [K] = 0 at the start. The gain 1/sqrt(F) is applied when the layer runs, not when it is
    initialised, so that Adam's steps have the same relative size for every F (Karras et al. 2018, arXiv:1710.10196,
    section 4.1). The host's FullyConnectedLayer follows the same rule."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn([out_features, in_features]))
        self.bias = torch.nn.Parameter(torch.zeros([out_features]))
        self.gain = 1 / math.sqrt(in_features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(x, self.weight * self.gain, self.bias)


@torch.no_grad()
def update_average(average: Average) -> None:
    """Update a copy k of a module p: k <- decay k + (1 - decay) p for all parameters; buffers are copied."""
    for copy, parameter in zip(average.module.parameters(), average.source.parameters(), strict=True):
        copy.copy_(parameter.lerp(copy, average.decay))
    for kept, buffer in zip(average.module.buffers(), average.source.buffers(), strict=True):
        kept.copy_(buffer)
