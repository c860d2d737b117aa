"""DiffAugment: one differentiable random T(x; omega) on real and generated images.

Zhao, Liu, Lin, Zhu, Han: Differentiable Augmentation for Data-Efficient GAN Training (NeurIPS 2020, arXiv:2006.10738).
Equations: docs/methods/diffaugment.md; the transformations: training_ext.diffaugment, and training_ext.augment_family
for those that are not the authors' own."""

from __future__ import annotations

from dataclasses import dataclass, fields

from stylegan_plugins import Augmentation, CountsWith, OptionError, Preset, Source, hookimpl, option
from training_ext.ada_transforms import ADA_GROUPS
from training_ext.augment_family import WIDTHS, AugmentFamily

ada = "off"
PAPER = "Zhao et al. 2020, Differentiable Augmentation for Data-Efficient GAN Training, arXiv:2006.10738"

# The authors' fmap_base is half of the hosts' --cbase.
_ALL = {"policy": "color,translation,cutout"}
_LOW_SHOT = "authors' README and run_low_shot.py; they train with --cfg=stylegan2 --batch=16 --gamma=10 --mirror=1"
_CIFAR = (
    "authors' README and run_cifar.py, {}; they train with --cfg=stylegan2 --batch=32 --gamma=0.1 --cbase=4096 "
    "--mirror=1 --kimg=25000, and a half-life of 1000 kimg of G's average"
)
_LARGE = (
    "authors' README and run_ffhq.py, whole or 30k, 10k, 5k, 1k images; they train with --cfg=stylegan2 --batch=32 "
    "--gamma=1 --cbase=16384 --mirror=1 --kimg=25000"
)
_STUDIO = "PyTorch-StudioGAN, diffaug_type {}"
PRESETS = {
    "100-shot": Preset(_ALL, f"{_LOW_SHOT} --kimg=300"),
    "AnimalFace": Preset(_ALL, f"{_LOW_SHOT} --kimg=500"),
    "100-shot-pytorch": Preset(
        _ALL,
        "authors' PyTorch code, low_shot; they train with --cfg=stylegan2 --batch=8 --gamma=10 --kimg=300, two layers "
        "in the mapping network, and images that are not mirrored",
    ),
    "cifar": Preset({"policy": "color,cutout"}, _CIFAR.format("all images")),
    "cifar-part": Preset(_ALL, _CIFAR.format("20% or 10% of the images")),
    "ffhq": Preset(_ALL, _LARGE),
    "lsun-cat": Preset(_ALL, _LARGE),
    "cifar-biggan": Preset(
        {"policy": "translation,cutout"},
        "authors' scripts for BigGAN, CIFAR-10 and -100, 100%, 20% and 10%; so DiffAug's rows in ContraD's talk; they "
        "train with batch 50, --mirror=1, hinge loss, lr 0.0002, 4 steps of D for each of G",
    ),
    "imagenet-biggan": Preset(
        {"policy": "translation"}, "authors' gin files for BigGAN on 100%, 50% and 25% of ImageNet 128; batch 2048"
    ),
    "cr": Preset({"policy": "flip,shift"}, _STUDIO.format("cr")),
    "simclr": Preset({"policy": "crop,flip,jitter,gray"}, _STUDIO.format("simclr_basic")),
    "simclr-hq": Preset({"policy": "crop,flip,jitter,gray,blur"}, _STUDIO.format("simclr_hq")),
    "bgc": Preset({"policy": "ada-blit,ada-geom,ada-color"}, _STUDIO.format("bgc, ADA's default, with p = 1")),
}


def _groups(policy: str) -> tuple[str, ...]:
    """Return the transformations of a policy, in their order."""
    return tuple(name.strip() for name in policy.split(",") if name.strip())


def _applied(*groups: str) -> tuple[CountsWith]:
    """Return the condition under which the strength of a transformation, or of several, counts."""
    return (CountsWith("policy", lambda policy: bool({*groups} & {*_groups(policy)}), groups[0]),)


@dataclass(frozen=True)
class DiffAugmentOptions:
    policy: str = option("color,translation,cutout", f"transformations in their order, of {', '.join(WIDTHS)}")
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
    flip: float = option(0.5, "probability of a horizontal flip", minimum=0, maximum=1, counts=_applied("flip"))
    shift: float = option(
        0.125, "largest mirrored shift, in image sides; 0 = off", minimum=0, maximum=0.9, counts=_applied("shift")
    )
    crop: float = option(
        0.2, "smallest share of the image that a crop shows; 1 = off", minimum=0.01, maximum=1, counts=_applied("crop")
    )
    jitter: float = option(
        0.4, "range of contrast, saturation and value factors: 1 +- it", minimum=0, counts=_applied("jitter")
    )
    hue: float = option(
        0.1, "largest change of hue, in 255/360 of a turn", minimum=0, maximum=0.5, counts=_applied("jitter")
    )
    gray: float = option(0.2, "probability of a gray image", minimum=0, maximum=1, counts=_applied("gray"))
    blur: float = option(0.5, "probability of a blurred image", minimum=0, maximum=1, counts=_applied("blur"))
    cutmix: float = option(
        1.0, "largest side of another image's patch, in image sides", minimum=0, maximum=1, counts=_applied("cutmix")
    )
    ada_p: float = option(
        1.0, "probability of each of ADA's transformations", minimum=0, maximum=1, counts=_applied(*ADA_GROUPS)
    )
    where: str = option(
        "all",
        "images to transform: of both networks, of D's step, or real ones alone; the last two are ablations",
        choices=("all", "d", "reals"),
        counts=(CountsWith("policy", lambda policy: bool(_groups(policy)), "color"),),
    )

    def __post_init__(self) -> None:
        unknown = [name for name in self.groups if name not in WIDTHS]
        if unknown or len(set(self.groups)) < len(self.groups):
            raise OptionError(
                f"--diffaugment-policy: {self.policy!r} is not a list of different transformations. "
                f"Known: {', '.join(WIDTHS)}; separate several with commas."
            )

    @property
    def groups(self) -> tuple[str, ...]:
        return _groups(self.policy)

    def transform(self) -> AugmentFamily:
        strengths = {field.name: getattr(self, field.name) for field in fields(AugmentFamily) if field.name != "policy"}
        return AugmentFamily(self.groups, **strengths)

    def applies(self, source: Source, phase: str) -> bool:
        """Return whether images are transformed. The authors' talk has three variants: (iii) all, (ii) D's step alone,
        (i) real images alone."""
        return self.where == "all" or source == "real" or (self.where == "d" and phase.startswith("D"))


OPTIONS = DiffAugmentOptions


@hookimpl
def setup(options: DiffAugmentOptions) -> Method:
    return Method(options)


class Method:
    def __init__(self, options: DiffAugmentOptions) -> None:
        T = options.transform()
        self.augmentations = [Augmentation("diffaugment", T.draw, T.apply, options.applies)]
