"""ContraD: D's encoder is trained by contrast, and a small head on it is the discriminator.

Jeong, Shin: Training GANs with Stronger Augmentations via Contrastive Discriminator (ICLR 2021, arXiv:2103.09742).
Equations: docs/methods/contrad.md; losses, heads and augmentation: training_ext.contrad."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import torch

from stylegan_plugins import Augmentation, Critic, Head, Pass, Preset, Session, Step, Term, View, hookimpl, option
from stylegan_plugins.analysis import latent_sampling, probe
from stylegan_plugins.analysis import sample as sampling
from stylegan_plugins.errors import DataError, OptionError, tell
from stylegan_plugins.files import datasets, run_folders, states
from stylegan_plugins.host import devices, find
from stylegan_plugins.host.networks import load_network
from stylegan_plugins.manager import recorded
from stylegan_plugins.options import CountsWith, refuse_given
from stylegan_plugins.vision.run_features import RunFeatures
from training_ext import contrad
from training_ext.contrad import HSV_GRADIENTS, LUMA, SIMCLR, SimCLR
from training_ext.ddls import PRIORS, Langevin
from training_ext.distributed import gather
from training_ext.linear_evaluation import Protocol
from training_ext.passes import changing, read

PAPER = "Jeong and Shin 2021, Training GANs with Stronger Augmentations via Contrastive Discriminator, arXiv:2103.09742"
ada = "off"
ENCODER = "b4.conv"  # the layer of D whose output is phi
GENERATED = 32  # images whose minibatch standard deviation is used for all others
LARGEST_SMALL = 64  # pixels: the largest side with the augmentation for CIFAR

# Their R1 is lbd_r1 / 2 |d D / d x|^2 of images x in [0, 1], whose gradient is twice as long: gamma is 4 lbd_r1.
_AFHQ = {"crop_area": 0.08, "jitter": 0.8, "hue": 0.2, "ema": 20.0}
_CUTOUT = {"augment": "simclr-hq-cutout", "cutout_side": 255 / 512}
_AFHQ_SOURCE = (
    "authors' EXPERIMENTS.md and afhq gin files; they train with --batch=64 --gamma=2 --d-reg-interval=16 (their "
    "lbd_r1 of 0.5, on images in [0, 1], lazy) --mirror=1, lr 0.0025, --kimg=25600"
)
_SN = {"augment": "simclr", "mbstd": "off"}
_SN_SOURCE = (
    "authors' EXPERIMENTS.md, {}, whose D has spectral normalisation and no minibatch standard deviation; they train "
    "with --batch={} --gamma=0 --d-spectral-norm, lr 0.0002, betas 0.5 and 0.999, --kimg={}"
)
PRESETS = {
    "cifar": Preset(
        {"augment": "simclr", "mbstd": "joint", "ema": 1000.0},
        "authors' EXPERIMENTS.md, StyleGAN2 on CIFAR; they train with --batch=64 --gamma=0.4 --d-reg-interval=0 (their "
        "lbd_r1 of 0.1, on images in [0, 1], in each iteration) --mirror=1, lr 0.002, --kimg=51200",
    ),
    "cifar-sndcgan": Preset(_SN, _SN_SOURCE.format("SNDCGAN on CIFAR", 512, 102400)),
    "cifar-snresnet18": Preset({**_SN, "hidden": 1024}, _SN_SOURCE.format("SNResNet-18 on CIFAR", 512, 102400)),
    "celeba-hq-128": Preset(
        {**_SN, "augment": "simclr-hq"}, _SN_SOURCE.format("SNDCGAN on CelebA-HQ at 128x128", 64, 6400)
    ),
    "afhq-dog": Preset({"augment": "simclr-hq", **_AFHQ}, _AFHQ_SOURCE),
    "afhq-cat": Preset({**_CUTOUT, **_AFHQ}, _AFHQ_SOURCE),
    "afhq-wild": Preset({**_CUTOUT, **_AFHQ}, _AFHQ_SOURCE),
}


@dataclass(frozen=True)
class ContraDOptions:
    temperature: float = option(0.1, "temperature of both contrastive losses, above 0", minimum=1e-3)
    lambda_con: float = option(1.0, "factor of the contrast of generated images, 0 = off", minimum=0)
    lambda_dis: float = option(1.0, "factor of the GAN loss of the head h_d, 0 = h_d is not trained", minimum=0)
    augment: str = option(
        "auto",
        f"augmentation; auto: simclr up to {LARGEST_SMALL}x{LARGEST_SMALL} pixels, simclr-hq, with blur, above",
        choices=("auto", *SIMCLR),
    )
    crop_area: float = option(0.2, "smallest share of the image that a view shows", minimum=0.01, maximum=1)
    jitter: float = option(0.4, "range of contrast, saturation and brightness factors: 1 +- it", minimum=0)
    hue: float = option(0.1, "largest change of hue, in 255/360 of a turn", minimum=0, maximum=0.5)
    cutout_side: float = option(
        0.5,
        "side of the hole of simclr-hq-cutout, in image sides",
        minimum=0,
        maximum=1,
        counts=(CountsWith("augment", lambda augment: augment == "simclr-hq-cutout", "simclr-hq-cutout"),),
    )
    hsv_gradient: str = option(
        HSV_GRADIENTS[0],
        "gradient through hue, saturation and brightness: the identity's, as the authors', or their own",
        choices=HSV_GRADIENTS,
    )
    hidden: int = option(512, "width of the heads' hidden layers", minimum=1)
    projection: int = option(128, "width of the projections", minimum=1)
    r1: str = option(
        "augmented", "images whose gradient R1 takes; clean: as the hosts do", choices=("augmented", "clean")
    )
    mbstd: str = option(
        "views",
        "minibatch-stddev groups: across both views of real images; joint: across these and generated images, in one "
        "pass; apart: within a view; off: no such layer in D",
        choices=("views", "joint", "apart", "off"),
    )
    gather: bool = option(
        True,
        "contrast with the images of all GPUs, not with the own ones alone",
        counts=(CountsWith("--gpus", lambda args: args["num_gpus"] > 1, 2),),
    )
    ema: float = option(0.0, "half-life of G_ema, 0 = the host's", minimum=0, metavar="KIMG")
    warmup: int = option(3000, "iterations over which learning rates rise from 0, 0 = off", minimum=0)

    def variant(self, resolution: int) -> str:
        """Return the augmentation for a resolution."""
        return self.augment if self.augment != "auto" else "simclr" if resolution <= LARGEST_SMALL else "simclr-hq"

    def transform(self, resolution: int) -> SimCLR:
        strengths = dict(crop_area=self.crop_area, jitter=self.jitter, hue=self.hue, cutout_side=self.cutout_side)
        return SimCLR(**strengths, **SIMCLR[self.variant(resolution)], hsv_gradient=self.hsv_gradient)


OPTIONS = ContraDOptions


@hookimpl
def configure(args: Any, options: ContraDOptions, explicit: frozenset[str]) -> ContraDOptions:
    if args["training_set_kwargs"].get("use_labels"):
        raise OptionError("--cond: contrad's discriminator knows no labels, so G would not learn them. Leave it out.")
    together = args["batch_gpu"] * (args["num_gpus"] if options.gather else 1)
    if together < 2:
        raise OptionError(
            f"--batch={args['batch_size']}: contrad compares the images of a batch, and sees {together} at a time. "
            "Give it 2 or more, better 16."
        )
    group = args["D_kwargs"].get("epilogue_kwargs", {}).get("mbstd_group_size", 4)  # 4 is the hosts' default
    count = 3 * args["batch_gpu"]
    if options.mbstd == "joint" and count % min(group or count, count):
        raise OptionError(
            f"--contrad-mbstd=joint: D sees {count} images at a time, three for each of the batch, and takes groups of "
            f"{group} (minibatch-stddev). Give another --batch, or another --contrad-mbstd."
        )
    if options.ema and {"ema_kimg", "contrad_ema"} <= explicit:
        raise OptionError(f"--contrad-ema={options.ema:g}: --ema-kimg sets the same half-life. Give one of them.")
    if options.ema:
        args["ema_kimg"] = options.ema
    if options.mbstd == "off":
        epilogue = args["D_kwargs"].setdefault("epilogue_kwargs", {})
        if args.get("resume_pkl") and epilogue.get("mbstd_num_channels") != 0:
            raise OptionError("--contrad-mbstd=off: with --resume, D is that of the pickle, which has the layer.")
        epilogue["mbstd_num_channels"] = 0
    return replace(options, augment=options.variant(args["training_set_kwargs"]["resolution"]))


@hookimpl
def setup(session: Session, options: ContraDOptions) -> Method:
    return Method(session, options)


class Method:
    def __init__(self, session: Session, options: ContraDOptions) -> None:
        self.session, self.options = session, options
        T = options.transform(session.D.img_resolution)
        self.augmentations = [Augmentation("contrad", T.draw, T.apply)]
        features = math.prod(session.layer_shape(ENCODER))
        self.h = contrad.heads(features, options.hidden, options.projection)
        self.heads = [Head("contrad", self.h)]
        second = View(
            "second",
            lambda images: session.augment(images, ada=False),
            on="real",
            groups="shared" if options.mbstd in ("views", "joint") else "own",
        )
        self.critic = Critic(
            "contrad",
            self.logits,
            layers=[ENCODER],
            weight=options.lambda_dis,
            r1="shown" if options.r1 == "augmented" else "raw",
            joint=options.mbstd == "joint",
        )
        self.terms = [Term("contrad", "D", self.contrast, on="both", layers=[ENCODER], views=[second])]

    def logits(self, seen: Pass) -> torch.Tensor:
        """Return h_d(phi(v)), [N, 1]. D's loss gives the encoder no gradient, R1 and G's loss do."""
        phi = self.phi(seen)
        return self.h["logits"](phi.detach() if seen.images.phase == "Dmain" else phi)

    def contrast(self, step: Step) -> torch.Tensor:
        """Return L_con+ + lambda_con L_con-, [N], of this process's images against the images of all processes."""
        real, second, generated = self.phi(step.real), self.phi(step.real.views["second"]), self.phi(step.generated)
        pairs = [("real", real), ("real", second), ("generated", real), ("generated", second), ("generated", generated)]
        projected = [torch.nn.functional.normalize(self.h[name](phi)) for name, phi in pairs]
        options, session, n = self.options, self.session, len(generated)
        together = gather(torch.cat(projected, dim=1), session.num_gpus if options.gather else 1)
        r1, r2, f1, f2, f = together.split(options.projection, dim=1)
        own = slice(session.rank * n, (session.rank + 1) * n) if options.gather else slice(n)
        positive = contrad.nt_xent(r1, r2, options.temperature)[own]
        negative = contrad.supcon_generated(f1, f2, f, options.temperature)[own]
        session.report("ContraD/real", positive)
        session.report("ContraD/generated", negative)
        return positive + options.lambda_con * negative

    @staticmethod
    def phi(seen: Pass) -> torch.Tensor:
        """Return the encoder's features, [N, F]."""
        return seen.layers[ENCODER].flatten(1)

    @hookimpl
    def attached(self) -> None:
        self.batch_end(0)

    @hookimpl
    def batch_end(self, batch_idx: int) -> None:
        """Set the learning rates of the next iteration: min(1, (batch_idx + 1) / warmup) times the full rates."""
        if self.options.warmup:
            for optimizer in self.session.optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = optimizer.defaults["lr"] * min(1, (batch_idx + 1) / self.options.warmup)


