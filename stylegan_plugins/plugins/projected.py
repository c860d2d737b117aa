"""Projected GAN: D is replaced by four discriminators on random projections of a frozen network's features.

Sauer, Chitta, Müller, Geiger: Projected GANs Converge Faster (NeurIPS 2021, arXiv:2111.01007). Equations:
docs/methods/projected.md; projection and discriminators: training_ext.projected; frozen networks:
stylegan_plugins.vision."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from stylegan_plugins import Critic, Head, OptionError, Pass, Preset, Session, hookimpl, option
from stylegan_plugins.vision import backbones
from stylegan_plugins.vision.pyramid import Pyramid
from training_ext.projected import ProjectedDiscriminator

PAPER = "Sauer et al. 2021, Projected GANs Converge Faster, arXiv:2111.01007"
FLAG = "--projected-backbone"
CUTOUT = 0.2  # smaller holes than in the original DiffAugment
brings = {"diffaugment": {"cutout": CUTOUT}}
conflicts = ("freezed", "genco")  # they use layers, and weights, of the host's D
trains_D = False
_TRAIN = "authors' train.py, configuration {}; they train with --batch=64 --mirror=1 in their README"
_EMA = {"ema": 312.5}  # half-life of batch * 10 / 32 kimg
PRESETS = {
    "stylegan2": Preset(
        {"separable": True, "lr": 0.002, "g_lr": 0.002, "z": 64, "w": 128, "mapping": 2, **_EMA},
        _TRAIN.format("stylegan2"),
    ),
    "fastgan-lite": Preset(
        {"separable": False, "lr": 0.0002, "g_lr": 0.0002, **_EMA},
        f"{_TRAIN.format('fastgan_lite')}; their G is FastGAN's, of which nothing is here",
    ),
}
OF_THE_HOST = {"lr": ("dlr", "D_opt_kwargs"), "g_lr": ("glr", "G_opt_kwargs")}  # stylegan3's options


@dataclass(frozen=True)
class ProjectedOptions:
    backbone: str = option(
        "efficientnet_lite0",
        f"frozen network: {', '.join(backbones.BACKBONES)}, a model of timm, or NAME=FILE with weights of one's own",
        metavar="NAME",
    )
    separable: bool = option(
        True, "blocks of separable 3x3 convolutions, as with the authors' StyleGAN2; false: 4x4, as with FastGAN"
    )
    lr: float = option(0.002, "learning rate of the discriminators", minimum=0)
    g_lr: float | None = option(None, "learning rate of G; none: the host's", minimum=0)
    z: int | None = option(None, "width of z; none: the host's, 512", minimum=1, maximum=4096)
    w: int | None = option(None, "width of w; none: the host's, 512", minimum=1, maximum=4096)
    mapping: int | None = option(None, "layers of the mapping network; none: the host's", minimum=1, maximum=32)
    ema: float | None = option(None, "half-life of G's average, in iterations; none: the host's", minimum=0)
    path_length: bool = option(False, "keep path-length regularisation, as the host has it")
    style_mixing: bool = option(False, "keep style mixing, as the host has it")
    r1: bool = option(False, "R1 of the discriminators, with the weight --gamma")


OPTIONS = ProjectedOptions


def pyramid(text: str, side: int, device: torch.device) -> tuple[str, Pyramid]:
    """Return a backbone's name, with an absolute path, and its levels. Raises OptionError or DataError."""
    models = backbones.models_of(text, FLAG)
    if len(models) > 1:
        raise OptionError(f"{FLAG}={text}: give one network.")
    network = backbones.load(models[0].name, models[0].weights, FLAG).to(device)
    try:
        return str(models[0].absolute()), Pyramid(network, side)
    except ValueError as error:
        raise OptionError(f"{FLAG}={text}: it has no features to project: {error}. Choose another.") from error


