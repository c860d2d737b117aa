"""APA: with an adaptive probability, D is shown a generated image in the place of a real one.

Jiang, Dai, Wu, Loy: Deceive D: Adaptive Pseudo Augmentation for GAN Training with Limited Data (NeurIPS 2021,
arXiv:2111.06849). Equations: docs/methods/apa.md; their functions: training_ext.apa, training_ext.ada."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from stylegan_plugins import AdaptiveProbability, CountsWith, OptionError, Preset, Session, Step, hookimpl, option
from training_ext import apa

PAPER = "Jiang et al. 2021, Deceive D: Adaptive Pseudo Augmentation, arXiv:2111.06849"
_ADAPTIVE = CountsWith("mode", lambda mode: mode == "adaptive", "adaptive")
_WITH_ADA = "with --cfg=auto --mirror=1; with --aug=ada, too (their --with-dataaug), as they advise for most data"
PRESETS = {
    "ffhq": Preset({"target": 0.6}, f"authors' README, their default, {_WITH_ADA}"),
    "afhq-cat": Preset({"target": 0.6}, f"authors' README, their default, {_WITH_ADA}"),
    "anime": Preset({"target": 0.8}, f"authors' README, for Danbooru portraits, {_WITH_ADA}"),
}

ada = "off"
WITHOUT_SIGN = ("lsgan", "wgan", "relativistic")  # losses in which the sign of a logit does not mean "real"


@dataclass(frozen=True)
class APAOptions:
    mode: str = option(
        "adaptive",
        "p follows the mean sign of D's logits of real images, or is --apa-p",
        choices=("adaptive", "fixed"),
    )
    p: float = option(
        0.0,
        "fixed probability of a generated image, 0 = off",
        minimum=0,
        maximum=1,
        counts=(CountsWith("mode", lambda mode: mode == "fixed", "fixed"),),
    )
    target: float = option(
        0.6, "mean sign of D's logits of real images to aim at", minimum=-1, maximum=1, counts=(_ADAPTIVE,)
    )
    kimg: float | None = option(
        None,
        "kimg in which p can change by 1; none: 500, or 100 with --resume, the authors' choice",
        minimum=0.001,
        counts=(_ADAPTIVE,),
    )
    interval: int = option(4, "iterations between two changes of p", minimum=1, counts=(_ADAPTIVE,))


OPTIONS = APAOptions


@hookimpl
def configure(args: Any, options: APAOptions) -> APAOptions:
    loss = args["loss_kwargs"].get("gan_loss")
    if loss in WITHOUT_SIGN and options.mode == "adaptive":
        raise OptionError(
            f"--gan-loss={loss}: apa reads the sign of logits, which means nothing with this loss. Use nonsaturating "
            "or hinge, or --apa-mode=fixed."
        )
    if options.kimg is None:
        options = replace(options, kimg=100.0 if args.get("resume_pkl") else 500.0)
    return options


@hookimpl
def setup(session: Session, options: APAOptions) -> Method | None:
    return None if (options.mode, options.p) == ("fixed", 0) else Method(session, options)


class Method:
    def __init__(self, session: Session, options: APAOptions) -> None:
        assert options.kimg is not None  # see configure
        self.session = session
        self.interval = options.interval if options.mode == "adaptive" else 0  # 0: never
        self.controller = AdaptiveProbability(
            torch.zeros([], device=session.device), options.target, options.kimg, most=1
        )
        self.controller.p.fill_(options.p if options.mode == "fixed" else 0)
        self.changed = 0  # number of real images shown before the last update of p
        self.pseudo: dict[int, torch.Tensor] = {}  # G's images [N, C, H, W] of the last Gmain, by round

    @hookimpl
    def observe(self, step: Step) -> None:
        if step.real is not None:
            self.controller.observe(step.real.logits)
        elif step.phase in ("Gmain", "Gboth"):
            self.pseudo[step.round] = step.generated.images.raw.detach()

    @hookimpl
    def real_images(self, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        u = torch.rand([len(images), 1, 1, 1], device=images.device)
        pseudo = self.pseudo.get(self.session.round, images)  # before G's first step there are none
        return apa.deceive(images, pseudo, u, self.controller.p), labels

    @hookimpl
    def batch_end(self, nimg: int, batch_idx: int) -> None:
        if self.interval and batch_idx % self.interval == 0:
            self.controller.update(self.session.num_gpus, nimg - self.changed)
            self.changed = nimg

    @hookimpl
    def statistics(self) -> None:
        self.session.report("APA/p", self.controller.p)

    def state_dict(self) -> dict[str, Any]:
        return {"controller": self.controller.state_dict(), "changed": self.changed, "pseudo": self.pseudo}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.controller.load_state_dict(state["controller"])
        self.changed = state["changed"]
        self.pseudo = {round: images.to(self.session.device) for round, images in state["pseudo"].items()}
