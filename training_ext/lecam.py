"""LeCam: D's predictions are pulled towards moving averages of its predictions on the other source.

Tseng, Jiang, Liu, Yang, Yang, "Regularizing Generative Adversarial Networks under Limited Data" (CVPR 2021,
arXiv:2104.03310). Symbols: logits D(x), D(G(z)) [N, K], K = 1 of the host's D; alpha_R and alpha_F [], moving averages
of the means of the logits of real and of generated images, without gradient.

The maximum in the penalty, and the division that removes the weight of a_0, follow the authors' code for StyleGAN2
(stylegan2/lecam_loss.py); the paper has plain squares."""

from __future__ import annotations

from typing import Any

import torch


def penalty(
    real: torch.Tensor, generated: torch.Tensor, alpha_real: torch.Tensor, alpha_generated: torch.Tensor
) -> torch.Tensor:
    """Return R_LC for each pair of images:  max(0, D(x) - alpha_F)^2 + max(0, alpha_R - D(G(z)))^2, [N].

    real, generated: logits [N, K]; the result is a mean over K; alpha_real, alpha_generated: []."""
    squares = (real - alpha_generated).relu().square() + (alpha_real - generated).relu().square()
    return squares.flatten(1).mean(dim=1)


class DebiasedAverage:
    """A moving average of the means m_t of batches, in which the start has no weight:

        a_t = decay a_(t-1) + (1 - decay) m_t,   a_0 = 0,   alpha_t = a_t / (1 - decay^t)

    A batch may have several rounds: m_t is the mean over its rounds so far, so that alpha_t after the last one is the
    same as for one round with all images.

    decay  in [0, 1), for one batch"""

    def __init__(self, decay: float, device: torch.device) -> None:
        self.decay = decay
        self.batches = 0
        self.a = self.before = self.mean = torch.zeros([], device=device)

    def add(self, mean: torch.Tensor, round: int) -> None:
        """Add the mean [] of one round, 0, 1, ..., of a batch."""
        if round == 0:
            self.batches, self.before, self.mean = self.batches + 1, self.a, mean
        else:
            self.mean = self.mean + (mean - self.mean) / (round + 1)
        self.a = self.decay * self.before + (1 - self.decay) * self.mean

    @property
    def alpha(self) -> torch.Tensor:
        """Return the average [], after a first batch."""
        return self.a / (1 - self.decay**self.batches)

    def state_dict(self) -> dict[str, Any]:
        return {"a": self.a, "batches": self.batches}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.a, self.batches = state["a"], state["batches"]
