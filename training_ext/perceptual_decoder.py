"""Perceptual discriminators: trainable stages on the maps of a frozen network at several scales.

Sungatullina, Zakharov, Ulyanov, Lempitsky 2018, Image Manipulation with Perceptual Discriminators (arXiv:1809.01396).
Symbols: f_i maps of the frozen network, from fine to coarse; h_i maps of the trainable stages.

    h_1 = g_1(f_1)        h_{i+1} = g_{i+1}([h_i, e_i(f_{i+1})])        logits: o_i(h_i)

g: 4x4 convolution with stride 2; e: 3x3 convolution; leaky ReLU 0.2 after both; [.,.]: along channels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch.nn.functional import conv2d, leaky_relu

from training_ext.labels import matched

WIDTH, WIDEST = 64, 256  # channels of h_1 and of the widest stage; they double from stage to stage
SMALL = 8  # side of the largest map that has logits


class EqualizedConv2d(torch.nn.Module):
    """A convolution with equalised learning rate: y = g W * x + b, g = gain / sqrt(fan-in), W ~ N(0, 1), b = 0.

    x [N, C, H, W]. gain: sqrt(2) before a ReLU, 1 for logits (Karras et al. 2018, arXiv:1710.10196, section 4.1)."""

    def __init__(
        self, channels: int, width: int, kernel: int, stride: int = 1, padding: int = 0, gain: float = 1.0
    ) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn([width, channels, kernel, kernel]))
        self.bias = torch.nn.Parameter(torch.zeros([width]))
        self.gain = gain / math.sqrt(channels * kernel**2)
        self.stride, self.padding = stride, padding

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return conv2d(x, self.weight * self.gain, self.bias, stride=self.stride, padding=self.padding)


class PerceptualDecoder(torch.nn.Module):
    """A decoder of maps at several scales to logits, at each pixel of every stage with a side of at most 8, and one for
    the image.

    Stages halve the map until its side is below 8 and the coarsest map has been read. With the authors' maps of 256 to
    16 pixels there are logits at 8x8 and 4x4 pixels and one for the image, as in their code.

    shapes   of the maps [C, h, w], from fine to coarse, each half as large as the one before
    labels   width of the labels, 0: none. They are projected on the mean of the last stage."""

    def __init__(self, shapes: Sequence[Sequence[int]], labels: int = 0) -> None:
        super().__init__()
        he = math.sqrt(2)
        (channels, side, _), *others = shapes
        entering = {shape[1]: shape[0] for shape in others}
        self.down, self.enter, self.out = torch.nn.ModuleList(), torch.nn.ModuleDict(), torch.nn.ModuleDict()
        width = WIDTH
        while side >= SMALL or side > min(entering):
            self.down.append(EqualizedConv2d(channels, width, kernel=4, stride=2, padding=1, gain=he))
            side, channels = side // 2, width
            if side in entering:
                self.enter[str(side)] = EqualizedConv2d(entering[side], width, kernel=3, padding=1, gain=he)
                channels = 2 * width
            if side <= SMALL:
                self.out[str(side)] = EqualizedConv2d(channels, 1, kernel=3, padding=1)
            width = min(2 * width, WIDEST)
        self.whole = EqualizedConv2d(channels, 1, kernel=side)
        self.embed = EqualizedConv2d(labels, channels, kernel=1) if labels else None

    def forward(self, levels: Sequence[torch.Tensor], labels: torch.Tensor) -> list[torch.Tensor]:
        """Return logits of each stage, [N, h, w], and the image, [N, 1]. levels: [N, C, h, w]; labels: [N, c_dim]."""
        hidden, *others = levels
        entering = {str(level.shape[2]): level for level in others}
        logits = []
        for down in self.down:
            hidden = leaky_relu(down(hidden), 0.2)
            side = str(hidden.shape[2])
            if side in self.enter:
                hidden = torch.cat([hidden, leaky_relu(self.enter[side](entering[side]), 0.2)], dim=1)
            if side in self.out:
                logits.append(self.out[side](hidden).squeeze(1))
        last = self.whole(hidden).flatten(1)
        if self.embed is not None:
            last = last + matched(hidden.mean(dim=[2, 3]), self.embed(labels[:, :, None, None]).flatten(1))
        return [*logits, last]
