"""MineGAN: a small network before a pretrained G finds the latents whose images look like the new data.

Wang, Gonzalez-Garcia, Berga, Herranz, Khan, van de Weijer: MineGAN: Effective Knowledge Transfer from GANs to Target
Domains with Few Images (CVPR 2020, arXiv:1912.05270). Equations: docs/methods/minegan.md; the miner:
training_ext.minegan."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from stylegan_plugins import OptionError, PluginError, Preset, Session, hookimpl, option
from training_ext import minegan

PAPER = "Wang et al. 2020, MineGAN: Effective Knowledge Transfer from GANs to Target Domains, arXiv:1912.05270"
PRESETS = {
    "stylegan2": Preset(
        {"lr": 0.002, "constant": True},
        "authors' styleGANv2/train.py: batch 16, --gamma=10, a first stage of 1000 iterations; `constant` stands for "
        "their second miner",
    ),
    "stylegan": Preset({"lr": 0.001}, "authors' styleGAN/finetune.py; their first stage has 100 iterations"),
}


@dataclass(frozen=True)
class MineGANOptions:
    stage1_kimg: float | None = option(
        None,
        "length of stage 1, in which G is frozen, 0 = no stage 1; none: 1000 iterations, the authors' choice for "
        "StyleGAN2",
        minimum=0,
        metavar="KIMG",
    )
    constant: bool = option(False, "train G's 4x4 constant in stage 1, too, as the authors' second miner replaces it")
    lr: float = option(0.0, "learning rate of the miner, G and D, 0 = the host's", minimum=0)


OPTIONS = MineGANOptions


@hookimpl
def configure(args: Any, options: MineGANOptions, explicit: frozenset[str]) -> MineGANOptions:
    if not args.get("resume_pkl"):
        raise OptionError("--plugin=minegan: there is no pretrained generator to mine. Give --resume=PKL.")
    if options.lr and explicit & {"glr", "dlr"}:
        raise OptionError("--minegan-lr and --glr or --dlr: give one of them.")
    if options.lr and args["plugins"]["options"].get("transfergan", {}).get("lr"):
        raise OptionError("--minegan-lr and --transfergan-lr: give one of them, or set one to 0 beside its preset.")
    for optimizer in ("G_opt_kwargs", "D_opt_kwargs") if options.lr else ():
        args[optimizer]["lr"] = options.lr
    if options.stage1_kimg is None:
        options = replace(options, stage1_kimg=float(args["batch_size"]))  # 1000 iterations, in thousands of images
    return options


@hookimpl
def register_generator_module(G: torch.nn.Module) -> torch.nn.Module:
    width: Any = G.z_dim
    return minegan.miner(width)


@hookimpl
def setup(session: Session, options: MineGANOptions) -> Method:
    if options.constant and all(f"G.{name}" != minegan.CONSTANT for name, _ in session.G.named_parameters()):
        raise PluginError("--minegan-constant=true: this G has no 4x4 constant. Leave it out, or give --cfg=stylegan2.")
    return Method(options)


class Method:
    def __init__(self, options: MineGANOptions) -> None:
        self.options = options
        self.stage1_nimg = (options.stage1_kimg or 0) * 1000

    @hookimpl
    def trains(self, name: str, nimg: int) -> bool:
        return minegan.is_trained(name, nimg < self.stage1_nimg, self.options.constant)
