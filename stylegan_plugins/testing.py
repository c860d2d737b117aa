"""A kit for tests of plug-ins: small networks of a host on a CPU, trained as the host's loop does.

    from stylegan_plugins.testing import TinyRun, assert_off_is_off, assert_resumes_exactly, use_host

    use_host(Path("stylegan2-ada-pytorch"))            # patched or not; one host a process
    TinyRun(["augself"]).train(2)
    assert_off_is_off("./mine.py", {"mine": {"weight": 0}})
    assert_resumes_exactly("./mine.py")

Plug-ins are names, .py files, or modules. Their `configure` is not called, because a test has neither a command line
nor a data set. Give options with the values that they have after `configure`."""

from __future__ import annotations

import copy
import importlib.util
import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch

from stylegan_plugins.files import trees
from stylegan_plugins.host.generators import with_module
from stylegan_plugins.host.modules import host_module, use_host
from stylegan_plugins.manager import Plugins, catalogue, is_file
from stylegan_plugins.run.checkpoints import POSITION, capture, restore
from stylegan_plugins.run.session import Session
from training_ext.distributed import average_gradients

__all__ = ["TinyRun", "activate", "assert_off_is_off", "assert_resumes_exactly", "differences", "use_host"]

PHASES = ("Gmain", "Greg", "Gboth", "Dmain", "Dreg", "Dboth")
One = str | Path | ModuleType
Given = One | Iterable[One]
Options = Mapping[str, Mapping[str, Any]]


def activate(plugins: Given, options: Options | None = None) -> Plugins:
    """Return active plug-ins with options by plug-in and field. A file is read again. Raises PluginError and
    OptionError."""
    given = [plugins] if isinstance(plugins, One) else list(plugins)
    found = catalogue()
    names = []
    for plugin in given:
        if isinstance(plugin, ModuleType):
            name = plugin.__name__.replace("_", "-")
            if found.pm.get_plugin(name) is not plugin:
                found.forget(name)
                found.add(name, plugin)
            names.append(name)
        else:
            names.append(str(plugin))
            if is_file(names[-1]):  # it may have changed
                found.forget(Path(plugin).stem.replace("_", "-"))
    return found.activate(names, options or {})


