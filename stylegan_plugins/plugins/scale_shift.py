"""Scale and shift: a pretrained G is fitted to a few images by one scale and one shift for each channel, without a D.

Noguchi, Harada: Image Generation From Small Datasets via Batch Statistics Adaptation (ICCV 2019, arXiv:1904.01774).
Equations: docs/methods/scale_shift.md; their functions: training_ext.scale_shift."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from stylegan_plugins import CountsWith, Critic, Head, OptionError, Preset, Session, Step, Term, hookimpl, option
from stylegan_plugins.errors import PluginError
from stylegan_plugins.vision import backbones
from stylegan_plugins.vision.networks import UNFIT
from training_ext import scale_shift

PAPER = (
    "Noguchi and Harada 2019, Image Generation From Small Datasets via Batch Statistics Adaptation, arXiv:1904.01774"
)
FLAG = "--scale-shift-perceptual"
ITERATIONS = 10_000  # of the authors' runs
trains_D = False
ada = "refuse"  # ADA follows the signs of D's logits
conflicts = ("transfergan", "freezed", "minegan", "diagnostics")  # they train, freeze, train with, and measure D
# Options of train.py that concern D's loss alone.
OF_D = ("gan_loss", "r2", "gradient_penalty", "d_spectral_norm", "d_reg_interval", "g_interval", "dlr", "freezed")
PRESETS = {
    "sngan": Preset(
        {"lr": 0.03, "z_lr": 0.03, "decay": 0.2},
        "authors' configs/default.yml for SNGAN, batch 25, 10,000 iterations, 100 images",
    ),
    "biggan": Preset(
        {"lr": 0.0005, "z_lr": 0.05, "decay": 0.2},
        "authors' code for BigGAN, batch 5 on each of 4 GPUs, 10,000 iterations, 100 images",
    ),
}

_PERCEPTUAL = (CountsWith("perceptual_weight", lambda weight: weight > 0, 0.1),)


@dataclass(frozen=True)
class ScaleShiftOptions:
    lr: float = option(0.03, "learning rate of scales and shifts", minimum=0)
    z_lr: float = option(0.03, "learning rate of the latents z_i", minimum=0)
    decay: float = option(0.2, "factor on both learning rates after each decay-kimg", minimum=0, maximum=1)
    decay_kimg: float | None = option(
        None, "kimg between two decays, 0 = no decay; none: 3000 iterations, the authors' choice", minimum=0
    )
    start: str = option("random", "first latents: draws of N(0, 1), or zero", choices=("random", "zero"))
    noise: float = option(0.01, "standard deviation of the noise on z_i", minimum=0)
    perceptual: str = option(
        "vgg16", "network of the perceptual loss: a backbone, or NAME=FILE with weights of one's own", metavar="NAME"
    )
    perceptual_weight: float = option(0.1, "factor of the perceptual loss of each layer, 0 = off", minimum=0)
    perceptual_loss: str = option("l1", "distance of features", choices=("l1", "l2"), counts=_PERCEPTUAL)
    relative: str = option(
        "perceptual",
        "losses that are divided by their own value, without gradient: each layer's perceptual loss, L1, too, or none",
        choices=("perceptual", "both", "none"),
    )
    emd_weight: float = option(0.1, "factor of the distance of the latents from N(0, 1), 0 = off", minimum=0)
    reg_weight: float = option(0.02, "factor of the change of scales and shifts, 0 = off", minimum=0)
    temperature: float = option(
        0.3, "factor on w - w_avg in snapshots, image grids and metrics; 1 = off", minimum=0, maximum=1
    )


OPTIONS = ScaleShiftOptions


@hookimpl
def configure(args: Any, options: ScaleShiftOptions, explicit: frozenset[str]) -> ScaleShiftOptions:
    if not args.get("resume_pkl"):
        raise OptionError("--plugin=scale-shift: there is no pretrained generator to adapt. Give --resume=PKL.")
    if "glr" in explicit:
        raise OptionError("--glr: the learning rates of scale-shift are --scale-shift-lr and --scale-shift-z-lr.")
    if idle := [name for name in OF_D if name in explicit]:
        raise OptionError(f"--{idle[0].replace('_', '-')}: scale-shift trains without D. Leave the option out.")
    args["G_opt_kwargs"].update(lr=options.lr, betas=[0.9, 0.999])
    args["G_reg_interval"] = args["D_reg_interval"] = None  # no lazy regularisation, so learning rates are not scaled
    if "blur_init_sigma" in args["loss_kwargs"]:  # stylegan3 blurs the images before D, and so before the comparison
        args["loss_kwargs"]["blur_init_sigma"] = 0
    if "kimg" not in explicit and args["total_kimg"] > (kimg := ITERATIONS * args["batch_size"] / 1000):
        args["total_kimg"] = kimg
        print(f"scale-shift: --kimg={kimg:g}, the authors' {ITERATIONS} iterations.")
    if options.decay_kimg is None:
        options = replace(options, decay_kimg=3.0 * args["batch_size"])  # 3000 iterations, in thousands of images
    if options.perceptual_weight:
        options = replace(options, perceptual=str(model_of(options).absolute()))
        side = args["training_set_kwargs"]["resolution"]
        read = levels(options, side, torch.device("cpu"))  # raises errors before training starts
        try:
            with torch.no_grad():
                read(torch.zeros([1, 3, side, side]))
        except UNFIT as error:
            why = " ".join(str(error).split())
            raise OptionError(f"{FLAG}={options.perceptual}: it gives no features of layers ({why}).") from error
    return options


@hookimpl
def register_temperature(options: ScaleShiftOptions) -> float | None:
    return None if options.temperature == 1 else options.temperature


@hookimpl
def setup(session: Session, options: ScaleShiftOptions) -> Method:
    if session.dataset is None:
        raise PluginError(
            "--plugin=scale-shift: this host's loop does not say which images it takes, and each has a z."
        )
    return Method(session, options)


def model_of(options: ScaleShiftOptions) -> backbones.Model:
    """Return the network of the perceptual loss. Raises OptionError for several networks."""
    models = backbones.models_of(options.perceptual, FLAG)
    if len(models) > 1:
        raise OptionError(f"{FLAG}={options.perceptual}: give one network.")
    return models[0]


def levels(options: ScaleShiftOptions, side: int, device: torch.device) -> Callable[[torch.Tensor], list[torch.Tensor]]:
    """Return a function from images [N, C, H, W] in [-1, 1] to features of a frozen network. VGG16 gives the authors'
    layers, for images with this side; other networks give each level, for images resized to the network's size."""
    model = model_of(options)
    backbone = backbones.load(model.name, model.weights, FLAG).to(device)
    if model.name.partition("@")[0] != "vgg16":
        return lambda images: backbone.model.forward_intermediates(backbone.prepare(images), intermediates_only=True)
    backbone.size = side
    return lambda images: scale_shift.vgg_levels(backbone.model.features, backbone.prepare(images))


