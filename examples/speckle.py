"""Speckle: noise on all that D sees, in proportion to each pixel."""

from dataclasses import dataclass
from types import SimpleNamespace

import torch

from stylegan_plugins import Augmentation, hookimpl, option


@dataclass(frozen=True)
class SpeckleOptions:
    sigma: float = option(0.1, "standard deviation, as a share of the pixel's value; 0 = off", minimum=0)


OPTIONS = SpeckleOptions


@hookimpl
def setup(options):
    draw = lambda images: {"noise": torch.randn_like(images)}
    change = lambda images, omega: images * (1 + options.sigma * omega["noise"])
    return SimpleNamespace(augmentations=[Augmentation("speckle", draw, change)] if options.sigma else [])
