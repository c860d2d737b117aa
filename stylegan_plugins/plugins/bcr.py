"""bCR: D judges real and generated images as it judges the same images flipped and shifted.

Zhao, Singh, Lee, Zhang, Odena, Zhang: Improved Consistency Regularization for GANs (AAAI 2021, arXiv:2002.04724).
Equations: docs/methods/bcr.md; their functions: training_ext.consistency."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from stylegan_plugins import OptionError, Preset, Step, Term, View, hookimpl, option
from training_ext import consistency

PAPER = "Zhao et al. 2021, Improved Consistency Regularization for GANs, arXiv:2002.04724"
PRESETS = {
    "stylegan2": Preset(
        {"real_weight": 10.0, "generated_weight": 10.0, "shift": 1 / 32, "flip": False},
        "NVlabs/stylegan2-ada (TensorFlow), cmethod bcr; the defaults here",
    ),
    "cifar": Preset(
        {"real_weight": 10.0, "generated_weight": 10.0, "shift": 0.125, "flip": True},
        "StudioGAN's CIFAR10/BigGAN-ICR.yaml, ContraD's configs/defaults/gan.gin; hinge, or SNDCGAN",
    ),
}
conflicts = ("cr",)  # cr is the same term on real images


@dataclass(frozen=True)
class BCROptions:
    real_weight: float = option(10.0, "factor of the term on real images, 0 = off", minimum=0)
    generated_weight: float = option(10.0, "factor of the term on generated images, 0 = off", minimum=0)
    shift: float = option(1 / 32, "largest shift, in image sides", minimum=0, maximum=0.5)
    flip: bool = option(False, "whether half of the images are mirrored")


OPTIONS = BCROptions


@hookimpl
def configure(args: Any, options: BCROptions) -> None:
    side = args["training_set_kwargs"]["resolution"]
    if not options.flip and not consistency.largest_shift(options.shift, side):
        raise OptionError(
            f"--bcr-shift={options.shift:g}: less than half a pixel of {side}x{side}, so images stay as they are. "
            f"Give --bcr-shift={1 / side:g} or more, or --bcr-flip=true."
        )


@hookimpl
def setup(options: BCROptions) -> Method:
    return Method(options)


class Method:
    def __init__(self, options: BCROptions) -> None:
        moved = View("moved", lambda images: consistency.moved(images.shown, options.shift, options.flip), judged=True)
        self.terms = [
            Term("bcr_real", "D", self.difference, options.real_weight, on="real", views=[moved]),
            Term("bcr_generated", "D", self.difference, options.generated_weight, on="generated", views=[moved]),
        ]

    def difference(self, step: Step) -> torch.Tensor:
        """Return (D(x) - D(T(x)))^2, [N]."""
        return consistency.difference(step.one.logits, step.one.views["moved"].logits)
