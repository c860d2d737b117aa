"""LeCam: D's predictions are pulled towards moving averages of those of the other source.

Tseng, Jiang, Liu, Yang, Yang: Regularizing Generative Adversarial Networks under Limited Data (CVPR 2021,
arXiv:2104.03310). D(x) are the critic's logits, alpha_R and alpha_F their averages over real and generated images:

    L_D += weight * (E max(0, D(x) - alpha_F)^2 + E max(0, alpha_R - D(G(z)))^2)
    a_t = decay a_(t-1) + (1 - decay) mean D,    a_0 = 0,    alpha = a_t / (1 - decay^t)

The maximum, and the division that removes the weight of a_0, are those of the authors' code (stylegan2/lecam_loss.py);
the paper has plain squares. The host trains D on generated images before real ones, so their term reads alpha_R as the
last iteration left it; the authors update both averages first. `decay` counts for an optimiser step: with gradient
accumulation, each round has its share of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from stylegan_plugins import Preset, Session, Source, Step, Term, hookimpl, option

PAPER = "Tseng et al. 2021, Regularizing Generative Adversarial Networks under Limited Data, arXiv:2104.03310"
PRESETS = {
    "cifar": Preset({"weight": 1e-6}, "authors' stylegan2/scripts/run_train_cifar.sh, 10% of CIFAR-10 or CIFAR-100"),
    "ffhq": Preset({"weight": 3e-7}, "authors' stylegan2/scripts/run_train_ffhq.sh, 1,000 images of FFHQ"),
}
OTHER: dict[Source, Source] = {"real": "generated", "generated": "real"}


@dataclass(frozen=True)
class LeCamOptions:
    weight: float = option(3e-7, "weight of the penalty, 0 = off; it goes with the size of the logits", minimum=0)
    decay: float = option(0.99, "decay of the averages in an optimiser step", minimum=0, maximum=0.99999)


OPTIONS = LeCamOptions


@hookimpl
def setup(session: Session, options: LeCamOptions) -> Method:
    return Method(session, options)


class Method:
    def __init__(self, session: Session, options: LeCamOptions) -> None:
        self.session = session
        self.decay = options.decay ** (1 / session.rounds)
        self.a = {source: torch.zeros([], device=session.device) for source in OTHER}
        self.updates = dict.fromkeys(OTHER, 0)
        self.terms = [Term("lecam", "D", self.penalty, options.weight)]

    def penalty(self, step: Step) -> torch.Tensor:
        """Return max(0, D(x) - alpha_F)^2 of real images, or max(0, alpha_R - D(G(z)))^2 of generated ones, [N]."""
        source, logits = step.source, step.one.logits
        self.update(source, logits)
        if not self.updates[OTHER[source]]:  # the first images of a run, which are generated
            return logits.new_zeros(len(logits))
        gap = logits - self.alpha(OTHER[source])
        return (gap if source == "real" else -gap).relu().square().flatten(1).mean(dim=1)

    def update(self, source: Source, logits: torch.Tensor) -> None:
        """Take the logits of all processes into the average of their source."""
        self.a[source] = self.decay * self.a[source] + (1 - self.decay) * self.session.average(logits)
        self.updates[source] += 1
        self.session.report(f"LeCam/alpha/{source}", self.alpha(source))

    def alpha(self, source: Source) -> torch.Tensor:
        """Return the average of a source that was seen, []."""
        return self.a[source] / (1 - self.decay ** self.updates[source])

    def state_dict(self) -> dict[str, Any]:
        return {"a": dict(self.a), "updates": dict(self.updates)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.a, self.updates = dict(state["a"]), dict(state["updates"])
