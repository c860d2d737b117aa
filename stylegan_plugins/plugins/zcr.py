"""zCR: D judges images of two latents that are close alike, and G makes different images of them.

Zhao, Singh, Lee, Zhang, Odena, Zhang: Improved Consistency Regularization for GANs (AAAI 2021, arXiv:2002.04724).
Equations: docs/methods/zcr.md; their functions: training_ext.consistency."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from stylegan_plugins import Images, Preset, Session, Step, Term, View, hookimpl, option
from training_ext import consistency

PAPER = "Zhao et al. 2021, Improved Consistency Regularization for GANs, arXiv:2002.04724"
PRESETS = {
    "stylegan2": Preset(
        {"d_weight": 0.2, "g_weight": 0.02, "sigma": 0.1},
        "NVlabs/stylegan2-ada (TensorFlow), cmethod zcr, with --fp32=1; the defaults here",
    ),
    "cifar": Preset(
        {"d_weight": 20.0, "g_weight": 0.5, "sigma": 0.05},
        "StudioGAN's CIFAR10/BigGAN-ICR.yaml, with its bCR; hinge",
    ),
}


@dataclass(frozen=True)
class ZCROptions:
    d_weight: float = option(0.2, "factor of D's term, 0 = off", minimum=0)
    g_weight: float = option(0.02, "factor of G's term, 0 = off", minimum=0)
    sigma: float = option(0.1, "standard deviation of the change of z", minimum=0)


OPTIONS = ZCROptions


@hookimpl
def setup(session: Session, options: ZCROptions) -> Method:
    return Method(session, options)


class Method:
    def __init__(self, session: Session, options: ZCROptions) -> None:
        self.session = session
        self.sigma = options.sigma
        shown = View("near", lambda images: self.near(images, shown=True), on="generated", judged=True)
        raw = View("near", lambda images: self.near(images, shown=False), on="generated", groups="none")
        self.terms = [
            Term("zcr", "D", self.difference, options.d_weight, on="generated", views=[shown]),
            Term("zcr", "G", self.closeness, options.g_weight, on="generated", views=[raw]),
        ]

    def near(self, images: Images, shown: bool) -> torch.Tensor:
        """Return G(z + delta), [N, C, H, W], with all other draws as for G(z)."""
        assert images.z is not None
        return self.session.variant(images, images.z + self.sigma * torch.randn_like(images.z), shown=shown)

    def difference(self, step: Step) -> torch.Tensor:
        """Return (D(G(z)) - D(G(z + delta)))^2, [N]."""
        return consistency.difference(step.generated.logits, step.generated.views["near"].logits)

    def closeness(self, step: Step) -> torch.Tensor:
        """Return -mean (G(z) - G(z + delta))^2, [N]."""
        seen = step.generated
        return consistency.closeness(seen.images.raw, seen.views["near"].batch)
