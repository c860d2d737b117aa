"""Runs that torchrun starts: two agents of two processes each, on one machine."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
import psutil
import pytest
import torch
from click.testing import CliRunner
from drivers.states import differences
from support.hosts import ADA, STYLEGAN3
from support.runs import QUICK_TRAIN, TINY, last_run, wait_for_state
from support.scripts import environment, free_port, run_script

from stylegan_plugins.errors import DataError
from stylegan_plugins.run import torchrun
from stylegan_plugins.run.torchrun import World


def options(family: str, data: Path, *more: str) -> list[str]:
    """Return options of train.py for eight iterations of four processes."""
    given = [flag for flag in TINY[family] if not flag.startswith(("--gpus", "--batch", "--snap"))]
    return [*given, f"--data={data}", "--batch=128", "--snap=9", "--device=cpu", "--image-minutes=0", *more]


def agents(host: Path, rendezvous: list[list[str]], arguments: list[str], logs: Path) -> list[subprocess.Popen]:
    """Start an agent of torchrun for each of two machines, with its part of the rendezvous."""
    found = []
    for number, own in enumerate(rendezvous):
        command = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=2", *own, "train.py"]
        with open(logs / f"agent{number}.log", "w") as log:
            how = dict(cwd=host, env=environment(), stdout=log, stderr=log, start_new_session=True)
            found.append(subprocess.Popen([*command, *arguments], **how))
    return found


def ended(machines: list[subprocess.Popen], logs: Path) -> str:
    """Wait for agents that end well. Returns what the first one printed."""
    codes = [machine.wait(timeout=400) for machine in machines]
    said = [(logs / f"agent{number}.log").read_text() for number in range(len(machines))]
    assert codes == [0, 0], "\n".join(text[-3000:] for text in said)
    return said[0]


@pytest.mark.run
def test_two_machines_train_as_one_with_as_many_processes(ada_host, small_zip, tmp_path):
    arguments = options(ADA, small_zip, "--plugin=augself", "--aug=ada")
    port = free_port()
    meeting = [[f"--node-rank={n}", "--master-addr=127.0.0.1", f"--master-port={port}"] for n in range(2)]
    ended(agents(ada_host, meeting, [*arguments, f"--outdir={tmp_path / 'two'}"], tmp_path), tmp_path)
    run_script(ada_host, QUICK_TRAIN, *arguments, "--gpus=4", f"--outdir={tmp_path / 'one'}")
    assert len(list((tmp_path / "two").iterdir())) == 1
    assert differences(last_run(tmp_path / "two"), last_run(tmp_path / "one")) == []


@pytest.mark.run
def test_a_lost_process_ends_all_and_the_restart_goes_on_exactly(stylegan3_host, small_zip, tmp_path):
    arguments = options(STYLEGAN3, small_zip, "--plugin=diffaugment", "--state-minutes=0.0001")
    end = f"--rdzv-endpoint=127.0.0.1:{free_port()}"
    meeting = [["--rdzv-backend=c10d", end, "--rdzv-id=x", "--max-restarts=1"]] * 2
    machines = agents(stylegan3_host, meeting, [*arguments, f"--outdir={tmp_path / 'lost'}"], tmp_path)
    deadline = time.monotonic() + 300
    while not list((tmp_path / "lost").glob("0*")) and time.monotonic() < deadline:
        time.sleep(0.1)
    wait_for_state(machines[0], last_run(tmp_path / "lost"), beyond=100)
    first = [process for machine in machines for process in psutil.Process(machine.pid).children()]
    assert len(first) == 4
    first[3].kill()
    _, alive = psutil.wait_procs(first, timeout=60)
    assert not alive
    assert "Going on from " in "".join(ended(machines, tmp_path))
    run_script(stylegan3_host, QUICK_TRAIN, *arguments, "--gpus=4", f"--outdir={tmp_path / 'whole'}")
    assert differences(last_run(tmp_path / "lost"), last_run(tmp_path / "whole")) == []


@pytest.mark.unit
def test_torchrun_says_how_many_processes_there_are():
    @click.command()
    @click.option("--gpus", type=int, required=True)
    def train(gpus):
        click.echo(gpus)

    torchrun.take_gpus(train, 4)
    for given, expected in ([], "4"), (["--gpus=4"], "4"):
        assert CliRunner().invoke(train, given).output.strip() == expected
    refused = CliRunner().invoke(train, ["--gpus=2"])
    assert refused.exit_code == 2 and refused.output.endswith(
        "--gpus=2: torchrun has started 4 processes. Leave the option out.\n"
    )


@pytest.mark.unit
def test_the_others_train_with_the_first_one_or_end_with_it_after_a_restart_too(monkeypatch, tmp_path):
    """The store keeps what earlier starts have left in it."""
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(free_port()))
    monkeypatch.setattr(torch.multiprocessing, "spawn", None)
    monkeypatch.setattr(torchrun, "_join", lambda mine, start: None)
    worlds = [World(rank, 3) for rank in range(3)]
    assert worlds[0].store is not None  # it listens
    worlds[0].store.set("here/2", "one that is lost")
    folders = {"there": tmp_path, "none": tmp_path / "none"}

    def start(data: str | None) -> list[tuple]:
        trained = []
        fn = lambda rank, args, folder: trained.append((rank, args["training_set_kwargs"]["path"], folder))

        def main():
            if data is not None:
                args = {"training_set_kwargs": {"path": str(folders[data])}}
                torch.multiprocessing.spawn(fn, (args, "folder"), 3)

        with ThreadPoolExecutor(3) as pool:
            jobs = [pool.submit(torchrun.follow, world, fn) for world in worlds[1:]]
            time.sleep(0.2)
            jobs.append(pool.submit(torchrun.leading(worlds[0], main)))
            errors = [job.exception(timeout=30) for job in jobs]
        assert [type(error) for error in errors] == [DataError if data == "none" else type(None)] * 2 + [type(None)]
        assert data != "none" or "none is not on this machine. Put it on a disk that all machines see" in str(errors[0])
        return sorted(trained)

    assert start("there") == [(rank, str(tmp_path), "folder") for rank in range(3)]
    assert start(None) == []
    assert start("none") == [(0, str(folders["none"]), "folder")]
    assert start("there") == [(rank, str(tmp_path), "folder") for rank in range(3)]
