"""Instance noise: Gaussian noise on all that D sees (Sønderby et al. 2017, arXiv:1610.04490)."""

from dataclasses import dataclass
from types import SimpleNamespace

import torch

from stylegan_plugins import Augmentation, hookimpl, option


@dataclass(frozen=True)
class NoiseOptions:
    sigma: float = option(0.1, "standard deviation, images span [-1, 1]; 0 = off", minimum=0)


OPTIONS = NoiseOptions


@hookimpl
def setup(options):
    draw = lambda images: {"noise": torch.randn_like(images)}
    add = lambda images, omega: images + options.sigma * omega["noise"]
    return SimpleNamespace(augmentations=[Augmentation("noise", draw, add)] if options.sigma else [])
