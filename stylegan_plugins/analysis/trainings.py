"""Runs of train.py for `stylegan-plugins compare`: several at once, each with a log, progress lines and a result."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch

from stylegan_plugins.analysis import programs
from stylegan_plugins.errors import DataError, printable
from stylegan_plugins.files import json_lines, states
from stylegan_plugins.files.atomic import write_json

LOG = "train.log"
CELL = "cell.json"  # beside the run of a cell: its identity
LINES_SECONDS = 60.0  # between two lines about a run, if lines are not rewritten in place
GOES_ON = "The same command of compare continues from here."
Key = TypeVar("Key")


def claim(folder: Path, identity: Mapping[str, Any]) -> None:
    """Write the identity of a cell into its folder before training. Raises DataError if the folder exists with another
    identity or none."""
    file = folder / CELL
    if not folder.exists():
        write_json(file, identity)
    try:
        known = json_lines.parse(file.read_text(errors="replace"))
    except (OSError, ValueError):
        known = {}
    if known != identity:
        raise DataError(
            f"{file} is missing, or is not of the runs in {folder}. Move this folder away, and start again."
        )


def progress_of(folder: Path) -> tuple[Path | None, int]:
    """Return the run directory in a cell's folder with the most advanced state, and the images that it has seen."""
    newest = [known[0] for run_dir in folder.glob("*") if run_dir.is_dir() and (known := states.states_of(run_dir))]
    found = [(int(state.stem.split("-")[-1]), state.parent) for state in newest]
    seen, run_dir = max(found, default=(0, None))
    return run_dir, seen


@dataclass
class Relay:
    """The progress of a run, read from its log and printed: on a terminal in one line that is rewritten, else as a line
    a minute.

    begin    bytes that the log had before
    about    the run's name, before each line
    alone    no other run prints progress at the same time"""

    log: Path
    begin: int
    about: str
    report: Callable[[str], None]
    alone: bool = True
    _told: str = ""
    _at: float = field(default_factory=time.monotonic)

    def __call__(self) -> None:
        """Print the newest line of progress, if it is new."""
        with open(self.log, "rb") as file:
            file.seek(max(self.begin, os.path.getsize(self.log) - 10_000))
            lines = re.findall(rb"progress: ([^\r\n]*)[\r\n]", file.read())
        line = lines[-1].decode(errors="replace") if lines else ""
        in_place = self.alone and sys.stderr.isatty()
        if line in ("", self._told) or (self._told and not in_place and time.monotonic() - self._at < LINES_SECONDS):
            return
        self._told, self._at = line, time.monotonic()
        if in_place:
            print(f"\r{printable(self.about)}: {printable(line)}\033[K", end="\r", file=sys.stderr, flush=True)
        else:
            self.report(f"{self.about}: {line}")


@dataclass
class Running:
    """A train.py that runs."""

    arguments: Sequence[str]
    relay: Relay
    program: subprocess.Popen

    @classmethod
    def start(cls, running: programs.Programs, arguments: Sequence[str], relay: Relay, **how: Any) -> Running:
        """Start train.py, with its output in the log of `relay`. how: as for Popen."""
        relay.log.parent.mkdir(parents=True, exist_ok=True)
        with open(relay.log, "ab") as out:
            relay.begin = out.seek(0, os.SEEK_END)
            return cls(arguments, relay, running.start(arguments, stdout=out, stderr=subprocess.STDOUT, **how))

    def check(self, advice: str) -> None:
        """Raise DataError, with train.py's error and with advice, if it failed."""
        code, log = self.program.returncode, self.relay.log
        if self.relay.alone and sys.stderr.isatty():
            print("\033[K", end="", file=sys.stderr, flush=True)  # clears the last line of progress
        if code:
            output = log.read_bytes()[self.relay.begin :].decode(errors="replace")
            why = programs.error_in(output.splitlines()) or f"it ended with {code}"
            raise DataError(f"train.py: {why} ({log}). {advice} The command was: {shlex.join(self.arguments)}")


