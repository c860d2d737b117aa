"""Speed of training on a CPU against that of the host: fewer operations (host/reference_ops.py), and freed memory kept.

    python benchmarks/cpu_ops.py --host HOST [--rounds 6] [--size 16] -- ARGUMENTS OF train.py

Both train in turns, as processes, one at a time, on the faces of the demo; the ratio of each round is that of the
images a second after the first tick. Prints the median and the range."""

from __future__ import annotations

import json
import runpy
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import click

KINDS = ("own", "fewer")


def child(kind: str, arguments: list[str]) -> None:
    """Run train.py in the working folder."""
    sys.path.insert(0, ".")
    if kind == "own":
        from stylegan_plugins.host import quicker

        for name in ("upfirdn2d", "bias_act", "conv2d", "networks"):
            setattr(quicker, name, lambda module: None)
        from stylegan_plugins.run import memory, session

        memory.keep_freed_memory = lambda: None
        session.fuse_on_cpu = lambda optimizers: None
    sys.argv = ["train.py", *arguments]
    runpy.run_path("train.py", run_name="__main__")


def images_a_second(kind: str, host: Path, arguments: list[str], seed: int) -> float:
    """Train, and return the median over ticks but the first."""
    with tempfile.TemporaryDirectory() as outdir:
        command = [sys.executable, str(Path(__file__).resolve()), kind, *arguments]
        command += [f"--outdir={outdir}", f"--seed={seed}", "--tick=1", "--metrics=none", "--device=cpu"]
        done = subprocess.run(command, cwd=host, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        lines = next(Path(outdir).glob("*/stats.jsonl")).read_text().splitlines()
    seconds = [json.loads(line)["Timing/sec_per_kimg"]["mean"] for line in lines[2:]]
    return 1000 / statistics.median(seconds)


@click.command(help=__doc__)
@click.option("--host", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--rounds", type=int, default=6, show_default=True)
@click.option("--size", type=int, default=16, show_default=True, help="Pixels of a side")
@click.argument("arguments", nargs=-1)
def main(host: Path, rounds: int, size: int, arguments: tuple[str, ...]) -> None:
    program = str(Path(sys.executable).with_name("stylegan-plugins"))
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "faces.zip")
        subprocess.run([program, "demo-data", str(data), f"--size={size}"], check=True, capture_output=True)
        ratios = []
        for seed in range(rounds):
            order = KINDS if seed % 2 else KINDS[::-1]
            speed = {kind: images_a_second(kind, host, [f"--data={data}", *arguments], seed) for kind in order}
            ratios.append(speed["fewer"] / speed["own"])
            click.echo(f"{speed['own']:.1f} {speed['fewer']:.1f} images/s, ratio {ratios[-1]:.3f}")
    click.echo(f"median {statistics.median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f}, {rounds} rounds")


if __name__ == "__main__":
    child(sys.argv[1], sys.argv[2:]) if sys.argv[1] in KINDS else main()
