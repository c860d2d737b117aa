"""The active methods of one training run, wired together, with their state."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from stylegan_plugins.errors import PluginError
from stylegan_plugins.files.checksums import record_checksum
from stylegan_plugins.host.modules import host_module
from stylegan_plugins.host.randomness import drawn_again, own_random
from stylegan_plugins.manager import Plugins
from stylegan_plugins.run import checks
from stylegan_plugins.run.method import Method
from stylegan_plugins.run.optimizers import fuse_on_cpu, load_optimizer, spread
from stylegan_plugins.run.progress import Progress
from training_ext.distributed import average_gradients, broadcast, mean_over_ranks
from training_ext.heads import update_average
from training_ext.parts import HOST_CRITIC, ContractError, Images, Pass, Source, Step, Term
from training_ext.passes import augmented, layer_shape


@dataclass(eq=False)
class Session:
    """The state of a run: the patched host files call it, and `setup` gets it. Without active plug-ins it only prints
    progress.

    For methods, after `attach`:
    G, D, G_ema    the host's networks
    device         the device of this process
    rank           index of this process
    num_gpus       number of processes
    nimg           real images shown before this iteration
    total_nimg     real images of the whole run
    batch_idx      iterations done
    round          index of the round of gradient accumulation in this optimiser step
    rounds         number of rounds in an optimiser step
    run_dir        the run directory, a Path
    dataset        the host's data set in this process: dataset[i] is (image uint8 [C, H, W], label [c_dim]); None in a
                   host whose loop does not use `InfiniteSampler`"""

    plugins: Plugins
    _: KW_ONLY
    random_seed: int = 0
    rank: int = 0
    num_gpus: int = 1
    total_nimg: int = 0
    rounds: int = 1
    run_dir: Path = Path()
    progress: Progress | None = None
    on_nan: str = "stop"  # or "warn": a run continues although values are not finite

    def __post_init__(self) -> None:
        self.nimg = self.batch_idx = self.round = 0
        self.methods: dict[str, Method] = {}
        self.heads = torch.nn.ModuleDict()
        self.dataset: Any = None
        self.drawn: deque[int] = deque()  # places of the images that the loop has fetched and not yet trained on
        self._labels: torch.Tensor | None = None  # labels that replace the data set's
        self._trained: dict[str, list[torch.nn.Parameter]] = {}  # of heads; parameters frozen by an author stay frozen
        self._head_optimizers: dict[str, torch.optim.Optimizer] = {}
        self._silent = self.checks_gradients = False  # the check waits for a GPU
        self.logs: list[str] = []

    # --- For methods. ---

    def log(self, name: str) -> Path:
        """Return the path of a log file of this name in the run directory, to which a method appends lines. Call it in
        `setup`. A resumed run cuts the log to its length when its state was written."""
        self.logs.append(name)
        return self.run_dir / name

    def options(self, plugin: str) -> Any:
        """Return the options of an active plug-in."""
        return self.plugins.options[plugin]

    def report(self, name: str, value: Any) -> None:
        """Report values of a statistic: `stats.jsonl` has their mean and standard deviation over a tick. All processes
        must report the same names in the same order."""
        if not self._silent:
            host_module("torch_utils.training_stats").report(name, value)

    def generate(self, z: torch.Tensor, c: torch.Tensor, mixing: bool = True) -> torch.Tensor:
        """Return images of G for latents [N, z_dim] and labels [N, c_dim], with a graph. Style mixing is as in training
        unless `mixing` is False. G's moving averages stay as they are."""
        return self.loss.generate(z, c, mixing)

    def variant(self, images: Images, z: torch.Tensor, mixing: bool = True, shown: bool = False) -> torch.Tensor:
        """Return images of G for other latents [N, z_dim], with a graph, with the labels and random draws of these
        generated images: their noise, and their style mixing unless `mixing` is False. With `shown` also their ADA and
        augmentations, as D would see them. For views and terms, while their pass is made."""
        with drawn_again(self.loss.before_G, self.device):
            raw = self.generate(z, images.labels, mixing)
            return self.augment(replace(images, raw=raw)) if shown else raw

    def augment(self, images: Images, ada: bool = True) -> torch.Tensor:
        """Return images [N, C, H, W] after another draw of all steps before D, with a graph. The steps start from
        the raw images, or from the clean images if `ada` is False."""
        clean = self.loss.clean(images.raw, images.labels)[0] if ada else images.clean
        return augmented(self.augmentations, clean, images.source, images.phase)[0]

    def see(self, images: Images) -> Pass:
        """Return the pass of D and the critic for `images.raw`, after another draw of all steps before D, with a graph.
        For images that a term has made: `dataclasses.replace(step.one.images, raw=...)`. The pass has logits and no
        layers; no statistic is reported."""
        with self.silent():
            return self.loss.see(images)

    def layer_shape(self, layer: str) -> tuple[int, ...]:
        """Return the shape of a layer of D for one image: (512,) of `b4.fc`, (512, 4, 4) of `b4.conv`."""
        if others := checks.other_layers(self.D, layer):
            raise ContractError(f"layer_shape reads the layer {layer!r}, which D has not. It has: {others}")
        return layer_shape(self.D, layer, self.device)

    def judge(self, images: torch.Tensor, labels: torch.Tensor, source: Source = "real") -> torch.Tensor:
        """Return the critic's logits [N, K] of images [N, C, H, W] in [-1, 1], without gradient, ADA and augmentations,
        but with stylegan3's blur, which fades out. No statistic is reported."""
        with self.silent():
            return self.loss.judge(images, labels, source)

    def average(self, values: torch.Tensor) -> torch.Tensor:
        """Return the mean of values over all processes, [], without gradient. All processes must call it equally often
        and in the same order."""
        return mean_over_ranks(values, self.num_gpus)

    def relabel(self, labels: torch.Tensor) -> None:
        """Let the images of the host's data set have these labels [M, c_dim] from the next round on, in the order of
        the data set. All processes must call it. `register_labels` gives placeholders of the same shape."""
        if self.dataset is None or len(labels) != len(self.dataset):
            count = "no data set here" if self.dataset is None else f"{len(self.dataset)} images"
            raise ContractError(f"relabel() has {len(labels)} labels and {count}")
        self._labels = labels.to(self.device)
        values = labels.cpu().numpy()
        self.dataset.get_label = lambda index: values[index].copy()  # for generated images; workers have copies

    @property
    def optimizers(self) -> list[torch.optim.Optimizer]:
        """All optimisers, each once: G's and D's, which their phases share, and the heads' optimisers."""
        return [*{id(phase.opt): phase.opt for phase in self.phases}.values(), *self._head_optimizers.values()]

    # --- Called by the loss. ---

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Report no statistics within this context."""
        self._silent = True
        try:
            yield
        finally:
            self._silent = False

    def begin(self, phase: str) -> bool:
        """Let this phase's parameters have gradients. Return whether there are any."""
        if phase[0] == "D" and self.critic.logits is None:
            return False
        for head in self._heads:
            for parameter in self._trained[head.name]:  # a critic's head may get gradients of R1
                parameter.requires_grad_(head.network == phase[0])
        if not (frozen := self._hooks("trains")):
            return True
        network = self.G if phase[0] == "G" else self.D
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(all(asks(name=f"{phase[0]}.{name}", nimg=self.nimg) for asks in frozen))
        trained = any(parameter.requires_grad for parameter in network.parameters())
        return trained or any(head.network == phase[0] for head in self._heads)

    def regularises_G(self) -> bool:
        """Return whether path lengths have a gradient: they have none while the whole mapping network is frozen."""
        return any(parameter.requires_grad for parameter in self.G.mapping.parameters())

    def terms(self, network: str, phase: str, main: bool, reg: bool) -> list[Term]:
        """Return the terms of a network to compute now, sorted by name: the order of plug-ins changes no sum."""
        wanted = {"main": main, "reg": reg}
        return [
            term
            for term in self._terms
            if term.network == network and term.weight != 0 and wanted[term.when] and term.active(phase)
        ]

    def labels(self, given: torch.Tensor) -> torch.Tensor:
        """Return the labels of this round's real images, [N, c_dim]: labels from `relabel`, or `given`."""
        return given if self._labels is None else self._labels[self.index(len(given))]

    def paired_latents(self, z: torch.Tensor, labels: torch.Tensor) -> Any:
        """Return latents [N, z_dim] and labels of G's images in its main phase if a method gives them, else None. z:
        the loop's latents; labels: labels of this round's real images."""
        hooks = self._hooks("paired_latents")
        for give in hooks:
            z, labels = give(z=z, labels=labels, index=self.index(len(labels)))
        return (z, labels) if hooks else None

    def real_images(self, images: torch.Tensor, labels: torch.Tensor, phase: str) -> Any:
        """Return the images that D sees as real, [N, C, H, W], with their labels [N, c_dim]."""
        for change in self._hooks("real_images"):
            images, labels = change(images=images, labels=labels, phase=phase)
        return images, labels

    def index(self, count: int) -> torch.Tensor | None:
        """Return the places of this round's real images in the host's data set, [count]; None if they are not known."""
        if len(self.drawn) < (self.round + 1) * count:
            return None
        start = self.round * count
        return torch.tensor(list(itertools.islice(self.drawn, start, start + count)), device=self.device)

    def end_round(self, phase: str) -> None:
        """Note the end of a round. Raises PluginError if gradients were asked for and are not finite."""
        self.round += 1
        if self.checks_gradients:
            terms = {term.name: self._owners[id(term)].name for term in self.terms(phase[0], phase, True, True)}
            checks.check_gradients(self.G if phase[0] == "G" else self.D, phase, terms, self.nimg)

    def sample_weights(self, step: Step) -> torch.Tensor | None:
        weights = [found for asks in self._hooks("sample_weights") if (found := asks(step=step)) is not None]
        return torch.stack(weights).prod(dim=0) if weights else None

    def observe(self, step: Step) -> None:
        with torch.no_grad():
            for hook in self._hooks("observe"):
                hook(step=step)

    def compute(self, term: Term, step: Step) -> torch.Tensor:
        """Return the value of a term, [N], or [M] of one of its views. Raises PluginError for another shape. A value
        that is not finite raises it at the end of an iteration."""
        method = self._owners[id(term)]
        with self.naming([term]), checks.passes_named(method, term, step):
            value = term.compute(step)
        passes = [made for made in (step.real, step.generated) if made is not None]
        sizes = {len(made.labels) for made in passes} or {1}
        sizes |= {len(view.labels) for made in passes for view in made.views.values()}
        checks.check_value(method, term, value, sizes)
        self._finite[method.name, term.name] &= value.detach().isfinite().all()
        return value

    @contextmanager
    def naming(self, terms: Sequence[Term]) -> Iterator[None]:
        """Add the names of the parts at fault, and of their plug-ins, to an error of the contract. The parts are the
        critic, the terms that read the view, or else these terms."""
        try:
            yield
        except ContractError as error:
            readers = [term for term in terms if error.part in term.views] or terms
            parts = [self.critic] if error.part is self.critic or not readers else readers
            names = dict.fromkeys(self._owners[id(part)].name for part in parts)
            what = ", ".join(part.name for part in parts)
            raise PluginError(f"--plugin={','.join(names)}: {what}: {error}.") from error

    # --- Called by the patched training loop. ---

    def attach(self, G: Any, D: Any, G_ema: Any, augment_pipe: Any, loss: Any, phases: Sequence[Any]) -> None:
        """Set up all methods. Called when networks, loss and optimisers exist and nothing is trained yet."""
        self.G, self.D, self.G_ema, self.loss, self.phases = G, D, G_ema, loss, phases
        self.augment_pipe, self.spectral_norm = augment_pipe, getattr(loss, "spectral_norm", None)
        spread([phase for phase in phases if phase.name[0] == "G"], getattr(loss, "g_interval", 1))
        self._trained_weights = getattr(loss, "normalised_D", nullcontext)  # D has its trained weights in this context
        self.device = next(D.parameters()).device
        for name in self.plugins.names:
            with own_random(name, self.random_seed, self.device), self._trained_weights():  # for copies of D, too
                try:
                    made = self.plugins.call(name, "setup", session=self)
                except ContractError as error:
                    raise PluginError(f"--plugin={name}: setup() breaks the contract: {error}.") from error
            if made is not None:
                self.methods[name] = Method(name, made, self.plugins.catalogue.traced)
                checks.check_terms(self.methods[name], D, G.synthesis, self.plugins.without_D)
        self._wire()
        self._make_optimizers()
        fuse_on_cpu(self.optimizers)
        if hasattr(loss, "session"):
            loss.session = self
        self._call("attached")

    def step_end(self, phase: Any) -> None:
        """Step the optimisers of a network's heads after its own. Heads without gradient stay as they are."""
        self.round = 0
        network = phase.name[0]
        heads = [head for head in self._heads if head.network == network and head.name in self._head_optimizers]
        modules = torch.nn.ModuleList(head.module for head in heads).requires_grad_(False)
        average_gradients(modules, self.num_gpus)
        for parameter in modules.parameters():
            if parameter.grad is not None:  # as the host does for its networks
                torch.nan_to_num(parameter.grad, nan=0, posinf=1e5, neginf=-1e5, out=parameter.grad)
        for head in heads:
            self._head_optimizers[head.name].step()
            self._head_optimizers[head.name].zero_grad(set_to_none=True)
        if network == "D" and self.spectral_norm is not None:
            self.spectral_norm.update()
        if phase.name in ("Dmain", "Dboth"):
            with self._trained_weights():
                for average in self.averages:
                    update_average(average)
        self._call("step_end", phase=phase.name)

    def batch_end(self, nimg: int, batch_idx: int) -> None:
        images = (nimg - self.nimg) // self.num_gpus
        self.nimg, self.batch_idx = nimg, batch_idx
        for _ in range(min(images, len(self.drawn))):
            self.drawn.popleft()
        # Reading a flag waits for a GPU.
        if self.on_nan == "stop" and (self.device.type == "cpu" or batch_idx % 16 == 0):
            checks.check_finite(self._finite, nimg)
        if self.progress is not None:
            self.progress.update(nimg)
        self._call("batch_end", nimg=nimg, batch_idx=batch_idx)

    def tick(self) -> None:
        """Call the methods' hooks at the end of a tick."""
        self._call("tick", nimg=self.nimg)

    def snapshot(self, path: str | None, nimg: int) -> None:
        """Call the hooks of a tick before its statistics are collected. path: of a new network snapshot, or None."""
        if path is not None and self.rank == 0:
            record_checksum(Path(path))
            self._call("snapshot", path=path, nimg=nimg)
        self._call("statistics", nimg=nimg)

    # --- State. ---

    def state_dict(self) -> dict[str, Any]:
        """Return the state that is the same on all processes: heads, their optimisers, averages, labels."""
        return {
            "heads": self.heads.state_dict(),
            "optimizers": {name: opt.state_dict() for name, opt in self._head_optimizers.items()},
            "averages": {average.name: average.module.state_dict() for average in self.averages},
            "labels": self._labels,
            **({} if self.spectral_norm is None else {"spectral_norm": self.spectral_norm.state_dict()}),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.heads.load_state_dict(state["heads"])
        for name, opt in self._head_optimizers.items():
            load_optimizer(opt, state["optimizers"][name])
        for average in self.averages:
            average.module.load_state_dict(state["averages"][average.name])
        if self.spectral_norm is not None:
            self.spectral_norm.load_state_dict(state["spectral_norm"])
        if state["labels"] is not None:
            self.relabel(state["labels"])

    def process_state(self) -> dict[str, Any]:
        """Return the state that differs between processes: states of methods, and buffers of heads."""
        return {
            "methods": {name: method.state_dict() for name, method in self.methods.items() if method.has_state},
            "buffers": dict(self.heads.named_buffers()),
        }

    def load_process_state(self, state: Mapping[str, Any]) -> None:
        for name, value in state["methods"].items():
            self.methods[name].load_state_dict(value, self.device)
        for name, buffer in self.heads.named_buffers():
            buffer.copy_(state["buffers"][name])

    # --- Set-up. ---

    def _wire(self) -> None:
        """Collect the parts of all methods. Raises PluginError for parts that exclude each other."""
        methods = self.methods.values()
        self.augmentations = [part for method in methods for part in method.augmentations]
        self.averages = [part for method in methods for part in method.averages]
        self._heads = [part for method in methods for part in method.heads]
        self._terms = sorted((part for method in methods for part in method.terms), key=lambda term: term.name)
        self._owners = {id(part): method for method in methods for part in method.readers}
        names = [(self._owners[id(term)].name, term.name) for term in self._terms]
        self._finite = {name: torch.ones([], dtype=torch.bool, device=self.device) for name in names}
        critics = [method.critic for method in methods if method.critic is not None]
        if len(critics) > 1:
            both = " and ".join(critic.name for critic in critics)
            raise PluginError(f"--plugin: {both} both replace the adversarial loss: leave one of them out.")
        self.critic = critics[0] if critics else HOST_CRITIC
        checks.check_together(methods, self.critic, self._owners.get(id(self.critic)), self.plugins.without_D)

    def _make_optimizers(self) -> None:
        """Prepare heads: in float32, equal on all processes, each with an optimiser of its network's kind."""
        of_host = {id(parameter) for network in (self.G, self.D) for parameter in network.parameters()}
        for head in self._heads:
            if any(id(parameter) in of_host for parameter in head.module.parameters()):
                raise PluginError(f"--plugin: the head {head.name} contains parameters of G or D, which train already.")
            module = self.heads[head.name] = head.module.float().to(self.device)
            parameters = self._trained[head.name] = [p for p in module.parameters() if p.requires_grad]
            module.requires_grad_(False)
            if parameters:
                opt = next(phase.opt for phase in self.phases if phase.name[0] == head.network)
                checks.check_settings(head.name, head.settings, type(opt))
                self._head_optimizers[head.name] = type(opt)(parameters, **{**opt.defaults, **head.settings})
        for module in (self.heads, *(average.module.to(self.device) for average in self.averages)):
            if self.num_gpus > 1:
                broadcast(module)

    def _hooks(self, name: str) -> list[Any]:
        return [method.hooks[name] for method in self.methods.values() if name in method.hooks]

    def _call(self, name: str, **arguments: Any) -> None:
        for hook in self._hooks(name):
            hook(**arguments)
