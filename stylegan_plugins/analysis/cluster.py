"""Runs of `stylegan-plugins compare` as jobs of a cluster, by submitit: `--executor=slurm`, or `local` on this machine.

A job trains one run from its newest state to its end and measures it. Before its time is over, or when a more urgent
one takes its place, submitit calls `CellJob.checkpoint`, and the job is queued again. Jobs go on when `compare` ends:
the same command finds them by `job.json` in the folder of each run."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import torch

from stylegan_plugins.analysis import programs, trainings
from stylegan_plugins.analysis.trainings import Key, PlannedRun, Relay, Running
from stylegan_plugins.errors import DataError, OptionError, UserError, require, tell
from stylegan_plugins.files import json_lines
from stylegan_plugins.files.atomic import write_json

FOLDER = "jobs"  # in the folder of a comparison: what submitit writes, and the output of jobs
JOB = "job.json"  # beside the run of a cell: its job
ENDED = "job-ended.json"  # likewise: seconds of training, and the error, if one ended the job
# What submitit is told unless the user says otherwise. Times are in minutes: a job of Slurm is queued again when its
# time is over; one on this machine is not to end.
DEFAULTS: dict[str, dict[str, Any]] = {
    "slurm": {"timeout_min": 240, "gpus_per_node": 1, "cpus_per_task": 4},
    "local": {"timeout_min": 60 * 24 * 365},
}
MOST_REQUEUES = 10_000  # for want of time; those without any progress end a job much earlier
MOST_FRUITLESS = 3
WATCH_SECONDS = 1.0
LOOK_SECONDS = 15.0  # between two looks at the queue
MOST_MISSED = 5  # looks that do not find a job, until it counts as lost: a network disk may show its files much later
# Options of submitit that a user may not set: a job is one process, named after its run.
OWN = ("name", "nodes", "tasks_per_node", "stderr_to_stdout", "slurm_nodes", "slurm_ntasks_per_node")
GOES_ON = "Other jobs go on, and the same command of compare continues from here."


@dataclass(frozen=True)
class Jobs:
    """How runs are submitted.

    executor    a key of DEFAULTS
    options     of submitit, as NAME=VALUE
    folder      of the comparison
    measure     is called in the job with the last snapshot of a run, and keeps its results beside that"""

    executor: str
    options: Sequence[str]
    folder: Path
    measure: Callable[[Path], object]

    def __post_init__(self) -> None:
        if not hasattr(os, "waitid"):
            raise DataError(f"--executor={self.executor} needs os.waitid of Python. Use --jobs.")
        require("submitit", "cluster")
        self.submitter("trial")

    def submitter(self, name: str) -> Any:
        """Return submitit's executor for a job of this name. Raises OptionError for options that it does not know, and
        DataError if Slurm is not here."""
        import submitit

        for text in self.options:
            if _option_of(text)[0] in OWN:
                raise OptionError(f"--executor-option={text}: a job is one process, named after its run. Leave it out.")
        given = dict(DEFAULTS[self.executor]) | dict(_option_of(text) for text in self.options)
        try:
            most = {f"{self.executor}_max_num_timeout": MOST_REQUEUES}
            made = submitit.AutoExecutor(self.folder / FOLDER, cluster=self.executor, **most)
        except RuntimeError as error:
            raise DataError(f"--executor={self.executor}: no srun here. Run this where jobs are submitted.") from error
        try:
            made.update_parameters(name=name, **given)
        except (NameError, TypeError, ValueError, AssertionError) as error:
            raise OptionError(f"--executor-option: {str(error).splitlines()[0]}") from error
        return made

    def submit(self, job: CellJob) -> Submitted:
        """Submit a job, and note it in its cell's folder."""
        cell = job.run.folder
        (cell / ENDED).unlink(missing_ok=True)
        submitter = self.submitter(cell.name)
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # in submitit's own process on this machine, too
        try:
            made = submitter.submit(job)
            found = Submitted(cell, self.executor, made.job_id, str(made.paths.stderr), platform.node())
            write_json(cell / JOB, found.record())
        except (RuntimeError, OSError) as error:  # sbatch's
            why = str(error).strip().splitlines()[-1]
            raise DataError(f"--executor={self.executor}: a job was refused ({why}). {GOES_ON}") from error
        finally:
            signal.signal(signal.SIGINT, before)
        return found


