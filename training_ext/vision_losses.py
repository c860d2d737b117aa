"""Losses of vision-aided discriminators on logits of several levels.

Kumari, Zhang, Shechtman, Zhu 2022 (arXiv:2112.09130). Equations and symbols: docs/methods/vision_aided.md."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from training_ext.gan_losses import GanLoss, Loss


def sigmoid(target: float) -> GanLoss:
    """Return binary cross-entropy with the target a for real images, 0 for generated ones, and a for G, as in the
    authors' code. target: a"""

    def towards(value: float) -> Loss:
        return lambda logits: binary_cross_entropy_with_logits(logits, torch.full_like(logits, value), reduction="none")

    return GanLoss(towards(target), towards(0.0), towards(target))


def over_levels(loss: Loss, levels: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return a loss on logits [N, ...], averaged over pixels and summed over levels; [N]."""
    return torch.stack([loss(logits).flatten(1).mean(dim=1) for logits in levels]).sum(dim=0)
