"""DISP: the data set conditions its own GAN, by features of each image.

Mangla, Kumari, Singh, Krishnamurthy, Balasubramanian: Data InStance Prior (DISP) in Generative Adversarial Networks
(WACV 2022, arXiv:2012.04256). Equations: docs/methods/disp.md; their functions: training_ext.disp.

The host's D, without labels, is D_f and D_l; D_emb is a head that starts at 0. Priors replace the labels of the data
set."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from stylegan_plugins import (
    CountsWith,
    Critic,
    DataError,
    Head,
    Labels,
    OptionError,
    Pass,
    Preset,
    Sampler,
    Session,
    hookimpl,
    option,
)
from stylegan_plugins.analysis.probe import require
from stylegan_plugins.files import prepare
from stylegan_plugins.files.atomic import whole
from stylegan_plugins.host import devices, find
from stylegan_plugins.host.modules import raw_indices
from stylegan_plugins.options import refuse_given
from stylegan_plugins.vision import backbones, priors
from training_ext import disp
from training_ext.heads import EqualizedLinear
from training_ext.labels import embed

PAPER = "Mangla et al. 2022, Data InStance Prior (DISP) in Generative Adversarial Networks, arXiv:2012.04256"
conflicts = ("contrad",)
LAYER = "b4.fc"  # D_f: the last hidden layer of D
FILE = "priors.npz"  # in the run directory
MANY = 1000  # number of images from which a mixture is fitted
PER_COMPONENT = 100  # images per component of the mixture
MOST_COMPONENTS = 100
_TALK = "the talk: its figures with VGG16, its way of sampling for {}; nothing else of the settings is published"
PRESETS = {
    "few-shot": Preset(
        {"features": "vgg16", "sampling": "mixup"}, _TALK.format("few-shot data, 100 images of Anime or Faces")
    ),
    "limited": Preset(
        {"features": "vgg16", "sampling": "mixup"},
        _TALK.format("limited data, 2 to 6 thousand images of Places, FFHQ or CUB, and parts of CIFAR"),
    ),
    "large-scale": Preset(
        {"features": "vgg16", "sampling": "mixture"},
        _TALK.format("large-scale data: CIFAR, FFHQ, LSUN-Bedroom, ImageNet 32"),
    ),
}


@dataclass(frozen=True)
class DISPOptions:
    features: str = option(
        "vgg16",
        f"C: {', '.join(backbones.BACKBONES)}, contrad:RUN, or a file of features, .npz of `stylegan-plugins priors` "
        "or .npy",
        metavar="NAME|PLUGIN:RUN|FILE",
    )
    weights: str = option(
        "published",
        "weights of the backbone: the published ones, or a file",
        metavar="FILE",
        counts=(CountsWith("features", lambda name: name in backbones.known() or not Path(name).is_file(), "vgg16"),),
    )
    flips: str = option(
        "own",
        "priors of the flipped images of --mirror: their own, or shared with their images",
        choices=("own", "shared"),
        counts=(CountsWith("--mirror", lambda args: args["training_set_kwargs"].get("xflip"), 1),),
    )
    sampling: str = option(
        "auto",
        f"priors of samples: mixup of two, a mixture of Gaussians, or the images'; auto: mixture from {MANY} images on",
        choices=("auto", "mixup", "mixture", "images"),
    )
    components: int = option(
        0,
        f"Gaussians of the mixture; 0: one for {PER_COMPONENT} images, at most {MOST_COMPONENTS}",
        minimum=0,
        counts=(CountsWith("sampling", lambda way: way in ("auto", "mixture"), "mixture"),),
    )

    @property
    def weights_file(self) -> str | None:
        return None if self.weights == "published" else self.weights


OPTIONS = DISPOptions


@hookimpl
def register_labels(args: Any, options: DISPOptions) -> Labels:
    data = args["training_set_kwargs"]
    if "run_dir" not in args:  # the first call
        if data.get("use_labels"):
            raise OptionError("--cond=1: with disp, labels are the priors of the images. Leave it out.")
        flips = bool(data.get("xflip")) and options.flips == "own"
        file = priors.file_for(data["path"], options.features, weights=options.weights_file, flips=flips)
        found = load(file, data)
        if flips and found.flipped is None:
            print(f"disp: {file} has no priors of flipped images; these share the priors of their images.")
        count = len(found.of_the_run)
        sampling = way_of_sampling(options, count)
        if sampling == "mixture":
            require("sklearn")
        components = options.components or min(max(count // PER_COMPONENT, 1), MOST_COMPONENTS)
        noted = {"features": str(file.resolve()), "sampling": sampling, "components": components}
        args["plugins"]["options"]["disp"].update(noted)
    else:
        file = file_of(Path(args["run_dir"]), options)
        found = load(file, data)
        priors.check(found, file, data["path"])
        kept = Path(args["run_dir"], FILE)
        if not kept.exists():
            priors.save(kept, found)
    standard = disp.Standard.of(found.of_the_run)
    flipped = None if found.flipped is None or options.flips == "shared" else standard(found.flipped)
    return Labels(standard(found.features), flipped)


def load(file: Path, data: Mapping[str, Any]) -> priors.Priors:
    """Read priors, and add the indices of the images in a data set with these arguments: the host's choice for
    --subset."""
    size = data.get("max_size")
    return dataclasses.replace(priors.load(file), used=None if size is None else raw_indices(data, size))


def way_of_sampling(options: DISPOptions, images: int) -> str:
    """Return the way of sampling for this number of images, never `auto`. Raises OptionError for an impossible one."""
    if options.sampling == "mixture" and images < 2:
        raise OptionError("--disp-sampling=mixture: one image has no distribution. Give two or more, or mixup.")
    return options.sampling if options.sampling != "auto" else "mixup" if images < MANY else "mixture"


def file_of(run_dir: Path, options: DISPOptions) -> Path:
    """Return the file of a run's priors: its own copy, which exists once the run trains."""
    kept = run_dir / FILE
    return kept if kept.exists() else Path(options.features)


