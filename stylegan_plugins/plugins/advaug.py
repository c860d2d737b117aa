"""AdvAug: features of D and of G are also shown with a small perturbation against the network in training.

Chen, Cheng, Gan, Liu, Wang: Data-Efficient GAN Training Beyond (Just) Augmentations: A Lottery Ticket Perspective
(NeurIPS 2021, arXiv:2103.00397). Equations: docs/methods/advaug.md; their functions: training_ext.advaug."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from stylegan_plugins import OptionError, Pass, PluginError, Session, Step, Term, hookimpl, option
from stylegan_plugins.host.modules import host_module
from training_ext import advaug
from training_ext.gan_losses import GAN_LOSSES, GanLoss
from training_ext.parts import Declared
from training_ext.passes import changing

PAPER = "Chen et al. 2021, Data-Efficient GAN Training Beyond (Just) Augmentations, arXiv:2103.00397"
conflicts = ("contrad",)  # its adversarial loss sees D's features without gradient
PHI = "b4.fc"  # the layer of D that gives the inputs of its last linear layer
EMBEDDING = "mapping"  # the network of a D with labels that embeds them


@dataclass(frozen=True)
class AdvAugOptions:
    d_weight: float = option(0.5, "share of the perturbed loss in D's adversarial loss, 0 = off", minimum=0, maximum=1)
    g_weight: float = option(0.5, "share of the perturbed loss in G's adversarial loss, 0 = off", minimum=0, maximum=1)
    d_gamma: float = option(0.01, "size of the perturbation of each of D's features", minimum=0)
    g_gamma: float = option(0.01, "size of the perturbation of each of G's features", minimum=0)
    attack: str = option(
        "loss",
        "target of a perturbation: the loss of the network in training, or D's score, the authors' code",
        choices=advaug.ATTACKS,
    )


OPTIONS = AdvAugOptions


@hookimpl
def configure(args: Any) -> None:
    name = args["loss_kwargs"].get("gan_loss", "nonsaturating")
    if GAN_LOSSES[name].paired:
        raise OptionError(
            f"--gan-loss={name}: advaug perturbs images one by one, and this loss is of pairs. Use another loss."
        )


@hookimpl
def setup(session: Session, options: AdvAugOptions) -> Method:
    return Method(session, options)


class Method:
    def __init__(self, session: Session, options: AdvAugOptions) -> None:
        self.session, self.options = session, options
        self.embedding = EMBEDDING if session.D.c_dim else None
        # The first layer that depends on w: StyleGAN2's has 4x4 pixels, stylegan3's makes the Fourier features.
        self.first = "b4.conv1" if hasattr(session.G.synthesis, "b4") else "input"
        of_D = [PHI, *([EMBEDDING] if self.embedding else [])]
        first = [self.first]
        self.terms = [
            Term("advaug", "D", self.discriminator, options.d_weight, layers=of_D),
            Term("advaug", "G", self.generator, options.g_weight, on="generated", generator_layers=first),
        ]

    @hookimpl
    def attached(self) -> None:
        critic = self.session.critic
        if not critic.runs_D or not set(critic.layers) <= {PHI}:
            raise PluginError(
                f"--plugin=advaug: it perturbs the inputs of D's last layer ({PHI}), and {critic.name} judges by "
                "others. Leave one of them out."
            )

    @property
    def gan(self) -> GanLoss:
        return self.session.critic.loss or self.session.loss.gan_loss

    def discriminator(self, step: Step) -> torch.Tensor:
        """Return L_D(f + delta) - L_D(f) of one source, [N]."""
        seen, options = step.one, self.options
        of = self.gan.real if step.source == "real" else self.gan.generated
        leaf = seen.layers[PHI].detach().requires_grad_(True)
        logits = self.logits(seen, leaf)
        delta = advaug.perturbation(leaf, of(logits), logits, options.d_gamma, options.attack)
        perturbed = of(self.logits(seen, seen.layers[PHI] + delta))
        return self.session.critic.weight * advaug.excess(perturbed, of(seen.logits))

    def logits(self, seen: Pass, features: torch.Tensor) -> torch.Tensor:
        """Return the critic's logits [N, K] for other inputs of D's last layer, [N, F], without running D again."""
        embedding = seen.layers[self.embedding] if self.embedding else None
        host_logits = advaug.last_layer(features, self.session.D.b4.out, embedding)
        critic = self.session.critic
        layers = Declared.of("layers", critic.layers, {PHI: features})
        return critic.logits(replace(seen, view="advaug", host_logits=host_logits, layers=layers))

    def generator(self, step: Step) -> torch.Tensor:
        """Return L_G(h + delta) - L_G(h), [N]."""
        seen, options, synthesis = step.generated, self.options, self.session.G.synthesis
        clean = self.gan.generator(seen.logits)
        with host_module("torch_utils.ops.conv2d_gradfix").no_weight_gradients():
            h = seen.images.generator_layers[self.first]
            if not h.requires_grad:
                raise PluginError("--plugin=advaug: G's first layers are frozen. Give --advaug-g-weight=0.")
            delta = advaug.perturbation(h, clean, seen.logits, options.g_gamma, options.attack)
        with changing(synthesis, {self.first: lambda h: h + delta.to(h.dtype)}):
            raw = synthesis(seen.images.w)
        value = advaug.excess(self.gan.generator(self.session.see(replace(seen.images, raw=raw)).logits), clean)
        weights = self.session.sample_weights(step)
        return value if weights is None else value * weights
