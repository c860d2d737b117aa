"""Runs of `stylegan-plugins compare` as jobs of a cluster, by submitit: `--executor=slurm`, or `local` on this machine.

A job resumes one run from its newest state, trains it to its end and measures it. When its time is over, or a more
urgent job takes its place, submitit calls `CellJob.checkpoint`, and the job is queued again. Jobs continue when
`compare` ends: the same command finds them by `job.json` in the folder of each run."""

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

FOLDER = "jobs"  # in the folder of a comparison: files of submitit, and the output of jobs
JOB = "job.json"  # beside the run of a cell: its job
ENDED = "job-ended.json"  # likewise: seconds of training, and the error, if one ended the job
# Defaults of submitit's options. Times are in minutes. Slurm queues a job again when its time is over; a job on this
# machine must not reach its limit.
DEFAULTS: dict[str, dict[str, Any]] = {
    "slurm": {"timeout_min": 240, "gpus_per_node": 1, "cpus_per_task": 4},
    "local": {"timeout_min": 60 * 24 * 365},
}
MOST_REQUEUES = 10_000  # after a timeout; jobs without progress end much earlier
MOST_FRUITLESS = 3
WATCH_SECONDS = 1.0
LOOK_SECONDS = 15.0  # between two looks at the queue
MOST_MISSED = 5  # looks that do not find a job, until it counts as lost: a network disk may show files much later
# Options of submitit that a user may not set: a job is one process, named after its run.
OWN = ("name", "nodes", "tasks_per_node", "stderr_to_stdout", "slurm_nodes", "slurm_ntasks_per_node")
GOES_ON = "Other jobs go on, and the same command of compare continues from here."


@dataclass(frozen=True)
class Jobs:
    """The way to submit runs.

    executor    a key of DEFAULTS
    options     options of submitit, as NAME=VALUE
    folder      folder of the comparison
    measure     called in the job with the last snapshot of a run; keeps its results beside the snapshot"""

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
        """Return submitit's executor for a job of this name. Raises OptionError for options that submitit does not
        know, DataError if Slurm is not on this machine."""
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
        """Submit a job and write its record into the folder of its cell."""
        cell = job.run.folder
        (cell / ENDED).unlink(missing_ok=True)
        submitter = self.submitter(cell.name)
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # in submitit's process on this machine, too
        try:
            made = submitter.submit(job)
            found = Submitted(cell, self.executor, made.job_id, str(made.paths.stderr), platform.node())
            write_json(cell / JOB, found.record())
        except (RuntimeError, OSError) as error:  # errors of sbatch
            why = str(error).strip().splitlines()[-1]
            raise DataError(f"--executor={self.executor}: a job was refused ({why}). {GOES_ON}") from error
        finally:
            signal.signal(signal.SIGINT, before)
        return found


@dataclass
class Submitted:
    """A submitted job.

    machine     where it was submitted
    missed      looks in a row that did not find it among waiting and running jobs"""

    cell: Path
    executor: str
    number: str
    output: str
    machine: str
    missed: int = 0

    def record(self) -> dict[str, str]:
        """Return the record of the job, for JOB."""
        return {"executor": self.executor, "number": self.number, "output": self.output, "machine": self.machine}

    def wrote(self) -> dict[str, Any] | None:
        """Return the result that the job wrote at its end; None before."""
        try:
            return json_lines.parse((self.cell / ENDED).read_text(encoding="utf-8"))
        except OSError:  # missing, or an error of a network disk
            return None

    def seconds(self) -> float:
        """Return the seconds of training of an ended job. Raises DataError if it failed or left no result."""
        outcome = self.wrote()
        if outcome is None:  # killed, cancelled, or a bug in this package
            raise DataError(
                f"{self.cell.name}: job {self.number} has ended without a result; its output is in {self.output}. "
                f"{GOES_ON}"
            )
        if outcome["error"] is not None:
            raise DataError(outcome["error"])
        return outcome["seconds"]


