"""Instance noise: Gaussian noise on all that D sees, of a width that may fall to 0.

Sønderby, Caballero, Theis, Shi, Huszár: Amortised MAP Inference for Image Super-resolution (ICLR 2017,
arXiv:1610.04490, appendix). Equations: docs/methods/noise.md; their functions: training_ext.noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from stylegan_plugins import Augmentation, Session, hookimpl, option
from training_ext import noise

PAPER = "Sønderby et al. 2017, Amortised MAP Inference for Image Super-resolution (appendix), arXiv:1610.04490"


@dataclass(frozen=True)
class NoiseOptions:
    sigma: float = option(0.1, "standard deviation at first, images span [-1, 1]; 0 = off", minimum=0)
    kimg: float | None = option(None, "kimg in which it falls to 0, linearly; none: it stays", minimum=0.001)


OPTIONS = NoiseOptions


@hookimpl
def setup(session: Session, options: NoiseOptions) -> Method:
    return Method(session, options)


class Method:
    def __init__(self, session: Session, options: NoiseOptions) -> None:
        self.session, self.options = session, options
        self.augmentations = [Augmentation("noise", self.draw, self.add, where=lambda source, phase: self.sigma > 0)]

    @property
    def sigma(self) -> float:
        """Return the current standard deviation."""
        return noise.width(self.options.sigma, self.session.nimg, self.options.kimg)

    def draw(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Draw eps, [N, C, H, W]."""
        return {"noise": torch.randn_like(images)}

    def add(self, images: torch.Tensor, omega: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return noise.add(images, omega["noise"], self.sigma)

    @hookimpl
    def statistics(self) -> None:
        self.session.report("Noise/sigma", self.sigma)
