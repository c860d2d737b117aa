"""TransferGAN: start G and D from a pretrained GAN and train all of both.

Wang, Wu, Herranz, van de Weijer, Gonzalez-Garcia, Raducanu: Transferring GANs (ECCV 2018, arXiv:1805.01677). This is
what --resume does; the plug-in makes sure that there is something to start from and has the published settings.
"""

from dataclasses import dataclass

from stylegan_plugins import hookimpl
from stylegan_plugins.errors import OptionError
from stylegan_plugins.options import Preset, option

PAPER = "Wang et al. 2018, Transferring GANs: generating images from limited data, arXiv:1805.01677"
PRESETS = {
    "paper": Preset(
        {"lr": 1e-5, "beta2": 0.9},
        "authors' transfer_gan.py; their WGAN-GP with 5 steps of D, batch 16, at 64x64, is not reproduced",
    )
}


@dataclass(frozen=True)
class TransferGANOptions:
    lr: float | None = option(None, "learning rate of G and D; none: the host's", minimum=0)
    beta2: float | None = option(None, "Adam's second moment; none: the host's", minimum=0, maximum=1)
    preset: str | None = option(
        None, "published settings; options that are given win over them", choices=tuple(PRESETS)
    )


@hookimpl
def options():
    return TransferGANOptions


@hookimpl
def presets(options):
    return {} if options.preset is None else PRESETS[options.preset].values_for("transfergan")


@hookimpl
def configure(args, options, given):
    if not args.get("resume_pkl"):
        raise OptionError("--plugin=transfergan: there is nothing to start from. Give --resume=PKL.")
    if options.lr is not None and given & {"glr", "dlr"}:
        raise OptionError("--transfergan-lr and --glr or --dlr: give one of them.")
    for optimizer in (args["G_opt_kwargs"], args["D_opt_kwargs"]):
        if options.lr is not None:
            optimizer["lr"] = options.lr
        if options.beta2 is not None:
            optimizer["betas"] = [optimizer["betas"][0], options.beta2]
