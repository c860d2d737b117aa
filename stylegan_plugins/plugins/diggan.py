"""DigGAN: D's gradients at real and at generated images should have the same norm.

Fang, Sun, Schwing: DigGAN: Discriminator gradIent Gap Regularization for GAN Training with Limited Data (NeurIPS 2022,
arXiv:2211.14694). Equations: docs/methods/diggan.md; their functions: training_ext.diggan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from stylegan_plugins import Pass, Preset, Session, Source, Step, Term, hookimpl, option
from training_ext import diggan

PAPER = "Fang, Sun, Schwing 2022, DigGAN, arXiv:2211.14694"

_SOURCE = "authors' scripts for CIFAR-10 and CIFAR-100: BigGAN, hinge loss, the term in one of four steps of D"
_WEIGHTS = {
    **{"cifar": 1000.0, "cifar-20": 5000.0, "cifar-10": 10000.0},  # for all images, 20% and 10% of them
    **{"cifar-diffaugment": 10.0, "cifar-20-diffaugment": 250.0, "cifar-10-diffaugment": 1000.0},
}
PRESETS = {name: Preset({"weight": weight}, _SOURCE) for name, weight in _WEIGHTS.items()}


@dataclass(frozen=True)
class DigGANOptions:
    weight: float = option(500.0, "lambda, the factor of the term; 0 = off", minimum=0)
    memory: float = option(
        0.0, "share of the last time's norms in each norm: 0, the paper; 0.5, the authors' code", minimum=0, maximum=1
    )


OPTIONS = DigGANOptions


@hookimpl
def setup(session: Session, options: DigGANOptions) -> Method:
    return Method(session, options)


class Method:
    def __init__(self, session: Session, options: DigGANOptions) -> None:
        self.session = session
        self.memory = options.memory
        self.before: dict[str, torch.Tensor] = {}  # previous norms [N], by source and round
        self.terms = [Term("diggan", "D", self.gap, options.weight, on="both", when="reg", gradients=["shown"])]

    def gap(self, step: Step) -> torch.Tensor:
        """Return (||grad D(x')|| - ||grad D(g')||)^2 of each pair, [N]."""
        return diggan.gradient_gap(self.norms("real", step.real, step), self.norms("generated", step.generated, step))

    def norms(self, source: Source, seen: Pass, step: Step) -> torch.Tensor:
        norms = diggan.gradient_norms(seen.gradients["shown"])
        self.session.report(f"DigGAN/{source}", norms)
        if self.memory:
            place = f"{source} {step.round}"
            norms = diggan.remembered(norms, self.before.get(place), self.memory)
            self.before[place] = norms.detach()
        return norms

    def state_dict(self) -> dict[str, Any]:
        return {"before": dict(self.before)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.before = {place: norms.to(self.session.device) for place, norms in state["before"].items()}
