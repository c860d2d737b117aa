"""Train on the 100 photographs for the same minutes as ./run.sh photos does, from scratch, and as the demo did before:
KID of each, in seeds. Usage: python benchmarks/photos.py OUTDIR [--seeds=3] [--seconds=200] [--jobs=2]

A line of JSON a run goes to OUTDIR/photos.jsonl; runs that are there are not trained again."""

from __future__ import annotations

import concurrent.futures
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import click

from stylegan_plugins.files import run_folders

ROOT = Path(__file__).resolve().parents[1]
HOST = ROOT / "hosts" / "stylegan2-ada-pytorch"
NEW = [  # as in run.sh
    *("--colors=gray", "--batch=16", "--pl-weight=0", "--gamma=0.05", "--glr=0.006", "--dlr=0.006", "--ema-kimg=0.5"),
    *("--cfg=auto", "--diffaugment-policy=color,translation"),
]
ROWS = {
    "fine-tuned": ["--plugin=freezed,diffaugment", "--resume=people32", *NEW],
    "from scratch": ["--plugin=diffaugment", "--cbase=512", "--cmax=32", "--no-noise-inputs", *NEW],
    "host's settings": ["--plugin=diffaugment", "--cfg=auto", "--batch=8", "--cbase=512", "--cmax=32", "--gamma=0.02"],
}
ALL = ["--mirror=1", "--tick=1", "--snap=1", "--workers=0", "--metrics=none", "--device=cpu", "--kimg=1000"]


def train(row: str, seed: int, data: Path, outdir: Path, seconds: float) -> Path:
    """Train until the time is over. Returns the newest snapshot."""
    folder = outdir / f"{row.replace(' ', '-')}-{seed}"
    command = [sys.executable, str(HOST / "train.py"), f"--data={data}", f"--outdir={folder}", f"--seed={seed}"]
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "train.log", "w") as log:
        process = subprocess.Popen([*command, *ROWS[row], *ALL], stdout=log, stderr=log)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.terminate()
            process.wait()
        else:
            raise SystemExit(f"{row}, seed {seed} ended before its time: {folder}/train.log")
    return run_folders.newest_pickle(run_folders.newest_run(folder))


def evaluate(row: str, seed: int, pickle: Path) -> dict:
    """Return the line of a run."""
    command = [str(Path(sys.executable).with_name("stylegan-plugins")), "evaluate", str(pickle), "--metrics=kid"]
    how = ["--features=efficientnet_lite0", "--samples=500", "--device=cpu"]
    subprocess.run([*command, *how], check=True, stdout=subprocess.DEVNULL)
    (file,) = pickle.parent.glob("metric-kid*.jsonl")
    found = json.loads(file.read_text().splitlines()[-1])
    kimg = int(re.search(r"(\d+)\.pkl", pickle.name).group(1))
    return {"row": row, "seed": seed, "kimg": kimg, "kid": next(iter(found["results"].values()))}


@click.command(help=__doc__)
@click.argument("outdir", type=click.Path(path_type=Path))
@click.option("--seeds", default=3)
@click.option("--seconds", default=200.0)
@click.option("--jobs", default=2)
def main(outdir: Path, seeds: int, seconds: float, jobs: int) -> None:
    outdir.mkdir(parents=True, exist_ok=True)
    os.environ["OMP_NUM_THREADS"] = "1"
    lines, data = outdir / "photos.jsonl", outdir.resolve() / "photographs.zip"
    if not data.exists():
        subprocess.run(
            [Path(sys.executable).with_name("stylegan-plugins"), "demo-data", data, "--kind=photographs"], check=True
        )
    done = [json.loads(line) for line in lines.read_text().splitlines()] if lines.exists() else []
    known = {(line["row"], line["seed"]) for line in done}
    left = [(row, seed) for seed in range(seeds) for row in ROWS if (row, seed) not in known]
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        jobs_left = [pool.submit(lambda key=key: evaluate(*key, train(*key, data, outdir, seconds))) for key in left]
        for job in concurrent.futures.as_completed(jobs_left):
            line = job.result()
            with open(lines, "a") as out:
                out.write(json.dumps(line) + "\n")
            print(line, flush=True)


if __name__ == "__main__":
    main()
