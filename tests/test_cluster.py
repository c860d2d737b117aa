"""`stylegan-plugins compare --executor`: runs as jobs, by submitit itself, with a few lines in the place of Slurm."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil
import pytest
from support.hosts import ADA
from support.runs import TINY, snapshot
from support.scripts import environment

from stylegan_plugins.analysis import cluster, trainings
from stylegan_plugins.errors import DataError, OptionError
from stylegan_plugins.files.atomic import write_json

# Trains 1 kimg in four seconds, in steps of 100 images, and notes with how many each turn begins.
TRAIN = """
import pathlib, signal, sys, time
option = dict(part.split("=") for part in sys.argv[1:])
run = pathlib.Path(option.get("--resume-run") or option["--outdir"] + "/00000-run")
run.mkdir(exist_ok=True)
images = max([int(state.stem.split("-")[-1]) for state in run.glob("*.pt")], default=0)
save = lambda: (run / f"training-state-{images:09d}.pt").touch()
signal.signal(signal.SIGTERM, lambda *_: (save(), sys.exit(143)))
with open(run.parent / "turns", "a") as turns:
    print(images, file=turns)
if "fails" in run.parent.name:
    sys.exit("Error: too dark.")
while images < 1000:
    time.sleep(0.4)
    images += 100
(run / "network-snapshot-000001.pkl").write_text(str(images))
save()
"""
# Slurm on one machine: a job is its script in the background, begun again if `scontrol requeue` was called.
SLURM = {
    "sbatch": 'cp "$1" {here}/job.sh; echo Submitted batch job 7\n'
    "(while true; do rm -f {here}/again; bash {here}/job.sh; [ -e {here}/again ] || break; done) >{here}/log 2>&1 &",
    "srun": "out=$3 err=$5; shift 5; export SLURM_JOB_ID=7 SLURM_PROCID=0; "
    'sed -e s/%j/7/ -e s/%t/0/ <<<"$out" >{here}/out; exec setsid "$@"',
    "scontrol": "touch {here}/again; echo $* >>{here}/queued",
    "squeue": "echo 7",
}


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def planned(tmp_path: Path, *names: str) -> list[trainings.PlannedRun]:
    (tmp_path / "train.py").write_text(TRAIN)
    command = [sys.executable, str(tmp_path / "train.py")]
    return [
        trainings.PlannedRun(name, [*command, f"--outdir={tmp_path / name}"], tmp_path / name, name, {})
        for name in names
    ]


def turns(folder: Path) -> list[int]:
    """Return the images with which the turns of a run began."""
    file = folder / "turns"
    return [*map(int, file.read_text().split())] if file.exists() else []


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    here = tmp_path / "slurm"
    here.mkdir()
    for name, text in SLURM.items():
        (here / name).write_text(f"#!/bin/bash\n{text.format(here=here)}\n")
        (here / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{here}:{os.environ['PATH']}")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return here


def job_in(folder: Path) -> psutil.Process:
    """Wait for the process of a job, whose folder this is, and return it."""
    is_job = lambda words: "submitit.core._submit" in words and str(folder) in words
    found: list[psutil.Process] = []

    def look() -> list[psutil.Process]:
        found[:] = [one for one in psutil.process_iter(["cmdline"]) if is_job(one.info["cmdline"] or [])]
        return found

    wait_for(look)
    return found[0]


@pytest.mark.run
def test_a_job_of_slurm_whose_time_is_over_goes_on_where_it_was(slurm, tmp_path):
    """Slurm sends the signal to all processes of a job."""
    copied = tmp_path / "measured"
    how = cluster.Jobs("slurm", ["slurm_partition=gpu"], tmp_path, partial(shutil.copy, dst=str(copied)))
    (one,) = planned(tmp_path, "a")
    told: list[str] = []

    def interrupt() -> None:
        wait_for(lambda: turns(one.folder))
        time.sleep(0.5)
        job = job_in(tmp_path / cluster.FOLDER)
        for process in [job, *job.children(recursive=True)]:
            process.send_signal(signal.SIGUSR2)

    slurms = threading.Thread(target=interrupt)
    slurms.start()
    last = one.folder / "00000-run" / "network-snapshot-000001.pkl"
    assert [found[:2] for found in cluster.trained([one], 1, 1, told.append, how)] == [("a", last)]
    slurms.join()
    first, second = turns(one.folder)
    assert first == 0 < second < 1000
    assert copied.read_text() == "1000" and (slurm / "queued").read_text() == "requeue 7\n"
    assert told == [f"a: a, job 7, from 0 of 1 kimg; log: {one.folder / 'train.log'}"]
    script = (slurm / "job.sh").read_text()
    for line in ("partition=gpu", "time=240", "gpus-per-node=1", "job-name=a"):
        assert f"#SBATCH --{line}\n" in script
    assert list(cluster.trained([one], 1, 1, told.append, how)) == [("a", last, 0.0)] and len(told) == 1


@pytest.mark.run
def test_a_job_that_fails_says_why_and_the_others_go_on(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    how = cluster.Jobs("local", [], tmp_path, partial(shutil.copy, dst=str(tmp_path / "measured")))
    runs = planned(tmp_path, "fails", "b")
    with pytest.raises(DataError, match=r"^train.py: too dark. \(.*fails.train.log\). Other jobs go on, and the same"):
        list(cluster.trained(runs, 1, 1, lambda line: None, how))
    ended = list(cluster.trained(runs[1:], 1, 1, lambda line: None, how))
    assert [key for key, *_ in ended] == ["b"] and turns(runs[1].folder) == [0]


@pytest.mark.run
def test_a_job_that_was_killed_is_told_and_submitted_again(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(cluster, "LOOK_SECONDS", 0.2)
    how = cluster.Jobs("local", [], tmp_path, partial(shutil.copy, dst=str(tmp_path / "measured")))
    (one,) = planned(tmp_path, "a")

    def kill() -> None:
        wait_for(lambda: turns(one.folder))
        job = job_in(tmp_path / cluster.FOLDER)
        for process in [*job.children(recursive=True), job]:
            process.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(DataError, match=r"^a: job \d+ has ended without a result; its output is in .*_log.err. Other"):
        list(cluster.trained([one], 1, 1, lambda line: None, how))
    killer.join()
    assert [key for key, *_ in cluster.trained([one], 1, 1, lambda line: None, how)] == ["a"]


@pytest.mark.run
def test_ctrl_c_ends_jobs_on_this_machine_with_their_states(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    how = cluster.Jobs("local", [], tmp_path, print)
    (one,) = planned(tmp_path, "a")

    def interrupt() -> None:
        wait_for(lambda: turns(one.folder))
        time.sleep(0.5)
        signal.raise_signal(signal.SIGINT)  # the main thread has it

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        list(cluster.trained([one], 1, 1, lambda line: None, how))
    wait_for(lambda: cluster.known(one.folder) is None)
    images = trainings.progress_of(one.folder)[1]
    assert 0 < images < 1000 and not (one.folder / cluster.ENDED).exists()
    assert list(cluster.trained([one], 1, 1, lambda line: None, how)) and turns(one.folder) == [0, images]


@pytest.mark.unit
def test_what_sbatch_refuses_is_told(slurm, tmp_path):
    (slurm / "sbatch").write_text("#!/bin/sh\necho sbatch: error: invalid partition specified: gpu >&2; exit 1\n")
    how = cluster.Jobs("slurm", ["slurm_partition=gpu"], tmp_path, print)
    with pytest.raises(DataError, match="^--executor=slurm: a job was refused .*invalid partition specified: gpu"):
        list(cluster.trained(planned(tmp_path, "a"), 1, 1, lambda line: None, how))
    assert not (tmp_path / "a" / cluster.JOB).exists()


@pytest.mark.unit
def test_a_run_is_not_trained_beside_a_job_or_where_its_job_cannot_be_seen(slurm, tmp_path, monkeypatch):
    job = {"executor": "slurm", "number": "7", "output": "out", "machine": "other"}
    write_json(tmp_path / "a" / cluster.JOB, job)
    with pytest.raises(DataError, match="^a: job 7 trains it. Add --executor=slurm, or end the job first"):
        cluster.refuse_going([tmp_path / "a", tmp_path / "b"])
    (slurm / "squeue").write_text("#!/bin/sh\necho 8\n")
    cluster.refuse_going([tmp_path / "a"])
    (slurm / "squeue").write_text("#!/bin/sh\nexit 1\n")  # Slurm does not answer: it may go on
    assert cluster.known(tmp_path / "a").number == "7"
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match="^a: no squeue here, which tells whether job 7 goes on"):
        cluster.known(tmp_path / "a")
    write_json(tmp_path / "a" / cluster.JOB, job | {"executor": "local"})
    with pytest.raises(DataError, match="^a: its job was begun on other. Give the command there, or remove .*job.json"):
        cluster.known(tmp_path / "a")
    write_json(tmp_path / "a" / cluster.ENDED, {"seconds": 1, "error": None})
    assert cluster.known(tmp_path / "a") is None
    for text in ("{", "[]", "{}"):
        (tmp_path / "a" / cluster.JOB).write_text(text)
        assert cluster.known(tmp_path / "a") is None


@pytest.mark.unit
def test_jobs_on_this_machine_share_its_gpus(monkeypatch):
    monkeypatch.setattr(cluster.torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [cluster._environment("local", slot, 3)["CUDA_VISIBLE_DEVICES"] for slot in range(3)] == ["0", "1", "0"]
    assert cluster._environment("local", 0, 1)["CUDA_VISIBLE_DEVICES"] == "0,1"
    assert cluster._environment("slurm", 0, 2) == {}


@pytest.mark.unit
def test_a_job_that_comes_no_further_is_not_queued_for_ever(tmp_path):
    (one,) = planned(tmp_path, "a")
    job, turns = cluster.CellJob(one, 1, print), 0
    while (again := job.checkpoint()) is not None:
        job, turns = again.function, turns + 1
    assert turns == cluster.MOST_FRUITLESS
    (tmp_path / "a/00000-run").mkdir(parents=True)
    (tmp_path / "a/00000-run/training-state-000000100.pt").touch()
    assert job.checkpoint().function.fruitless == 0


@pytest.mark.unit
def test_options_of_submitit_that_do_not_exist_are_refused_before_anything_is_trained(tmp_path, monkeypatch):
    for text in (
        "nodes=2",
        "name=x",
        "timeout_min",
        "=3",
        "a b=3",
        "timeout_min=",
        "timeout_min=0.5",
        "colour=3",
        "slurm_color=3",
    ):
        with pytest.raises(OptionError, match="^--executor-option") as error:
            cluster.Jobs("local", [text], tmp_path, print)
        assert "\n" not in error.value.message
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match="^--executor=slurm: no srun here"):
        cluster.Jobs("slurm", [], tmp_path, print)


@pytest.mark.run
def test_jobs_of_a_comparison_that_was_killed_are_gathered_by_the_same_command(ada_host, small_zip, tmp_path):
    """The job is queued again meanwhile. Its result equals an uninterrupted run bit for bit."""
    tiny = [flag for flag in TINY[ADA] if not flag.startswith(("--kimg", "--snap"))]
    command = [str(Path(sys.executable).with_name("stylegan-plugins")), "compare", "--plugins=none"]
    command += [f"--data={small_zip}"]
    command += ["--kimg=1", f"--host={ada_host}", "--features=efficientnet_lite0", "--samples=16", "--metric=kid"]
    jobs, of_train = ["--executor=local"], ["--", *tiny, "--batch=64", "--device=cpu", "--snap=9"]
    how = dict(cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    with open(tmp_path / "said", "w") as said:  # the job has it, too, and goes on
        running = subprocess.Popen([*command, "--outdir=jobs", *jobs, *of_train], **how | dict(stdout=said))
    folder = tmp_path / "jobs" / cluster.FOLDER
    wait_for(lambda: any("tick 0" in log.read_text() for log in tmp_path.glob("jobs/none-*/train.log")), 120)
    running.kill()
    job_in(folder).send_signal(signal.SIGUSR2)
    running.wait()
    assert job_in(folder).is_running()
    done = subprocess.run([*command, "--outdir=jobs", *jobs, *of_train], **how, timeout=300)
    assert done.returncode == 0, done.stdout
    (log,) = folder.glob("*_log.out")
    assert "Requeued job" in log.read_text() and len(list(folder.glob("*_submitted.pkl"))) == 1
    plain = subprocess.run([*command, "--outdir=plain", *of_train], **how, timeout=300)
    assert plain.returncode == 0, plain.stdout
    cells = [json.loads((tmp_path / name / "compare.json").read_text())["cells"] for name in ("jobs", "plain")]
    assert cells[0] == cells[1]
    last = [next(tmp_path.glob(f"{name}/none-*/0*/network-snapshot-000001.pkl")) for name in ("jobs", "plain")]
    assert snapshot(ada_host, last[0]) == snapshot(ada_host, last[1])
