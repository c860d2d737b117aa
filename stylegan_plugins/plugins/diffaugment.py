"""DiffAugment: one differentiable random T(x; omega) on real and generated images.

Zhao, Liu, Lin, Zhu, Han: Differentiable Augmentation for Data-Efficient GAN Training (NeurIPS 2020, arXiv:2006.10738).
Equations: docs/methods/diffaugment.md; the transformations: training_ext.diffaugment."""

from __future__ import annotations

from dataclasses import dataclass

from stylegan_plugins import Augmentation, CountsWith, OptionError, Source, hookimpl, option
from training_ext.diffaugment import GROUPS, DiffAugment

ada = "off"
PAPER = "Zhao et al. 2020, Differentiable Augmentation for Data-Efficient GAN Training, arXiv:2006.10738"


def _groups(policy: str) -> tuple[str, ...]:
    """The transformations of a policy, in their order."""
    return tuple(name.strip() for name in policy.split(",") if name.strip())


def _applied(group: str) -> tuple[CountsWith]:
    """What the strength of a transformation needs."""
    return (CountsWith("policy", lambda policy: group in _groups(policy), group),)


@dataclass(frozen=True)
class DiffAugmentOptions:
    policy: str = option("color,translation,cutout", f"transformations in their order, of {', '.join(GROUPS)}")
    brightness: float = option(
        1.0, "range of the brightness shift: +- half of it; 0 = off", minimum=0, counts=_applied("color")
    )
    saturation: float = option(
        1.0, "range of the saturation factor: 1 +- it; 0 = off", minimum=0, counts=_applied("color")
    )
    contrast: float = option(
        1.0, "range of the contrast factor: 1 +- half of it; 0 = off", minimum=0, counts=_applied("color")
    )
    translation: float = option(
        0.125, "largest shift, in image sides; 0 = off", minimum=0, maximum=1, counts=_applied("translation")
    )
    cutout: float = option(
        0.5, "side of the hole, in image sides; 0 = off", minimum=0, maximum=1, counts=_applied("cutout")
    )
    where: str = option(
        "all",
        "images to transform: of both networks, of D's step, or real ones alone; the last two are ablations",
        choices=("all", "d", "reals"),
        counts=(CountsWith("policy", lambda policy: bool(_groups(policy)), "color"),),
    )

    def __post_init__(self) -> None:
        unknown = [name for name in self.groups if name not in GROUPS]
        if unknown or len(set(self.groups)) < len(self.groups):
            raise OptionError(
                f"--diffaugment-policy: {self.policy!r} is not a list of different transformations. "
                f"Known: {', '.join(GROUPS)}; separate several with commas."
            )

    @property
    def groups(self) -> tuple[str, ...]:
        return _groups(self.policy)

    def transform(self) -> DiffAugment:
        return DiffAugment(self.groups, self.brightness, self.saturation, self.contrast, self.translation, self.cutout)

    def applies(self, source: Source, phase: str) -> bool:
        """The talk's three variants: (iii) all, (ii) D's step alone, (i) real images alone."""
        return self.where == "all" or source == "real" or (self.where == "d" and phase.startswith("D"))


OPTIONS = DiffAugmentOptions


@hookimpl
def setup(options: DiffAugmentOptions) -> Method:
    return Method(options)


class Method:
    def __init__(self, options: DiffAugmentOptions) -> None:
        T = options.transform()
        self.augmentations = [Augmentation("diffaugment", T.draw, T.apply, options.applies)]
