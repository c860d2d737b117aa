"""Blur: D sees randomly blurred images, and its features are asked not to depend on the blur.

x' = T(x; sigma),  sigma ~ U(0, s)              Gaussian blur, drawn for each image
L_D += w * mean_f (phi(x') - phi(x))^2          consistency (Zhang et al. 2020, arXiv:1910.12027)
"""

from dataclasses import dataclass
from functools import partial

import torch

from stylegan_plugins import hookimpl
from stylegan_plugins.options import option
from training_ext.parts import Augmentation, LossTerm

PAPER = "Zhang et al. 2020, Consistency Regularization for Generative Adversarial Networks, arXiv:1910.12027"


@dataclass(frozen=True)
class BlurOptions:
    sigma: float = option(1.0, "largest width of the blur, in pixels; 0 = off", minimum=0, maximum=8)
    weight: float = option(0.1, "factor on the consistency term; 0 = off", minimum=0)


def blur(images, sigma):
    """Blur images [N, C, H, W], each by a Gaussian of its own width: sigma [N], pixels. At the edges, pixels inside of
    the image share the weight of those outside."""
    rows, columns = (gaussian(size, sigma).to(images.dtype) for size in images.shape[2:])
    return rows @ images @ columns.transpose(2, 3)


def gaussian(size, sigma):
    """Weights of pixel j in blurred pixel i, [N, 1, size, size]; they sum to 1."""
    position = torch.arange(size, device=sigma.device)
    distance = (position - position.unsqueeze(1)) / sigma.clamp(min=1e-3).reshape(-1, 1, 1, 1)
    weights = torch.exp(-0.5 * distance.square())
    return weights / weights.sum(3, keepdim=True)


def random_blur(images, largest):
    """T(x; sigma), and omega = sigma / largest, [N, 1] in [0, 1]."""
    omega = torch.rand([len(images), 1], device=images.device)
    return blur(images, omega.squeeze(1) * largest), {"sigma": omega}


def consistency(evaluated):
    """Mean squared difference of D's features with and without blur, [N]."""
    return (evaluated.features["fc"] - evaluated.clean_features["fc"]).square().mean(1)


@hookimpl
def options():
    return BlurOptions


@hookimpl
def register_augmentations(session):
    largest = session.options("blur").sigma
    return [Augmentation("blur", partial(random_blur, largest=largest))] if largest > 0 else None


@hookimpl
def register_loss_terms(session):
    fc = frozenset({"fc"})
    weight = session.options("blur").weight
    return [LossTerm("blur", "D", consistency, weight, features=fc, clean_features=fc)]
