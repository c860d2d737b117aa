"""Mode seeking: images of different latents shall differ.

Mao, Lee, Tseng, Ma, Yang: Mode Seeking Generative Adversarial Networks for Diverse Image Synthesis (CVPR 2019,
arXiv:1903.05628). Equations: docs/methods/mode_seeking.md; their functions: training_ext.mode_seeking."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from stylegan_plugins import Batch, Images, Preset, Session, Step, Term, View, hookimpl, option
from training_ext import mode_seeking
from training_ext.distributed import gather

PAPER = "Mao et al. 2019, Mode Seeking Generative Adversarial Networks, arXiv:1903.05628"
PRESETS = {
    "cifar": Preset({"weight": 1.0}, "authors' DCGAN-Mode-Seeking/model.py, DCGAN on CIFAR-10 with class labels"),
}


@dataclass(frozen=True)
class ModeSeekingOptions:
    weight: float = option(1.0, "factor of the term, 0 = off", minimum=0)


OPTIONS = ModeSeekingOptions


@hookimpl
def setup(session: Session, options: ModeSeekingOptions) -> Method:
    return Method(session, options)


class Method:
    def __init__(self, session: Session, options: ModeSeekingOptions) -> None:
        self.session = session
        self.mixed = session.loss.style_mixing_prob > 0  # the images of the step then have styles of other latents
        pair = View("pair", self.pair, on="generated", groups="none")
        self.terms = [Term("mode_seeking", "G", self.loss, options.weight, on="generated", views=[pair])]

    def pair(self, images: Images) -> Batch:
        """Return I2, with I1 and z2 as targets. I1 and I2 have no style mixing and the same noise."""
        assert images.z is not None
        second = torch.randn_like(images.z)
        variant = lambda z: self.session.variant(images, z, mixing=False)
        first = variant(images.z) if self.mixed else images.raw
        return Batch(variant(second), targets=(first, second))

    def loss(self, step: Step) -> torch.Tensor:
        """Return L_ms of the pairs of all processes, repeated for each image, [N]."""
        pair, z = step.generated.views["pair"], step.generated.images.z
        first, second = pair.targets
        each = (mode_seeking.distances(first, pair.batch), mode_seeking.distances(z, second))
        of_images, of_latents = (gather(values.float(), self.session.num_gpus) for values in each)
        self.session.report("ModeSeeking/distance", of_images)
        return mode_seeking.mode_seeking_loss(of_images, of_latents).expand(len(z))
