"""Decoders of frozen features with spectral normalisation, for training loops without a StyleGAN host.

Kumari, Zhang, Shechtman, Zhu 2022 (arXiv:2112.09130), as in the authors' package vision-aided-loss. The decoders in
their StyleGAN2 fork are different (training_ext.vision_aided). These have plain layers with spectral normalisation
(Miyato et al. 2018, arXiv:1802.05957) and BlurPool."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import Conv2d, LeakyReLU, Linear
from torch.nn.utils import spectral_norm

from training_ext.blurpool import BlurPool

WIDTH, WIDTH_FINE = 256, 128  # channels; the second for features with maps above 8x8 pixels
WIDE, NARROW = (2, 2, 2, 2), (1, 1, 1, 1)  # padding for 4 taps: the map grows, or shrinks, by one pixel


class SpectralDecoder(torch.nn.Module):
    """A trainable decoder of levels: maps [N, C, h, w] and a vector [N, F], one map, or one vector.

    A map beside a vector (`MultiLevelDViT` of the package) gives logits at its pixels. A single map (`SimpleD`) or
    vector (`MLPD`) gives one logit.

    shapes    of the levels without N, from `stylegan_plugins.vision.networks.Levels`
    classes   number of classes whose embedding is projected on the last hidden layer, 0: none"""

    def __init__(self, shapes: Sequence[Sequence[int]], classes: int = 0) -> None:
        super().__init__()
        *maps, last = shapes
        fine = any(shape[1] > 8 for shape in maps)
        width = WIDTH_FINE if fine else WIDTH
        self.maps = torch.nn.ModuleList(self._of_map(shape[0], width, fine) for shape in maps)
        if len(last) == 1:
            layers: list[torch.nn.Module] = [spectral_norm(Linear(last[0], width))]
        else:
            channels, height, breadth = last
            pixels = ((height + 1 - 3) // 2 + 1) * ((breadth + 1 - 3) // 2 + 1)
            layers = [BlurPool(channels, WIDE), spectral_norm(Conv2d(channels, width, kernel_size=3, stride=2))]
            layers += [LeakyReLU(0.2), torch.nn.Flatten(), spectral_norm(Linear(width * pixels, width))]
        self.last = torch.nn.Sequential(*layers, LeakyReLU(0.2))
        self.out = spectral_norm(Linear(width, 1))
        self.embed = torch.nn.Embedding(classes, width) if classes else None

    @staticmethod
    def _of_map(channels: int, width: int, fine: bool) -> torch.nn.Sequential:
        blur = BlurPool(channels, WIDE) if fine else torch.nn.Identity()
        convolution = spectral_norm(Conv2d(channels, width, 3, stride=2 if fine else 1, padding=0 if fine else 1))
        to_logits = spectral_norm(Conv2d(width, 1, kernel_size=1, stride=2))
        return torch.nn.Sequential(blur, convolution, LeakyReLU(0.2), BlurPool(width, NARROW), to_logits)

    def forward(self, levels: Sequence[torch.Tensor], labels: torch.Tensor | None = None) -> list[torch.Tensor]:
        """Return logits of each level, [N, h', w'] or, for the last one, [N, 1]. labels: classes [N], integers."""
        logits = [decode(level).squeeze(1) for decode, level in zip(self.maps, levels[:-1], strict=True)]
        hidden = self.last(levels[-1])
        last = self.out(hidden)
        if self.embed is not None:
            last = last + (self.embed(labels) * hidden).sum(dim=1, keepdim=True)
        return [*logits, last]
