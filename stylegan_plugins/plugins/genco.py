"""GenCo: three discriminators; the second differs from D by its weights, the third by the frequencies that it sees.

Cui, Huang, Luo, Zhang, Zhan, Lu: GenCo: Generative Co-training for Generative Adversarial Networks with Limited Data
(AAAI 2022, arXiv:2110.01254). Equations: docs/methods/genco.md; their functions: training_ext.genco."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from stylegan_plugins import (
    CountsWith,
    Head,
    Images,
    OptionError,
    Preset,
    Session,
    Source,
    Step,
    Term,
    hookimpl,
    option,
)
from stylegan_plugins.host.modules import host_module
from training_ext import genco
from training_ext.penalties import zero_centred

PAPER = "Cui et al. 2022, GenCo: Generative Co-training for GANs with Limited Data, arXiv:2110.01254"

_BOTH = {"weco": 1.0, "daco": 1.0}
PRESETS = {
    "low-shot": Preset(
        _BOTH,
        "authors' Lowshot_DA, 100-shot and AnimalFace; they train with DiffAugment, --aug=noaug --cfg=stylegan2 "
        "--batch=8 --gamma=10 --kimg=3000, and two layers in the mapping network",
    ),
    "low-shot-ada": Preset(
        _BOTH, "authors' low_shot_ADA; --aug=ada --cfg=auto --batch=8; AnimalFace-dog with --mirror=1"
    ),
}

_WECO = (CountsWith("weco", lambda weight: weight > 0, 1.0),)
_DACO = (CountsWith("daco", lambda weight: weight > 0, 1.0),)


@dataclass(frozen=True)
class GenCoOptions:
    weco: float = option(1.0, "factor of the losses with WeCo's discriminator, 0 = none", minimum=0)
    daco: float = option(1.0, "factor of the losses with DaCo's discriminator, 0 = none", minimum=0)
    difference: float = option(
        0.01, "factor of the similarity of WeCo's weights and D's, 0 = off; it fades to 0", minimum=0, counts=_WECO
    )
    bands: int = option(64, "bands of frequencies", minimum=1, counts=_DACO)
    low: float = option(
        0.125, "share of the bands, the lowest, that DaCo's never sees", minimum=0, maximum=1, counts=_DACO
    )
    kept: float = option(0.8, "share of the other bands that it sees", minimum=0, maximum=1, counts=_DACO)


OPTIONS = GenCoOptions


@hookimpl
def configure(args: Any, options: GenCoOptions) -> None:
    given = args["loss_kwargs"]
    flags = {"r2_gamma": "--r2", "gradient_penalty": "--gradient-penalty", "d_spectral_norm": "--d-spectral-norm"}
    for name, flag in flags.items():
        if given.get(name):
            raise OptionError(f"{flag}: genco's further discriminators have R1 alone. Leave it out.")
    if given.get("gan_loss") == "wgan" and not given["r1_gamma"]:
        raise OptionError("--gan-loss=wgan: without R1 nothing bounds genco's further discriminators. Give --r1=1.")


@hookimpl
def setup(session: Session, options: GenCoOptions) -> Method:
    return Method(session, options)


class Method:
    """The further discriminators of a run.

    seen    by discriminator: a function from images after T to the images that it sees
    bands   DaCo's bands, by round; real and generated images at the same place share them throughout an iteration"""

    def __init__(self, session: Session, options: GenCoOptions) -> None:
        self.session, self.options = session, options
        self.no_weight_gradients = host_module("torch_utils.ops.conv2d_gradfix").no_weight_gradients
        self.bands: dict[int, torch.Tensor] = {}
        weights = {"weco": options.weco, "daco": options.daco}
        self.D = {name: genco.another(session.D) for name, weight in weights.items() if weight}
        self.seen: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"weco": lambda x: x, "daco": self.banded}
        self.heads = [Head(f"genco-{name}", module) for name, module in self.D.items()]
        # A paired loss compares real and generated images.
        paired = session.loss.gan_loss.paired
        self.terms = []
        for name in self.D:
            self.terms += [
                Term(f"genco-{name}", "D", partial(self.of_D, name), weights[name], on="both" if paired else "each"),
                Term(
                    f"genco-{name}", "G", partial(self.of_G, name), weights[name], on="both" if paired else "generated"
                ),
                Term(
                    f"genco-{name}-r1",
                    "D",
                    partial(self.r1, name),
                    weights[name],
                    on="real",
                    when="reg",
                    active=lambda phase: phase == "Dreg" and session.loss.r1_gamma != 0,
                ),
            ]
        if options.weco:
            self.terms.append(Term("genco-difference", "D", self.difference, options.difference, on="nothing"))

    def of_D(self, name: str, step: Step) -> torch.Tensor:
        """Return the loss of a further discriminator, [N], with R1 if the host takes both in one step."""
        gan, losses = self.session.loss.gan_loss, []
        logits: dict[Source, torch.Tensor] = {}
        if step.generated is not None:
            logits["generated"] = self.judged(name, step.generated.images)
            if not gan.paired:
                losses.append(gan.generated(logits["generated"]))
        if step.real is not None:
            regularised = step.phase == "Dboth" and self.session.loss.r1_gamma != 0
            images = leaf(step.real.images) if regularised else step.real.images
            logits["real"] = self.judged(name, images)
            others = [logits["generated"]] if gan.paired else []
            losses.append(gan.real(logits["real"], *others))
            if regularised:
                losses.append(self.penalty(logits["real"], images))
        for source, values in logits.items():
            self.session.report(f"GenCo/signs/{name}/{source}", values.sign())
        return torch.stack(losses).sum(dim=0).squeeze(1)

    def of_G(self, name: str, step: Step) -> torch.Tensor:
        """Return the loss of G with a further discriminator, [N]."""
        gan = self.session.loss.gan_loss
        others = []
        if gan.paired:
            with torch.no_grad():
                others = [self.judged(name, step.real.images)]
        return gan.generator(self.judged(name, step.generated.images), *others).squeeze(1)

    def r1(self, name: str, step: Step) -> torch.Tensor:
        """Return R1 of a further discriminator, [N]. Every weight gets a gradient, even if it is 0, like D's weights in
        ada: Adam's moments depend on it."""
        images = leaf(step.real.images)
        logits = self.judged(name, images)
        return (self.penalty(logits, images) + logits * 0).squeeze(1)

    def penalty(self, logits: torch.Tensor, images: Images) -> torch.Tensor:
        """Return gamma/2 |d sum(logits) / d images|^2, [N, 1]."""
        with self.no_weight_gradients():
            (gradient,) = torch.autograd.grad(logits.sum(), images.raw, create_graph=True)
        return zero_centred(gradient).unsqueeze(1) * (self.session.loss.r1_gamma / 2)

    def judged(self, name: str, images: Images) -> torch.Tensor:
        """Return logits of a further discriminator, [N, 1], with a separate draw of T, as in the authors' code."""
        return self.D[name](self.seen[name](self.session.augment(images)), images.labels)

    def banded(self, images: torch.Tensor) -> torch.Tensor:
        """Return images without some of their bands, [N, C, H, W]."""
        o, key = self.options, self.session.round
        if key not in self.bands or len(self.bands[key]) != len(images):
            dropped = round(o.bands * o.low)
            kept = int((o.bands - dropped) * o.kept)
            self.bands[key] = genco.sample_bands(len(images), o.bands, dropped, kept, images.device)
        return genco.keep_bands(images, self.bands[key])

    def difference(self, step: Step) -> torch.Tensor:
        """Return (1 - n/N) (cos(W_D, W_2) + 1), [1]. Like the losses it counts in each round, so their ratio stays."""
        similarity = genco.weight_similarity(self.session.D, self.D["weco"])
        self.session.report("GenCo/cosine", similarity - 1)
        return (1 - step.nimg / self.session.total_nimg) * similarity

    @hookimpl
    def batch_end(self) -> None:
        self.bands.clear()


def leaf(images: Images) -> Images:
    """Return the same images as leaves of a separate graph."""
    return replace(images, raw=images.raw.detach().requires_grad_(True))