@dataclass
class CellJob:
    """A run as a job. submitit pickles it, calls it on a node, and asks it for the job to queue in its place.

    environment     variables added to the node's environment
    fruitless       times in a row that the job was queued again without having trained an image"""

    run: PlannedRun
    kimg: int
    measure: Callable[[Path], object]
    environment: dict[str, str] = field(default_factory=dict)
    fruitless: int = 0
    _program: subprocess.Popen | None = None
    _images: int = 0  # images that the run had seen when the job began

    def __call__(self) -> None:
        """Train and measure, and write the result."""
        os.environ.update(self.environment)
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # while no train.py runs
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
            # Slurm sends this process's signal to its children, too. It would end them at once.
            signal.pthread_sigmask(signal.SIG_BLOCK, {_signal()})
            started = Running.start(running, arguments, relay)
            self._program = started.program
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {_signal()})
            running.wait(relay)
        if started.program.returncode == 128 + signal.SIGTERM:  # Slurm sends it to all processes of a job
            sys.exit(128 + signal.SIGTERM)
        started.check(GOES_ON)

    def checkpoint(self) -> Any:
        """End the run with its state written, and return the job to queue in this one's place. None: no job, because
        several turns made no progress."""
        from submitit.helpers import DelayedSubmission

        if self._program is not None:
            self._program.terminate()
            with suppress(ChildProcessError):  # it has ended and was waited for
                os.waitid(os.P_PID, self._program.pid, os.WEXITED | os.WNOWAIT)  # Popen.wait may run at the same time
        images = trainings.progress_of(self.run.folder)[1]
        fruitless = 0 if images > self._images else self.fruitless + 1
        if fruitless > MOST_FRUITLESS:
            return None
        return DelayedSubmission(replace(self, fruitless=fruitless, _program=None, _images=images))


def trained(
    planned: Sequence[PlannedRun[Key]], kimg: int, at_once: int, report: Callable[[str], None], jobs: Jobs
) -> Iterator[tuple[Key, Path, float]]:
    """Train runs as jobs and yield each as it ends: its key, the snapshot at its end, and seconds of training in its
    last turn. at_once: number of jobs that are queued or running.

    Raises DataError if a job fails; the other jobs continue."""
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
    """Return the job of a cell's folder if it was submitted and has not ended, else None. Raises DataError if it was
    submitted on another machine and may still run there."""
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
    """Raise DataError if a job trains one of these cells."""
    for cell in cells:
        if (job := known(cell)) is not None:
            raise DataError(
                f"{cell.name}: job {job.number} trains it. Add --executor={job.executor}, or end the job first."
            )


def _look(jobs: Sequence[Submitted]) -> None:
    """Count, for each job, the looks in a row that do not find it among waiting and running jobs."""
    for executor, look in LOOKS.items():
        these = [job for job in jobs if job.executor == executor]
        going = look(these) if these else ()
        for job in these:
            job.missed = 0 if job.number in going else job.missed + 1


def _leave(jobs: Sequence[Submitted]) -> None:
    """Print that jobs of Slurm continue, and end jobs on this machine, which write their states."""
    for job in jobs:
        if job.executor == "local":
            with suppress(ProcessLookupError):
                os.kill(int(job.number), signal.SIGTERM)
    if numbers := " ".join(job.number for job in jobs if job.executor == "slurm"):
        tell(f"\nThe jobs go on, and the same command gathers them. To end them: scancel {numbers}", err=True)


def _queued(jobs: Sequence[Submitted]) -> Iterable[str]:
    """Return the numbers of waiting and running jobs of Slurm. If Slurm does not answer, all `jobs` count. Raises
    DataError if Slurm is not on this machine."""
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
    """Return the numbers of the jobs that still run on this machine: their processes are submitit's."""
    going = []
    for job in jobs:
        with suppress(psutil.Error, ValueError):
            words = psutil.Process(int(job.number)).cmdline()
            if "submitit.local._local" in words and str(Path(job.output).parent) in words:
                going.append(job.number)
    return going


LOOKS: dict[str, Callable[[Sequence[Submitted]], Iterable[str]]] = {"slurm": _queued, "local": _processes}


def _environment(executor: str, slot: int, at_once: int) -> dict[str, str]:
    """Return a job's environment variables. On this machine submitit hides all GPUs, and jobs share the cores."""
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
    """Return the signal that tells submitit to end a job."""
    return int(getattr(signal, f"SIG{os.environ.get('SUBMITIT_PREEMPT_SIGNAL', 'USR2')}"))
