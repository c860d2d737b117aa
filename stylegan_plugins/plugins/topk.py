"""Top-k: G learns from those generated images of a batch that D finds most real.

Sinha, Zhao, Goyal, Raffel, Odena: Top-k Training of GANs (NeurIPS 2020, arXiv:2002.06224). Equations:
docs/methods/topk.md; their functions: training_ext.topk."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from stylegan_plugins import Preset, Session, Step, hookimpl, option
from training_ext import topk
from training_ext.distributed import gather

PAPER = "Sinha et al. 2020, Top-k Training of GANs: Throwing Away Bad Samples, arXiv:2002.06224"
PRESETS = {
    "stylegan2": Preset(
        {"gamma": 0.99, "nu": 0.5}, "lucidrains/stylegan2-pytorch, --top-k-training; the defaults here"
    ),
}


@dataclass(frozen=True)
class TopKOptions:
    gamma: float = option(0.99, "factor of k in an epoch, 1 = off", minimum=0, maximum=1)
    nu: float = option(0.5, "smallest k, as a share of the batch, 1 = off", minimum=0, maximum=1)
    epoch_kimg: float | None = option(None, "length of an epoch in kimg; none: the data set, unflipped", minimum=0.001)


OPTIONS = TopKOptions


@hookimpl
def configure(args: Any, options: TopKOptions) -> TopKOptions:
    if options.epoch_kimg is None:
        options = replace(options, epoch_kimg=args["training_set_kwargs"]["max_size"] / 1000)
    return options


@hookimpl
def setup(session: Session, options: TopKOptions) -> Method:
    return Method(session, options)


class Method:
    def __init__(self, session: Session, options: TopKOptions) -> None:
        assert options.epoch_kimg is not None  # see configure
        self.session, self.gamma, self.nu = session, options.gamma, options.nu
        self.epoch = options.epoch_kimg * 1000  # images

    @hookimpl
    def sample_weights(self, step: Step) -> torch.Tensor | None:
        """Return B / k for the images of this process that count, 0 for the others, [N]; None while all count."""
        session = self.session
        logits = step.generated.logits.detach().flatten(1).mean(dim=1)
        batch = len(logits) * session.num_gpus * session.rounds
        k = topk.kept(batch, int(session.nimg / self.epoch), self.gamma, self.nu)
        session.report("TopK/k", float(k))
        if k == batch:
            return None
        in_round = topk.kept_in_round(k, step.round, session.rounds)
        counts = topk.largest(gather(logits, session.num_gpus), in_round)
        return batch / k * counts.narrow(0, session.rank * len(logits), len(logits))
