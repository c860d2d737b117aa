"""TransferGAN: start G and D from a pretrained GAN and train all of both.

Wang, Wu, Herranz, van de Weijer, Gonzalez-Garcia, Raducanu: Transferring GANs (ECCV 2018, arXiv:1805.01677). This is
what --resume does; the plug-in makes sure that there is something to start from and has the published settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stylegan_plugins import OptionError, Preset, hookimpl, option

PAPER = "Wang et al. 2018, Transferring GANs: generating images from limited data, arXiv:1805.01677"
_LOW_SHOT = (
    "as DiffAugment's authors fine-tune StyleGAN2 from FFHQ: the hosts' optimisers, --batch=16 --gamma=10 "
    "--cbase=16384 --mirror=1 --kimg={}"
)
PRESETS = {
    "100-shot": Preset({"lr": 0.0, "beta2": 0.0}, _LOW_SHOT.format(300)),
    "AnimalFace": Preset({"lr": 0.0, "beta2": 0.0}, _LOW_SHOT.format(500)),
    "paper": Preset(
        {"lr": 1e-5, "beta2": 0.9},
        "authors' transfer_gan.py; their WGAN-GP with 5 steps of D, batch 16, at 64x64, is not reproduced",
    ),
}


@dataclass(frozen=True)
class TransferGANOptions:
    lr: float = option(0.0, "learning rate of G and D, 0 = the host's", minimum=0)
    beta2: float = option(0.0, "Adam's second moment, 0 = the host's", minimum=0, maximum=1)


OPTIONS = TransferGANOptions


@hookimpl
def configure(args: Any, options: TransferGANOptions, explicit: frozenset[str]) -> None:
    if not args.get("resume_pkl"):
        raise OptionError("--plugin=transfergan: there is nothing to start from. Give --resume=PKL.")
    if options.lr and explicit & {"glr", "dlr"}:
        raise OptionError("--transfergan-lr and --glr or --dlr: give one of them.")
    for optimizer in (args["G_opt_kwargs"], args["D_opt_kwargs"]):
        optimizer["lr"] = options.lr or optimizer["lr"]
        optimizer["betas"] = [optimizer["betas"][0], options.beta2 or optimizer["betas"][1]]
