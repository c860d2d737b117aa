"""GGDR: a decoder on D's features predicts G's feature maps of the generated image that D sees.

Lee, Kim, Kim, Choi: Generator Knows What Discriminator Should Learn in Unconditional GANs (ECCV 2022,
arXiv:2207.13320). Equations: docs/methods/ggdr.md; their functions: training_ext.ggdr."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from stylegan_plugins import Head, OptionError, PluginError, Session, Step, Term, View, hookimpl, option
from training_ext import ggdr

PAPER = "Lee et al. 2022, Generator Knows What Discriminator Should Learn in Unconditional GANs, arXiv:2207.13320"


@dataclass(frozen=True)
class GGDROptions:
    weight: float = option(10.0, "weight of D's term, 0 = off", minimum=0)
    resolution: int | None = option(
        None, "pixels of G's maps, a power of two; none: 64, for images below 256 a quarter of their side", minimum=8
    )


OPTIONS = GGDROptions


@hookimpl
def configure(args: Any, options: GGDROptions) -> GGDROptions:
    side = args["training_set_kwargs"]["resolution"]
    resolution = options.resolution or ggdr.default_resolution(side)
    if resolution not in ggdr.resolutions(side):
        raise OptionError(
            f"--ggdr-resolution={resolution}: images of {side} pixels have no such maps. Give one of "
            f"{', '.join(map(str, ggdr.resolutions(side)))}, or leave the option out."
        )
    return replace(options, resolution=resolution)


@hookimpl
def setup(session: Session, options: GGDROptions) -> Method | None:
    return Method(session, options) if options.weight else None


class Method:
    def __init__(self, session: Session, options: GGDROptions) -> None:
        self.session = session
        side = session.G.img_resolution
        R = self.resolution = options.resolution or ggdr.default_resolution(side)
        self.of_G = f"b{R}"
        if not hasattr(session.G.synthesis, self.of_G):
            raise PluginError(
                f"--plugin=ggdr: G.synthesis has no layer {self.of_G}; only G of StyleGAN2 has such maps. Use "
                "--cfg=stylegan2."
            )
        self.of_D = {r: f"b{2 * r}" for r in (4, *ggdr.resolutions(R // 2))}  # D's block b16 gives maps of 8 pixels
        widths = {r: session.layer_shape(layer)[0] for r, layer in self.of_D.items()}
        channels = getattr(session.G.synthesis, self.of_G).conv1.weight.shape[0]
        self.decoder = ggdr.FeatureDecoder(widths, channels, R)
        self.heads = [Head("ggdr", self.decoder)]
        reads: dict[str, Any] = dict(on="generated", layers=list(self.of_D.values()), generator_layers=[self.of_G])
        # Other augmentations may also move pixels, and cannot be repeated on maps: D then sees images without them.
        clean = View("ggdr", lambda images: images.clean, on="generated")
        self.terms = [
            Term("ggdr", "D", self.guide, options.weight, active=lambda phase: not self.augmented(phase), **reads),
            Term("ggdr_clean", "D", self.guide, options.weight, active=self.augmented, views=[clean], **reads),
        ]

    def augmented(self, phase: str) -> bool:
        """Return whether augmentations other than ADA are applied to generated images."""
        return any(augmentation.where("generated", phase) for augmentation in self.session.augmentations)

    def guide(self, step: Step) -> torch.Tensor:
        """Return 1 - mean cos(y_R, g_R) of each generated image, [N]."""
        seen = step.generated
        images, seen_by_D = seen.images, seen.views.get("ggdr", seen)
        features = images.moved(images.generator_layers[self.of_G].detach())
        return ggdr.guidance_loss(self.decoder({r: seen_by_D.layers[name] for r, name in self.of_D.items()}), features)
