"""The active plug-ins of one training run, wired together, with their state."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pluggy
import torch

from stylegan_plugins import manager
from stylegan_plugins import options as plugin_options
from stylegan_plugins.checksums import record_checksum
from stylegan_plugins.errors import PluginError
from stylegan_plugins.progress import Progress
from training_ext.distributed import broadcast, sum_gradients
from training_ext.parts import LAYERS, AdversarialTerm, Head, Parts


class Session:
    """What patched host files talk to. Without active plug-ins it prints progress and does nothing else.

    active      names of the active plug-ins, in the order of --plugin
    heads       modules that are trained with D, by name
    kept        what plug-ins keep between their hooks, by plug-in; no part of any state
    After attach(): G, D, G_ema, device, loss."""

    def __init__(
        self,
        active: list[str],
        options: Mapping[str, Mapping[str, Any]],
        *,
        random_seed: int = 0,
        rank: int = 0,
        num_gpus: int = 1,
        run_dir: str = ".",
        progress: Progress | None = None,
    ) -> None:
        self.active = list(active)
        self.random_seed = random_seed
        self.rank = rank
        self.num_gpus = num_gpus
        self.run_dir = run_dir
        self.heads = torch.nn.ModuleDict()
        self.kept: dict[str, Any] = {}
        self.heads_opt: torch.optim.Optimizer | None = None
        self.pm: pluggy.PluginManager = manager.build(self.active)
        self.cur_nimg: int | None = None  # None before the first iteration
        self.batch_idx = 0
        self._progress = progress
        self._options = build_options(self.pm, self.active, options)

    def options(self, plugin: str) -> Any:
        """The options of an active plug-in, an instance of its dataclass."""
        return self._options[plugin]

    def feature_size(self, layer: str) -> int:
        """Width F of the features [N, F] that D has in a layer of `training_ext.parts.LAYERS`."""
        module = self.D.get_submodule(LAYERS[layer])
        if layer == "conv":  # 4x4 pixels, flattened
            return module.weight.shape[0] * 16
        return module.weight.shape[0]

    @property
    def optimizers(self) -> list[torch.optim.Optimizer]:
        """All optimisers, each once: G's and D's, which their phases share, and that of the heads."""
        found = {id(phase.opt): phase.opt for phase in self.phases}
        return [*found.values(), *([self.heads_opt] if self.heads_opt is not None else [])]

    # --- Called by the patched training loop. ---

    def attach(self, G, D, G_ema, augment_pipe, loss, phases) -> None:
        """Register all parts. Called when networks, loss and optimisers exist and nothing is trained yet."""
        self.G, self.D, self.G_ema, self.loss, self.phases = G, D, G_ema, loss, phases
        self.augment_pipe = augment_pipe
        self.device = next(D.parameters()).device
        parts = Parts(augmentations=self.collect("register_augmentations"))
        self._make_heads(self.collect("register_heads"), phases)
        terms = self.collect("register_loss_terms")
        replacing = [term for term in terms if isinstance(term, AdversarialTerm)]
        if len(replacing) > 1:
            names = " and ".join(term.name for term in replacing)
            raise PluginError(f"--plugin: {names} both replace the adversarial loss: leave one of them out.")
        parts.adversarial = replacing[0] if replacing else None
        parts.terms = [term for term in terms if not isinstance(term, AdversarialTerm)]
        if self.active:
            loss.set_parts(parts, self.heads if len(self.heads) else None)

    def step_end(self, phase) -> None:
        """An optimiser stepped; the heads' own follows D's. Heads without gradient, as most are after R1, stay."""
        if self.heads_opt is not None and phase.name.startswith("D"):
            self.heads.requires_grad_(False)
            sum_gradients(self.heads, self.num_gpus)
            for parameter in self.heads.parameters():
                if parameter.grad is not None:  # as the host does it for its networks
                    torch.nan_to_num(parameter.grad, nan=0, posinf=1e5, neginf=-1e5, out=parameter.grad)
            self.heads_opt.step()
            self.heads_opt.zero_grad(set_to_none=True)
        if self.active:
            self.pm.hook.step_end(session=self, phase=phase.name)

    def batch_end(self, cur_nimg: int, batch_idx: int) -> None:
        self.cur_nimg, self.batch_idx = cur_nimg, batch_idx
        if self._progress is not None:
            self._progress.update(cur_nimg)
        if self.active:
            self.pm.hook.batch_end(session=self, cur_nimg=cur_nimg, batch_idx=batch_idx)

    def tick(self, cur_kimg: int, total_kimg: int) -> None:
        """The host's progress_fn: called once before training, which is no tick, and after each tick."""
        if self.active and self.cur_nimg is not None:
            self.pm.hook.tick(session=self, cur_nimg=self.cur_nimg)

    def snapshot(self, path: str | None, cur_nimg: int) -> None:
        """Called in each tick, before its statistics are collected. path: of a network snapshot, if one was written."""
        if path is not None and self.rank == 0:
            record_checksum(Path(path))
            if self.active:
                self.pm.hook.snapshot(session=self, path=path, cur_nimg=cur_nimg)
        if self.active:
            self.pm.hook.statistics(session=self, cur_nimg=cur_nimg)

    # --- State. ---

    def state_dict(self) -> dict[str, Any]:
        """Everything of ours that a run must remember and that is the same on all processes: heads."""
        return {
            "heads": self.heads.state_dict(),
            "heads_opt": None if self.heads_opt is None else self.heads_opt.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.heads.load_state_dict(state["heads"])
        if self.heads_opt is not None:
            self.heads_opt.load_state_dict(state["heads_opt"])

    def plugin_state(self) -> dict[str, Any]:
        """What plug-ins remember, on this process."""
        found = {name: manager.call(self.pm, name, "state_dict", session=self) for name in self.active}
        return {name: state[0] for name, state in found.items() if state}

    def load_plugin_state(self, state: Mapping[str, Any]) -> None:
        for name, value in state.items():
            manager.call(self.pm, name, "load_state_dict", session=self, state=value)

    def collect(self, hook: str) -> list:
        """The parts of all plug-ins that one hook returns, as one list in the order of --plugin."""
        return [
            part for name in self.active for parts in manager.call(self.pm, name, hook, session=self) for part in parts
        ]

    def _make_heads(self, heads: list[Head], phases) -> None:
        """Heads are float32, start equal on all processes, and leave the host's random numbers as they were."""
        for head in heads:
            if head.name in self.heads:
                raise PluginError(f"--plugin: two plug-ins have a head named {head.name!r}: leave one of them out.")
            with torch.random.fork_rng(devices=[]):
                # Not torch.manual_seed: it would seed all GPUs, too, and alike on every process.
                torch.default_generator.manual_seed(self.random_seed + zlib.crc32(head.name.encode()))
                self.heads[head.name] = head.module().float().to(self.device)
        if not any(True for _ in self.heads.parameters()):
            return
        if self.num_gpus > 1:
            broadcast(self.heads)
        self.heads.requires_grad_(False)
        d_opt = next(phase.opt for phase in phases if phase.module is self.D)
        self.heads_opt = type(d_opt)(self.heads.parameters(), **d_opt.defaults)


def build_options(
    pm: pluggy.PluginManager, names: Iterable[str], values: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Options objects of active plug-ins from values by plug-in and field; None for a plug-in without options."""
    classes = {name: options_class(pm, name) for name in names}
    return {n: plugin_options.build(n, cls, dict(values.get(n, {}))) if cls else None for n, cls in classes.items()}


def options_class(pm: pluggy.PluginManager, name: str) -> type | None:
    """A plug-in's options dataclass, None if it has no options."""
    found = manager.call(pm, name, "options")
    return found[0] if found else None
