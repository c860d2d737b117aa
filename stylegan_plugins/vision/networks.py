"""Frozen image networks: images of any size and channels in [-1, 1] to features. Needs timm."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch

from stylegan_plugins.errors import OptionError
from training_ext.resize import area


class Backbone(torch.nn.Module):
    """A network that is never trained: no parameter requires gradient, and it stays in evaluation mode.

    model       a timm model
    mean, std   of the pixel values in [0, 1] in its training, three each
    size        side of the images in its training, in pixels"""

    model: Any
    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, model: torch.nn.Module, mean: tuple[float, ...], std: tuple[float, ...], size: int) -> None:
        super().__init__()
        self.model = model
        self.size = size
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])
        self.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> Backbone:
        return super().train(False)

    def prepare(self, images: torch.Tensor, resize: str = "bilinear") -> torch.Tensor:
        """Convert images [N, C, H, W] in [-1, 1], C 1 or 3, to the model's input, [N, 3, size, size].

        resize: `bilinear`, low-pass filtered when images become smaller, or `area`, means over boxes of pixels."""
        if images.shape[1] == 1:
            images = images.expand(-1, 3, -1, -1)
        if images.shape[2:] != (self.size, self.size):
            if resize == "area":
                images = area(images, self.size)
            else:
                images = torch.nn.functional.interpolate(
                    images, size=(self.size, self.size), mode="bilinear", align_corners=False, antialias=True
                )
        return ((images + 1) / 2 - self.mean) / self.std

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return one vector for each image, [N, F]: the input of the model's classifier, if it has one."""
        return self.model.forward_head(self.model.forward_features(self.prepare(images)), pre_logits=True)


def from_uint8(images: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Scale pixel values of uint8 images to [-1, 1], on a device."""
    return images.to(device).float() / 127.5 - 1


PRECISIONS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
LARGEST = 16.0  # the largest gradient in float16, whose range is 6e-8 to 65504
CLASSIFIERS = ("pre_logits", "head", "classifier", "fc", "global_pool")  # attributes of timm's networks
# Errors of timm's networks that lack features of the requested kind.
UNFIT = (AttributeError, TypeError, NotImplementedError, RuntimeError, ValueError, AssertionError, IndexError)


class Levels(torch.nn.Module):
    """A backbone's features for trainable decoders, float32. A transformer gives the tokens after some of its blocks as
    maps [N, C, h, w], and its last vector [N, F]. Other networks give the last map, or maps at several scales.

    blocks, normalised, projected    as in `stylegan_plugins.vision.backbones.Recipe`
    scales                           read maps at several scales, from fine to coarse, each half as large as the one
                                     before; stages: indices of the maps, from 0, None: all
    precision                        of the backbone's arithmetic, a key of PRECISIONS
    resize                           as in Backbone.prepare
    Raises OptionError for a network without such features."""

    def __init__(
        self,
        backbone: Backbone,
        *,
        blocks: Sequence[int] | None = None,
        normalised: bool = False,
        projected: bool = False,
        stages: Sequence[int] | None = None,
        scales: bool = False,
        precision: str = "float32",
        resize: str = "area",
    ) -> None:
        super().__init__()
        self.scales = scales
        self.backbone = backbone
        self.normalised = normalised
        self.projected = projected
        self.dtype = PRECISIONS[precision]
        self.resize = resize
        backbone.model.to(self.dtype)
        try:
            depth = len(backbone.model.feature_info)
            self.stages = list(range(depth)) if stages is None else list(stages)
            self.blocks = list(blocks or dict.fromkeys((max(depth // 3 - 1, 0), max(2 * depth // 3 - 1, 0))))
            # A trial run gives the shapes of the features.
            with torch.no_grad():
                x = torch.zeros([1, 3, backbone.size, backbone.size], device=backbone.mean.device)
                self.has_tokens = backbone.model.forward_features(x.to(self.dtype)).ndim == 3
                self.shapes = [tuple(level.shape[1:]) for level in self(x)]
        except UNFIT as error:
            kind = type(backbone.model).__name__
            why = " ".join(str(error).split())
            raise OptionError(
                f"timm's {kind} gives no features that a decoder can read ({why}): choose another."
            ) from error
        sides = [shape[1] for shape in self.shapes if len(shape) == 3]
        if scales and (len(sides) < 2 or any(fine // 2 != coarse for fine, coarse in itertools.pairwise(sides))):
            raise OptionError(
                f"{type(backbone.model).__name__} has no maps at several scales, each half as large as the one before, "
                "as a perceptual decoder reads them: choose a convolutional network or a Swin."
            )
        if not self.has_tokens:  # frees layers that never run
            for name in CLASSIFIERS:
                if hasattr(backbone.model, name):
                    setattr(backbone.model, name, torch.nn.Identity())
        self.eval()

    def train(self, mode: bool = True) -> Levels:
        return super().train(False)

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Return the levels of images [N, C, H, W] in [-1, 1], C 1 or 3, of any size."""
        model = self.backbone.model
        scale: list[torch.Tensor] = []
        x = self.backbone.prepare(images, self.resize)
        if self.dtype == torch.float16:
            x = _ScaledBack.apply(x, scale)
        x = x.to(self.dtype)
        if self.scales:
            how: dict[str, Any] = dict(intermediates_only=True, output_fmt="NCHW")
            levels = model.forward_intermediates(x, indices=self.stages, **how)
        elif self.has_tokens:
            last, levels = model.forward_intermediates(x, indices=self.blocks, norm=self.normalised, output_fmt="NCHW")
            levels = [*levels, model.forward_head(last, pre_logits=not self.projected)]
        else:
            last = model.forward_features(x)
            levels = [last.permute(0, 3, 1, 2) if getattr(model, "output_fmt", "NCHW") == "NHWC" else last]
        levels = [level.float() for level in levels]
        return list(_Scaled.apply(scale, *levels)) if self.dtype == torch.float16 else levels

    def pooled(self, images: torch.Tensor) -> torch.Tensor:
        """Return the last level, averaged over its pixels if it is a map, [N, F]."""
        last = self(images)[-1]
        return last.mean(dim=[2, 3]) if last.ndim == 4 else last


class _Scaled(torch.autograd.Function):
    """The identity on several tensors. The backward pass multiplies their gradients by one power of two, so that the
    largest is between LARGEST / 2 and LARGEST, and puts this factor into a list."""

    @staticmethod
    def forward(ctx: Any, scale: list[torch.Tensor], *levels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        ctx.scale = scale
        return tuple(level.view_as(level) for level in levels)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        largest = torch.stack([gradient.abs().amax() for gradient in gradients]).amax()
        factor = torch.exp2(torch.floor(torch.log2(LARGEST / largest))).nan_to_num(nan=1, posinf=1)
        ctx.scale[:] = [factor]
        return None, *[gradient * factor for gradient in gradients]


class _ScaledBack(torch.autograd.Function):
    """The identity, whose backward pass divides the gradient by the factor in a list."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, scale: list[torch.Tensor]) -> torch.Tensor:
        ctx.scale = scale
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradient / ctx.scale[0], None
