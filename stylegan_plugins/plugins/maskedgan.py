"""MaskedGAN: patches and bands of frequencies of all that D sees are masked at random.

Huang, Cui, Guan, Xiao, Zhan, Lu, Liao, Xing: Masked Generative Adversarial Networks are Data-Efficient Generation
Learners (NeurIPS 2022). The authors published no code. docs/methods/maskedgan.md lists the differences; the masks:
training_ext.maskedgan."""

from __future__ import annotations

from dataclasses import dataclass

from stylegan_plugins import Augmentation, CountsWith, hookimpl, option
from training_ext.maskedgan import ImageMask

PAPER = "Huang et al. 2022, Masked Generative Adversarial Networks are Data-Efficient Generation Learners, NeurIPS 2022"


@dataclass(frozen=True)
class MaskedGANOptions:
    patches: float = option(0.25, "share of patches that are masked, 0 = off", minimum=0, maximum=1)
    grid: int = option(
        16, "patches along each side", minimum=1, counts=(CountsWith("patches", lambda share: share > 0, 0.25),)
    )
    masked_bands: float = option(1.0, "bands that are masked, on average, 0 = off", minimum=0)
    bands: int = option(
        64, "bands of frequencies", minimum=1, counts=(CountsWith("masked_bands", lambda count: count > 0, 1.0),)
    )


OPTIONS = MaskedGANOptions


@hookimpl
def setup(options: MaskedGANOptions) -> Method:
    return Method(options)


class Method:
    def __init__(self, options: MaskedGANOptions) -> None:
        T = ImageMask(options.patches, options.grid, options.masked_bands, options.bands)
        self.augmentations = [Augmentation("maskedgan", T.draw, T.apply)]
