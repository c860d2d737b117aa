"""AugSelf: D predicts the parameters of the augmentation, real images with sign +, generated ones with sign -.

Hou, Cao, Yuan, Zhao, Ma, Pan, Wan, Wang, Shen, Cheng: Augmentation-Aware Self-Supervision for Data-Efficient GAN
Training (NeurIPS 2023, arXiv:2205.15677). Equations: docs/methods/augself.md; their functions: training_ext.augself."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from stylegan_plugins import Head, OptionError, Pass, Preset, Session, Step, Term, View, hookimpl, option
from training_ext import augself
from training_ext.augment_family import WIDTHS

PAPER = "Hou et al. 2023, Augmentation-Aware Self-Supervision for Data-Efficient GAN Training, arXiv:2205.15677"

brings = ("diffaugment",)
PHI = "b4.fc"  # the layer of D whose features are compared: the last hidden one

_LOW_SHOT = "authors' README, low-shot commands; they train with batch 8, lr 0.002, R1 gamma 10, 5000 kimg"
PRESETS = {
    "ffhq": Preset({"d_weight": 1.0, "g_weight": 0.2}, "authors' README, FFHQ commands, with --cfg=auto --mirror=1"),
    "lsun-cat": Preset({"d_weight": 1.0, "g_weight": 0.2}, "authors' README, LSUN-Cat commands, as ffhq"),
    "100-shot-obama": Preset({"d_weight": 1.0, "g_weight": 1.0, "predict": "color"}, _LOW_SHOT),
    "100-shot-grumpy_cat": Preset({"d_weight": 0.1, "g_weight": 0.1, "predict": "color"}, _LOW_SHOT),
    "100-shot-panda": Preset({"d_weight": 1.0, "g_weight": 1.0, "predict": "color"}, _LOW_SHOT),
    "AnimalFace-cat": Preset({"d_weight": 0.1, "g_weight": 0.1, "predict": "color"}, _LOW_SHOT),
    "AnimalFace-dog": Preset({"d_weight": 1.0, "g_weight": 1.0, "predict": "color"}, _LOW_SHOT),
    "cifar": Preset(
        {"d_weight": 1.0, "g_weight": 1.0},
        "authors' scripts for BigGAN, CIFAR-10 and -100, 100%, 20% and 10%; batch 50, hinge loss, lr 0.0002, 4 steps "
        "of D for each of G, --mirror=1",
    ),
    "cifar-plus": Preset(
        {"d_weight": 1.0, "g_weight": 1.0},
        "the '+' variant of the authors' scripts for BigGAN, as cifar",
        others={"diffaugment": {"translation": 0.25, "cutout": 0.75}},
    ),
    "plus": Preset(
        {"d_weight": 1.0, "g_weight": 0.2},
        "the '+' variant: strengths of the authors' BigGAN scripts, StyleGAN2 has none; weights of ffhq",
        others={"diffaugment": {"translation": 0.25, "cutout": 0.75}},
    ),
}


@dataclass(frozen=True)
class AugSelfOptions:
    d_weight: float = option(1.0, "factor of D's term, 0 = off", minimum=0)
    g_weight: float = option(0.2, "factor of G's term, 0 = off", minimum=0)
    predict: str = option("applied", "groups that the head predicts, with commas; applied: all that are applied")
    reduction: str = option(
        "mean",
        "over the components of a group: mean, the authors' code; sum, the paper",
        choices=tuple(augself.REDUCTIONS),
    )

    def __post_init__(self) -> None:
        unknown = [name for name in self.groups if name not in WIDTHS]
        if unknown or (not self.groups and self.predict != "applied"):
            raise OptionError(
                f"--augself-predict: {self.predict!r} is not a list of groups. Known: {', '.join(WIDTHS)}; separate "
                "several with commas."
            )

    @property
    def groups(self) -> tuple[str, ...]:
        """Return the groups that the option names; none for `applied`."""
        names = "" if self.predict == "applied" else self.predict
        return tuple(name.strip() for name in names.split(",") if name.strip())


OPTIONS = AugSelfOptions


@hookimpl
def configure(args: Any, options: AugSelfOptions) -> AugSelfOptions:
    diffaugment = args["plugins"]["options"]["diffaugment"]
    applied = [name.strip() for name in diffaugment["policy"].split(",") if name.strip()]
    predicted = options.groups or applied
    absent = [name for name in predicted if name not in applied]
    if absent or not applied:
        what = f"{', '.join(absent)} cannot be predicted" if absent else "there is nothing to predict"
        raise OptionError(
            f"--augself-predict: {what}, since --diffaugment-policy={diffaugment['policy']} applies "
            f"{', '.join(applied) or 'nothing'}. Predict transformations that are applied."
        )
    if diffaugment["where"] != "all":
        raise OptionError(
            f"--diffaugment-where={diffaugment['where']}: augself needs omega of real and generated images in both "
            "steps; leave the option out."
        )
    return replace(options, predict=",".join(predicted))


@hookimpl
def setup(session: Session, options: AugSelfOptions) -> Method:
    return Method(session, options)


class Method:
    def __init__(self, session: Session, options: AugSelfOptions) -> None:
        self.report = session.report
        self.reduction = options.reduction
        groups = options.groups or session.options("diffaugment").groups
        self.head = augself.OmegaHead(session.layer_shape(PHI)[0], {group: WIDTHS[group] for group in groups})
        self.heads = [Head("augself", self.head)]
        clean = View("clean", lambda images: images.clean)
        reads: dict[str, Any] = {"layers": [PHI], "views": [clean]}
        self.terms = [
            Term("augself", "D", self.discriminator_term, options.d_weight, **reads),
            Term("augself", "G", self.generator_term, options.g_weight, on="generated", **reads),
        ]

    def discriminator_term(self, step: Step) -> torch.Tensor:
        """Return L^SS of D for one source, with sign + for real images, [N]."""
        sign = +1 if step.source == "real" else -1
        preds, omegas = self.predict(step.one)
        for group, pred in preds.items():
            error = augself.augself_loss(pred, omegas[group], sign)
            self.report(f"AugSelf/error/{group}/{step.source}", error)
        if step.source == "generated":
            self.report("AugSelf/ahm", augself.ahm_divergence(preds, omegas))
        return augself.discriminator_term(preds, omegas, sign, self.reduction)

    def generator_term(self, step: Step) -> torch.Tensor:
        """Return L^SS of G, [N]."""
        preds, omegas = self.predict(step.generated)
        return augself.generator_term(preds, omegas, self.reduction)

    def predict(self, seen: Pass) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """Return omega_hat and omega of one pass by group, [N, K] each."""
        preds = self.head(seen.layers[PHI], seen.views["clean"].layers[PHI])
        return preds, {group: seen.images.omega["diffaugment"][group] for group in preds}
