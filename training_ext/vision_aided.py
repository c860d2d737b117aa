"""Vision-aided adversarial training: decoders of frozen features and their augmentation. Losses: vision_losses.py.

Kumari, Zhang, Shechtman, Zhu 2022 (arXiv:2112.09130). Equations and symbols: docs/methods/vision_aided.md. Needs a
host, since the decoders consist of its layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from stylegan_plugins.host.networks import host_class
from training_ext.ada import AdaptiveProbability
from training_ext.diffaugment import DiffAugment
from training_ext.labels import matched

# Decoders. ----------------------------------------------------------------------------------------


class Decoder(torch.nn.Module):
    """C_k, a trainable decoder of the levels of a backbone: maps [N, C, h, w] and a vector [N, F], or one map.

    With a vector (`MultiLevelDViT` of the authors' StyleGAN2 fork): logits at each pixel of each map after a 3x3
    convolution, and one logit for the vector. With one map alone (`SimpleD`): one logit. Convolutions are the host's,
    with equalised learning rate and low-pass filtered down-sampling.

    shapes    of the levels without N, from `stylegan_plugins.vision.networks.Levels`
    labels    width of the labels, 0: none. They are projected on the last hidden layer, as in the hosts' D."""

    def __init__(self, shapes: Sequence[Sequence[int]], labels: int = 0) -> None:
        super().__init__()
        conv, linear = host_class("Conv2dLayer"), host_class("FullyConnectedLayer")
        *maps, last = shapes
        # The authors' widths and strides for 7x7 tokens (CLIP's ViT-B/32) and 14x14 (DINO's ViT-B/16).
        fine = any(shape[1] > 8 for shape in maps)
        width = 128 if fine else 256
        self.maps = torch.nn.ModuleList(
            torch.nn.Sequential(
                conv(channels, width, kernel_size=3, down=2 if fine else 1, activation="lrelu"),
                conv(width, 1, kernel_size=1, down=2),
            )
            for channels, _, _ in maps
        )
        if len(last) == 1:
            self.last = torch.nn.Sequential(linear(last[0], width, activation="lrelu"))
        else:
            halved = conv(last[0], width, kernel_size=3, down=2, activation="lrelu")
            with torch.no_grad():
                features = halved(torch.zeros([1, *last], device="cpu")).numel()  # the device on which layers are made
            self.last = torch.nn.Sequential(halved, torch.nn.Flatten(), linear(features, width, activation="lrelu"))
        self.out = linear(width, 1)
        self.embed = linear(labels, width, bias=False) if labels else None

    def forward(self, levels: Sequence[torch.Tensor], labels: torch.Tensor) -> list[torch.Tensor]:
        """Return logits of each level, [N, h', w'] or, for the last one, [N, 1]. labels: [N, c_dim]."""
        logits = [decode(level).squeeze(1) for decode, level in zip(self.maps, levels[:-1], strict=True)]
        hidden = self.last(levels[-1])
        last = self.out(hidden)
        if self.embed is not None:
            last = last + matched(hidden, self.embed(labels))
        return [*logits, last]


# Augmentation. ------------------------------------------------------------------------------------


class AdaptiveAugment:
    """T_k: the host's ADA pipe with a separate p, then cutout, which is always on, as in the authors' loss. The last
    level's logits of real images control p."""

    def __init__(self, pipe: Any, target: float, kimg: float) -> None:
        self.pipe = pipe
        self.controller = AdaptiveProbability(pipe.p, target, kimg)
        self.cutout = DiffAugment(("cutout",))

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return self.cutout(self.pipe(images))[0]
