"""LeCam: D's predictions are pulled towards moving averages of its predictions on the other source.

Tseng, Jiang, Liu, Yang, Yang: Regularizing Generative Adversarial Networks under Limited Data (CVPR 2021,
arXiv:2104.03310). Equations: docs/methods/lecam.md; their functions: training_ext.lecam."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from stylegan_plugins import Preset, Session, Step, Term, hookimpl, option
from training_ext import lecam

PAPER = "Tseng et al. 2021, Regularizing Generative Adversarial Networks under Limited Data, arXiv:2104.03310"
PRESETS = {
    "ffhq-1k": Preset(
        {"weight": 3e-7}, "authors' stylegan2/scripts/run_train_ffhq.sh, with --cfg=paper256 --aug=ada on 8 GPUs"
    ),
    "cifar-0.1": Preset(
        {"weight": 1e-6}, "authors' stylegan2/scripts/run_train_cifar.sh, with --cfg=cifar --aug=ada on 2 GPUs"
    ),
}


@dataclass(frozen=True)
class LeCamOptions:
    weight: float = option(3e-7, "factor of the penalty, 0 = off; it goes with the square of the logits", minimum=0)
    decay: float = option(0.99, "decay of the averages in an optimiser step", minimum=0, maximum=0.99999)


OPTIONS = LeCamOptions


@hookimpl
def setup(session: Session, options: LeCamOptions) -> Method:
    return Method(session, options)


class Method:
    def __init__(self, session: Session, options: LeCamOptions) -> None:
        self.session = session
        self.predictions = {
            source: lecam.DebiasedAverage(options.decay, session.device) for source in ("real", "generated")
        }
        self.terms = [Term("lecam", "D", self.penalty, options.weight, on="both")]

    def penalty(self, step: Step) -> torch.Tensor:
        """Return R_LC, [N]. As in the authors' code, the logits of all processes first update the averages."""
        logits = {"real": step.real.logits, "generated": step.generated.logits}
        for source, average in self.predictions.items():
            average.add(self.session.average(logits[source]), step.round)
            self.session.report(f"LeCam/alpha/{source}", average.alpha)
        alphas = (self.predictions[source].alpha for source in ("real", "generated"))
        return lecam.penalty(logits["real"], logits["generated"], *alphas)

    def state_dict(self) -> dict[str, Any]:
        return {source: average.state_dict() for source, average in self.predictions.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for source, average in self.predictions.items():
            average.load_state_dict(state[source])
