"""Kill a run at random moments, resume it each time, and compare its end with that of a run that was left alone.

    python benchmarks/kills.py --host HOST --data ZIP [--kills 20] [--gpus 1] [--seed 0] [--work DIR]

diffaugment, augself and ADA are on, a state is written after each iteration, so that kills also fall into writing.
Prints a line for each kill, and at the end every difference: of states (networks, heads, optimizers, random states,
statistics), of stats.jsonl, and of pictures; `Timing/*`, `Resources/*` and time stamps are no part of it. On a CPU."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

REPOSITORY = Path(__file__).parent.parent
sys.path.insert(0, str(REPOSITORY / "tests" / "drivers"))

from states import differences  # noqa: E402

from stylegan_plugins.files.states import states_of  # noqa: E402
from stylegan_plugins.host.recognise import recognise  # noqa: E402

SMALL = ["--cbase=256", "--cmax=16", "--batch=8", "--workers=0", "--kimg=1", "--tick=1", "--snap=1", "--device=cpu"]
PLUGINS = ["--plugin=diffaugment,augself", "--aug=ada", "--state-minutes=0.0001"]
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


@click.command()
@click.option("--host", required=True, help="A patched host")
@click.option("--data", required=True)
@click.option("--kills", type=int, default=20, show_default=True)
@click.option("--gpus", type=int, default=1, show_default=True, help="Processes")
@click.option("--iterations", type=int, default=60, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--work", help="Where the runs go  [default: a temporary folder]")
def main(host: str, data: str, kills: int, gpus: int, iterations: int, seed: int, work: str | None) -> None:
    family = recognise(Path(host)).family
    folder = Path(work or tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    command = ["train.py", f"--data={data}", f"--outdir={folder}", f"--gpus={gpus}", "--dry-run"]
    command += [*SMALL, *PLUGINS, *OTHER.get(family, [])]
    shown = subprocess.run([sys.executable, *command], cwd=host, capture_output=True, text=True, check=True).stdout
    args = json.JSONDecoder().raw_decode(shown[shown.index('{\n  "') :])[0]
    args |= {"total_kimg": iterations * args["batch_size"] / 1000, "kimg_per_tick": 0.1}
    driver, log = str(REPOSITORY / "tests" / "drivers" / "begin_run.py"), folder / "output.txt"
    for name, minutes in (("whole", 10.0), ("killed", 0.0001)):
        (folder / f"{name}.json").write_text(json.dumps(args | {"state_minutes": minutes}))
    begin = [driver, str(folder / "whole.json"), str(folder / "whole")]
    if start(host, *begin, log=log).wait():
        raise SystemExit(f"the whole run failed: {log}")
    run_dir, moments, done, writing = folder / "killed", random.Random(seed), 0, 0
    run = start(host, driver, str(folder / "killed.json"), str(run_dir), log=log)
    while done < kills:
        before = states_of(run_dir)[0].name if run_dir.exists() and states_of(run_dir) else ""
        while run.poll() is None and not (run_dir.exists() and any(s.name > before for s in states_of(run_dir))):
            time.sleep(0.02)
        time.sleep(moments.random() * 1.5)
        if run.poll() is not None:
            break  # it came to its end before all kills
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        done += 1
        writing += any(run_dir.glob("*.tmp"))
        print(f"kill {done}: after {states_of(run_dir)[0].name}", flush=True)
        run = start(host, "train.py", f"--resume-run={run_dir}", log=log)
    code = run.wait()
    found = differences(run_dir, folder / "whole")
    print(f"{family}, {gpus} processes: {done} kills, {writing} while a state was written; exit code {code}; ", end="")
    print("no difference" if not found else f"differences: {found}")
    if not work:
        shutil.rmtree(folder)
    sys.exit(bool(found) or code != 0)


if __name__ == "__main__":
    main()
