"""Blur: D sees randomly blurred images, and its features are asked not to depend on the blur.

x' = T(x; sigma),  sigma ~ U(0, s)              Gaussian blur, drawn for each image
L_D += w * mean_f (phi(x') - phi(x))^2          consistency (Zhang et al. 2020, arXiv:1910.12027)
"""

from dataclasses import dataclass

import torch

from stylegan_plugins import Augmentation, Term, View, hookimpl, option

PAPER = "Zhang et al. 2020, Consistency Regularization for Generative Adversarial Networks, arXiv:1910.12027"


@dataclass(frozen=True)
class BlurOptions:
    sigma: float = option(1.0, "largest width of the blur, in pixels; 0 = off", minimum=0, maximum=8)
    weight: float = option(0.1, "factor on the consistency term; 0 = off", minimum=0)


OPTIONS = BlurOptions


def blur(images, sigma):
    """Blur images [N, C, H, W], each by a Gaussian of width sigma [N], pixels. At the edges, pixels inside of the image
    share the weight of pixels outside."""
    rows, columns = (gaussian(size, sigma).to(images.dtype) for size in images.shape[2:])
    return rows @ images @ columns.transpose(2, 3)


def gaussian(size, sigma):
    """Return weights of pixel j in blurred pixel i, [N, 1, size, size]; they sum to 1."""
    position = torch.arange(size, device=sigma.device)
    distance = (position - position.unsqueeze(1)) / sigma.clamp(min=1e-3).reshape(-1, 1, 1, 1)
    weights = torch.exp(-0.5 * distance.square())
    return weights / weights.sum(3, keepdim=True)


def consistency(step):
    """Return the mean squared difference of D's features with and without blur, [N]."""
    seen = step.one
    return (seen.layers["b4.fc"] - seen.views["sharp"].layers["b4.fc"]).square().mean(1)


@hookimpl
def setup(options):
    return Blur(options.sigma, options.weight) if options.sigma > 0 else None


class Blur:
    def __init__(self, largest, weight):
        self.largest = largest
        self.augmentations = [Augmentation("blur", self.draw, self.blur)]
        sharp = View("sharp", lambda images: images.clean)
        self.terms = [Term("blur", "D", consistency, weight, layers=["b4.fc"], views=[sharp])]

    def draw(self, images):
        """Draw omega = sigma / largest, [N, 1] in [0, 1]."""
        return {"sigma": torch.rand([len(images), 1], device=images.device)}

    def blur(self, images, omega):
        """Return T(x; sigma)."""
        return blur(images, omega["sigma"].squeeze(1) * self.largest)
