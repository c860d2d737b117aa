"""The loss of a run with plug-ins: the host's own, with the active parts at their places. Needs a host."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch.autograd.profiler import record_function

from stylegan_plugins.errors import PluginError
from stylegan_plugins.host.modules import host_module
from training_ext.features import Reading, minibatch_std_group
from training_ext.gan_losses import GAN_LOSSES
from training_ext.inputs import InputPipe
from training_ext.parts import Parts, Pass, Source

host_loss: Any = host_module("training.loss")
training_stats = host_module("torch_utils.training_stats")
conv2d_gradfix = host_module("torch_utils.ops.conv2d_gradfix")


class PluginLoss(host_loss.StyleGAN2Loss):
    """The host's StyleGAN2 loss with parts of plug-ins; takes the host's arguments and `gan_loss`.

    Without parts, and with terms of weight 0, it makes the gradients of the host's loss bit for bit. Path-length
    regularisation stays the host's. With ADA on, D sees T(ADA(x); omega): omega describes T alone, and the clean image
    of a pass is ADA(x).

    gan_loss: a key of GAN_LOSSES."""

    def __init__(self, *args: Any, gan_loss: str = "nonsaturating", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.gan_loss = GAN_LOSSES[gan_loss]
        self.parts = Parts()
        self.heads: torch.nn.Module | None = None
        self.augment_pipe: Any
        # ada's methods take `sync`, stylegan3's `cur_nimg`, `update_emas` and `blur_sigma`.
        self._is_ada = "sync" in inspect.signature(host_loss.StyleGAN2Loss.run_D).parameters

    def set_parts(self, parts: Parts, heads: torch.nn.Module | None = None) -> None:
        """Put the parts of a session in place, before the first iteration. heads: all modules trained with D."""
        self.parts = parts
        if parts.augmentations or parts.adversarial or any(term.clean_features for term in parts.terms):
            self.augment_pipe = InputPipe(self.augment_pipe, parts, minibatch_std_group(self.D))
        self.heads = heads

    def accumulate_gradients(self, phase: str, real_img, real_c, gen_z, gen_c, gain, **host: Any) -> None:
        """One round of one phase, as the host's training loop calls it: [N, C, H, W] images in [-1, 1], [N, c_dim]
        labels, [N, z_dim] latents; `gain` multiplies the loss. Gradients are added to `.grad`."""
        if self.heads is not None:
            self.heads.requires_grad_(phase.startswith("D"))  # R1 may reach heads that make logits
        blur = {} if self._is_ada else {"blur_sigma": self._blur_sigma(host["cur_nimg"])}
        if phase in ("Gmain", "Gboth"):
            self._generator(phase, gen_z, gen_c, gain, blur)
        if phase in ("Greg", "Gboth"):
            super().accumulate_gradients("Greg", real_img, real_c, gen_z, gen_c, gain=gain, **host)
        if phase in ("Dmain", "Dreg", "Dboth"):
            self._discriminator(phase, real_img, real_c, gen_z, gen_c, gain, blur)

    def _generator(self, phase: str, gen_z, gen_c, gain, blur: dict[str, float]) -> None:
        """Gmain: G's adversarial loss on generated images, and its terms."""
        with record_function("Gmain_forward"):
            images, _ = self.run_G(gen_z, gen_c, **self._kwargs({"update_emas": False}))
            evaluated = self.evaluate(images, gen_c, "generated", phase, self._kwargs(blur))
            self._report_logits("fake", evaluated.logits)
            loss = self.gan_loss.generator(evaluated.logits)
            training_stats.report("Loss/G/loss", loss)
            loss = self._add_terms(loss, "G", evaluated)
        with record_function("Gmain_backward"):
            loss.mean().mul(gain).backward()

    def _discriminator(self, phase: str, real_img, real_c, gen_z, gen_c, gain, blur: dict[str, float]) -> None:
        """Dmain: D's adversarial loss and its terms, generated images first and, unless a part needs both graphs, with
        a backward pass of their own. Dreg: R1 on real images; no term is computed for it."""
        adversarial = self.parts.adversarial
        weight = adversarial.weight if adversarial else 1
        main = phase in ("Dmain", "Dboth")
        r1 = phase in ("Dreg", "Dboth") and self.r1_gamma != 0 and weight != 0
        if not (main or r1):
            return
        if phase == "Dboth" and adversarial:  # its logits may let other gradients through than R1 needs
            for part in ("Dmain", "Dreg"):
                self._discriminator(part, real_img, real_c, gen_z, gen_c, gain, blur)
            return
        joint = adversarial.joint if adversarial else None
        generated: Pass | None = None
        loss_generated: Any = 0
        loss_kept: Any = 0
        if main:
            with record_function("Dgen_forward"):
                images, _ = self.run_G(gen_z, gen_c, **self._kwargs({"update_emas": True}))
                kwargs = self._kwargs({**blur, "update_emas": True})
                generated = self.evaluate(images, gen_c, "generated", phase, kwargs)
                self._report_logits("fake", generated.logits)
                loss_generated = self.gan_loss.generated(generated.logits)
                loss_kept = self._add_terms(weight * loss_generated, "D", generated)
            if joint is None:
                with record_function("Dgen_backward"):
                    loss_kept.mean().mul(gain).backward()
                loss_kept, generated = 0, None  # frees the images before the real ones come
        name = "Dreal_Dr1" if main and r1 else "Dreal" if main else "Dr1"
        with record_function(name + "_forward"):
            leaf = real_img.detach().requires_grad_(r1)
            real = self.evaluate(leaf, real_c, "real", phase, self._kwargs(blur))
            self._report_logits("real", real.logits)
            # ada gives every weight of D a gradient in Dreg, be it 0: Adam's moments depend on it.
            loss: Any = loss_kept + real.logits * 0 if self._is_ada else loss_kept
            if main:
                loss_real = self.gan_loss.real(real.logits)
                training_stats.report("Loss/D/loss", loss_generated + loss_real)
                loss = loss + self._add_terms(weight * loss_real, "D", real)
                if adversarial and joint and generated:
                    value = joint(generated, real)
                    training_stats.report(f"Loss/D/{adversarial.name}", value)
                    loss = loss + value.unsqueeze(1)
            if r1:
                loss = loss + self._r1(
                    real.logits, real.images if adversarial and adversarial.r1 == "augmented" else leaf
                )
        with record_function(name + "_backward"):
            loss.mean().mul(gain).backward()

    def _r1(self, logits: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """R1 (Mescheder et al. 2018): gamma/2 * ||d sum(logits) / d images||^2 for each image, [N]."""
        with record_function("r1_grads"), conv2d_gradfix.no_weight_gradients():
            (gradients,) = torch.autograd.grad([logits.sum()], [images], create_graph=True, only_inputs=True)
        penalty = gradients.square().sum([1, 2, 3])
        training_stats.report("Loss/r1_penalty", penalty)
        loss = penalty * (self.r1_gamma / 2)
        training_stats.report("Loss/D/reg", loss)
        return loss

    def evaluate(self, images, labels, source: Source, phase: str, kwargs: Mapping[str, Any]) -> Pass:
        """One pass: the host's run_D, in which the augmentations follow ADA, with what the phase's terms read.

        Terms are computed in main phases alone, so R1 and path length never pay for clean features."""
        adversarial = self.parts.adversarial
        terms = [] if phase == "Dreg" else self.parts.terms_of(phase[0])
        wanted = frozenset().union(*(term.features for term in terms))
        wanted_clean = frozenset().union(*(term.clean_features for term in terms))
        layers = wanted | wanted_clean | (adversarial.features if adversarial else frozenset())
        pipe = self.augment_pipe if isinstance(self.augment_pipe, InputPipe) else None
        if pipe is not None:
            views = adversarial.views if adversarial and source == "real" and phase != "Dreg" else 1
            leaf = phase == "Dreg" and adversarial is not None and adversarial.r1 == "augmented"
            pipe.prepare(source, phase, len(images), views=views, clean=bool(wanted_clean), leaf=leaf)
        passes = [labels] if pipe is None else pipe.labels(labels)
        with Reading(self.D, layers) as features:
            logits = self.run_D(images, passes[0], **kwargs)
        if not isinstance(logits, torch.Tensor) or (pipe is not None and not pipe.called):
            raise PluginError(
                "This host's loss has a run_D of its own, which returns more than logits or does not use the "
                "augmentation pipe: plug-ins cannot work with it. Train without --plugin."
            )
        outputs = [{"logits": logits, **features}]
        if pipe is not None:
            outputs = pipe.split(outputs[0])
            for batch, batch_labels in zip(pipe.batches[len(outputs) :], passes[1:], strict=True):
                with Reading(self.D, layers) as features:
                    logits = self.D(batch, batch_labels)
                outputs.append({"logits": logits, **features})
            outputs = pipe.by_view(outputs)
        clean_features = outputs.pop() if wanted_clean else {}
        evaluated = Pass(
            source=source,
            phase=phase,
            raw=images,
            images=images if pipe is None else pipe.images,
            clean=images if pipe is None else pipe.clean,
            labels=labels,
            omega={} if pipe is None else pipe.omega,
            logits=outputs[0]["logits"],
            features=outputs[0],
            clean_features=clean_features,
            views=outputs,
            report=training_stats.report,
        )
        if pipe is not None:
            pipe.release()
        if adversarial is not None:
            evaluated.logits = adversarial.logits(evaluated)
        return evaluated

    @torch.no_grad()
    def clean_logits(self, images, labels, source: Source, cur_nimg: int) -> torch.Tensor:
        """The logits that D is trained by, [N, 1], of images [N, C, H, W] as they are: neither ADA nor augmentations,
        but stylegan3's blur, which fades out. Nothing is reported, and no state changes."""
        adversarial = self.parts.adversarial
        blur = {} if self._is_ada else {"blur_sigma": self._blur_sigma(cur_nimg)}
        pipe, self.augment_pipe = self.augment_pipe, None
        try:
            with Reading(self.D, adversarial.features if adversarial else frozenset()) as features:
                logits = self.run_D(images, labels, **self._kwargs(blur))
        finally:
            self.augment_pipe = pipe
        if adversarial is None:
            return logits
        same = dict(raw=images, images=images, clean=images, clean_features={}, omega={})
        return adversarial.logits(
            Pass(
                **same,
                source=source,
                phase="Dmain",
                labels=labels,
                logits=logits,
                features=features,
                views=[features],
                report=lambda name, value: value,
            )
        )

    def _add_terms(self, loss: torch.Tensor, network: str, evaluated: Pass) -> torch.Tensor:
        for term in self.parts.terms_of(network):
            value = term.compute(evaluated)
            training_stats.report(f"Loss/{network}/{term.name}", value)  # before weighting, so that runs compare
            loss = loss + term.weight * value.unsqueeze(1)
        return loss

    def _kwargs(self, stylegan3: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments of the host's run_G and run_D: `sync` concerns DDP, which is not in use."""
        return {"sync": True} if self._is_ada else dict(stylegan3)

    def _blur_sigma(self, cur_nimg: int) -> float:
        """stylegan3's blur of what D sees, linearly faded out over the first blur_fade_kimg."""
        if self.blur_fade_kimg <= 0:
            return 0
        return max(1 - cur_nimg / (self.blur_fade_kimg * 1e3), 0) * self.blur_init_sigma

    @staticmethod
    def _report_logits(name: str, logits: torch.Tensor) -> None:
        training_stats.report(f"Loss/scores/{name}", logits)
        training_stats.report(f"Loss/signs/{name}", logits.sign())
