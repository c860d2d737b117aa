"""Features of a frozen network at four scales, as Projected GAN reads them (training_ext.projected)."""

from __future__ import annotations

import torch
from torch.nn.functional import interpolate

from stylegan_plugins.vision.networks import UNFIT, Backbone
from training_ext.projected import END, KERNEL, LEVELS, SIDES

STRIDES = (4, 8, 16, 32)  # pixels of the image to one of a level


class Pyramid:
    """Four levels of features of a frozen network, each of half the side of the one before.

    A convolutional or hierarchical network gives the last four of its sizes, a transformer with tokens of one size
    those after each quarter of its blocks, as maps that are resized to STRIDES (ours). It is a plain object and not a
    module: no optimiser, state or pickle gets the network.

    backbone  whose `size` becomes that of the images which it sees
    side      of the images, in pixels. Smaller ones than those of the network's training are enlarged to its size;
              larger ones are taken as they are, or reduced where the network takes no other size

    Raises ValueError for a network that does not give such features."""

    def __init__(self, backbone: Backbone, side: int) -> None:
        self.backbone = backbone
        reductions = [level["reduction"] for level in getattr(backbone.model, "feature_info", [])]
        last = {reduction: index for index, reduction in enumerate(reductions)}  # of each size
        self.has_tokens = len(last) == 1 and len(reductions) >= LEVELS
        if self.has_tokens:
            self.indices = [len(reductions) * (k + 1) // LEVELS - 1 for k in range(LEVELS)]
        elif len(last) >= LEVELS:
            self.indices = sorted(last.values())[-LEVELS:]
        else:
            raise ValueError(f"it has features of {len(last)} sizes, and {LEVELS} are needed")
        faults = []
        for size in dict.fromkeys((max(side, backbone.size), backbone.size)):
            backbone.size = size
            try:
                with torch.no_grad():
                    levels = self(torch.zeros([1, 3, side, side], device=backbone.mean.device))
            except UNFIT as error:
                faults.append(" ".join(str(error).split()))
                continue
            self.channels = [level.shape[1] for level in levels]
            smallest = 2 * levels[-1].shape[-1] // (SIDES[-1] // END)
            if smallest < KERNEL:
                raise ValueError(f"its features of images of {size}x{size} are too small")
            return
        raise ValueError(f"it gives no such features ({faults[-1]})")

    def __call__(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Return the levels [N, C, h, w], level 0 the finest, of images [N, C, H, W] in [-1, 1], C 1 or 3."""
        side = self.backbone.size
        if images.shape[-1] < side:  # by interpolation alone, as in the authors' code
            images = interpolate(images, size=(side, side), mode="bilinear", align_corners=False)
        levels = self.backbone.model.forward_intermediates(
            self.backbone.prepare(images), indices=self.indices, output_fmt="NCHW", intermediates_only=True
        )
        if self.has_tokens:
            levels = [
                interpolate(level, size=(side // stride,) * 2, mode="bilinear", align_corners=False, antialias=True)
                for level, stride in zip(levels, STRIDES, strict=True)
            ]
        return levels
