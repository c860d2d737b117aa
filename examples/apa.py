"""APA: with an adaptive probability, D is shown a generated image in the place of a real one.

Jiang, Dai, Wu, Loy: Deceive D: Adaptive Pseudo Augmentation for GAN Training with Limited Data (NeurIPS 2021,
arXiv:2111.06849). Each real image x is replaced, labelled real, before ADA and R1:

    x' = m G(z') + (1 - m) x,   m ~ Bernoulli(p),   L_D = E softplus(-D(x')) + E softplus(D(G(z)))

p follows ADA's rule, and is at most 1: it rises while the mean sign of D(x') is above the target. As in the authors'
code, the G(z') are those of the last Gmain, the same in Dmain and Dreg, and x' keeps the label of x. With gradient
accumulation each round has images of its own; the authors' code uses those of the last round in all of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from stylegan_plugins import AdaptiveProbability, OptionError, Session, Step, hookimpl, option

PAPER = "Jiang et al. 2021, Deceive D: Adaptive Pseudo Augmentation, arXiv:2111.06849"
ada = "off"
WITHOUT_SIGN = ("lsgan", "wgan", "relativistic")  # losses in which the sign of a logit does not say "real"


@dataclass(frozen=True)
class APAOptions:
    target: float = option(0.6, "mean sign of D's logits of real images to aim at", minimum=-1, maximum=1)
    kimg: float | None = option(
        None, "kimg in which p can rise by 1; none: 500, or 100 with --resume, the authors' choice", minimum=0.001
    )
    interval: int = option(4, "iterations between two changes of p", minimum=1)


OPTIONS = APAOptions


@hookimpl
def configure(args: Any, options: APAOptions) -> APAOptions:
    loss = args["loss_kwargs"].get("gan_loss")
    if loss in WITHOUT_SIGN:
        raise OptionError(
            f"--gan-loss={loss}: apa reads the sign of logits, which means nothing with this loss. Use nonsaturating "
            "or hinge."
        )
    if options.kimg is None:
        options = replace(options, kimg=100.0 if args.get("resume_pkl") else 500.0)
    return options


@hookimpl
def setup(session: Session, options: APAOptions) -> Method:
    return Method(session, options)


class Method:
    def __init__(self, session: Session, options: APAOptions) -> None:
        assert options.kimg is not None  # see configure
        self.session = session
        self.interval = options.interval
        p = torch.zeros([], device=session.device)
        self.adaptive = AdaptiveProbability(p, options.target, options.kimg, most=1)
        self.pseudo: dict[int, torch.Tensor] = {}  # G's images [N, C, H, W] of the last Gmain, by round

    @hookimpl
    def observe(self, step: Step) -> None:
        if step.real is not None:
            self.adaptive.observe(step.real.logits)
        elif step.phase in ("Gmain", "Gboth"):
            self.pseudo[step.round] = step.generated.images.raw.detach()

    @hookimpl
    def real_images(self, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        m = torch.rand([len(images), 1, 1, 1], device=images.device) < self.adaptive.p
        pseudo = self.pseudo.get(self.session.round, images)  # G may not have been trained yet
        return torch.where(m, pseudo, images), labels

    @hookimpl
    def batch_end(self, batch_idx: int) -> None:
        if batch_idx % self.interval == 0:
            self.adaptive.update(self.session.num_gpus)

    @hookimpl
    def statistics(self) -> None:
        self.session.report("APA/p", self.adaptive.p)

    def state_dict(self) -> dict[str, Any]:
        return {"adaptive": self.adaptive.state_dict(), "pseudo": self.pseudo}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.adaptive.load_state_dict(state["adaptive"])
        self.pseudo = {round: images.to(self.session.device) for round, images in state["pseudo"].items()}
