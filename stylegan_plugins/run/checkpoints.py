"""Exact resume: save everything that the next iteration of a run depends on, between two iterations, and restore it."""

from __future__ import annotations

import itertools
import random
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stylegan_plugins.errors import RunError, StateError
from stylegan_plugins.files import datasets, decoded, run_folders
from stylegan_plugins.files.states import Info, state_path, states_of, write_state
from stylegan_plugins.host.limits import some
from stylegan_plugins.host.modules import host_module
from stylegan_plugins.manager import FAULTS
from stylegan_plugins.run import logs, signals
from stylegan_plugins.run.finite import not_finite
from stylegan_plugins.run.optimizers import load_optimizer
from stylegan_plugins.run.previews import Previews
from stylegan_plugins.run.session import Session
from training_ext.distributed import agree, gather_objects

NETWORKS = ("G", "D", "G_ema", "augment_pipe")
COLLECTORS = ("stats_collector", "ada_stats")
POSITION = ("cur_nimg", "cur_tick", "tick_start_nimg", "batch_idx")


@dataclass(eq=False)
class Checkpoints:
    """The training states of a run. The patched training loop calls it at each step; it writes states and restores one.

    session    None: nothing is written, because our train.py did not start the loop
    resumed    the training state to resume from; None: a new run
    batch      real images of an iteration, of all processes together
    minutes    between two states; keep: number of states that are kept
    cache      how images of the data set are kept in memory: `mode` of `decoded.use`
    identity   data, arguments and versions, which a resumed run must share, as in `states.Info`
    previews   image grids and page of the run"""

    session: Session | None = None
    resumed: Mapping[str, Any] | None = None
    batch: int = 0
    minutes: float = 10
    keep: int = 2
    cache: str | None = "off"
    identity: Mapping[str, Any] = field(default_factory=dict)
    previews: Previews = field(default_factory=Previews)

    def __post_init__(self) -> None:
        self._written = 0.0  # time when the loop began, then when the newest state was written
        self._stopped = False  # by a signal, on all processes
        self._loop: dict[str, Any] | None = None  # needed variables of the loop, at the last iteration that began
        self._ends_tick = self._writes = False  # of the iteration that began last
        self._told_p = False

    # --- Before the first iteration. ---

    def sampler(self, sampler: Any) -> Iterable:
        """Return the loop's sampler without the items that were used before. The session gets each index it draws."""
        if self.session is None:
            return sampler
        done = 0 if self.resumed is None else self.resumed["position"]["batch_idx"]
        self.session.dataset = sampler.dataset
        shown = self.session.total_nimg - done * self.batch
        decoded.use(sampler.dataset, self.cache, shown, tells=self.session.rank == 0)
        return _observed(sampler, done * (self.batch // self.session.num_gpus), self.session.drawn.append)

    def unless_resumed(self, function: Callable, *args: Any, **kwargs: Any) -> None:
        """Call a function that writes a file at the beginning of a run."""
        if self.resumed is None:
            function(*args, **kwargs)

    def open_log(self, path: str, mode: str = "wt", **kwargs: Any) -> Any:
        """Open stats.jsonl; a resumed run appends to it."""
        return open(path, mode if self.resumed is None else "at", **kwargs)

    @property
    def purge_step(self) -> int | None:
        """The step for tensorboard from which it replaces events; None: a new run."""
        return None if self.resumed is None else self.resumed["position"]["cur_nimg"] // 1000 + 1

    def position(self, *fresh: int) -> tuple[int, ...]:
        """Return the loop's counters in the order of POSITION: `fresh`, or the counters of the state."""
        if self.resumed is None:
            return fresh
        return tuple(self.resumed["position"][name] for name in POSITION)

    # --- In the loop. ---

    def next_batch(self, loop: Mapping[str, Any]) -> bool:
        """Prepare for the next batch, and return whether the run ends here instead.

        loop: the loop's local variables. A state is written when it is due, when a signal came, and before an iteration
        with a long end (pictures, a snapshot, metrics): a run that ends there resumes from before the iteration."""
        if self.session is None:
            return False
        signals.hold()
        if self._loop is None:
            if self.resumed is not None:
                restore(self.session, loop, self.resumed)
                self.resumed = None  # it is large
            self._written = time.monotonic()
        # Not all of the loop's variables: its data loader must end with it.
        self._loop = {name: loop.get(name) for name in ("grid_z", *POSITION, *COLLECTORS)}
        self._ends_tick, self._writes = _end_of_iteration(loop, self.batch)
        self.session.checks_gradients = self._ends_tick and self.session.on_nan == "stop"
        due = self.session.rank == 0 and time.monotonic() - self._written >= self.minutes * 60
        due, stop = agree([due, signals.asked() is not None], self.session.num_gpus, self.session.device)
        if due or stop or self._writes:
            self._check_finite()  # before a bad state replaces the last good one
            try:
                self._write(self._loop)
            except StateError as error:
                if stop:
                    raise
                print(f"{error} Training goes on.", flush=True)  # the disk may have room again next time
        if stop:
            self.say_how_it_goes_on()
        else:
            self.previews.next_batch(loop)
        self._stopped = stop
        return stop

    def fetch(self, iterator: Iterator) -> Any:
        """Return the next batch. Raises RunError, with a state written, if a process cannot read its batch."""
        if self.session is None:
            return next(iterator)
        failed, batch = None, None
        try:
            batch = next(iterator)
        except (*FAULTS, *datasets.BROKEN, MemoryError) as error:
            failed = error
        if agree([failed is not None], self.session.num_gpus, self.session.device)[0]:
            assert self._loop is not None
            self._write(self._loop)
            if failed is None:  # another process says why
                raise signals.Ended(0)
            raise self.ended_by(failed, "in reading the data set") from failed
        return batch

    def batch_end(self, nimg: int, batch_idx: int) -> None:
        """Note the end of an iteration. Raises RunError if values are not finite at the end of a tick."""
        if self.session is None:
            return
        self.session.batch_end(nimg, batch_idx)
        if self._ends_tick:
            self._check_finite()
            self._tell_p()
        if self._writes:
            signals.release()

    def tick(self, cur_kimg: int, total_kimg: int) -> None:
        """Note a tick, as the host's progress_fn. The host also calls it once before training: that is ignored."""
        if self.session is not None and self.session.batch_idx:
            self.session.tick()
            self.previews.page(end=self.session.nimg >= self.session.total_nimg)

    def finish(self) -> None:
        """Write the state at the end of the loop: a longer run may resume from it."""
        if self.session is None or self._loop is None or not self.session.batch_idx or self._stopped:
            return
        signals.hold()
        nimg, batches = self.session.nimg, self.session.batch_idx
        self._write(dict(zip(POSITION, (nimg, self._loop["cur_tick"] + 1, nimg, batches), strict=True)))

    # --- The end of a run before its time. ---

    @property
    def inside(self) -> bool:
        """Whether an error would belong to training itself: in an iteration, or before the first one."""
        return signals.held() or self._loop is None

    @property
    def not_restored(self) -> bool:
        """Whether a resumed run has not come to its first iteration."""
        return self.resumed is not None

    def does_not_fit(self, error: BaseException) -> StateError:
        """Return an error, in one line, for a resumed run that cannot be built."""
        assert self.session is not None
        return StateError(
            f"--resume-run: the options or the newest state of {self.session.run_dir} do not fit this host "
            f"({type(error).__name__}: {' '.join(str(error).split()):.300}). Nothing was trained."
        )

    def say_how_it_goes_on(self) -> None:
        if self.session is not None and self.session.rank == 0:
            nimg = self.session.nimg if self.resumed is None else self.resumed["position"]["cur_nimg"]
            print(f"\nThe run ended at {nimg / 1000:.1f} kimg. {self._goes_on()}\n", flush=True)

    def ended_by(self, error: BaseException, where: str) -> RunError:
        """Return an error, in one line, for an error from outside this package."""
        assert self.session is not None
        what = f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(". ")
        goes_on = self._goes_on().replace("\n ", "")  # one line
        return RunError(f"The run ended at {self.session.nimg / 1000:g} kimg, {where}: {what:.500}. {goes_on}")

    def _goes_on(self) -> str:
        assert self.session is not None
        newest = next(iter(states_of(self.session.run_dir)), None)
        if newest is None:
            return "It has no state yet: start it again."
        script, run_dir = Path(sys.argv[0]).absolute(), self.session.run_dir.absolute()
        return f"Resume it with:\n  {shlex.join([sys.executable, str(script), f'--resume-run={run_dir}'])}"

    def _check_finite(self) -> None:
        assert self.session is not None
        wrong = not_finite(self.session)
        if not wrong:
            return
        kept = run_folders.snapshots_in(self.session.run_dir)
        last = f"The newest snapshot is {kept[-1]}. " if kept else ""
        message = f"At {self.session.nimg / 1000:g} kimg these are not finite: {some(wrong)}. {last}"
        if self.session.on_nan == "stop":
            raise RunError(f"{message}Train with a larger --gamma or smaller learning rates, or give --on-nan=warn.")
        if self.session.rank == 0:
            print(f"{message}Training goes on.", flush=True)

    def _tell_p(self) -> None:
        """Print once that ADA can do no more: p is a probability, and the hosts let it grow beyond 1."""
        assert self.session is not None
        pipe = self.session.augment_pipe
        if not self._told_p and self.session.rank == 0 and pipe is not None and float(pipe.p) > 1:
            self._told_p = True
            print(
                f"p of ADA is {float(pipe.p):.2f} at {self.session.nimg / 1000:g} kimg: all images are augmented, so a "
                "larger p does no more, and D still over-fits. More images, a plug-in or a larger --gamma may help.",
                flush=True,
            )

    def _write(self, position: Mapping[str, int]) -> None:
        assert self.session is not None and self._loop is not None
        state = capture(self.session, self._loop, position)
        self._written = time.monotonic()
        if self.session.rank == 0:
            run_dir = self.session.run_dir
            info = Info(
                int(position["cur_nimg"]),
                self.session.num_gpus,
                lengths=logs.lengths(run_dir, self.session.logs),
                snapshots=logs.snapshots(run_dir),
                **self.identity,
            )
            write_state(state_path(run_dir, position["cur_nimg"]), state, info, self.keep)


def _end_of_iteration(loop: Mapping[str, Any], batch: int) -> tuple[bool, bool]:
    """Return whether the coming iteration ends a tick, and whether it then makes pictures or a snapshot, by the rules
    of the hosts' loops."""
    nimg, tick = loop["cur_nimg"] + batch, loop["cur_tick"]
    done = nimg >= loop["total_kimg"] * 1000
    ends = done or tick == 0 or nimg >= loop["tick_start_nimg"] + loop["kimg_per_tick"] * 1000
    every = [loop.get(name) for name in ("image_snapshot_ticks", "network_snapshot_ticks")]
    return ends, ends and any(ticks is not None and (done or tick % ticks == 0) for ticks in every)


def _observed(sampler: Iterable, start: int, drawn: Callable[[int], None]) -> Iterator:
    """Yield a sampler's items from number `start` on, and call `drawn` with each. Loaders ask for items in the main
    process, ahead of the loop."""
    for item in itertools.islice(sampler, start, None):
        drawn(int(item))
        yield item


def capture(session: Session, loop: Mapping[str, Any], position: Mapping[str, int]) -> dict[str, Any]:
    """Return the state of a run, complete on the first process: tensors, numbers, strings, lists and dictionaries."""
    ranks = gather_objects(_of_this_process(session, loop), session.num_gpus, session.device)
    if session.rank != 0:
        return {}
    grid = loop.get("grid_z")
    return {
        "torch": str(torch.__version__),
        "position": {name: int(position[name]) for name in POSITION},
        "networks": {name: network.state_dict() for name, network in _networks(session).items()},
        "optimizers": {name: opt.state_dict() for name, opt in _optimizers(session).items()},
        "session": session.state_dict(),
        "grid_z": None if grid is None else torch.cat([part.cpu() for part in grid]),
        "ranks": ranks,
    }


def restore(session: Session, loop: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Restore a state in a loop that is set up and has not begun. `Checkpoints.position` restores its counters."""
    for name, network in _networks(session).items():
        network.load_state_dict(state["networks"][name])
    for name, opt in _optimizers(session).items():
        load_optimizer(opt, state["optimizers"][name])
    session.load_state_dict(state["session"])
    session.nimg, session.batch_idx = state["position"]["cur_nimg"], state["position"]["batch_idx"]
    if loop.get("grid_z") is not None:
        for part, saved in zip(loop["grid_z"], state["grid_z"].split([len(p) for p in loop["grid_z"]]), strict=True):
            part.copy_(saved)
    _restore_process(session, loop, state["ranks"][session.rank])


def _networks(session: Session) -> dict[str, torch.nn.Module]:
    return {name: getattr(session, name) for name in NETWORKS if getattr(session, name) is not None}


def _optimizers(session: Session) -> dict[str, torch.optim.Optimizer]:
    """Return the optimisers by the network that they train; phases of lazy regularisation share one."""
    return {"G" if phase.module is session.G else "D": phase.opt for phase in session.phases}


def _of_this_process(session: Session, loop: Mapping[str, Any]) -> dict[str, Any]:
    """Return state that differs between processes: random states, running averages, statistics not yet collected."""
    stats = host_module("torch_utils.training_stats")
    name, keys, *rest = np.random.get_state()
    version, words, gauss = random.getstate()
    networks = _networks(session) if session.rank else {}  # the first process saves all of its networks
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(session.device) if session.device.type == "cuda" else None,
        "numpy": [str(name), torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest],
        "python": [version, list(words), gauss],
        "loss": {name: value for name, value in vars(session.loss).items() if isinstance(value, torch.Tensor)},
        "buffers": {name: dict(network.named_buffers()) for name, network in networks.items()},
        "counters": {
            name: {str(device): value for device, value in found.items()} for name, found in stats._counters.items()
        },
        "cumulative": dict(stats._cumulative),
        "collectors": {
            name: {"cumulative": dict(loop[name]._cumulative), "moments": dict(loop[name]._moments)}
            for name in _collectors(loop)
        },
        "session": session.process_state(),
    }


def _restore_process(session: Session, loop: Mapping[str, Any], saved: Mapping[str, Any]) -> None:
    stats = host_module("torch_utils.training_stats")
    for name, value in saved["loss"].items():
        setattr(session.loss, name, value.to(session.device))
    for name, buffers in saved["buffers"].items():
        for key, value in getattr(session, name).named_buffers():
            value.copy_(buffers[key])
    stats._counters.clear()
    for name, found in saved["counters"].items():
        stats._counters[name] = {}
        for device, value in found.items():  # a device that is no longer there counts as this one
            here = torch.device(device) if device in ("cpu", str(session.device)) else session.device
            stats._counters[name][here] = stats._counters[name].get(here, 0) + value.to(here)
    stats._cumulative.clear()
    stats._cumulative.update(saved["cumulative"])
    for name in _collectors(loop):
        for kind, values in saved["collectors"][name].items():
            getattr(loop[name], f"_{kind}").clear()
            getattr(loop[name], f"_{kind}").update(values)
    session.load_process_state(saved["session"])
    name, keys, *rest = saved["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    version, words, gauss = saved["python"]
    random.setstate((version, tuple(words), gauss))
    if saved["cuda"] is not None and session.device.type == "cuda":
        torch.cuda.set_rng_state(saved["cuda"], session.device)
    torch.set_rng_state(saved["torch"])


def _collectors(loop: Mapping[str, Any]) -> list[str]:
    return [name for name in COLLECTORS if loop.get(name) is not None]
