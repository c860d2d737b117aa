"""The loss of a run with plug-ins: the host's loss with the parts of the methods. Needs a host."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch.autograd.profiler import record_function

from stylegan_plugins.host.modules import host_module
from stylegan_plugins.host.randomness import RandomState, random_state
from training_ext.ada import moves, noting_draws
from training_ext.gan_losses import GAN_LOSSES
from training_ext.parts import HOST_CRITIC, Images, Pass, Source, Step, Term
from training_ext.passes import NOTHING, Made, Unseen, augmented, for_term, make_pass, make_passes, reading
from training_ext.penalties import one_centred, zero_centred
from training_ext.spectral_norm import SpectralNorm
from training_ext.stand_in import input_of_D

host_loss: Any = host_module("training.loss")
training_stats = host_module("torch_utils.training_stats")
no_weight_gradients = host_module("torch_utils.ops.conv2d_gradfix").no_weight_gradients

Tensors = tuple[torch.Tensor, torch.Tensor]


class PluginLoss(host_loss.StyleGAN2Loss):
    """The host's StyleGAN2 loss with the parts of a session; takes the host's arguments and further ones.

    Without parts, or with terms of weight 0, gradients equal those by the host's loss bit for bit. The host computes
    path-length regularisation. With ADA on, D sees T(ADA(x); omega): omega describes T alone, and the clean image is
    ADA(x).

    gan_loss          a key of GAN_LOSSES
    r2_gamma          weight of R2, R1's counterpart on generated images; 0: none
    gradient_penalty  weight of WGAN-GP's penalty; 0: none
    d_spectral_norm   whether D is spectrally normalised
    g_interval        iterations, each with a step of D, between two steps of G; the session gives it to G's phases
    session           the parts of the active methods, and the position of the run; set when the session is attached

    R2 and the gradient penalty are computed together with the host's R1: lazily in Dreg, or in every step in Dboth."""

    D: Any
    augment_pipe: Any
    style_mixing_prob: float

    def __init__(
        self,
        *args: Any,
        gan_loss: str = "nonsaturating",
        r2_gamma: float = 0,
        gradient_penalty: float = 0,
        d_spectral_norm: bool = False,
        g_interval: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.gan_loss = GAN_LOSSES[gan_loss]
        self.r2_gamma, self.gradient_penalty, self.g_interval = r2_gamma, gradient_penalty, g_interval
        self.spectral_norm = SpectralNorm(self.D) if d_spectral_norm else None
        self.session: Any = None
        self.before_G: RandomState | None = None  # state before the generated images of this pass; see Session.variant
        # ada's methods take `sync`, stylegan3's `cur_nimg`, `update_emas` and `blur_sigma`.
        self._is_ada = "sync" in inspect.signature(host_loss.StyleGAN2Loss.run_D).parameters

    def accumulate_gradients(
        self,
        phase: str,
        real_img: torch.Tensor,
        real_c: torch.Tensor,
        gen_z: torch.Tensor,
        gen_c: torch.Tensor,
        gain: float,
        **host: Any,
    ) -> None:
        """Add the gradients of one round of one phase to `.grad`. The host's training loop calls this, with images
        [N, C, H, W] in [-1, 1], labels [N, c_dim] and latents [N, z_dim]; `gain` multiplies the loss."""
        session = self.session
        gain = gain / self.g_interval if phase[0] == "G" else gain  # the loop's gain is for the whole interval
        if session.begin(phase):
            real_c = session.labels(real_c)
            main, reg = phase[1:] in ("main", "both"), phase[1:] in ("reg", "both")
            on_lines = phase[0] == "D" and reg and self.gradient_penalty != 0
            paired = on_lines or (session.critic.loss or self.gan_loss).paired
            labels = real_c if paired else gen_c  # both images of a pair or a line have one label
            real, generated = (real_img, real_c), (gen_z, labels)
            with self.normalised_D():
                if phase[0] == "G":
                    if main:
                        self._generator(phase, real, generated, gain, main=True, reg=False)
                    if reg and session.regularises_G():
                        super().accumulate_gradients("Greg", real_img, real_c, gen_z, labels, gain=gain, **host)
                    if reg and session.terms("G", phase, main=False, reg=True):
                        self._generator(phase, real, generated, gain, main=False, reg=True)
                elif main and reg and session.critic is not HOST_CRITIC:  # R1 may need other gradients than the loss
                    self._discriminator("Dmain", real, generated, gain, main=True, reg=False)
                    self._discriminator("Dreg", real, generated, gain, main=False, reg=True)
                else:
                    self._discriminator(phase, real, generated, gain, main, reg)
        session.end_round(phase)

    def normalised_D(self) -> AbstractContextManager:
        """Return a context in which D has the weights that it is trained with."""
        return nullcontext() if self.spectral_norm is None else self.spectral_norm.applied()

    def _generator(self, phase: str, real: Tensors, generated: Tensors, gain: float, main: bool, reg: bool) -> None:
        """Make the gradients of G: its adversarial loss on generated images, and its terms."""
        session, critic = self.session, self.session.critic
        gan = critic.loss or self.gan_loss
        terms = session.terms("G", phase, main, reg)
        both = [term for term in terms if term.on == "both"]
        adversarial = main and critic.logits is not None
        with record_function(f"{phase}_forward"):
            # Draw, augment, run D. Real images are only for comparisons, without gradients.
            made: dict[str, Made] = {}
            if both or (adversarial and gan.paired):
                with torch.no_grad():
                    made["real"] = self._pass("real", phase, real, both)
            given = session.paired_latents(generated[0], real[1]) if main else None
            if given is None:
                made["generated"] = self._pass("generated", phase, generated, terms)
            else:  # pairs: one draw of the augmentations, no style mixing
                omega = made["real"][0].images.omega if "real" in made else NOTHING
                with self._mixing(False):
                    made["generated"] = self._pass("generated", phase, given, terms, omega=omega)
            shown = made["generated"][0]

            # Adversarial loss.
            loss: Any = 0
            if adversarial:
                self._report_logits("fake", shown.logits)
                pair = (made["real"][0].logits,) if gan.paired else ()
                value = gan.generator(shown.logits, *pair)
                training_stats.report("Loss/G/loss", value)
                weights = session.sample_weights(self._step(phase, generated=shown))
                loss = _rows(value if weights is None else value * weights.unsqueeze(1))

            # Terms.
            alone = [term for term in terms if term.reads("generated") and term not in both]
            loss = self._add_terms(loss, alone, phase, generated=made["generated"])
            loss = self._add_terms(loss, both, phase, **made)
            session.observe(self._step(phase, generated=shown))
        with record_function(f"{phase}_backward"):
            self._backward(loss, gain)
        self._backward(self._add_terms(0, [term for term in terms if term.on == "nothing"], phase), gain)

    def _discriminator(self, phase: str, real: Tensors, generated: Tensors, gain: float, main: bool, reg: bool) -> None:
        """Make the gradients of D: its adversarial loss, its terms and R1. Generated images come first. Unless a part
        needs both graphs, they have a separate backward pass, which frees their graph."""
        session, critic = self.session, self.session.critic
        gan = critic.loss or self.gan_loss
        terms = session.terms("D", phase, main, reg)
        both = [term for term in terms if term.on == "both"]
        alone = {source: [t for t in terms if t not in both and t.reads(source)] for source in ("generated", "real")}
        penalised = critic.r1 if reg and critic.weight != 0 else None
        r1, r2 = (penalised if gamma != 0 else None for gamma in (self.r1_gamma, self.r2_gamma))
        of_source = {source: alone[source] + both for source in alone}
        joint = main and critic.joint
        made: dict[str, Made] = {}
        loss: Any = 0
        loss_generated: Any = 0

        if joint:  # no regularisation: with a critic it has a separate pass
            last = self._draw("generated", phase, generated, of_source["generated"])
            first = self._draw("real", phase, real, of_source["real"])
            made["real"], made["generated"] = self._run([first, last])

        if main or r2 or both or alone["generated"]:
            with record_function(f"{phase}_generated_forward"):
                # Draw, augment, run D.
                asked = of_source["generated"]
                made["generated"] = made.get("generated") or self._pass("generated", phase, generated, asked, r2)
                shown = made["generated"][0]

                # Adversarial loss and terms of generated images.
                if main:
                    self._report_logits("fake", shown.logits)
                if main and not gan.paired:
                    loss_generated = gan.generated(shown.logits)
                    loss = critic.weight * _rows(loss_generated)
                loss = self._add_terms(loss, alone["generated"], phase, generated=made["generated"])
                session.observe(self._step(phase, generated=shown))

                # R2: gamma/2 * ||d sum(logits) / d images||^2 for each image, [N].
                if r2:
                    penalty = zero_centred(shown.gradients[r2])
                    training_stats.report("Loss/r2_penalty", penalty)
                    loss = loss + penalty * (self.r2_gamma / 2)
            if not (both or joint or (main and gan.paired)):
                with record_function(f"{phase}_generated_backward"):
                    self._backward(loss, gain)
                loss = 0
                made.clear()
            del shown  # frees the images before real ones are made

        if main or r1 or both or alone["real"]:
            with record_function(f"{phase}_real_forward"):
                # Draw, augment, run D.
                made["real"] = made.get("real") or self._pass("real", phase, real, of_source["real"], r1)
                shown = made["real"][0]
                self._report_logits("real", shown.logits)
                if self._is_ada:  # its R1 gives every weight of D a gradient, even if 0: Adam's moments depend on it
                    loss = loss + _rows(shown.logits * 0)

                # Adversarial loss and terms of real images, and of both.
                if main:
                    pair = (made["generated"][0].logits,) if gan.paired else ()
                    loss_real = gan.real(shown.logits, *pair)
                    training_stats.report("Loss/D/loss", loss_generated + loss_real)
                    loss = loss + critic.weight * _rows(loss_real)
                loss = self._add_terms(loss, alone["real"], phase, real=made["real"])
                loss = self._add_terms(loss, both, phase, **made)
                session.observe(self._step(phase, real=shown))

                # R1 (Mescheder et al. 2018): gamma/2 * ||d sum(logits) / d images||^2 for each image, [N].
                if r1:
                    penalty = zero_centred(shown.gradients[r1])
                    training_stats.report("Loss/r1_penalty", penalty)
                    penalty = penalty * (self.r1_gamma / 2)
                    training_stats.report("Loss/D/reg", penalty)
                    loss = loss + penalty
            with record_function(f"{phase}_real_backward"):
                self._backward(loss, gain)
        if reg and self.gradient_penalty != 0 and critic.weight != 0:
            with record_function(f"{phase}_line"):
                made.clear()
                self._backward(self._on_lines(phase, real, generated), gain)
        self._backward(self._add_terms(0, [t for t in terms if t.on == "nothing"], phase), gain)

    def _on_lines(self, phase: str, real: Tensors, generated: Tensors) -> torch.Tensor:
        """Return WGAN-GP's penalty, weight * (||d D / d T(x')||_2 - 1)^2, [N, 1], at x' = e x + (1 - e) G(z), e uniform
        in [0, 1] for each pair (Gulrajani et al. 2017, arXiv:1704.00028, equation (3)).

        x' passes blur, ADA and augmentations in one draw, like a real image. If T is affine in the image, as ADA and
        DiffAugment's three transformations are, T(x') is on the line between T(x) and T(G(z))."""
        raw, labels = self.session.real_images(*real, phase)
        with torch.no_grad():
            between = self.session.generate(generated[0], labels)
            between.lerp_(raw, torch.rand([len(raw), 1, 1, 1], device=raw.device))
        clean, kwargs = self.clean(between, labels)
        shown, omega = augmented(self.session.augmentations, clean, "real", phase)
        images = Images("real", phase, between, clean, shown.detach().requires_grad_(True), labels, omega)
        with self.session.silent():  # these are not real images
            made, _ = make_pass(self.D, self.session.critic, images, (), ("shown",), kwargs, no_weight_gradients)
        penalty = one_centred(made.gradients["shown"])
        training_stats.report("Loss/gradient_penalty", penalty)
        return penalty.unsqueeze(1) * self.gradient_penalty

    # Draw and augment. ----------------------------------------------------------------------------

    def _pass(self, *what: Any, **how: Any) -> Made:
        """Draw the images of a source, augment them, and run D on them and their views. Arguments as in `_draw`."""
        return self._run([self._draw(*what, **how)])[0]

    def _run(self, drawn: Sequence[Unseen]) -> list[Made]:
        """Return the passes of sources whose shown images form one batch of D."""
        terms = {term.name: term for one in drawn for term in one.terms}
        with self.session.naming(list(terms.values())):
            return make_passes(self.D, self.session.critic, drawn, no_weight_gradients)

    def _draw(
        self,
        source: Source,
        phase: str,
        given: Tensors,
        terms: Sequence[Term],
        r1: str | None = None,
        omega: Mapping[str, Any] = NOTHING,
    ) -> Unseen:
        """Draw the images of a source and augment them.

        given: real images or latents, and labels. r1: the images for the gradient of R1 or R2. omega: draws to use."""
        session, in_D, labels = self.session, phase[0] == "D", given[1]
        gradients = {name for term in terms for name in term.gradients} | ({r1} if r1 else set())
        updating = ("Dmain", "Dboth") if session.critic.logits is not None else ("Gmain", "Gboth")
        updates = source == "generated" and phase in updating  # of stylegan3's moving averages
        z = w = index = None
        layers: Mapping[str, torch.Tensor] = {}
        if source == "generated":
            z = given[0]
            self.before_G = random_state(self.device) if terms else None
            raw, w, layers = self.run_G_reading(z, labels, [n for t in terms for n in t.generator_layers], updates)
        else:
            index = session.index(len(labels))
            raw, labels = session.real_images(*given, phase)
        if in_D and (source == "real" or "raw" in gradients):
            raw = raw.detach().requires_grad_("raw" in gradients)
        with noting_draws(self.augment_pipe if terms else None) as drawn:  # only terms read `moved`
            clean, kwargs = self.clean(raw, labels, updates)
        shown, used = augmented(session.augmentations, clean, source, phase, omega)
        if in_D and "shown" in gradients and "raw" not in gradients:
            shown = shown.detach().requires_grad_(True)
        moved = moves(self.augment_pipe, drawn)
        images = Images(source, phase, raw, clean, shown, labels, used, z, w, index, layers, moved)
        return Unseen(images, terms, gradients, kwargs)

    def run_G_reading(
        self, z: torch.Tensor, c: torch.Tensor, layers: Sequence[str] = (), update_emas: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
        """Run the host's run_G; return images, w, and outputs of layers of G.synthesis."""
        kwargs = {"sync": True} if self._is_ada else {"update_emas": update_emas}
        synthesis = self.G_synthesis if self._is_ada else self.G.synthesis
        with reading(synthesis, layers) as found:
            images, w = self.run_G(z, c, **kwargs)
        return images, w, found

    def generate(self, z: torch.Tensor, c: torch.Tensor, mixing: bool) -> torch.Tensor:
        """Return images of G, with style mixing or without. G's moving averages stay as they are."""
        w_avg = self.session.G.mapping.w_avg.clone()
        try:
            with self._mixing(mixing):
                return self.run_G_reading(z, c)[0]
        finally:
            self.session.G.mapping.w_avg.copy_(w_avg)

    @contextmanager
    def _mixing(self, on: bool) -> Iterator[None]:
        """A context without style mixing, unless `on`."""
        probability = self.style_mixing_prob
        if not on:
            self.style_mixing_prob = 0
        try:
            yield
        finally:
            self.style_mixing_prob = probability

    def clean(self, raw: torch.Tensor, labels: torch.Tensor, updates: bool = False) -> tuple[torch.Tensor, dict]:
        """Return the input of the host's D for images, after blur and ADA, and further arguments of D."""
        kwargs: dict[str, Any] = {"sync": True}
        if not self._is_ada:  # stylegan3's blur of D's input fades out linearly over the first blur_fade_kimg
            seen = self.session.nimg / (self.blur_fade_kimg * 1e3) if self.blur_fade_kimg > 0 else 1
            kwargs = {
                "blur_sigma": max(1 - seen, 0) * self.blur_init_sigma,
                **({"update_emas": True} if updates else {}),
            }
        return input_of_D(self, raw, labels, **kwargs)

    def see(self, images: Images) -> Pass:
        """Return a pass, with a graph, of raw images that replace others, after another draw of ADA and augmentations.
        It has no layers or gradients for terms."""
        with noting_draws(self.augment_pipe) as drawn:
            clean, kwargs = self.clean(images.raw, images.labels)
        shown, omega = augmented(self.session.augmentations, clean, images.source, images.phase)
        moved = moves(self.augment_pipe, drawn)
        images = replace(images, clean=clean, shown=shown, omega=omega, moved=moved)
        return make_pass(self.D, self.session.critic, images, (), (), kwargs, no_weight_gradients)[0]

    @torch.no_grad()
    def judge(self, images: torch.Tensor, labels: torch.Tensor, source: Source = "real") -> torch.Tensor:
        """Return the critic's logits [N, K] of images [N, C, H, W] without ADA and augmentations, but with stylegan3's
        blur, which fades out. No state changes."""
        pipe, self.augment_pipe = self.augment_pipe, None
        try:
            clean, kwargs = self.clean(images, labels)
        finally:
            self.augment_pipe = pipe
        as_they_are = Images(source, "Dmain", images, clean, clean, labels)
        with self.normalised_D():
            made, _ = make_pass(self.D, self.session.critic, as_they_are, (), (), kwargs, no_weight_gradients)
        return made.logits

    # Terms, backward. -----------------------------------------------------------------------------

    def _step(self, phase: str, **passes: Pass) -> Step:
        return Step(phase, self.session.nimg, self.session.round, **passes)

    def _add_terms(self, loss: Any, terms: Sequence[Term], phase: str, **made: Made) -> Any:
        """Add the terms to a loss [N, 1], in their order. They only see these passes."""
        count = len(next(iter(made.values()))[0].labels) if made else 1
        for term in terms:
            step = self._step(phase, **{source: for_term(term, passes) for source, passes in made.items()})
            value = self.session.compute(term, step)
            training_stats.report(f"Loss/{term.network}/{term.name}", value)  # before weighting, so that runs compare
            # [N] is for each image; [M] of a view counts by its mean.
            value = value if len(value) == count else value.mean().expand(count)
            loss = loss + term.weight * value.unsqueeze(1)
        return loss

    @staticmethod
    def _backward(loss: Any, gain: float) -> None:
        if isinstance(loss, torch.Tensor) and loss.requires_grad:
            loss.mean().mul(gain).backward()

    @staticmethod
    def _report_logits(name: str, logits: torch.Tensor) -> None:
        training_stats.report(f"Loss/scores/{name}", logits)
        training_stats.report(f"Loss/signs/{name}", logits.sign())


def _rows(values: torch.Tensor) -> torch.Tensor:
    """Return the mean over K of losses [N, K], [N, 1]."""
    return values if values.shape[1:] == (1,) else values.flatten(1).mean(dim=1, keepdim=True)
