"""A vision-aided discriminator for any training loop: frozen networks, trainable decoders and their loss in a module.

It needs no StyleGAN host. Documentation: docs/reference/vision_discriminator.md."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch

from stylegan_plugins.errors import OptionError
from stylegan_plugins.vision import backbones
from training_ext.diffaugment import DiffAugment
from training_ext.gan_losses import GAN_LOSSES
from training_ext.spectral_decoder import SpectralDecoder
from training_ext.vision_losses import over_levels, sigmoid

FLAG = "models"
LOSSES, AUGMENTATIONS, OUTPUTS = ("sigmoid", "hinge"), ("diffaugment", "none"), ("multilevel", "last")


class Discriminator(torch.nn.Module):
    """Discriminators D_k = C_k(F_k(T_k(x))): decoders C_k with spectral normalisation on frozen networks F_k.

    Kumari, Zhang, Shechtman, Zhu 2022 (arXiv:2112.09130), with the interface of the authors' package vision-aided-loss.
    Its parameters and its state dict contain the decoders alone. The networks F_k move with the module, and always stay
    frozen and in evaluation mode.

    models       names as of --vision-aided-models, with commas: `clip,dino`, `swin=FILE`, a model of timm
    loss         `sigmoid` or `hinge`
    target       of real images, and of generated ones for G, in [0, 1]; with `sigmoid`
    augment      T_k: `diffaugment` (color, translation, cutout; a draw for each k) or `none`
    output       `multilevel`: all levels of a transformer; `last`: its last vector. Other networks have one level.
    num_classes  classes whose embedding is projected, 0: no labels
    precision    of the frozen networks: `float32`, `float16` or `bfloat16`
    resize       how images get a network's size: `area` or `bilinear`
    device       of decoders and networks
    Raises OptionError or DataError for a name, a value or weights that cannot be used."""

    def __init__(
        self,
        models: str = "clip",
        *,
        loss: str = "sigmoid",
        target: float = 0.8,
        augment: str = "diffaugment",
        output: str = "multilevel",
        num_classes: int = 0,
        precision: str = "float32",
        resize: str = "area",
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__()
        for name, value, known in (
            ("loss", loss, LOSSES),
            ("augment", augment, AUGMENTATIONS),
            ("output", output, OUTPUTS),
        ):
            if value not in known:
                raise OptionError(f"{name}={value}: use one of {', '.join(known)}.")
        self._loss, self._target = loss, target
        self._augment = DiffAugment() if augment == "diffaugment" else None
        chosen = backbones.models_of(models, FLAG)
        # Not registered by torch, so that optimisers, state dicts, `train` and `requires_grad_` do not reach them.
        self._frozen = {model.key: model.load(FLAG, precision=precision, resize=resize) for model in chosen}
        self._first = -1 if output == "last" else 0
        self.num_classes = num_classes
        self.decoders = torch.nn.ModuleDict(
            {key: SpectralDecoder(levels.shapes[self._first :], num_classes) for key, levels in self._frozen.items()}
        )
        self.to(device)

    def _apply(self, function: Callable[..., Any], recurse: bool = True) -> Discriminator:
        """Move the decoders for `to`, `cuda` or `cpu`, and the frozen networks to the same device."""
        super()._apply(function, recurse)
        device = next(self.decoders.parameters()).device
        for levels in self._frozen.values():
            levels.to(device)
        return self

    def logits(self, images: torch.Tensor, labels: torch.Tensor | None = None) -> list[list[torch.Tensor]]:
        """Return the logits of each model and level, [N, h, w] or, of the last level, [N, 1].

        images  [N, C, H, W] in [-1, 1], C 1 or 3, of any size; augmented here
        labels  classes [N], integers, if there are classes"""
        if labels is None and self.num_classes:
            raise OptionError(f"labels: with num_classes={self.num_classes}, give the classes of the images, [N].")
        if labels is not None and not self.num_classes:
            raise OptionError("labels: this discriminator has no classes. Leave them out, or make it with num_classes.")
        found = []
        for key, levels in self._frozen.items():
            seen = images if self._augment is None else self._augment(images)[0]
            found.append(self.decoders[key](levels(seen)[self._first :], labels))
        return found

    def forward(
        self,
        images: torch.Tensor,
        labels: torch.Tensor | None = None,
        *,
        for_real: bool = True,
        for_G: bool = False,
        reduction: str = "mean",
    ) -> torch.Tensor:
        """Return the loss of D on real images, on generated ones (for_real=False), or the loss of G (for_G=True).

        images, labels  as of `logits`
        reduction       `mean`, a scalar, or `none`, [N]
        Losses are summed over models and levels, and averaged over the pixels of a level. D's losses give gradients to
        the decoders alone, G's loss to the images alone."""
        if reduction not in ("mean", "none"):
            raise OptionError(f"reduction={reduction}: use mean or none.")
        gan = GAN_LOSSES["hinge"] if self._loss == "hinge" else sigmoid(self._target)
        loss = gan.generator if for_G else gan.real if for_real else gan.generated
        with self._only_images() if for_G else contextlib.nullcontext():
            logits = self.logits(images if for_G else images.detach(), labels)
        total = torch.stack([over_levels(loss, levels) for levels in logits]).sum(dim=0)
        return total.mean() if reduction == "mean" else total

    @contextlib.contextmanager
    def _only_images(self) -> Iterator[None]:
        """A context in which the decoders' parameters get no gradient."""
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        for parameter in trained:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in trained:
                parameter.requires_grad_(True)
