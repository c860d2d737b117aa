"""Top-k: G learns from those generated images of a batch that D finds most real.

Sinha, Zhao, Goyal, Raffel, Odena, "Top-k Training of GANs: Improving GAN Performance by Throwing Away Bad Samples"
(NeurIPS 2020, arXiv:2002.06224). Symbols: B images in a batch, over all processes and rounds of gradient accumulation;
k of them count:

    L_G = 1/k sum over the k largest D(G(z)) of f(D(G(z))),     k = floor(max(gamma^e B, floor(nu B)))

e = 0, 1, ... is the epoch. Each of R rounds gives an even share of the k, since it does not see the other rounds."""

from __future__ import annotations

import torch


def kept(batch: int, epoch: int, gamma: float, nu: float) -> int:
    """Return k, the number of images of a batch that count in an epoch, at least 1; gamma, nu in (0, 1]."""
    return max(int(max(gamma**epoch * batch, int(nu * batch))), 1)


def kept_in_round(k: int, round: int, rounds: int) -> int:
    """Return how many of the k count in one round of several. The sum over all rounds is k."""
    return k * (round + 1) // rounds - k * round // rounds


def largest(logits: torch.Tensor, k: int) -> torch.Tensor:
    """Return 1 for the k largest logits [N], 0 for the others, [N]."""
    return torch.zeros_like(logits).index_fill(0, logits.topk(k).indices, 1)
