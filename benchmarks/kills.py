"""Kill a run at random moments, resume it each time, and compare its end with an uninterrupted run.

    python benchmarks/kills.py --host HOST --data ZIP [--kills 20] [--gpus 1] [--where anywhere] [--seed 0] [--work DIR]

diffaugment, augself and ADA are on. A state is written after each iteration, so that kills also fall into writing.
`--where` says where kills fall:

    anywhere    up to 1.5 seconds after a state
    grid        while the first pictures are made, before the run has a state or after it was resumed
    evaluation  while a snapshot is evaluated (FID on lite0)
    disk        while the disk is full; most runs end by themselves then. A small file system (300 MB) as --work

Prints a line for each kill, and at the end every difference: of states (networks, heads, optimizers, random states,
statistics), of stats.jsonl, of metrics, and of pictures. `Timing/*`, `Resources/*` and time stamps are not compared.
Runs on a CPU."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

REPOSITORY = Path(__file__).parent.parent
sys.path.insert(0, str(REPOSITORY / "tests" / "drivers"))

from states import differences  # noqa: E402

from stylegan_plugins.files.states import states_of  # noqa: E402
from stylegan_plugins.host.recognise import recognise  # noqa: E402

SMALL = ["--cbase=256", "--cmax=16", "--batch=8", "--workers=0", "--kimg=1", "--tick=1", "--snap=1", "--device=cpu"]
MANNER = ["--aug=ada", "--state-minutes=0.0001"]
EVALUATED = ["--metrics=fid_efficientnet_lite0", "--metric-samples=64"]
OTHER = {"stylegan3": ["--cfg=stylegan2", "--gamma=1", "--map-depth=2"]}


def start(host: str, *arguments: str, log: Path) -> subprocess.Popen:
    with open(log, "a") as file:
        return subprocess.Popen(
            [sys.executable, *arguments],
            cwd=host,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


class Killed:
    """A run that is killed and resumed."""

    def __init__(self, host: str, begin: list[str], run_dir: Path, log: Path):
        self.host, self.begin, self.run_dir, self.log = host, begin, run_dir, log
        self.ended = self.writing = 0
        self.go_on()

    def go_on(self) -> None:
        """Resume the run, or start it again if it has no state yet."""
        for left in self.run_dir.parent.glob("filler"):
            left.unlink()
        resumed = self.states() != []
        if not resumed:
            shutil.rmtree(self.run_dir, ignore_errors=True)
        self.read = self.log.stat().st_size
        arguments = ["train.py", f"--resume-run={self.run_dir}"] if resumed else self.begin
        self.process = start(self.host, *arguments, log=self.log)

    def states(self) -> list[str]:
        return [path.name for path in states_of(self.run_dir)] if self.run_dir.exists() else []

    def output(self) -> str:
        """Return its output since it was started last."""
        with open(self.log, errors="replace") as file:
            file.seek(self.read)
            return file.read()

    def wait_for(self, condition: Callable[[], bool]) -> bool:
        """Wait until the condition holds or the run ends; return whether it still runs."""
        while self.process.poll() is None and not condition():
            time.sleep(0.02)
        return self.process.poll() is None

    def kill(self) -> None:
        self.ended += self.process.poll() is not None
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.writing += any(self.run_dir.glob("*.tmp"))


def anywhere(run: Killed, moments: random.Random) -> bool:
    before = max(run.states(), default="")
    alive = run.wait_for(lambda: max(run.states(), default="") > before)
    time.sleep(moments.random() * 1.5)
    return alive and run.process.poll() is None


def grid(run: Killed, moments: random.Random) -> bool:
    alive = run.wait_for(lambda: "Exporting sample images" in run.output())
    time.sleep(moments.random() * 0.3)
    return alive


def evaluation(run: Killed, moments: random.Random) -> bool:
    number = moments.choice([1, 1, 2])  # not always the same one, or the run makes no way
    alive = run.wait_for(lambda: run.output().count("Evaluating metrics") >= number)
    time.sleep(moments.random() * 0.5)
    return alive


def disk(run: Killed, moments: random.Random) -> bool:
    if not anywhere(run, moments):
        return False
    with contextlib.suppress(OSError), open(run.run_dir.parent / "filler", "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    began, seconds = time.monotonic(), 2 + moments.random() * 8
    run.wait_for(lambda: time.monotonic() - began > seconds)
    return True


def metrics_of(run_dir: Path) -> dict[str, list[Any]]:
    """Return snapshots and results by file: of each line, and of best.json. (Times and hashes of pickles differ.)"""
    found: dict[str, list[Any]] = {}
    for file in sorted(run_dir.glob("metric-*.jsonl")):
        found[file.name] = list(map(json.loads, file.read_text().splitlines()))
    if (run_dir / "best.json").exists():
        found["best.json"] = list(json.loads((run_dir / "best.json").read_text()).values())
    return {name: [(line["snapshot_pkl"], line["results"]) for line in lines] for name, lines in found.items()}


WHERE = {"anywhere": anywhere, "grid": grid, "evaluation": evaluation, "disk": disk}


@click.command()
@click.option("--host", required=True, help="A patched host")
@click.option("--data", required=True)
@click.option("--kills", type=int, default=20, show_default=True)
@click.option("--gpus", type=int, default=1, show_default=True, help="Processes")
@click.option("--where", type=click.Choice(list(WHERE)), default="anywhere", show_default=True)
@click.option("--iterations", type=int, default=60, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--plugins", default="diffaugment,augself", show_default=True)
@click.option("--work", help="Where the runs go  [default: a temporary folder]")
def main(
    host: str,
    data: str,
    kills: int,
    gpus: int,
    where: str,
    iterations: int,
    seed: int,
    plugins: str,
    work: str | None,
) -> None:
    family = recognise(Path(host)).family
    folder = Path(work or tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    command = ["train.py", f"--data={data}", f"--outdir={folder}", f"--gpus={gpus}", "--dry-run"]
    command += [*SMALL, *MANNER, *OTHER.get(family, []), f"--plugin={plugins}"]
    command += EVALUATED if where == "evaluation" else ["--metrics=none"]
    shown = subprocess.run([sys.executable, *command], cwd=host, capture_output=True, text=True, check=True).stdout
    args = json.JSONDecoder().raw_decode(shown[shown.index('{\n  "') :])[0]
    args |= {"total_kimg": iterations * args["batch_size"] / 1000, "kimg_per_tick": 0.1}
    driver = str(REPOSITORY / "tests" / "drivers" / "begin_run.py")
    log = Path(tempfile.mkstemp(".txt", f"kills-{folder.name}-")[1])  # not on a disk that becomes full
    for name, minutes in (("whole", 10.0), ("killed", 0.0001)):
        (folder / f"{name}.json").write_text(json.dumps(args | {"state_minutes": minutes}))
    begin = [driver, str(folder / "whole.json"), str(folder / "whole")]
    if start(host, *begin, log=log).wait():
        raise SystemExit(f"the whole run failed: {log}")
    moments, done, wait = random.Random(seed), 0, WHERE[where]
    run = Killed(host, [driver, str(folder / "killed.json"), str(folder / "killed")], folder / "killed", log)
    while done < kills and wait(run, moments):
        run.kill()
        done += 1
        print(f"kill {done}: after {max(run.states(), default='nothing')}", flush=True)
        run.go_on()
    code = run.process.wait()
    found = differences(run.run_dir, folder / "whole")
    found += ["metrics"] * (metrics_of(run.run_dir) != metrics_of(folder / "whole"))
    ways = f"{run.writing} while a state was written" + (f", {run.ended} ended by themselves" if run.ended else "")
    print(f"{family}, {gpus} processes, {where}: {done} kills, {ways}; exit code {code}; ", end="")
    print("no difference" if not found else f"differences: {found}")
    if not work:
        shutil.rmtree(folder)
    if not found and not code:
        log.unlink()
    sys.exit(bool(found) or code != 0)


if __name__ == "__main__":
    main()
