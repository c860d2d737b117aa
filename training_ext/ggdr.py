"""GGDR: a decoder on D's features predicts G's feature maps of the generated image that D sees.

Lee, Kim, Kim, Choi, "Generator Knows What Discriminator Should Learn in Unconditional GANs" (ECCV 2022,
arXiv:2207.13320). f_r are D's maps of r x r pixels; g_R are G's maps [N, C, R, R] of the same image, moved in the same
way as the augmentation moved the image; U doubles the sides:

    y_8 = U(W_8 f_4 + b_8),    y_2r = U(W_2r [y_r, f_r] + b_2r),    r = 8 .. R/2
    L_D += weight E_n (1 - mean over pixels of cos(y_R, g_R)),      the cosine over channels

D and decoder get gradients from generated images; G gets no gradient."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

LARGEST = 64  # the authors' resolution, for images of 256 pixels and more


def default_resolution(side: int) -> int:
    """Return R for images of this side: 64, or for small images a quarter of the side as the authors advise, at least
    8."""
    return min(LARGEST, max(side // 4, 8))


def resolutions(side: int) -> list[int]:
    """Return the possible R for images of this side: powers of two for which both D and G have maps."""
    return [2**k for k in range(3, side.bit_length())]


def doubled(maps: torch.Tensor) -> torch.Tensor:
    """Return maps [N, C, h, w] with twice the height and width, enlarged as in the hosts' layers: a zero after each
    value, then the filter [1, 3, 3, 1] / 4 along both axes."""
    line = maps.new_tensor([1.0, 3.0, 3.0, 1.0]) / 4
    channels = maps.shape[1]
    weight = line.outer(line).expand(channels, 1, 4, 4)
    return torch.nn.functional.conv_transpose2d(maps, weight, stride=2, padding=1, groups=channels)


class EqualizedPointwise(torch.nn.Module):
    """A convolution of 1x1 pixels with equalised learning rate: W [K, C] ~ N(0, 1), used as W / sqrt(C), and b = 0."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn([out_channels, channels, 1, 1]))
        self.bias = torch.nn.Parameter(torch.zeros([out_channels]))
        self.gain = 1 / math.sqrt(channels)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        # The bias comes after the filter, which pads with zeros.
        return doubled(torch.nn.functional.conv2d(maps, self.weight * self.gain)) + self.bias.reshape(1, -1, 1, 1)


class FeatureDecoder(torch.nn.Module):
    """A decoder of D's maps f_4 .. f_(R/2) to y_R.

    of_D: channels of D's maps by resolution, 4, 8, .. R/2; channels: of G's maps; resolution: R"""

    def __init__(self, of_D: Mapping[int, int], channels: int, resolution: int) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleDict()
        for r in sorted(of_D):
            given = of_D[r] if r == 4 else 2 * of_D[r]  # y_r has as many channels as f_r
            self.layers[str(2 * r)] = EqualizedPointwise(given, channels if 2 * r == resolution else of_D[2 * r])

    def forward(self, maps: Mapping[int, torch.Tensor]) -> torch.Tensor:
        """Return y_R, [N, C, R, R]. maps: D's [N, C_r, r, r] by r."""
        result: torch.Tensor | None = None
        for name, layer in self.layers.items():
            own = maps[int(name) // 2]
            result = layer(own if result is None else torch.cat([result, own], dim=1))
        assert result is not None  # R is 8 or more
        return result


def guidance_loss(predicted: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """Return 1 - mean over pixels of the cosine over channels, [N]. predicted, features: [N, C, R, R]."""
    return 1 - torch.nn.functional.cosine_similarity(predicted, features, dim=1).mean(dim=[1, 2])
