"""Projected GAN: discriminators of several scales on random projections of a frozen network's features.

Sauer, Chitta, Müller, Geiger, "Projected GANs Converge Faster" (NeurIPS 2021, arXiv:2111.01007). Equations:
docs/methods/projected.md.

Symbols: four levels of features, level 0 the finest; CCM and CSM, cross-channel and cross-scale mixing, are random and
never trained. Initial draws come from torch's default generator."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch.nn.functional import interpolate, normalize

LEVELS = 4
WIDTHS = (64, 128, 256, 512)  # after CCM
MIXED = (64, 64, 128, 256)  # after CSM
SIDES = (128, 64, 32, 16)  # after CSM, for images of 256x256; they set the number of blocks for images of any size
CHANNELS = {64: 64, 32: 128, 16: 256, 8: 512}  # of a discriminator's features, by their side
END = 8  # side of the last convolution's input
KERNEL = 4  # of the last convolution, without padding
PROJECTED = 64  # width for comparing features and labels
EMBEDDED = 128  # width of an embedded label
SLOPE = 0.2  # of LeakyReLU


# The random projection. ---------------------------------------------------------------------------


class Mixing(torch.nn.Module):
    """CCM and CSM: random 1x1 convolutions of each level, and across levels from the coarsest to the finest.

        c_l = W_l f_l + b_l                                          CCM, to WIDTHS channels
        m_3 = V_3 up(c_3) + b'_3,   m_l = V_l up(m_{l+1} + c_l) + b'_l      CSM, to MIXED channels

    up: bilinear, corners aligned, to the size of the level above, twice the size for level 0. It commutes with a 1x1
    convolution, so the convolution comes first, at a quarter of the operations. channels: of the levels."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        conv = lambda c_in, c_out: torch.nn.Conv2d(c_in, c_out, kernel_size=1)
        self.ccm = torch.nn.ModuleList(conv(*widths) for widths in zip(channels, WIDTHS, strict=True))
        self.csm = torch.nn.ModuleList(conv(*widths) for widths in zip(WIDTHS, MIXED, strict=True))
        self.requires_grad_(False)

    def forward(self, levels: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Mix levels [N, C, h, w]; return the same number of levels, with twice the side."""
        mixed = [mix(level) for mix, level in zip(self.ccm, levels, strict=True)]
        result: list[torch.Tensor] = []
        for index in reversed(range(LEVELS)):
            given = mixed[index] + result[0] if result else mixed[index]
            size = levels[index - 1].shape[2:] if index else [2 * side for side in given.shape[2:]]
            result.insert(0, interpolate(self.csm[index](given), size=tuple(size), mode="bilinear", align_corners=True))
        return result


# The discriminators. ------------------------------------------------------------------------------


class SpectralConv(torch.nn.Conv2d):
    """A convolution by W / sigma(W), sigma the largest singular value of W as [K, F] (Miyato et al. 2018,
    arXiv:1802.05957): v = W^T u / |.|, u = W v / |.|, sigma = u . W v, in each pass with gradient; u and v constant.

    A pass without gradient does not change u."""

    u: torch.Tensor

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register_buffer("u", normalize(torch.randn([self.out_channels]), dim=0, eps=1e-12))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        W = self.weight.flatten(1)
        with torch.no_grad():
            v = normalize(W.T @ self.u, dim=0, eps=1e-12)
            u = normalize(W @ v, dim=0, eps=1e-12)
        if torch.is_grad_enabled():
            self.u.copy_(u)
        return self._conv_forward(x, self.weight / (u @ (W @ v)), self.bias)


def block(c_in: int, c_out: int, separable: bool) -> torch.nn.Sequential:
    """Make a block that halves the side: [N, c_in, h, w] -> [N, c_out, h/2, w/2].

    Batch norm always takes the statistics of the batch. Running statistics are not used."""
    if separable:
        convs = [
            SpectralConv(c_in, c_in, kernel_size=3, padding=1, groups=c_in, bias=False),
            SpectralConv(c_in, c_out, kernel_size=1, bias=False),
        ]
    else:
        convs = [SpectralConv(c_in, c_out, kernel_size=4, stride=2, padding=1)]
    normalised = [torch.nn.BatchNorm2d(c_out, track_running_stats=False), torch.nn.LeakyReLU(SLOPE, inplace=True)]
    return torch.nn.Sequential(*convs, *normalised, *([torch.nn.AvgPool2d(2)] if separable else []))


class LevelDiscriminator(torch.nn.Module):
    """The discriminator D_l: mixed features of one level to logits.

    channels   of the features
    side       one of SIDES: blocks halve it down to END
    separable  whether blocks are from the authors' StyleGAN2 configuration; else from FastGAN's
    labels     width of the labels, 0: none"""

    def __init__(self, channels: int, side: int, separable: bool, labels: int) -> None:
        super().__init__()
        sides = [side]
        while sides[-1] > END:
            sides.append(sides[-1] // 2)
        widths = [channels, *(CHANNELS[side] for side in sides[1:])]
        self.blocks = torch.nn.Sequential(*(block(*pair, separable) for pair in pairwise(widths)))
        self.out = SpectralConv(widths[-1], PROJECTED if labels else 1, kernel_size=KERNEL, bias=False)
        self.embed = torch.nn.Linear(labels, EMBEDDED, bias=False) if labels else None
        if self.embed is not None:
            torch.nn.init.normal_(self.embed.weight)
            self.project = torch.nn.Sequential(torch.nn.Linear(EMBEDDED, PROJECTED), torch.nn.LeakyReLU(SLOPE))

    def forward(self, features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return logits [N, K], one for each place, from features [N, C, h, w] and labels [N, c_dim]."""
        logits = self.out(self.blocks(features))
        if self.embed is not None:
            wanted = self.project(self.embed(labels))
            logits = (logits * wanted[:, :, None, None]).sum(dim=1) / math.sqrt(PROJECTED)
        return logits.flatten(1)


class ProjectedDiscriminator(torch.nn.Module):
    """All random and trained modules: CCM and CSM, and a discriminator for each level.

    channels   of the levels of the frozen network
    separable, labels    as in `LevelDiscriminator`"""

    def __init__(self, channels: Sequence[int], separable: bool = True, labels: int = 0) -> None:
        super().__init__()
        self.mixing = Mixing(channels)
        self.discriminators = torch.nn.ModuleList(
            LevelDiscriminator(*level, separable, labels) for level in zip(MIXED, SIDES, strict=True)
        )

    def forward(self, levels: Sequence[torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
        """Return logits of all levels, [N, K], from levels [N, C, h, w], the finest first, and labels [N, c_dim]."""
        mixed = self.mixing(levels)
        return torch.cat([D(features, labels) for D, features in zip(self.discriminators, mixed, strict=True)], dim=1)