@dataclass
class Submitted:
    """A job that was submitted.

    machine     where it was submitted
    missed      looks in a row that have not found it among those that go on"""

    cell: Path
    executor: str
    number: str
    output: str
    machine: str
    missed: int = 0

    def record(self) -> dict[str, str]:
        """Return what is noted of it."""
        return {"executor": self.executor, "number": self.number, "output": self.output, "machine": self.machine}

    def wrote(self) -> dict[str, Any] | None:
        """Return what the job has written at its end; None so far."""
        try:
            return json_lines.parse((self.cell / ENDED).read_text(encoding="utf-8"))
        except OSError:  # a network disk has errors of its own
            return None

    def seconds(self) -> float:
        """Return the seconds of training of a job that has ended. Raises DataError if it failed, or left no result."""
        outcome = self.wrote()
        if outcome is None:  # killed, cancelled, or a fault of ours
            raise DataError(
                f"{self.cell.name}: job {self.number} has ended without a result; its output is in {self.output}. "
                f"{GOES_ON}"
            )
        if outcome["error"] is not None:
            raise DataError(outcome["error"])
        return outcome["seconds"]


@dataclass
class CellJob:
    """A run as a job. submitit pickles it, calls it on a node, and asks it for the one that is queued in its place.

    environment     beside that of the node
    fruitless       times in a row that it was queued again without having trained an image"""

    run: PlannedRun
    kimg: int
    measure: Callable[[Path], object]
    environment: dict[str, str] = field(default_factory=dict)
    fruitless: int = 0
    _program: subprocess.Popen | None = None
    _images: int = 0  # that the run had seen when the job began

    def __call__(self) -> None:
        """Train and measure, and write how it ended."""
        os.environ.update(self.environment)
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # where no train.py is to be ended
        begun, seconds, why = time.monotonic(), 0.0, None
        try:
            self._train()
            seconds = time.monotonic() - begun
            self.measure(trainings.last_snapshot(self.run.folder, self.kimg))
        except UserError as error:
            why = error.message
        write_json(self.run.folder / ENDED, {"seconds": seconds, "error": why})

    def _train(self) -> None:
        arguments, self._images = trainings.next_arguments(self.run)
        if self._images >= self.kimg * 1000:
            return
        relay = Relay(self.run.folder / trainings.LOG, 0, self.run.about, tell)
        with programs.Programs() as running:
            # Slurm sends the signal that is for this process to its children, too, which would end them at once.
            signal.pthread_sigmask(signal.SIG_BLOCK, {_signal()})
            started = Running.start(running, arguments, relay)
            self._program = started.program
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {_signal()})
            running.wait(relay)
        if started.program.returncode == 128 + signal.SIGTERM:  # Slurm sends it to all processes of a job
            sys.exit(128 + signal.SIGTERM)
        started.check(GOES_ON)

    def checkpoint(self) -> Any:
        """End the run with its state written, and return what is queued in this job's place; None: nothing, as it has
        come no further in several turns."""
        from submitit.helpers import DelayedSubmission

        if self._program is not None:
            self._program.terminate()
            with suppress(ChildProcessError):  # it has ended, and been waited for
                os.waitid(os.P_PID, self._program.pid, os.WEXITED | os.WNOWAIT)  # Popen.wait may be going on below
        images = trainings.progress_of(self.run.folder)[1]
        fruitless = 0 if images > self._images else self.fruitless + 1
        if fruitless > MOST_FRUITLESS:
            return None
        return DelayedSubmission(replace(self, fruitless=fruitless, _program=None, _images=images))


def trained(
    planned: Sequence[PlannedRun[Key]], kimg: int, at_once: int, report: Callable[[str], None], jobs: Jobs
) -> Iterator[tuple[Key, Path, float]]:
    """Train runs as jobs and yield each as it ends: its key, the snapshot at its end, and seconds of training in its
    last turn. at_once: jobs that are queued or running.

    Raises DataError if one of them fails; the others go on."""
    waiting, free = deque(planned), deque(range(at_once))
    going: dict[int, tuple[PlannedRun[Key], Submitted]] = {}
    looked = time.monotonic()
    try:
        while waiting or going:
            while waiting and free:
                one = waiting.popleft()
                trainings.claim(one.folder, one.identity)
                job, seen = known(one.folder), trainings.progress_of(one.folder)[1]
                if job is None and seen >= kimg * 1000:
                    yield one.key, trainings.last_snapshot(one.folder, kimg), 0.0
                    continue
                slot = free.popleft()
                if job is None:
                    job = jobs.submit(CellJob(one, kimg, jobs.measure, _environment(jobs.executor, slot, at_once)))
                going[slot] = one, job
                where = f"job {job.number}, from {seen / 1000:g} of {kimg} kimg"
                report(f"{one.about}: {one.folder.name}, {where}; log: {one.folder / trainings.LOG}")
            if time.monotonic() - looked > LOOK_SECONDS:
                looked = time.monotonic()
                _look([job for _, job in going.values()])
            for slot in [slot for slot, (_, job) in going.items() if job.wrote() or job.missed > MOST_MISSED]:
                one, job = going.pop(slot)
                free.append(slot)
                seconds = job.seconds()
                yield one.key, trainings.last_snapshot(one.folder, kimg), seconds
            time.sleep(WATCH_SECONDS)
    except KeyboardInterrupt:
        _leave([job for _, job in going.values()])
        raise


