"""Vision-aided GAN: further discriminators, each a small decoder on the features of a frozen image network.

Kumari, Zhang, Shechtman, Zhu: Ensembling Off-the-shelf Models for GAN Training (CVPR 2022, arXiv:2112.09130).
Equations: docs/methods/vision_aided.md; decoders and losses: training_ext.vision_aided; backbones and their choice:
stylegan_plugins.vision."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import torch

from stylegan_plugins import CountsWith, Head, OptionError, Preset, Session, Step, Term, hookimpl, option
from stylegan_plugins.analysis import sample, select
from stylegan_plugins.files import run_folders
from stylegan_plugins.host import devices, find
from stylegan_plugins.host.modules import construct, host_module
from stylegan_plugins.vision import backbones, ranking
from stylegan_plugins.vision.networks import PRECISIONS, Levels
from training_ext.diffaugment import DiffAugment
from training_ext.distributed import broadcast_value, gather_objects
from training_ext.gan_losses import GAN_LOSSES, GanLoss
from training_ext.perceptual_decoder import PerceptualDecoder
from training_ext.vision_aided import AdaptiveAugment, Decoder
from training_ext.vision_losses import over_levels, sigmoid

PAPER = "Kumari et al. 2022, Ensembling Off-the-shelf Models for GAN Training, arXiv:2112.09130"
FLAG = "--vision-aided-models"
LOG = "vision-aided.jsonl"  # in the run directory: the choices of backbones, with time and reason
INTERVAL = 4  # iterations between two changes of p, as in the host
SMOOTH = 0.8
SURE = 0.9  # accuracy of the linear probe above which targets are smoothed
# Arguments of ADA's pipe: the hosts' default, `bgc`.
TRANSFORMATIONS = (
    *("xflip", "rotate90", "xint", "scale", "rotate", "aniso", "xfrac"),
    *("brightness", "contrast", "lumaflip", "hue", "saturation"),
)
_SOURCE = "authors' stylegan2/README.md"
PRESETS = {
    "up-to-1k": Preset({"auto": 3, "auto_kimg": "4000,1000"}, f"{_SOURCE}; they end 1000 kimg after the third"),
    "more-than-1k": Preset({"auto": 3, "auto_kimg": "8000,2000"}, f"{_SOURCE}; they end 2000 kimg after the third"),
    "clip": Preset(
        {"models": "clip", "warmup_kimg": 500.0, "target": SMOOTH},
        f"{_SOURCE}, one discriminator, AnimalFace-Dog; they train with --kimg=10000, and otherwise as few-shot",
    ),
    "few-shot-diffaugment": Preset(
        {"auto": 3, "auto_kimg": "1000,1000", "augment": "diffaugment"},
        f"{_SOURCE}: the published model of 100-shot Bridge-of-Sighs is named for it; the rest as few-shot",
    ),
    "few-shot": Preset(
        {"auto": 3, "auto_kimg": "1000,1000"},
        f"{_SOURCE}, AnimalFace-Dog; they train with --aug=ada --mirror=1 and the fork's paper256_2fmap, which in "
        "stylegan2-ada-pytorch is --cfg=stylegan2 --batch=16 --gamma=1; they end 1000 kimg after the third",
    ),
}

_ADA = (CountsWith("augment", lambda augment: augment == "ada", "ada"),)


@dataclass(frozen=True)
class VisionAidedOptions:
    models: str | None = option(
        None,
        "backbones, with commas: clip, dino, dinov2, vgg, swin, efficientnet_lite0, models of timm, or NAME=FILE with "
        "weights of one's own; with auto, those to choose from; none: clip, and with auto clip,dino,vgg,swin",
        metavar="NAME,...",
    )
    auto: int = option(
        0, "backbones to add one after the other, each time the best by a linear probe, 0 = off", minimum=0
    )
    auto_kimg: str = option(
        "4000,1000",
        "kimg between two additions; the last number counts for all that follow",
        counts=(CountsWith("auto", lambda auto: auto > 1, 3),),
    )
    warmup_kimg: float | None = option(
        None, "kimg without these discriminators; none: 500 from scratch, 0 with --resume", minimum=0
    )
    warmup_heads: bool = option(
        False,
        "decoders learn during the warm-up, without effect on G; not with auto, where none is known by then",
        counts=(CountsWith("auto", lambda auto: auto == 0, 0),),
    )
    weight: float = option(1.0, "lambda, factor of these losses, 0 = off", minimum=0)
    decoder: str = option(
        "levels",
        "trainable part: levels, a small decoder for each level; perceptual, stages that maps of several scales enter "
        "one after the other (Sungatullina et al. 2018), of vgg, efficientnet_lite0, swin and others with such maps",
        choices=("levels", "perceptual"),
    )
    loss: str = option("sigmoid", "loss of each level", choices=("sigmoid", "hinge"))
    target: float | None = option(
        None,
        f"target of real images, and for G; none: {SMOOTH}; if given, --vision-aided-sure is 0 unless it is, too",
        minimum=0,
        maximum=1,
        counts=(CountsWith("loss", lambda loss: loss == "sigmoid", "sigmoid"),),
    )
    sure: float = option(
        SURE,
        "with auto, accuracy of the probe above which real images have that target; below it they have 1",
        minimum=0,
        maximum=1,
        counts=(
            CountsWith("auto", lambda auto: auto > 0, 3),
            CountsWith("loss", lambda loss: loss == "sigmoid", "sigmoid"),
            CountsWith("augment", lambda augment: augment != "diffaugment", "ada"),  # with it, all have the target
        ),
    )
    augment: str = option(
        "ada", "T_k: ada with a p for each backbone, or diffaugment", choices=("ada", "diffaugment", "none")
    )
    ada_target: float = option(
        0.3, "mean sign of logits of real images that p is steered to", minimum=-1, maximum=1, counts=_ADA
    )
    ada_kimg: float = option(500.0, "kimg in which p can change by 1", minimum=1e-3, counts=_ADA)
    precision: str = option("float32", "arithmetic of the backbones, on a GPU", choices=tuple(PRECISIONS))
    resize: str = option("area", "how images get the backbone's size", choices=("area", "bilinear"))

    def __post_init__(self) -> None:
        if self.auto > len(self.candidates):
            names = ", ".join(map(str, self.candidates))
            raise OptionError(
                f"--vision-aided-auto={self.auto}: there are {len(self.candidates)} to choose from: {names}."
            )
        if not all(part > 0 for part in self.steps):
            raise OptionError(f"--vision-aided-auto-kimg={self.auto_kimg}: numbers above 0, with commas.")

    @property
    def candidates(self) -> list[backbones.Model]:
        return backbones.models_of(self.models or ("clip,dino,vgg,swin" if self.auto else "clip"), FLAG)

    @property
    def steps(self) -> list[float]:
        try:
            return [float(part) for part in self.auto_kimg.split(",")]
        except ValueError as error:
            raise OptionError(f"--vision-aided-auto-kimg={self.auto_kimg!r}: numbers, with commas.") from error

    def begins(self, index: int) -> float:
        """Return the number of images after which the backbone with this index is added."""
        steps = [self.steps[min(k, len(self.steps) - 1)] for k in range(index)]
        return 1000 * ((self.warmup_kimg or 0) + sum(steps))


OPTIONS = VisionAidedOptions


@hookimpl
def configure(args: Any, options: VisionAidedOptions, explicit: frozenset[str]) -> VisionAidedOptions:
    """Check for everything that the run needs, and make paths of weights absolute."""
    if options.warmup_kimg is None:
        options = replace(options, warmup_kimg=0.0 if args.get("resume_pkl") else 500.0)
    if "vision_aided_warmup_heads" in explicit and not options.warmup_kimg:
        raise OptionError(
            "--vision-aided-warmup-heads: there is no warm-up. Leave it out, or give --vision-aided-warmup-kimg=500, "
            "for example; with --resume it is 0 if not given."
        )
    if options.loss == "hinge":  # it has no targets
        options = replace(options, target=None)
    elif options.target is None:
        options = replace(options, target=SMOOTH)
    elif "vision_aided_sure" not in explicit:
        options = replace(options, sure=0.0)
    begin, end = options.begins(0), args["total_kimg"] * 1000
    if begin >= end:
        raise OptionError(
            f"--vision-aided-warmup-kimg={begin / 1000:g} is not below --kimg={args['total_kimg']}: the discriminators "
            "would never be used. Give less; without --resume it is 500 if not given."
        )
    used = sum(options.begins(index) < end for index in range(options.auto))
    if used < options.auto:
        print(f"vision-aided: with --kimg={args['total_kimg']}, {used} of {options.auto} backbones will be added.")
    images = args["training_set_kwargs"].get("max_size")
    if options.auto and images is not None and images < ranking.FEWEST:
        raise OptionError(f"--vision-aided-auto: {images} images are too few to choose by; give {ranking.FEWEST}.")
    if options.precision != "float32" and devices.device().type != "cuda":
        raise OptionError(f"--vision-aided-precision={options.precision} is for GPUs. Leave it out.")
    models = options.candidates
    for model in models:
        model.load(FLAG, scales=options.decoder == "perceptual")
    if options.auto:
        ranking.require("sklearn")
    return replace(options, models=",".join(str(model.absolute()) for model in models))


@hookimpl
def setup(session: Session, options: VisionAidedOptions) -> Method:
    return Method(session, options)


class Method:
    """All further discriminators of a run.

    levels    the frozen networks in use by key, in the order of their addition. They are not in a module, so that
              optimisers, states and pickles do not contain them.
    decoders  one for each network that may be used later, so that a state fits any choice"""

    def __init__(self, session: Session, options: VisionAidedOptions) -> None:
        self.session, self.options = session, options
        self.log = session.log(LOG)
        self.scales = options.decoder == "perceptual"
        self.models = {model.key: model for model in options.candidates}
        self.augment = {key: self._augmentation() for key in self.models}
        self.adaptive = {key: augment for key, augment in self.augment.items() if isinstance(augment, AdaptiveAugment)}
        self.levels: dict[str, Levels] = {}
        self.gan: dict[str, GanLoss] = {}
        self.targets: dict[str, float] = {}
        shapes = {}
        for key, model in self.models.items():
            levels = self.load(model)
            shapes[key] = levels.shapes
            if not options.auto and options.weight:
                self.add(key, options.target, levels)
        decoder = PerceptualDecoder if self.scales else Decoder
        self.decoders = torch.nn.ModuleDict({key: decoder(shape, session.G.c_dim) for key, shape in shapes.items()})
        self.heads = [Head("vision-aided", self.decoders)]
        self.terms = [
            Term("vision-aided", "D", self.term, options.weight, active=self.in_use),
            Term("vision-aided", "G", self.term, options.weight, on="generated", active=self.in_use),
        ]

    def load(self, model: backbones.Model) -> Levels:
        return self._frozen(model, scales=self.scales)

    def _frozen(self, model: backbones.Model, scales: bool = False) -> Levels:
        levels = model.load(FLAG, scales=scales, precision=self.options.precision, resize=self.options.resize)
        return levels.to(self.session.device)

    def _augmentation(self) -> Callable[[torch.Tensor], torch.Tensor]:
        if self.options.augment == "none":
            return lambda images: images
        if self.options.augment == "diffaugment":
            augment = DiffAugment()
            return lambda images: augment(images)[0]
        pipe = host_module("training.augment").AugmentPipe(**dict.fromkeys(TRANSFORMATIONS, 1))
        pipe.train().requires_grad_(False).to(self.session.device)
        return AdaptiveAugment(pipe, self.options.ada_target, self.options.ada_kimg)

    def add(self, key: str, target: float | None, levels: Levels) -> None:
        """Add a network to those in use. target: for real images."""
        self.targets[key] = SMOOTH if target is None else target
        self.gan[key] = GAN_LOSSES["hinge"] if self.options.loss == "hinge" else sigmoid(self.targets[key])
        self.levels[key] = levels

    def in_use(self, phase: str) -> bool:
        """Return whether the losses of a phase include these discriminators now."""
        warm = self.session.nimg < self.options.begins(0)
        return bool(self.levels) and (not warm or (phase[0] == "D" and self.options.warmup_heads))

    def term(self, step: Step) -> torch.Tensor:
        """Return the sum of all losses, [N], of D for real or for generated images, or of G."""
        images = step.one.images
        side = "generator" if step.phase[0] == "G" else step.source
        losses = []
        for key, levels in self.levels.items():
            augment = self.augment[key]
            with torch.set_grad_enabled(side == "generator"):
                features = levels(augment(images.raw))
            logits = self.decoders[key](features, images.labels)
            losses.append(over_levels(getattr(self.gan[key], side), logits))
            self.session.report(f"VisionAided/{key}/{side}", losses[-1])
            if side == "real" and isinstance(augment, AdaptiveAugment):
                augment.controller.observe(logits[-1])
                self.session.report(f"VisionAided/{key}/p", augment.pipe.p)
        return torch.stack(losses).sum(dim=0)

    def choose(self, nimg: int) -> None:
        """Add the best of the backbones that are not in use yet. Processes share the candidates, and take the choice of
        the first process."""
        session = self.session
        candidates = [model for model in self.models.values() if model.key not in self.levels]
        order = [str(model) for model in candidates]
        best = torch.zeros([2], dtype=torch.float64)  # index, accuracy
        mine = [vars(row) for row in self._rank(candidates[session.rank :: session.num_gpus])]
        shares = gather_objects(mine, session.num_gpus, session.device)
        if session.rank == 0:
            rows = [ranking.ProbedBackbone(**row) for share in shares for row in share]
            rows.sort(key=lambda row: (-row.accuracy, order.index(row.model)))
            best = torch.tensor([order.index(rows[0].model), rows[0].accuracy], dtype=torch.float64)
            others = ", ".join(f"{row.model} {row.accuracy:.1%}" for row in rows[1:])
            print(
                f"vision-aided: {rows[0].model} is added at {nimg / 1000:g} kimg. Its linear probe is right for "
                f"{rows[0].accuracy:.1%} of held-out images{f' ({others})' if others else ''}.",
                flush=True,
            )
            with open(self.log, "a") as log:
                log.write(json.dumps({"nimg": nimg, "rows": [vars(row) for row in rows]}) + "\n")
        best = broadcast_value(best, session.num_gpus, session.device)
        smooth = float(best[1]) > self.options.sure or self.options.augment == "diffaugment"
        model = candidates[int(best[0])]
        self.add(model.key, self.options.target if smooth else 1.0, self.load(model))

    def _rank(self, candidates: list[backbones.Model]) -> list[ranking.ProbedBackbone]:
        """Rank candidates on a new object of the data set, since the loop uses the run's own. The data set has no
        horizontal flips: an image in one half of a split and its flip in the other would raise the probe's accuracy."""
        recorded = run_folders.read_options(self.session.run_dir) or {}
        dataset = construct(recorded["training_set_kwargs"], xflip=False)
        generated = sample.Generator(self.session.G_ema, None, dataset).images
        return ranking.rank({str(model): partial(self._frozen, model) for model in candidates}, dataset, generated)

    @hookimpl
    def batch_end(self, nimg: int, batch_idx: int) -> None:
        if batch_idx % INTERVAL == 0:
            for augment in self.adaptive.values():
                augment.controller.update(self.session.num_gpus)
        used, options = len(self.levels), self.options
        if options.weight and used < options.auto and nimg >= options.begins(used):
            self.choose(nimg)

    def state_dict(self) -> dict[str, Any]:
        adaptive = {key: augment.controller.state_dict() for key, augment in self.adaptive.items()}
        return {"in_use": dict(self.targets), "augment": adaptive}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for key, target in state["in_use"].items():
            if key not in self.levels:
                self.add(key, target, self.load(self.models[key]))
        for key, augment in self.adaptive.items():
            augment.controller.load_state_dict(state["augment"][key])


@hookimpl
def register_commands(cli: click.Group) -> None:
    @cli.command("select")
    @click.argument("run_or_pkl", type=click.Path(path_type=Path))
    @find.data_option(help="Real images  [default: the run's own]")
    @click.option("--models", metavar="NAME,...", help=f"Backbones, or NAME=FILE  [default: {select.DEFAULT}]")
    @click.option(
        "--max-images", "most", type=click.IntRange(min=ranking.FEWEST), default=ranking.MOST, show_default=True
    )
    @click.option(
        "--outdir", type=click.Path(path_type=Path), help="Where plot and JSON go  [default: beside the pickle]"
    )
    @find.on_host
    def select_command(run_or_pkl: Path, data: str | None, **settings: Any) -> None:
        """Rank frozen networks by how well a linear probe on them tells real from generated images, best first.

        The best is the first to give to --vision-aided-models."""
        to_stderr = partial(click.echo, err=True)
        click.echo(select.run(run_or_pkl, data, device=devices.device(), report=to_stderr, **settings))
