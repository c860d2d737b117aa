"""Adversarial losses on logits. Each function returns [N, 1], not reduced."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn.functional import relu, softplus

Elementwise = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class GanLoss:
    """real, generated: D's loss on logits of real and generated images; generator: G's loss on logits of its images."""

    real: Elementwise
    generated: Elementwise
    generator: Elementwise


GAN_LOSSES: dict[str, GanLoss] = {
    # Goodfellow et al. 2014 with the non-saturating G loss; what the hosts train with: -log sigmoid(l).
    "nonsaturating": GanLoss(lambda logits: softplus(-logits), softplus, lambda logits: softplus(-logits)),
    # Lim and Ye 2017, Miyato et al. 2018.
    "hinge": GanLoss(lambda logits: relu(1 - logits), lambda logits: relu(1 + logits), lambda logits: -logits),
    # Mao et al. 2017, equation (9): targets 1, 0 and 1.
    "lsgan": GanLoss(
        lambda logits: (logits - 1).square() / 2,
        lambda logits: logits.square() / 2,
        lambda logits: (logits - 1).square() / 2,
    ),
    # Arjovsky et al. 2017; the Lipschitz constraint is left to R1.
    "wgan": GanLoss(lambda logits: -logits, lambda logits: logits, lambda logits: -logits),
}