class TinyRun:
    """A training run on random images, without a data set and without files.

    side      of the images, in pixels; channels: 1 or 3; labels: their width
    batch     images per iteration; rounds: of gradient accumulation in an iteration
    ada       whether the host's ADA pipe is on, at p = 0.5
    lazy      lazy regularisation of G and D, in every second iteration; False: phases Gboth and Dboth
    loss      arguments of the host's loss, and gan_loss; D: arguments of the host's discriminator
    seed      of everything: two runs of the same seed are equal bit for bit
    images    number of images in a data set that the run trains on; 0: random images, with `session.dataset` and
              `Images.index` None
    rank      of this process among num_gpus in torch.distributed's default group, which must exist; batch is per
              process"""

    def __init__(
        self,
        plugins: Given = (),
        options: Options | None = None,
        *,
        side: int = 16,
        channels: int = 3,
        labels: int = 0,
        batch: int = 4,
        rounds: int = 1,
        ada: bool = False,
        lazy: bool = True,
        seed: int = 0,
        loss: Mapping[str, Any] | None = None,
        D: Mapping[str, Any] | None = None,
        images: int = 0,
        rank: int = 0,
        num_gpus: int = 1,
    ) -> None:
        host_module("training.loss")
        from training_ext.loss import PluginLoss  # needs the host

        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        self.batch, self.rounds = batch, rounds
        is_ada = importlib.util.find_spec("training.networks") is not None
        networks: Any = host_module("training.networks" if is_ada else "training.networks_stylegan2")
        widths: dict[str, Any] = dict(channel_base=8 * side, channel_max=8)
        common = dict(c_dim=labels, img_resolution=side, img_channels=channels)
        of_G = dict(synthesis_kwargs=widths) if is_ada else widths
        active = activate(plugins, options)
        G = networks.Generator(z_dim=8, w_dim=8, mapping_kwargs=dict(num_layers=2), **of_G, **common)
        self.G: Any = with_module(G, active, seed)
        of_D = {"epilogue_kwargs": dict(mbstd_group_size=min(4, batch // rounds)), **(D or {})}
        self.D = networks.Discriminator(**{**widths, **common, **of_D})
        self.G_ema = copy.deepcopy(self.G).eval()
        pipe = host_module("training.augment").AugmentPipe(xflip=1, brightness=1) if ada else None
        for module in filter(None, (self.G, self.D, self.G_ema, pipe)):
            module.train(module is not self.G_ema).requires_grad_(False)
        if pipe is not None:
            pipe.p.fill_(0.5)
        given: dict[str, Any] = dict(augment_pipe=pipe, r1_gamma=1, pl_weight=2, pl_batch_shrink=1) | dict(loss or {})
        of_loss = (self.G.mapping, self.G.synthesis, self.D) if is_ada else (self.G, self.D)
        self.loss = PluginLoss(torch.device("cpu"), *of_loss, **given)
        self._is_ada = is_ada
        self.phases = []
        for name, module in (("G", self.G), ("D", self.D)):
            opt = torch.optim.Adam(module.parameters(), lr=0.002, betas=(0.0, 0.99))
            for part, interval in (("main", 1), ("reg", 2)) if lazy else (("both", 1),):
                self.phases.append(SimpleNamespace(name=name + part, module=module, opt=opt, interval=interval))
        self.session = Session(active, random_seed=seed, rounds=rounds, total_nimg=1000, rank=rank, num_gpus=num_gpus)
        self.session.checks_gradients = True
        if images:
            pixels = np.random.RandomState(seed).randint(256, size=[images, channels, side, side]).astype(np.uint8)
            self.session.dataset = [(image, np.zeros([labels], np.float32)) for image in pixels]
        if rank:  # as in the hosts: each process draws other numbers
            torch.manual_seed(seed * num_gpus + rank)
        self.session.attach(self.G, self.D, self.G_ema, pipe, self.loss, self.phases)

    def method(self, plugin: str) -> Any:
        """Return the object that the `setup` of a plug-in returned. Raises ValueError if there is none."""
        if plugin not in self.session.methods:
            raise ValueError(f"{plugin!r} has no method in this run. There are: {', '.join(self.session.methods)}.")
        return self.session.methods[plugin].made

    def train(self, iterations: int) -> TinyRun:
        """Train for more iterations, and return the run."""
        for index in range(self.session.batch_idx, self.session.batch_idx + iterations):
            self.fetch()
            for phase in self.phases:
                if index % phase.interval == 0:
                    phase.opt.zero_grad(set_to_none=True)
                    self.accumulate(phase.name, gain=phase.interval)
                    average_gradients(phase.module, self.session.num_gpus)
                    for parameter in phase.module.parameters():
                        if parameter.grad is not None:
                            torch.nan_to_num(parameter.grad, nan=0, posinf=1e5, neginf=-1e5, out=parameter.grad)
                    phase.opt.step()
                    self.session.step_end(phase)
            with torch.no_grad():
                for average, parameter in zip(self.G_ema.parameters(), self.G.parameters(), strict=True):
                    average.copy_(parameter.lerp(average, 0.5))
                for kept, buffer in zip(self.G_ema.buffers(), self.G.buffers(), strict=True):
                    kept.copy_(buffer)
            self.session.batch_end((index + 1) * self.batch * self.session.num_gpus, index + 1)
        return self

    def fetch(self) -> None:
        """Draw the indices of the images of the next iteration, if there is a data set."""
        if self.session.dataset is not None:
            self.session.drawn.extend(torch.randint(len(self.session.dataset), [self.batch]).tolist())

    def real(self, n: int) -> torch.Tensor:
        """Return the real images of this round, [n, C, H, W] in [-1, 1]."""
        if self.session.dataset is None:
            return torch.rand([n, self.G.img_channels, self.G.img_resolution, self.G.img_resolution]) * 2 - 1
        index: Any = self.session.index(n)
        return torch.from_numpy(np.stack([self.session.dataset[k][0] for k in index.tolist()])) / 127.5 - 1

    def accumulate(self, phase: str, gain: float = 1) -> None:
        """Draw images and latents, and add the gradients of all rounds of one phase."""
        module = self.G if phase[0] == "G" else self.D
        n, G = self.batch // self.rounds, self.G
        host: dict[str, Any] = dict(sync=True) if self._is_ada else dict(cur_nimg=self.session.nimg)
        module.requires_grad_(True)
        for _ in range(self.rounds):
            real = self.real(n)
            z, c = torch.randn([n, G.z_dim]), torch.randn([2, n, G.c_dim])
            self.loss.accumulate_gradients(phase, real_img=real, real_c=c[0], gen_z=z, gen_c=c[1], gain=gain, **host)
        module.requires_grad_(False)

    def gradients(self, phase: str, seed: int = 1) -> dict[str, torch.Tensor]:
        """Return the gradients of one phase by name (`D.b4.fc.weight`, `heads.augself...`), with images of this seed.
        Parameters without gradient are left out; nothing is trained. phase: one of PHASES"""
        if phase not in PHASES:
            raise ValueError(f"{phase!r} is not a phase; give one of {', '.join(PHASES)}.")
        modules = {"G": self.G, "D": self.D, "heads": self.session.heads}
        for module in modules.values():
            module.zero_grad(set_to_none=True)
        torch.manual_seed(seed)
        self.fetch()
        self.accumulate(phase)
        self.session.round = 0
        self.session.drawn.clear()
        return {
            f"{kind}.{name}": parameter.grad.clone()
            for kind, module in modules.items()
            for name, parameter in module.named_parameters()
            if parameter.grad is not None
        }

    def state(self) -> dict[str, Any]:
        """Return the training state, after writing it to bytes and reading it again."""
        values = (self.session.nimg, 0, 0, self.session.batch_idx)
        state = capture(self.session, {}, dict(zip(POSITION, values, strict=True)))
        return trees.from_bytes(trees.to_bytes(state))

    def load(self, state: Mapping[str, Any]) -> TinyRun:
        """Load the state of another run, and return the run."""
        restore(self.session, {}, state)
        return self


def differences(one: Any, other: Any, where: str = "") -> list[str]:
    """Return the places where two states differ in any bit."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        alone = [f"{where}/{key}" for key in one.keys() ^ other.keys()]
        return alone + [
            found for key in one if key in other for found in differences(one[key], other[key], f"{where}/{key}")
        ]
    if isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return [found for index, (a, b) in pairs for found in differences(a, b, f"{where}/{index}")]
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        equal = one.dtype == other.dtype and one.shape == other.shape
        equal = equal and bool(((one == other) | ((one != one) & (other != other))).all())
    else:
        equal = one == other or (one != one and other != other)
    return [] if equal else [where]


def assert_off_is_off(plugins: Given, options: Options | None = None, iterations: int = 3, **how: Any) -> None:
    """Fail unless a run whose plug-ins are switched off by these options ends like a run without plug-ins. G, D, their
    optimisers and all random numbers must be equal bit for bit. how: arguments of `TinyRun`."""
    off, without = (TinyRun(*given, **how).train(iterations).state() for given in ((plugins, options), ()))
    parts = ("networks", "optimizers")
    found = differences({part: off[part] for part in parts}, {part: without[part] for part in parts})
    random = ("torch", "numpy", "python")
    drawn = [{name: state["ranks"][0][name] for name in random} for state in (off, without)]
    found += differences(drawn[0], drawn[1], "/random")
    assert not found, f"switched off, {plugins} changes {', '.join(found[:5])}"


def assert_resumes_exactly(
    plugins: Given, options: Options | None = None, iterations: int = 6, at: int = 3, **how: Any
) -> None:
    """Fail unless a run that is interrupted after `at` iterations and resumed from its training state in a new session
    ends like an uninterrupted run, bit for bit. how: arguments of `TinyRun`."""
    whole = TinyRun(plugins, options, **how).train(iterations).state()
    saved = TinyRun(plugins, options, **how).train(at).state()
    resumed = TinyRun(plugins, options, **how).load(saved).train(iterations - at).state()
    drop = lambda state: {key: value for key, value in state.items() if key != "ranks"}
    ranks = lambda state: {k: v for k, v in state["ranks"][0].items() if k not in ("counters", "cumulative")}
    found = differences(drop(whole), drop(resumed)) + differences(ranks(whole), ranks(resumed), "/process")
    assert not found, f"{plugins}: resumed, the run differs in {', '.join(found[:5])}"