@hookimpl
def configure(args: Any, explicit: frozenset[str]) -> None:
    """Let the host's D stay without labels. G has the labels of the data set."""
    if "disp_components" in explicit and args["plugins"]["options"]["disp"]["sampling"] != "mixture":
        raise OptionError(
            f"--disp-components: with less than {MANY} images, --disp-sampling=auto is mixup. Give "
            "--disp-sampling=mixture, or leave the option out."
        )
    kwargs = args["D_kwargs"]
    kwargs["host_class"], kwargs["class_name"] = kwargs["class_name"], "training_ext.disp.unconditional"


@hookimpl
def setup(session: Session, options: DISPOptions) -> Method:
    if options.sampling == "mixture":
        importlib.import_module("sklearn.mixture")  # the import draws Python's random numbers, which are separate here
    return Method(session, options)


class Method:
    def __init__(self, session: Session, options: DISPOptions) -> None:
        self.session, self.options, self.report = session, options, session.report
        self.embedding = EqualizedLinear(session.G.c_dim, *session.layer_shape(LAYER))
        torch.nn.init.zeros_(self.embedding.weight)  # D starts as a D without priors
        self.heads = [Head("disp", self.embedding)]
        self.critic = Critic("disp", self.logits, layers=[LAYER])

    def logits(self, seen: Pass) -> torch.Tensor:
        """Return D(x, y) = D_l(D_f(x)) + D_emb(y) . D_f(x), [N, 1]."""
        matched = disp.projection(seen.layers[LAYER], self.embedding(seen.labels))
        if seen.view is None:
            self.report(f"DISP/projection/{seen.images.source}", matched)
        return seen.host_logits + matched

    @hookimpl
    def snapshot(self) -> None:
        """Fit the mixture for G_ema of a snapshot, so that samples of it need no fit."""
        if self.options.sampling == "mixture":
            _, values = of_run(self.session.run_dir, self.options)
            mixture_of(self.session.run_dir, self.session.G_ema, values, self.options.components)


