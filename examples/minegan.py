"""MineGAN: a small network before a pretrained G finds the latents whose images look like the new data.

Wang, Gonzalez-Garcia, Berga, Herranz, Khan, van de Weijer: MineGAN: Effective Knowledge Transfer from GANs to Target
Domains with Few Images (CVPR 2020, arXiv:1912.05270). M is the miner, u ~ N(0, I), and G(M(u)) takes the place of G(u):

    M(u) = W_2 relu(W_1 u + b_1) + b_2
    L_D = E softplus(-D(x)) + E softplus(D(G(M(u)))),   L_G = E softplus(-D(G(M(u))))

Stage 1 trains M and D, while G stays as it is in the pickle; stage 2 trains all three. M is averaged, saved and used
with G, in metrics and snapshots too. Of the authors' miners this is the one on z; their second one, which makes the
first features of the synthesis network, and the choice among several generators are left out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from stylegan_plugins import OptionError, hookimpl, option

PAPER = "Wang et al. 2020, MineGAN: Effective Knowledge Transfer from GANs to Target Domains, arXiv:1912.05270"
MINER = "G.mapping.before."  # how names of the miner's parameters begin


@dataclass(frozen=True)
class MineGANOptions:
    stage1_kimg: float | None = option(
        None,
        "length of stage 1, in which G is frozen, 0 = no stage 1; none: 1000 iterations, the authors' choice for "
        "StyleGAN2",
        minimum=0,
        metavar="KIMG",
    )


OPTIONS = MineGANOptions


@hookimpl
def configure(args: Any, options: MineGANOptions) -> MineGANOptions:
    if not args.get("resume_pkl"):
        raise OptionError("--plugin=minegan: there is no pretrained generator to mine. Give --resume=PKL.")
    if options.stage1_kimg is None:
        options = replace(options, stage1_kimg=float(args["batch_size"]))  # times 1000 iterations, in thousands
    return options


@hookimpl
def register_generator_module(G: torch.nn.Module) -> torch.nn.Module:
    """Return the miner, [N, z_dim] -> [N, z_dim]."""
    width: Any = G.z_dim
    return torch.nn.Sequential(torch.nn.Linear(width, width), torch.nn.ReLU(), torch.nn.Linear(width, width))


@hookimpl
def setup(options: MineGANOptions) -> Method:
    return Method(options)


class Method:
    def __init__(self, options: MineGANOptions) -> None:
        assert options.stage1_kimg is not None  # see configure
        self.stage1_nimg = options.stage1_kimg * 1000

    @hookimpl
    def trains(self, name: str, nimg: int) -> bool:
        return nimg >= self.stage1_nimg or name.startswith(("D.", MINER))
