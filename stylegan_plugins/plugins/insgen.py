"""InsGen: D tells every image from every other, real or generated, whatever the augmentation.

Yang, Shen, Xu, Zhou: Data-Efficient Instance Generation from Instance Discrimination (NeurIPS 2021, arXiv:2106.04566).
Equations: docs/methods/insgen.md; their functions: training_ext.insgen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from stylegan_plugins import Average, Head, Images, OptionError, Preset, Session, Source, Step, Term, hookimpl, option
from stylegan_plugins import read as read_layers
from training_ext import insgen
from training_ext.distributed import gather

PAPER = "Yang et al. 2021, Data-Efficient Instance Generation from Instance Discrimination, arXiv:2106.04566"
PHI = "b8"  # D's last block before its epilogue
SHARE = 0.05  # size of the authors' queue as a share of the data set
PRESETS = {
    "few": Preset({"ada_linear": 0.6}, "authors' README: --ada_linear for less than 5,000 images, ADA's target of 0.6")
}


@dataclass(frozen=True)
class InsGenOptions:
    real_weight: float = option(1.0, "weight of D's term on real images, 0 = off", minimum=0)
    generated_weight: float = option(1.0, "weight of D's term on generated images, 0 = off", minimum=0)
    g_weight: float = option(0.1, "weight of G's term, 0 = off", minimum=0)
    temperature: float = option(0.2, "tau, which cosines are divided by", minimum=0.001)
    momentum: float = option(0.999, "decay of the averages of D and of the heads in a step", minimum=0, maximum=1)
    noise: float = option(0.15, "standard deviation of delta, the noise in z of generated images' keys", minimum=0)
    real_queue: int | None = option(
        None, "keys of real images; none: 5% of the data set, counting flipped images, the authors' choice", minimum=1
    )
    generated_queue: int | None = option(None, "keys of generated images; none: 5%, too", minimum=1)
    ada_linear: float = option(
        0.0, "p of ADA at the end of the run, to which it rises linearly; 0 = ADA's own control", minimum=0, maximum=1
    )


OPTIONS = InsGenOptions


@hookimpl
def configure(args: Any, options: InsGenOptions) -> InsGenOptions:
    data = args["training_set_kwargs"]
    size = max(int(SHARE * data["max_size"]) * (2 if data.get("xflip") else 1), 1)
    if options.ada_linear:
        if args.get("ada_target") is None:
            raise OptionError(
                f"--insgen-ada-linear={options.ada_linear:g}: ADA does not control p in this run. Give --aug=ada, or "
                "leave the option out."
            )
        # Without a target the host does not change p; for a p above 0 it builds its pipe. See `attached`.
        del args["ada_target"]
        args["augment_p"] = options.ada_linear
    return replace(options, real_queue=options.real_queue or size, generated_queue=options.generated_queue or size)


@hookimpl
def setup(session: Session, options: InsGenOptions) -> Method | None:
    weights = (options.real_weight, options.generated_weight, options.g_weight, options.ada_linear)
    return Method(session, options) if any(weights) else None


class Method:
    def __init__(self, session: Session, options: InsGenOptions) -> None:
        self.session, self.options = session, options
        features = session.layer_shape(PHI)[0]
        self.head = {source: insgen.InstanceHead(features) for source in ("real", "generated")}
        # The authors train the head of generated images with the settings of G's optimiser.
        of_G = next(phase.opt.defaults for phase in session.phases if phase.name[0] == "G")
        self.heads = [
            Head("insgen_real", self.head["real"]),
            Head("insgen_generated", self.head["generated"], settings=of_G),
        ]
        of_heads = {source: Average(f"insgen_{source}", head, options.momentum) for source, head in self.head.items()}
        self.averages = [Average("insgen_D", session.D, options.momentum), *of_heads.values()]
        self.key_D = self.averages[0].module
        self.key_head = {source: average.module for source, average in of_heads.items()}
        sizes = {"real": options.real_queue or 1, "generated": options.generated_queue or 1}
        self.queue = {source: insgen.first_queue(size).to(session.device) for source, size in sizes.items()}
        self.new: dict[str, list[torch.Tensor]] = {source: [] for source in self.queue}  # keys of this step's rounds
        reads: dict[str, Any] = {"layers": [PHI]}
        self.terms = [
            Term("insgen_real", "D", self.real, options.real_weight, on="real", **reads),
            Term("insgen_generated", "D", self.generated, options.generated_weight, on="generated", **reads),
            Term("insgen", "G", self.generator, options.g_weight, on="generated", **reads),
        ]

    def real(self, step: Step) -> torch.Tensor:
        """Return C_r(T_1 x, T_2 x), [N]."""
        key = self.key("real", step.real.images)
        self.new["real"].append(key)
        return self.loss("real", step.real.layers[PHI], key, "real")

    def generated(self, step: Step) -> torch.Tensor:
        """Return C_g(T_1 G(z), T_2 G(z + delta)), [N]."""
        images, features = step.generated.images, step.generated.layers[PHI]
        with torch.no_grad():
            z = images.z + self.options.noise * torch.randn_like(images.z)
            near = self.session.generate(z, images.labels)
            self.new["generated"].append(self.key_head["generated"](features))
        key = self.key("generated", replace(images, raw=near, clean=near, shown=near))
        return self.loss("generated", features, key, "generated")

    def generator(self, step: Step) -> torch.Tensor:
        """Return C_g(T_1 G(z), T_2 G(z)) for G, [N]."""
        seen = step.generated
        return self.loss("generated", seen.layers[PHI], self.key("generated", seen.images), "G")

    @torch.no_grad()
    def key(self, source: Source, images: Images) -> torch.Tensor:
        """Return keys of images after another draw of all augmentations, [N, W]."""
        shown = self.session.augment(images)
        _, found = read_layers(self.key_D, [PHI], shown, images.labels)
        return self.key_head[source](found[PHI])

    def loss(self, source: Source, features: torch.Tensor, key: torch.Tensor, of: str) -> torch.Tensor:
        """Return -log of the probability that each query gives to its key, [N]."""
        query = self.head[source](features)
        logits = insgen.instance_logits(query, key, self.queue[source], self.options.temperature)
        self.session.report(f"InsGen/accuracy/{of}", (logits.argmax(dim=1) == 0).float())
        return insgen.instance_loss(logits)

    @hookimpl
    def attached(self) -> None:
        pipe = self.session.augment_pipe
        if pipe is None and not self.session.augmentations and self.session.rank == 0:
            print("insgen: nothing augments images, so both views of a real one are the same. Give --aug=ada.")
        if self.options.ada_linear:
            if pipe is None:
                raise OptionError(
                    f"--insgen-ada-linear={self.options.ada_linear:g}: a plug-in beside insgen has switched ADA off. "
                    "Give --aug=ada, or leave the option out."
                )
            pipe.p.zero_()

    @hookimpl
    def step_end(self, phase: str) -> None:
        """Replace the oldest keys of the queue by the keys of all rounds and processes."""
        for source, keys in self.new.items():
            if keys and phase in ("Dmain", "Dboth"):
                self.queue[source] = insgen.enqueued(self.queue[source], gather(torch.cat(keys), self.session.num_gpus))
                keys.clear()

    @hookimpl
    def batch_end(self, nimg: int) -> None:
        if self.options.ada_linear:
            self.session.augment_pipe.p.fill_(self.options.ada_linear * nimg / self.session.total_nimg)

    def state_dict(self) -> dict[str, Any]:
        return {"queue": dict(self.queue)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.queue = dict(state["queue"])
