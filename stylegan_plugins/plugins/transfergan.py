"""TransferGAN: start G and D from a pretrained GAN and train all of both.

Wang, Wu, Herranz, van de Weijer, Gonzalez-Garcia, Raducanu: Transferring GANs (ECCV 2018, arXiv:1805.01677). --resume
itself does this. The plug-in requires a pretrained GAN, and has the published settings, including the authors' WGAN-GP
with its schedule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stylegan_plugins import OptionError, Preset, hookimpl, option

PAPER = "Wang et al. 2018, Transferring GANs: generating images from limited data, arXiv:1805.01677"
changes_data = True  # --transfergan-loss=wgan-gp changes the batch, which other plug-ins read
_LOW_SHOT = (
    "as DiffAugment's authors fine-tune StyleGAN2 from FFHQ: the hosts' optimisers, --batch=16 --gamma=10 "
    "--cbase=16384 --mirror=1 --kimg={}"
)
_HOSTS = {"lr": 0.0, "beta2": 0.0, "loss": "host"}
PRESETS = {
    "100-shot": Preset(_HOSTS, _LOW_SHOT.format(300)),
    "AnimalFace": Preset(_HOSTS, _LOW_SHOT.format(500)),
    "paper": Preset(
        {"lr": 1e-5, "beta2": 0.9, "loss": "wgan-gp"},
        "authors' transfer_gan.py at 64x64; --gan-loss=wgan --gradient-penalty=10 --r1=0 --d-reg-interval=0 "
        "--g-interval=5 --batch=16, and a length of 25,009 steps of G, unless they are given",
    ),
}
BATCH, G_STEPS = 16, 25_009
WGAN_GP = {"gan_loss": ("gan_loss", "wgan"), "gradient_penalty": ("gradient_penalty", 10.0)}
WGAN_GP |= {"gamma": ("r1_gamma", 0.0), "g_interval": ("g_interval", 5)}
"""Options of train.py, and the arguments of the loss with their values."""


@dataclass(frozen=True)
class TransferGANOptions:
    lr: float = option(0.0, "learning rate of G and D, 0 = the host's", minimum=0)
    beta2: float = option(0.0, "Adam's second moment, 0 = the host's", minimum=0, maximum=1)
    loss: str = option(
        "host",
        "the host's loss and schedule, or the authors' WGAN-GP with five steps of D for each of G, batch 16 and no "
        "path lengths; options of train.py that are given win",
        choices=("host", "wgan-gp"),
    )


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
    if options.loss == "wgan-gp":
        _use_wgan_gp(args, explicit)


def _use_wgan_gp(args: Any, explicit: frozenset[str]) -> None:
    """Give the run the authors' loss and schedule, except for given options, and print this."""
    loss = args["loss_kwargs"]
    loss.update({name: value for flag, (name, value) in WGAN_GP.items() if flag not in explicit})
    loss["pl_weight"], args["G_reg_interval"] = 0, None  # without path lengths, for which lr would be scaled
    if "d_reg_interval" not in explicit:
        args["D_reg_interval"] = None
    if "batch" not in explicit and BATCH % args["num_gpus"] == 0:
        args["ema_kimg"] *= BATCH / args["batch_size"]
        args["batch_size"] = BATCH
        most = BATCH // args["num_gpus"]
        args["batch_gpu"] = min(args["batch_gpu"], most) if "batch_gpu" in explicit else most
    if "kimg" not in explicit:
        whole = G_STEPS * loss.get("g_interval", 1) * args["batch_size"] / 1000
        args["total_kimg"] = min(whole, args["total_kimg"])
    shown = ", ".join(f"{name}={loss[name]}" for name, _ in WGAN_GP.values() if name in loss)
    print(f"transfergan: {shown}, batch {args['batch_size']}, {args['total_kimg']:g} kimg.")
    if loss.get("gan_loss") == "wgan" and "augment_kwargs" in args and not explicit & {"aug", "target", "augpipe"}:
        for name in ("augment_kwargs", "ada_target", "augment_p"):
            args.pop(name, None)
        print("transfergan: --aug=noaug, since ADA reads signs of logits; give --aug=ada to train with ADA.")