def of_run(run_dir: Path, options: DISPOptions) -> tuple[disp.Standard, np.ndarray]:
    """Return the scale of a run's priors, and the scaled priors of its training images, [m, d]."""
    found = priors.load(file_of(run_dir, options))
    standard = disp.Standard.of(found.of_the_run)
    return standard, standard(found.of_the_run)


def mixture_of(run_dir: Path, G: torch.nn.Module, values: np.ndarray, components: int) -> disp.Mixture:
    """Return the mixture of G's embeddings of priors [m, d]. It is fitted once for a G, and kept beside the run."""
    weight = G.mapping.embed.weight.detach().cpu().numpy()  # type: ignore[union-attr, operator]
    kept = run_dir / f"disp-mixture-{hashlib.sha256(weight.tobytes()).hexdigest()[:12]}.npz"
    if kept.exists():
        with np.load(kept, allow_pickle=False) as arrays:
            return disp.Mixture(arrays["weights"], arrays["means"], arrays["deviations"])
    require("sklearn")
    fitted = disp.Mixture.fit(embed(G, values).cpu().numpy(), min(components, len(values)))
    try:
        with whole(kept) as out:
            np.savez(out, **vars(fitted))
    except DataError as error:  # a folder without write permission: it is fitted again each time
        click.echo(f"disp: the mixture is not kept: {error}", err=True)
    return fitted


@hookimpl
def register_sampler(run_dir: Path, options: DISPOptions) -> Sampler:
    file = file_of(run_dir, options)
    found = priors.load(file)
    standard, values = of_run(run_dir, options)
    way = options.sampling  # register_labels has replaced `auto`

    def draw(G: torch.nn.Module, random: np.random.RandomState) -> torch.Tensor:
        if way == "mixture":
            return torch.from_numpy(mixture(G).draw(random))
        prior = disp.mixup(values, random) if way == "mixup" else values[random.randint(len(values))]
        return embed(G, prior[None])[0]

    @functools.cache
    def mixture(G: torch.nn.Module) -> disp.Mixture:
        return mixture_of(run_dir, G, values, options.components)

    @functools.cache
    def backbone() -> torch.nn.Module:
        if found.backbone is None:
            raise DataError(f"--like: {file} is an array of features of your own, so that a new image has none.")
        if found.weights and (not Path(found.weights).is_file() or priors.digest_of(found.weights) != found.digest):
            raise DataError(f"--like: {found.weights}, the weights of {found.backbone}, is gone or has changed.")
        return priors.load_network(found.backbone, found.weights, "--like")

    def like(G: torch.nn.Module, image: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            features = backbone().to(image.device)(image)
        return embed(G, standard(features.float().cpu().numpy()))[0]

    return Sampler(way, draw, like)


@hookimpl
def register_commands(cli: click.Group) -> None:
    @cli.command("priors")
    @find.data_option(help="Images, as for train.py", required=True)
    @click.option(
        "--features",
        required=True,
        metavar="NAME|PLUGIN:RUN|FILE",
        help=f"{', '.join(backbones.BACKBONES)}, contrad:RUN, or features of your own",
    )
    @click.option("--weights", type=click.Path(exists=True, dir_okay=False), help="Weights  [default: published ones]")
    @click.option("--flips/--no-flips", default=False, help="Also of horizontally flipped images, for --mirror=1")
    @find.device_option()
    @find.picture_options
    def command(data: str, features: str, weights: str | None, flips: bool, device: str, **pictures: Any) -> None:
        """Compute data instance priors: features of all images of a data set, by a frozen network.

        They are kept in a cache, where training with --plugin=disp finds them; the file is printed."""
        if features not in backbones.known() and Path(features).is_file():
            for name in ("weights", "flips", "device"):
                refuse_given(name, f"with --features={features}, a file of features")
        devices.choose(device)
        path = prepare.usable(data, prepare.How.take(pictures))
        click.echo(priors.file_for(path, features, weights=weights, flips=flips, flag="--features"))
