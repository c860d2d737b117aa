"""Resume runs whose files were changed at random, and count how they end.

    python benchmarks/mutants_of_runs.py --host HOST --run RUN [--count 1000] [--seed 0]

RUN is a small run of that host that is complete but for one iteration; tests/drivers/mutants.py says what is changed.
Prints a Markdown table, and each mutant that ended otherwise than by training or with one line and exit code 2."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import click

DRIVER = Path(__file__).parents[1] / "tests" / "drivers" / "mutants.py"


@click.command()
@click.option("--host", required=True, help="A patched host")
@click.option("--run", required=True, help="A run directory")
@click.option("--count", type=int, default=1000, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
def main(host: str, run: str, count: int, seed: int) -> None:
    command = [sys.executable, str(DRIVER), str(Path(run).resolve()), str(count), str(seed)]
    done = subprocess.run(command, cwd=host, stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    ends = ("trained", "refused")
    wrong = [mutant for mutant in found if mutant[2] not in ends]
    counts = Counter((kind, end if end in ends else "wrong") for kind, _, end in found)
    print("| changed | mutants | trained | refused | wrong |\n| --- | --- | --- | --- | --- |")
    for kind in ("options", "info", "state", "bytes"):
        numbers = [counts[kind, end] for end in (*ends, "wrong")]
        print(f"| {kind} | {sum(numbers)} | {' | '.join(map(str, numbers))} |")
    for kind, words, end in wrong:
        print(f"\n{kind}: {words}\n{end}")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
