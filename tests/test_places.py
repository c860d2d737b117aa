"""Files for the places where people train."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbclient
import nbformat
import pytest
from support.hosts import ADA
from support.runs import flags
from support.scripts import environment

ROOT = Path(__file__).parents[1]
SBATCH = ROOT / "examples/cluster/train.sbatch"


def job(tmp_path: Path, train: str) -> subprocess.Popen:
    """Run the script as Slurm runs it, with `scontrol` and a `train.py` of a few lines."""
    (tmp_path / "train.py").write_text(train)
    (tmp_path / "scontrol").write_text(f'#!/bin/sh\necho "$@" >{tmp_path}/queued\n')
    (tmp_path / "scontrol").chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "HOST": str(tmp_path), "SLURM_JOB_ID": "7"}
    env.pop("VENV", None)
    command = ["bash", str(SBATCH), "--data=x y.zip"]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.unit
@pytest.mark.parametrize(
    ("number", "code", "queued"),
    [(signal.SIGUSR1, 143, True), (signal.SIGUSR1, 0, False), (signal.SIGUSR1, 2, False), (signal.SIGTERM, 143, False)],
)
def test_a_job_that_is_told_to_end_waits_for_the_state_and_is_queued_again(tmp_path, number, code, queued):
    train = (
        "import pathlib, signal, sys, time\n"
        "def end(*_):\n"
        "    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"    time.sleep(0.3); pathlib.Path({str(tmp_path / 'state')!r}).write_text(' '.join(sys.argv[1:]))\n"
        f"    sys.exit({code})\n"
        "signal.signal(signal.SIGTERM, end)\n"
        f"pathlib.Path({str(tmp_path / 'begun')!r}).touch()\n"
        "time.sleep(60)\n"
    )
    run = job(tmp_path, train)
    deadline = time.monotonic() + 30
    while not (tmp_path / "begun").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    for told in (number, signal.SIGTERM):  # Slurm sends another one at the end of the time
        run.send_signal(told)
        time.sleep(0.1)
    said, _ = run.communicate(timeout=30)
    assert (tmp_path / "state").read_text() == "--resume-run=auto --data=x y.zip", said
    assert run.returncode == (0 if queued else code)
    assert (tmp_path / "queued").exists() == queued
    assert not queued or (tmp_path / "queued").read_text() == "requeue 7\n"


@pytest.mark.unit
@pytest.mark.parametrize("code", [0, 2, 137])
def test_a_job_that_ends_by_itself_is_not_queued_again(tmp_path, code):
    run = job(tmp_path, f"import sys; sys.exit({code})")
    run.communicate(timeout=30)
    assert run.returncode == code and not (tmp_path / "queued").exists()


@pytest.mark.unit
def test_a_job_without_a_host_says_so(tmp_path):
    done = subprocess.run(["bash", str(SBATCH)], env={"PATH": os.environ["PATH"]}, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr == "Error: HOST= has no train.py. Give the folder of a patched host.\n"


@pytest.mark.unit
def test_the_container_installs_extras_that_exist_and_trains_as_nobody_special():
    """It was built and run by hand; docs/start/platforms.md says how."""
    text = (ROOT / "examples/docker/Dockerfile").read_text()
    (extras,) = re.findall(r"(?m)^ARG EXTRAS=(.*)$", text)
    known = re.findall(r'(?m)^        "(\w+)": \[', (ROOT / "setup.py").read_text())
    assert {*extras.split(",")} <= {*known} and len(known) > 8
    copied = re.findall(r"(?m)^COPY (.*) \S+$", text)
    assert all((ROOT / name).exists() for line in copied for name in line.split())
    assert re.findall(r"(?m)^USER (.*)$", text) == ["trainer"] and 'VOLUME ["/cache", "/runs"]' in text


def drive(tmp_path: Path, name: str, kimg: int, host: Path) -> str:
    """Run the notebook for Colab in a new session, whose Drive is kept. Returns what it prints."""
    session = tmp_path / name
    (session / "google").mkdir(parents=True)
    (session / "google/colab.py").write_text("class drive:\n    mount = staticmethod(lambda folder: None)\n")
    (session / "host").symlink_to(host)
    notebook = nbformat.read(ROOT / "examples/colab.ipynb", as_version=4)
    cell = notebook.cells[1]
    small = " ".join([*flags(ADA), "--cbase=256", "--cmax=16", "--device=cpu", "--aug=noaug"]).replace("--kimg=1 ", "")
    values = {"DRIVE": repr(str(tmp_path / "drive")), "KIMG": kimg, "OPTIONS": repr(small)}
    for key, value in values.items():
        cell.source, count = re.subn(rf"(?m)^{key} = .*", lambda _, text=f"{key} = {value}": text, cell.source)
        assert count == 1
    cell.source, count = re.subn(r"(?m)^%pip .*\n", "", cell.source)
    assert count == 1
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(session)}}).execute()
    assert any("image/png" in output.data for output in cell.outputs if output.output_type == "display_data")
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


@pytest.mark.run
def test_the_notebook_for_colab_goes_on_in_a_new_session(ada_host, small_zip, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    (tmp_path / "drive").mkdir()
    shutil.copy(small_zip, tmp_path / "drive/pictures")
    said = drive(tmp_path, "first", 1, ada_host)
    (run,) = (tmp_path / "drive/stylegan-runs").glob("0*")
    assert (run / "network-snapshot-000001.pkl").is_file(), said
    said = drive(tmp_path, "second", 2, ada_host)
    assert (run / "network-snapshot-000002.pkl").is_file(), said
    assert [*(tmp_path / "drive/stylegan-runs").glob("0*")] == [run]


# Other systems lack these modules, functions and signals, and spawn worker processes instead of forking them.
ELSEWHERE = """
import multiprocessing.context, os, signal, sys
for name in ("fcntl", "pwd", "grp"):
    sys.modules[name] = None
for name in ("fork", "killpg", "setsid", "waitid", "getuid", "geteuid"):
    delattr(os, name)
for name in ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGALRM", "pthread_sigmask"):
    delattr(signal, name)
multiprocessing.context._default_context._default_context = multiprocessing.get_context("spawn")
"""


@pytest.mark.run
def test_without_what_windows_lacks_a_run_trains_and_resumes(ada_host, small_zip, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(ELSEWHERE)
    env = environment(PYTHONPATH=str(tmp_path))
    how = dict(cwd=ada_host, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300)
    first = [*flags(ADA), "--cbase=256", "--cmax=16", "--workers=2", f"--outdir={tmp_path / 'runs'}"]
    first += [f"--data={small_zip}", "--plugin=augself", "--device=cpu", "--metrics=none"]
    for arguments in (first, [f"--resume-run={tmp_path / 'runs'}", "--kimg=2"]):
        done = subprocess.run([sys.executable, "train.py", *arguments], **how)
        assert done.returncode == 0, done.stdout
    (run,) = (tmp_path / "runs").glob("0*")
    assert (run / "network-snapshot-000002.pkl").is_file()
    command = str(Path(sys.executable).with_name("stylegan-plugins"))
    listed = subprocess.run([command, "sample", str(run), "--seeds=0-3", f"--outdir={tmp_path / 'samples'}"], **how)
    assert listed.returncode == 0 and len(list((tmp_path / "samples").glob("*.png"))) >= 4, listed.stdout
