"""Seconds from the start of train.py to the first iteration, of one or more copies of the package, in turns.

    python benchmarks/startup.py --data ZIP [--rounds 5] PACKAGE=HOST [PACKAGE=HOST ...]

PACKAGE is a folder with stylegan_plugins, HOST a host that it has patched. Prints the processor's time and the time by
the clock, median and range, and the processor's time of `import torch` alone."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import psutil

OPTIONS = ["--plugin=diffaugment", "--device=cpu", "--aug=noaug", "--metrics=none", "--kimg=1", "--workers=0"]
OPTIONS += ["--batch=16", "--cbase=512", "--cmax=32"]


def start(package: str, host: str, data: str) -> tuple[float, float]:
    """Return the processor's time and the time by the clock until the loop begins, in seconds."""
    with tempfile.TemporaryDirectory() as outdir:
        command = [sys.executable, str(Path(host) / "train.py"), f"--data={data}", f"--outdir={outdir}", *OPTIONS]
        environment = {**os.environ, "PYTHONPATH": package}
        began = time.perf_counter()
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        with subprocess.Popen(command, env=environment, text=True, **pipes) as process:
            try:
                for line in process.stdout:
                    if line.startswith("Training for"):
                        return sum(psutil.Process(process.pid).cpu_times()[:2]), time.perf_counter() - began
            finally:
                process.kill()
    raise SystemExit(f"{' '.join(command)} ended before its first iteration")


def import_torch() -> float:
    """Return the processor's time of a Python that imports torch, in seconds."""
    code = "import psutil, torch; print(sum(psutil.Process().cpu_times()[:2]))"
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


@click.command(help=__doc__)
@click.option("--data", required=True, type=click.Path(exists=True))
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True)
@click.argument("sides", nargs=-1, required=True)
def main(data: str, rounds: int, sides: tuple[str, ...]) -> None:
    found: dict[str, list[tuple[float, float]]] = {side: [] for side in sides}
    for number in range(rounds):
        for side in sides if number % 2 else sides[::-1]:
            package, _, host = side.partition("=")
            found[side].append(start(package, host, str(Path(data).resolve())))
    for side, times in found.items():
        busy, passed = (spread(list(values)) for values in zip(*times, strict=True))
        click.echo(f"{side}: processor {busy} s, clock {passed} s")
    click.echo(f"import torch: processor {spread([import_torch() for _ in range(rounds)])} s")


if __name__ == "__main__":
    main()