# Features and samples of a run. -------------------------------------------------------------------


class RunEncoder(torch.nn.Module):
    """The encoder of a ContraD run, without its heads: images [N, C, H, W] in [-1, 1] of any size to phi, [N, F].

    Features of an image do not depend on the others of its batch. D's minibatch standard deviation, one number for a
    group of images, is replaced by its mean over images of G_ema."""

    deviation: torch.Tensor

    def __init__(self, pickle: Path) -> None:
        super().__init__()
        device = devices.device()  # layers in half precision need a GPU
        self.D: Any = probe.trained_discriminator(pickle).to(device)
        stddev = getattr(self.D.b4, "mbstd", None)
        self.changes: dict[str, Any] = {}
        if stddev is not None:
            G: Any = load_network(pickle, "G_ema").to(device)
            z = torch.randn([GENERATED, G.z_dim], generator=torch.Generator().manual_seed(0)).to(device)
            with torch.no_grad():
                images = G(z, z.new_zeros([GENERATED, G.c_dim]), noise_mode="const")
                _, found = read(self.D, ["b4.mbstd"], images, z.new_zeros([GENERATED, self.D.c_dim]))
            maps = stddev.num_channels
            self.register_buffer("deviation", found["b4.mbstd"][:, -maps:].mean(dim=[0, 2, 3], keepdim=True))
            stddev.group_size = 1
            self.changes["b4.mbstd"] = lambda x: torch.cat(
                [x[:, :-maps], self.deviation.expand_as(x[:, -maps:])], dim=1
            )
        self.eval().requires_grad_(False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        side = self.D.img_resolution
        if images.shape[1] != self.D.img_channels:
            gray = images.new_tensor(LUMA)[:, None, None]
            images = images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else (images * gray).sum(dim=1, keepdim=True)
        if images.shape[2:] != (side, side):
            how: Any = dict(mode="bilinear", align_corners=False, antialias=True)
            images = torch.nn.functional.interpolate(images, size=(side, side), **how)
        with changing(self.D, self.changes):
            labels = images.new_zeros([len(images), self.D.c_dim])
            return read(self.D, [ENCODER], images, labels)[1][ENCODER].flatten(1)


@hookimpl
def register_features(run: Path) -> RunFeatures:
    pickle = run_folders.newest_pickle(run)
    check_run(pickle, "features of contrad are")
    return RunFeatures(pickle, lambda: RunEncoder(pickle))


def check_run(pickle: Path, what: str) -> dict[str, Any]:
    """Return the arguments of the ContraD run of a snapshot. Raises DataError for a snapshot of another run."""
    args = run_folders.read_options(pickle.parent) or {}
    if "contrad" not in args.get("plugins", {}).get("active", []):
        raise DataError(
            f"{pickle}: {what} of a run with --plugin=contrad. Give its run directory, or a snapshot in it."
        )
    return args


def heads_of(pickle: Path) -> torch.nn.ModuleDict:
    """Return the heads that a snapshot's D was trained with, from the newest training state of its run that was written
    in the same iteration, or in the one before. Raises DataError without such a state."""
    args = check_run(pickle, "samples of ddls are")
    options = recorded(args["plugins"]).options["contrad"]
    name = run_folders.SNAPSHOT.fullmatch(pickle.name)
    end = (int(name[1]) + 1) * 1000 if name else 0  # images: the name of a snapshot has thousands
    found = {path: int(path.stem.rpartition("-")[2]) for path in states.states_of(pickle.parent)}
    for path, nimg in found.items():
        if end - 1000 - args.get("batch_size", 0) <= nimg < end:
            state = states.read_state(path)["session"]["heads"]
            own = {key.removeprefix("contrad."): value for key, value in state.items() if key.startswith("contrad.")}
            heads = contrad.heads(own["logits.0.weight"].shape[1], options.hidden, options.projection)
            heads.load_state_dict(own)
            return heads.requires_grad_(False)
    there = ", ".join(f"{nimg / 1000:g} kimg" for nimg in found.values()) or "none"
    raise DataError(
        f"{pickle}: the heads of its D are in no training-state-*.pt of its run (there: {there}). Give the snapshot of "
        "that time, or resume the run to its end."
    )


@hookimpl
def register_commands(cli: click.Group) -> None:
    option = partial(click.option, show_default=True)
    number = click.FloatRange(min=0)

    @cli.command("ddls")
    @click.argument("run_or_pkl", type=click.Path(path_type=Path))
    @option("--seeds", default="0-15", help="Numbers and ranges, as 0-15,20; one image each")
    @option("--steps", type=click.IntRange(min=0), default=Langevin.steps, help="Of Langevin dynamics")
    @option("--eps", type=number, default=Langevin.eps, help="Step size")
    @option("--noise", type=number, default=Langevin.sigma, help="Factor of the noise of a step; 1 samples, 0 climbs")
    @option(
        "--prior", type=click.Choice(PRIORS), default=Langevin.prior, help="Of z; uniform clamps it, as the authors"
    )
    @option("--network", type=click.Choice(["G", "G_ema"]), default="G", help="The generator; D was trained against G")
    @click.option("--class", "label", type=click.IntRange(min=0), help="Class of the images, by a linear classifier")
    @option("--lambda", type=number, default=1.0, help="Weight of the logit of --class")
    @find.data_option(help="Labelled images for --class  [default: the run's own]")
    @option("--epochs", type=click.IntRange(min=1), default=Protocol.epochs, help="Of the classifier")
    @option("--max-images", type=click.IntRange(min=8), default=10000, help="Of the classifier")
    @click.option("--outdir", type=click.Path(path_type=Path), required=True, help="Where the images go")
    @find.on_host
    def ddls_command(run_or_pkl: Path, seeds: str, network: str, label: int | None, outdir: Path, **more: Any) -> None:
        """Sample from a ContraD run with D's help: Langevin dynamics in latent space, of all images or of one class.

        sheet-start.png has the images before the first step."""
        for name in ("lambda", "data", "epochs", "max_images"):
            if label is None:
                refuse_given(name, "without --class")
        datasets.check_output(outdir)
        numbers = sampling.seeds_of(seeds)
        how = Langevin(more["steps"], more["eps"], more["noise"], more["prior"])
        pickle, device = run_folders.newest_pickle(run_or_pkl), devices.device()
        heads = heads_of(pickle).to(device)
        D, G = probe.trained_discriminator(pickle).to(device), load_network(pickle, network).to(device)
        logits: latent_sampling.Logits = lambda phi: heads["logits"](phi)[:, 0]
        if label is not None:
            how_to_fit = Protocol(more["epochs"]), more["max_images"]
            known = latent_sampling.classifier_of(pickle, D, more["data"], *how_to_fit, label)
            logits = lambda phi: heads["logits"](phi)[:, 0] + more["lambda"] * known(phi)[:, label]
        pairs = list(latent_sampling.images(G, probe.encoder_of(D), logits, numbers, how))
        outdir.mkdir(parents=True, exist_ok=True)
        for seed, (_, image) in zip(numbers, pairs, strict=True):
            sampling.picture_of(image).save(outdir / f"seed{seed:04d}.png")
        for name, made in zip(("sheet-start", "sheet"), zip(*pairs, strict=True), strict=True):
            sampling.sheet(made).save(outdir / f"{name}.png")
        tell(outdir / "sheet.png")
