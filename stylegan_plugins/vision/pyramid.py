"""Features of a frozen network at four scales, as Projected GAN reads them (training_ext.projected)."""

from __future__ import annotations

import torch
from torch.nn.functional import interpolate

from stylegan_plugins.vision.networks import UNFIT, Backbone
from training_ext.projected import END, KERNEL, LEVELS, SIDES

STRIDES = (4, 8, 16, 32)  # image pixels per pixel of a level, along an axis


class Pyramid:
    """Four levels of features of a frozen network, each of half the side of the one before.

    A convolutional or hierarchical network gives its last four sizes of maps. A transformer with tokens of one size
    gives the tokens after each quarter of its blocks, as maps that are resized to STRIDES (our choice). A pyramid is
    not a module, so that optimisers, states and pickles do not contain the network.

    backbone  the network; its `size` is set to the side of its input images
    side      of the images, in pixels. Images smaller than in the network's training are enlarged to that size. Larger
              ones stay as they are, or are reduced if the network takes only one size

    Raises ValueError for a network without such features."""

    def __init__(self, backbone: Backbone, side: int) -> None:
        self.backbone = backbone
        reductions = [level["reduction"] for level in getattr(backbone.model, "feature_info", [])]
        last = {reduction: index for index, reduction in enumerate(reductions)}  # last map of each size
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
