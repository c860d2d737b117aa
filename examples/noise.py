"""Instance noise: Gaussian noise on all that D sees (Sønderby et al. 2017, arXiv:1610.04490)."""

from dataclasses import dataclass

import torch

from stylegan_plugins import hookimpl
from stylegan_plugins.options import option
from training_ext.parts import Augmentation


@dataclass(frozen=True)
class NoiseOptions:
    sigma: float = option(0.1, "standard deviation, images span [-1, 1]; 0 = off", minimum=0)


@hookimpl
def options():
    return NoiseOptions


@hookimpl
def register_augmentations(session):
    sigma = session.options("noise").sigma

    def transform(images):
        return images + sigma * torch.randn_like(images) if sigma else images, {}

    return [Augmentation("noise", transform)]
