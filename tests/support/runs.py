"""Training runs of small networks: their arguments, beginning, end, interruption, and what they leave."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from pathlib import Path

from support.hosts import ADA, STYLEGAN3
from support.scripts import DRIVERS, run_script, start_script

from stylegan_plugins.files import states

TINY = {  # networks of a few thousand weights, and an iteration of well under a second
    ADA: ["--cbase=256", "--cmax=16", "--batch=8", "--workers=0", "--kimg=1", "--tick=1", "--snap=1"],
    STYLEGAN3: [
        *["--cfg=stylegan2", "--gpus=1", "--gamma=1", "--map-depth=2"],
        *["--cbase=256", "--cmax=16", "--batch=8", "--workers=0", "--kimg=1", "--tick=1", "--snap=1"],
    ],
}
QUICK_TRAIN = str(DRIVERS / "quick_train.py")  # train.py, whose processes are forks
LITE0 = "--disp-features=efficientnet_lite0"


# Arguments. ---------------------------------------------------------------------------------------


def options(host: Path, family: str, data: Path, outdir: Path, *args: str) -> dict:
    """Return the arguments that a host's train.py would train with."""
    return _dry_run(host, data, outdir, *TINY[family], *args)


def flags(family: str, *more: str) -> list[str]:
    """Return options of a small run, without those that name an architecture."""
    return [flag for flag in TINY[family] if not flag.startswith(("--cbase", "--cmax", "--map-depth"))] + list(more)


def arguments(host: Path, family: str, data: Path, outdir: Path, *more: str) -> dict:
    """Return the arguments of a run whose architecture comes from --resume, without sheets of 1024 samples."""
    return _dry_run(host, data, outdir, *flags(family, *more), "--device=cpu") | {"image_snapshot_ticks": None}


def still(args: dict, iterations: int = 1) -> dict:
    """Return the arguments of a run that does not move its weights."""
    args = json.loads(json.dumps(args))
    args["G_opt_kwargs"]["lr"] = args["D_opt_kwargs"]["lr"] = 0
    return args | {"total_kimg": iterations * args["batch_size"] / 1000}


def _dry_run(host: Path, data: Path, outdir: Path, *args: str) -> dict:
    """Return the training options of train.py --dry-run, which runs once for each host, data and options."""
    question = ["train.py", f"--data={data}", "--outdir=no-such-folder", "--dry-run", *args]
    key = json.dumps([str(host), question, os.environ.get("STYLEGAN_PLUGINS_CACHE")])
    answer = Path(os.environ["TESTS_SHARED"], f"dry-run-{hashlib.sha256(key.encode()).hexdigest()}.json")
    if not answer.exists():
        printed = run_script(host, *question).stdout
        answered = answer.with_suffix(f".{os.getpid()}")
        answered.write_text(printed[printed.index('{\n  "') :])
        answered.replace(answer)
    found = json.JSONDecoder().raw_decode(answer.read_text())[0]
    return found | {"run_dir": str(outdir / Path(found["run_dir"]).name)}


# Runs. --------------------------------------------------------------------------------------------


def loop(host: Path, args: dict, run_dir: Path, iterations: int, *flags: str) -> Path:
    """Run the training loop for some iterations, without sheets of 1024 samples; returns the last snapshot."""
    file = run_dir.with_suffix(".json")
    file.write_text(json.dumps(args | {"image_snapshot_ticks": None}))
    run_script(host, str(DRIVERS / "train_loop.py"), str(file), str(run_dir), str(iterations), *flags)
    return max(run_dir.glob("network-snapshot-*.pkl"))


def driver(args: dict, run_dir: Path) -> list[str]:
    """Return the command line, after `python`, that begins a run as train.py does."""
    file = run_dir.with_suffix(".json")
    file.write_text(json.dumps(args))
    return [str(DRIVERS / "begin_run.py"), str(file), str(run_dir)]


def run_to_its_end(host: Path, args: dict, run_dir: Path, **how) -> str:
    """Run a fraction of a kimg, with `how` as of run_script. Returns what the run prints."""
    return run_script(host, *driver(args, run_dir), **how).stdout


def begin(host: Path, args: dict, run_dir: Path, **env: str):
    """Start a run of a fraction of a kimg, in its own process group."""
    return start_script(host, *driver(args, run_dir), **env)


def wait_for_state(run, run_dir: Path, beyond: int = -1) -> None:
    """Wait until a training state of more than `beyond` images is there."""
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and run.poll() is None:
        if run_dir.is_dir() and any(int(path.stem.split("-")[-1]) > beyond for path in states.states_of(run_dir)):
            return
        time.sleep(0.05)
    run.kill()
    raise AssertionError(f"no state came: {run.communicate()[0][-3000:]}")


def killed_and_resumed(host: Path, args: dict, run_dir: Path, beyond: int) -> None:
    """Kill a run after more than `beyond` images, and resume it to its end."""
    run = begin(host, args | {"state_minutes": 0.0001}, run_dir)
    wait_for_state(run, run_dir, beyond)
    os.killpg(run.pid, signal.SIGKILL)
    run.communicate()
    run = start_script(host, QUICK_TRAIN if args["num_gpus"] > 1 else "train.py", f"--resume-run={run_dir}")
    output = run.communicate(timeout=400)[0]
    assert run.returncode == 0, output[-3000:]


# Files of runs. ------------------------------------------------------------------------------------


def last_run(outdir: Path) -> Path:
    """Return the newest run directory."""
    return max(path for path in outdir.iterdir() if path.is_dir())


def snapshot(host: Path, pickle: Path, *flags: str) -> dict:
    """Return the output of drivers/snapshot.py, in a host's folder, for a network snapshot."""
    done = run_script(host, str(DRIVERS / "snapshot.py"), str(pickle), *flags)
    return json.loads(done.stdout.splitlines()[-1])


def stats(run_dir: Path) -> list[dict]:
    """Return the lines of stats.jsonl."""
    return [json.loads(line) for line in (run_dir / "stats.jsonl").read_text().splitlines()]
