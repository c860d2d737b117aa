"""Frozen image networks: images of any size and channels in [-1, 1] to features. Needs timm."""

from __future__ import annotations

from typing import Any

import torch


class Backbone(torch.nn.Module):
    """A network that is never trained: no parameter requires gradient, and it stays in evaluation mode.

    model       a timm model
    mean, std   of the pixel values in [0, 1] that it was trained with, three each
    size        side of the images that it was trained with, in pixels"""

    model: Any
    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, model: torch.nn.Module, mean: tuple[float, ...], std: tuple[float, ...], size: int) -> None:
        super().__init__()
        self.model = model
        self.size = size
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])
        self.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> Backbone:
        return super().train(False)

    def prepare(self, images: torch.Tensor) -> torch.Tensor:
        """Images [N, C, H, W] in [-1, 1], C 1 or 3 -> what the model takes, [N, 3, size, size]."""
        if images.shape[1] == 1:
            images = images.expand(-1, 3, -1, -1)
        if images.shape[2:] != (self.size, self.size):
            images = torch.nn.functional.interpolate(
                images, size=(self.size, self.size), mode="bilinear", align_corners=False, antialias=True
            )
        return ((images + 1) / 2 - self.mean) / self.std

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """One vector for each image, [N, F]: what the model's classifier, if it has one, would read."""
        return self.model.forward_head(self.model.forward_features(self.prepare(images)), pre_logits=True)
