"""MineGAN: the miner, and the trained parameters of each stage.

Wang, Gonzalez-Garcia, Berga, Herranz, Khan, van de Weijer: MineGAN: Effective Knowledge Transfer from GANs to Target
Domains with Few Images (CVPR 2020, arXiv:1912.05270)."""

from __future__ import annotations

import torch

MINER = "G.mapping.before."  # prefix of the names of the miner's parameters
CONSTANT = "G.synthesis.b4.const"


def miner(z_dim: int) -> torch.nn.Sequential:
    """Return M(u) = W_2 relu(W_1 u + b_1) + b_2, [N, z_dim] -> [N, z_dim], with PyTorch's initialisation."""
    linear = torch.nn.Linear
    return torch.nn.Sequential(linear(z_dim, z_dim), torch.nn.ReLU(), linear(z_dim, z_dim))


def is_trained(name: str, first_stage: bool, constant: bool) -> bool:
    """Return whether a parameter of G or D is trained. The first stage trains D, the miner and, with `constant`, G's
    4x4 constant; the second stage trains all."""
    return not first_stage or name.startswith(("D.", MINER)) or (constant and name == CONSTANT)