class Method:
    def __init__(self, session: Session, options: ScaleShiftOptions) -> None:
        self.session, self.options = session, options
        names = [name for name, _ in session.G.named_parameters() if scale_shift.is_scale_or_shift(f"G.{name}")]
        parameters = dict(session.G.named_parameters())
        self.trained = [parameters[name] for name in names]
        self.pretrained = {name: parameters[name].detach().clone() for name in names}
        self.module = scale_shift.Latents(len(session.dataset), session.G.z_dim, options.start == "zero")
        self.heads = [Head("scale-shift", self.module, "G", {"lr": options.z_lr})]
        self.critic = Critic("scale-shift", None)
        self.terms = [
            Term("scale_shift_l1", "G", self.l1, on="both"),
            Term("scale_shift_perceptual", "G", self.perceptual, options.perceptual_weight, on="both"),
            Term("scale_shift_emd", "G", self.earth_mover, options.emd_weight, on="both"),
            Term("scale_shift_reg", "G", self.deviation, options.reg_weight, on="both"),
        ]
        if options.perceptual_weight:
            self.levels = levels(options, session.G.img_resolution, session.device)

    @hookimpl
    def trains(self, name: str) -> bool:
        return scale_shift.is_scale_or_shift(name)

    @hookimpl
    def paired_latents(self, labels: torch.Tensor, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return z_i + epsilon of the images of this round."""
        self.z = self.module.z[index]
        return self.z + torch.randn_like(self.z) * self.options.noise, labels

    def l1(self, step: Step) -> torch.Tensor:
        """Return |G(z_i + epsilon) - x_i|, the mean over pixels, [N]."""
        values = scale_shift.distance(step.generated.images.shown, step.real.images.shown)
        self.session.report("ScaleShift/l1", values)
        return scale_shift.relative(values) if self.options.relative == "both" else values

    def perceptual(self, step: Step) -> torch.Tensor:
        """Return distances of features of G(z_i + epsilon) and x_i, a mean over each level, summed over levels, [N]."""
        with torch.no_grad():
            targets = self.levels(step.real.images.shown)
        pairs = zip(self.levels(step.generated.images.shown), targets, strict=True)
        values = [scale_shift.distance(*pair, self.options.perceptual_loss) for pair in pairs]
        self.session.report("ScaleShift/perceptual", torch.stack(values).sum(dim=0))
        if self.options.relative != "none":
            values = list(map(scale_shift.relative, values))
        return torch.stack(values).sum(dim=0)

    def earth_mover(self, step: Step) -> torch.Tensor:
        """Return L_EMD of the latents of this round, without epsilon, [N]."""
        n, width = self.z.shape
        t = torch.randn([10 * n, width], device=self.z.device)
        return scale_shift.earth_mover(self.z, t).expand(n)

    def deviation(self, step: Step) -> torch.Tensor:
        """Return L_re, [N]. Like the other losses it counts in each round, so that their ratio stays."""
        return scale_shift.deviation(self.trained, self.pretrained.values()).expand(len(step.real.labels))

    @hookimpl
    def batch_end(self, nimg: int, batch_idx: int) -> None:
        """Set the learning rates of the next iteration."""
        every = 1000 * (self.options.decay_kimg or 0)
        for optimizer in self.session.optimizers:
            for group in optimizer.param_groups:
                lr = optimizer.defaults["lr"]
                group["lr"] = scale_shift.decayed(lr, self.options.decay, nimg, nimg // batch_idx, every)

    def state_dict(self) -> dict[str, Any]:
        return dict(self.pretrained)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.pretrained = dict(state)
