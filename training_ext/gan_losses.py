"""Adversarial losses on logits. Each function returns [N, K], broadcast from its arguments and not reduced."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn.functional import relu, softplus

Loss = Callable[..., torch.Tensor]


@dataclass(frozen=True)
class GanLoss:
    """Losses on logits a = D(x) and b = D(G(z)).

    real, generated  D's loss on a, and on b
    generator        G's loss on b
    paired           whether they take pairs: D's loss is `real`(a, b), G's is `generator`(b, a), `generated` is unused
    signed           whether the sign of a logit means real or generated, as ADA assumes"""

    real: Loss
    generated: Loss
    generator: Loss
    paired: bool = False
    signed: bool = True


_half_square: Loss = lambda distance: distance.square() / 2
_below: Loss = lambda ours, theirs: softplus(theirs - ours)

GAN_LOSSES: dict[str, GanLoss] = {
    # Goodfellow et al. 2014 with the non-saturating G loss, -log sigmoid(l), as in the hosts.
    "nonsaturating": GanLoss(lambda a: softplus(-a), softplus, lambda b: softplus(-b)),
    # The same with the original G loss, log(1 - sigmoid(b)), which saturates where D is certain.
    "minimax": GanLoss(lambda a: softplus(-a), softplus, lambda b: -softplus(b)),
    # Lim and Ye 2017, Miyato et al. 2018.
    "hinge": GanLoss(lambda a: relu(1 - a), lambda b: relu(1 + b), lambda b: -b),
    # Mao et al. 2017, equation (9): targets 1, 0 and 1.
    "lsgan": GanLoss(lambda a: _half_square(a - 1), _half_square, lambda b: _half_square(b - 1), signed=False),
    # Arjovsky et al. 2017; the Lipschitz constraint is left to R1, the gradient penalty or spectral normalisation.
    "wgan": GanLoss(lambda a: -a, lambda b: b, lambda b: -b, signed=False),
    # Jolicoeur-Martineau 2018, the pairs of R3GAN (Huang et al. 2024, arXiv:2501.05441): sp(b - a), for G sp(a - b).
    "relativistic": GanLoss(_below, _below, _below, paired=True, signed=False),
}
