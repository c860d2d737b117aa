"""Sampling from G with D's help: Langevin dynamics in latent space, of all images or of one class.

Che, Zhang, Sohl-Dickstein, Larochelle, Paull, Cao, Bengio: Your GAN is Secretly an Energy-based Model and You Should
Use Discriminator Driven Latent Sampling (NeurIPS 2020, arXiv:2003.06060). For one class, with a linear classifier on
the encoder: Jeong and Shin 2021 (arXiv:2103.09742, section 4.3). Symbols: z [N, z_dim]; u [N, C, H, W], pixel noise;

    x = G(z) + e u
    E(z, u) = -( d(x) + lambda l_y(x) ) - log p(z) + 1/2 ||u||^2
    z <- z - eps/2 dE/dz + sigma sqrt(eps) xi,   u likewise,   xi ~ N(0, 1)

d is D's logit and l_y the logit of class y. p(z) is N(0, 1), whose -log is 1/2 ||z||^2, or U(-1, 1), for which z is
clamped instead. The authors also clamp a normal z. Random numbers are arguments."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

PRIORS = ("normal", "uniform")
Score = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # of z and u: d + lambda l_y, [N]
Draw = Callable[[torch.Tensor], torch.Tensor]  # normal numbers in the shape of a tensor


@dataclass(frozen=True)
class Langevin:
    """Steps of Langevin dynamics; the defaults are the authors', except for the prior.

    steps   number of them
    eps     step size
    sigma   factor of the noise; 1 samples exp(-E), smaller values its modes
    prior   of z, one of PRIORS"""

    steps: int = 1000
    eps: float = 0.01
    sigma: float = 0.1
    prior: str = PRIORS[0]

    def energy(self, score: torch.Tensor, z: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        """E without constants, [N]; score [N]: d + lambda l_y."""
        gaussian = [u, z] if self.prior == "normal" else [u]
        return -score + sum(value.flatten(1).square().sum(dim=1) / 2 for value in gaussian)

    def step(self, score: Score, z: torch.Tensor, u: torch.Tensor, draw: Draw) -> tuple[torch.Tensor, torch.Tensor]:
        """Return z and u after one step, without gradient."""
        z, u = z.detach().requires_grad_(True), u.detach().requires_grad_(True)
        gradients = torch.autograd.grad(self.energy(score(z, u), z, u).sum(), [z, u])
        with torch.no_grad():
            z, u = (
                value - self.eps / 2 * gradient + self.sigma * math.sqrt(self.eps) * draw(value)
                for value, gradient in zip((z, u), gradients, strict=True)
            )
            return z.clamp(-1, 1) if self.prior == "uniform" else z, u

    def sample(self, score: Score, z: torch.Tensor, u: torch.Tensor, draw: Draw) -> tuple[torch.Tensor, torch.Tensor]:
        """Return z and u after all steps."""
        for _ in range(self.steps):
            z, u = self.step(score, z, u, draw)
        return z.detach(), u.detach()
