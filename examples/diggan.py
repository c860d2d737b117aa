"""DigGAN: D's gradients at real and at generated images should have the same norm.

Fang, Sun, Schwing: DigGAN: Discriminator gradIent Gap Regularization for GAN Training with Limited Data (NeurIPS 2022,
arXiv:2211.14694). T is all that augments D's input, ADA included, and x_n, z_n are a pair by their place in the batch:

    L_D += lambda E (||grad D(x')||_2 - ||grad D(g')||_2)^2,   x' = T(x_n),   g' = T(G(z_n))

The gradients are those of D's logits by what D sees. The term is in the lazy regularisation phase, whose gradients
count as if it were in every step; the authors' code has it in one of four steps of D, without a factor, and averages
each norm with the one of the step before, which is of other images. That is left out: it is not in the paper.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from stylegan_plugins import Pass, Preset, Session, Step, Term, hookimpl, option

PAPER = "Fang, Sun, Schwing 2022, DigGAN, arXiv:2211.14694"

_SOURCE = "authors' scripts for CIFAR-10 and CIFAR-100: BigGAN, hinge loss, the term in one of four steps of D"
_WEIGHTS = {
    **{"cifar": 1000.0, "cifar-20": 5000.0, "cifar-10": 10000.0},  # all images, 20% and 10% of them
    **{"cifar-diffaugment": 10.0, "cifar-20-diffaugment": 250.0, "cifar-10-diffaugment": 1000.0},
}
PRESETS = {name: Preset({"weight": weight}, _SOURCE) for name, weight in _WEIGHTS.items()}


@dataclass(frozen=True)
class DigGANOptions:
    weight: float = option(500.0, "lambda, the factor of the term; 0 = off", minimum=0)


OPTIONS = DigGANOptions


@hookimpl
def setup(session: Session, options: DigGANOptions) -> Method:
    return Method(session, options)


class Method:
    def __init__(self, session: Session, options: DigGANOptions) -> None:
        self.session = session
        self.terms = [Term("diggan", "D", self.gap, options.weight, on="both", when="reg", gradients=["shown"])]

    def gap(self, step: Step) -> torch.Tensor:
        """(||grad D(x')|| - ||grad D(g')||)^2 of each pair, [N]."""
        real, generated = self.norms(step.real), self.norms(step.generated)
        self.session.report("DigGAN/real", real)
        self.session.report("DigGAN/generated", generated)
        return (real - generated).square()

    @staticmethod
    def norms(seen: Pass) -> torch.Tensor:
        """||grad D||_2 of each image, [N]; at 0 its derivative is 0."""
        return seen.gradients["shown"].flatten(1).norm(dim=1)