def call(arguments: Sequence[str], log: Path, advice: str) -> None:
    """Run train.py, with its output in a file. Ctrl-C and SIGTERM end it with its state written, and then this process.

    Raises DataError, with train.py's error and with advice, if it fails."""
    with programs.Programs() as running:
        started = Running.start(running, arguments, Relay(log, 0, "", lambda line: None))
        running.wait()
    started.check(advice)


@dataclass(frozen=True)
class PlannedRun(Generic[Key]):
    """A run to train to `kimg`, or to resume if it has not come so far.

    arguments   command line of a new run
    about       name of the run, before each line about it
    identity    as for `claim`"""

    key: Key
    arguments: Sequence[str]
    folder: Path
    about: str
    identity: Mapping[str, Any]


def next_arguments(run: PlannedRun) -> tuple[Sequence[str], int]:
    """Return the command line that starts or resumes a run, and the number of images that it has seen."""
    run_dir, seen = progress_of(run.folder)
    return run.arguments if run_dir is None else [*run.arguments[:2], f"--resume-run={run_dir}"], seen


def trained(
    planned: Sequence[PlannedRun[Key]], kimg: int, jobs: int, report: Callable[[str], None]
) -> Iterator[tuple[Key, Path, float]]:
    """Train `jobs` runs at once. Yield each as it ends: its key, the snapshot at its end, and seconds of training.

    If `jobs` is more than 1, other runs train while the caller works on one. With several GPUs each run has one; on a
    CPU they share the cores.

    Raises DataError, after the other runs have ended with their states written."""
    waiting, free = deque(planned), list(range(jobs))
    done: deque[tuple[PlannedRun[Key], float]] = deque()
    going: dict[int, tuple[PlannedRun[Key], Running, float]] = {}
    with programs.Programs() as running:
        while waiting or going or done:
            while waiting and free and (jobs > 1 or not done):  # with one job, nothing trains while the caller works
                one = waiting.popleft()
                claim(one.folder, one.identity)
                new, seen = next_arguments(one)
                if seen >= kimg * 1000:
                    done.append((one, 0.0))
                    continue
                report(f"{one.about}: {one.folder.name}, from {seen / 1000:g} of {kimg} kimg; log: {one.folder / LOG}")
                relay = Relay(one.folder / LOG, 0, one.about, report, alone=jobs == 1)
                slot = free.pop(0)
                started = Running.start(running, new, relay, env={**os.environ, **environment(slot, jobs)})
                going[slot] = (one, started, time.monotonic())
            if done:
                one, seconds = done.popleft()
                with running.meanwhile():
                    yield one.key, last_snapshot(one.folder, kimg), seconds
                continue
            ended = running.wait(partial(_tell, [started.relay for _, started, _ in going.values()]))
            slot = next(slot for slot, (_, started, _) in going.items() if started.program is ended)
            one, started, begun = going.pop(slot)
            free.append(slot)  # the next run takes it before the caller gets this one
            started.check(GOES_ON)
            done.append((one, time.monotonic() - begun))


def _tell(relays: Sequence[Relay]) -> None:
    for relay in relays:
        relay()


def environment(slot: int, jobs: int) -> dict[str, str]:
    """Return variables that the run in a slot of `jobs` has beside this process's environment: one of several GPUs, or
    its share of the cores."""
    if jobs == 1:
        return {}
    if (count := torch.cuda.device_count()) > 1:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        return {"CUDA_VISIBLE_DEVICES": visible[slot % count] if len(visible) >= count else str(slot % count)}
    if count or "OMP_NUM_THREADS" in os.environ:
        return {}
    return {"OMP_NUM_THREADS": str(max((os.cpu_count() or 1) // jobs, 1))}


def last_snapshot(folder: Path, kimg: int) -> Path:
    """Return the snapshot at the end of a run that was trained to `kimg`. Raises DataError if it is missing."""
    run_dir, seen = progress_of(folder)
    if run_dir is None or seen < kimg * 1000:
        raise DataError(f"{folder}: the run has left no state. Look at {folder / LOG}.")
    last = run_dir / f"network-snapshot-{seen // 1000:06d}.pkl"
    if not last.is_file():  # an older snapshot is from a shorter run
        raise DataError(f"{last} is missing, the snapshot at the end of the run. Remove {folder}, and start again.")
    return last
