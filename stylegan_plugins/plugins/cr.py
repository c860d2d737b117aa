"""CR: D judges a real image as it judges the same image flipped and shifted.

Zhang, Zhang, Odena, Lee: Consistency Regularization for Generative Adversarial Networks (ICLR 2020, arXiv:1910.12027).
Equations: docs/methods/cr.md; their functions: training_ext.consistency."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from stylegan_plugins import OptionError, Preset, Step, Term, View, hookimpl, option
from training_ext import consistency

PAPER = "Zhang et al. 2020, Consistency Regularization for Generative Adversarial Networks, arXiv:1910.12027"
PRESETS = {
    "cifar": Preset(
        {"weight": 10.0, "shift": 0.125, "flip": True},
        "StudioGAN's CIFAR10/BigGAN-CR.yaml, ContraD's configs/defaults/gan.gin; hinge, or SNDCGAN",
    ),
}
conflicts = ("bcr",)  # bcr has the same term on real images


@dataclass(frozen=True)
class CROptions:
    weight: float = option(10.0, "factor of the term, 0 = off", minimum=0)
    shift: float = option(0.125, "largest shift, in image sides", minimum=0, maximum=0.5)
    flip: bool = option(True, "whether half of the images are mirrored")


OPTIONS = CROptions


@hookimpl
def configure(args: Any, options: CROptions) -> None:
    side = args["training_set_kwargs"]["resolution"]
    if not options.flip and not consistency.largest_shift(options.shift, side):
        raise OptionError(
            f"--cr-shift={options.shift:g}: less than half a pixel of {side}x{side}, so images stay as they are. "
            f"Give --cr-shift={1 / side:g} or more, or --cr-flip=true."
        )


@hookimpl
def setup(options: CROptions) -> Method:
    return Method(options)


class Method:
    def __init__(self, options: CROptions) -> None:
        moved = View("moved", lambda images: consistency.moved(images.shown, options.shift, options.flip), judged=True)
        self.terms = [Term("cr", "D", self.difference, options.weight, on="real", views=[moved])]

    def difference(self, step: Step) -> torch.Tensor:
        """Return (D(x) - D(T(x)))^2, [N]."""
        return consistency.difference(step.real.logits, step.real.views["moved"].logits)