def known(cell: Path) -> Submitted | None:
    """Return the job of a cell's folder, if it was submitted and has not ended. Raises DataError if it was submitted on
    another machine, and may go on there."""
    try:
        told = json_lines.parse((cell / JOB).read_text(encoding="utf-8"))
        found = Submitted(cell, told["executor"], str(told["number"]), told["output"], told["machine"])
        look = LOOKS[found.executor]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if found.wrote():
        return None
    if found.executor == "local" and found.machine != platform.node():
        raise DataError(
            f"{cell.name}: its job was begun on {found.machine}. Give the command there, or remove {cell / JOB} if it "
            "does not go on."
        )
    return found if found.number in look([found]) else None


def refuse_going(cells: Iterable[Path]) -> None:
    """Raise DataError if there is a job that trains one of these."""
    for cell in cells:
        if (job := known(cell)) is not None:
            raise DataError(
                f"{cell.name}: job {job.number} trains it. Add --executor={job.executor}, or end the job first."
            )


def _look(jobs: Sequence[Submitted]) -> None:
    """Count the looks that have missed each job among those that go on."""
    for executor, look in LOOKS.items():
        these = [job for job in jobs if job.executor == executor]
        going = look(these) if these else ()
        for job in these:
            job.missed = 0 if job.number in going else job.missed + 1


def _leave(jobs: Sequence[Submitted]) -> None:
    """Tell that jobs of Slurm go on, and end those on this machine, with their states written."""
    for job in jobs:
        if job.executor == "local":
            with suppress(ProcessLookupError):
                os.kill(int(job.number), signal.SIGTERM)
    if numbers := " ".join(job.number for job in jobs if job.executor == "slurm"):
        tell(f"\nThe jobs go on, and the same command gathers them. To end them: scancel {numbers}", err=True)


def _queued(jobs: Sequence[Submitted]) -> Iterable[str]:
    """Return the numbers of jobs of Slurm that wait or run; those of `jobs`, if Slurm does not answer. Raises DataError
    if it is not here."""
    command = ["squeue", "--noheader", "--format=%A", f"--user={os.getuid()}"]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
    except FileNotFoundError as error:
        raise DataError(
            f"{jobs[0].cell.name}: no squeue here, which tells whether job {jobs[0].number} goes on. Give the command "
            "where jobs are submitted."
        ) from error
    return [job.number for job in jobs] if done.returncode else done.stdout.split()


def _processes(jobs: Sequence[Submitted]) -> Iterable[str]:
    """Return the numbers of those jobs on this machine that go on: they are of submitit's processes."""
    going = []
    for job in jobs:
        with suppress(psutil.Error, ValueError):
            words = psutil.Process(int(job.number)).cmdline()
            if "submitit.local._local" in words and str(Path(job.output).parent) in words:
                going.append(job.number)
    return going


LOOKS: dict[str, Callable[[Sequence[Submitted]], Iterable[str]]] = {"slurm": _queued, "local": _processes}


def _environment(executor: str, slot: int, at_once: int) -> dict[str, str]:
    """Return what a job has in its environment. On this machine submitit hides all GPUs, and jobs share the cores."""
    if executor != "local":
        return {}
    every = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(torch.cuda.device_count()))))
    return {"CUDA_VISIBLE_DEVICES": every} | trainings.environment(slot, at_once)


def _option_of(text: str) -> tuple[str, int | float | str]:
    """Read NAME=VALUE. Raises OptionError."""
    name, is_pair, value = text.partition("=")
    if not (is_pair and name.isidentifier() and value):
        raise OptionError(f"--executor-option={text}: give NAME=VALUE of submitit, such as timeout_min=240.")
    for kind in (int, float):
        with suppress(ValueError):
            return name, kind(value)
    return name, value


def _signal() -> int:
    """Return the signal by which submitit is told that a job is to end."""
    return int(getattr(signal, f"SIG{os.environ.get('SUBMITIT_PREEMPT_SIGNAL', 'USR2')}"))