@hookimpl
def configure(args: Any, options: ProjectedOptions, explicit: frozenset[str]) -> ProjectedOptions:
    loss = args["loss_kwargs"]
    for flag, present in (
        ("--freezed", (args["D_kwargs"].get("block_kwargs") or {}).get("freeze_layers")),
        ("--d-spectral-norm", loss.get("d_spectral_norm")),
    ):
        if present:
            raise OptionError(f"{flag}: with projected the host's D is not trained. Leave it out.")
    for flag, key in (("--r2", "r2_gamma"), ("--gradient-penalty", "gradient_penalty")):
        if loss.get(key) and not options.r1:
            raise OptionError(
                f"{flag}: projected has no penalties on gradients. Leave it out, or give --projected-r1=true."
            )
    architecture = {"z": ("z_dim", args["G_kwargs"]), "w": ("w_dim", args["G_kwargs"])}
    architecture["mapping"] = ("num_layers", args["G_kwargs"].setdefault("mapping_kwargs", {}))
    for name, (key, kwargs) in architecture.items():
        if (value := getattr(options, name)) is not None:
            if args.get("resume_pkl") and value != kwargs.get(key):
                if f"projected_{name}" not in explicit:  # of the preset
                    options = replace(options, **{name: kwargs.get(key)})
                    continue
                raise OptionError(
                    f"--projected-{name}={value}: the architecture comes from the pickle of --resume. Leave it out."
                )
            kwargs[key] = value
    if {"ema_kimg", "projected_ema"} <= explicit:
        raise OptionError(f"--projected-ema={options.ema:g}: --ema-kimg sets the same half-life. Give one of them.")
    if options.ema is not None:
        args["ema_kimg"] = options.ema * args["batch_size"] / 1000

    # Learning rates: the heads have D's.
    for name, (flag, key) in OF_THE_HOST.items():
        if flag in explicit and f"projected_{name}" not in explicit:
            options = replace(options, **{name: args[key]["lr"]})
        elif (value := getattr(options, name)) is not None:
            args[key]["lr"] = value

    # Loss: switch off regularisation that the authors do not use.
    changed = []
    if "gan_loss" not in loss:
        loss["gan_loss"] = "hinge"
        changed.append("--gan-loss=hinge")
    if not options.path_length:
        loss["pl_weight"] = 0
        args["G_reg_interval"] = None  # so that G's learning rate is not scaled for it
        changed.append("no path-length regularisation")
    if not options.style_mixing:
        loss["style_mixing_prob"] = 0
        changed.append("no style mixing")
    if not options.r1:
        changed.append("no R1")
    if changed:
        print(f"projected: {', '.join(changed)}, the authors' settings; options keep or change them.")
    backbone, _ = pyramid(options.backbone, args["training_set_kwargs"]["resolution"], torch.device("cpu"))
    return replace(options, backbone=backbone)


@hookimpl
def setup(session: Session, options: ProjectedOptions) -> Method:
    if session.rank == 0:
        print(
            "projected: the host's D is not trained and stays in snapshots as it was; the discriminators are in "
            "training-state-*.pt."
        )
    return Method(session, options)


class Method:
    """The critic of a run.

    levels  the frozen network; not in a head, so that optimisers, states and pickles do not contain it"""

    def __init__(self, session: Session, options: ProjectedOptions) -> None:
        _, self.levels = pyramid(options.backbone, session.G.img_resolution, session.device)
        self.D = ProjectedDiscriminator(self.levels.channels, options.separable, session.G.c_dim)
        self.heads = [Head("projected", self.D)]
        self.critic = Critic("projected", self.logits, runs_D=False, r1="raw" if options.r1 else None)

    def logits(self, seen: Pass) -> torch.Tensor:
        """Return logits of all discriminators, [N, K]."""
        return self.D(self.levels(seen.batch), seen.labels)

    @hookimpl
    def trains(self, name: str) -> bool:
        return not name.startswith("D.")
