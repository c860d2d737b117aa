"""Mutate the files of a run directory that `report` reads, and count how the command ends.

    python benchmarks/mutants_of_reports.py [--mutants 500] [--seed 0] [--workers 2] [--keep DIR]

Each mutant is a file of a sound run with one to three mutations (tests/support/report_mutants.py). The command runs in
a child process with limits of 20 s and of 1 GB beyond what the imported package takes. It must end in a page (exit code
0) or in one line (exit code 2). Prints a Markdown table, and what ended otherwise; --keep has the files of these."""

from __future__ import annotations

import multiprocessing
import os
import random
import resource
import shutil
import sys
import tempfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import click

REPOSITORY = Path(__file__).parent.parent
sys.path.insert(0, str(REPOSITORY / "tests"))

from support.report_mutants import FILES, mutate  # noqa: E402
from test_report import add_diagnostics, add_metric, make_run  # noqa: E402

from stylegan_plugins.cli import cli  # noqa: E402
from stylegan_plugins.report import page  # noqa: E402

SECONDS, BYTES = 20, 1 << 30
ENDS = ("page", "one line", "traceback", "more lines", "signal or limit")


def child(folder: Path, log: Path) -> None:
    """Run `report` in this process, which was forked for it."""
    with open(log, "wb") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    used = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()  # data and stack
    resource.setrlimit(resource.RLIMIT_DATA, (used + BYTES, used + BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    cli(["report", str(folder), f"--out={folder.parent / 'report.html'}"])


def end_of(folder: Path, log: Path) -> str:
    """Return one of ENDS."""
    process = multiprocessing.get_context("fork").Process(target=child, args=(folder, log))
    process.start()
    process.join(3 * SECONDS)  # of the clock; the limit is on the processor's time
    if process.exitcode is None:
        process.kill()
        process.join()
    code, text = process.exitcode or 0, log.read_text(errors="replace")
    if code < 0 or "MemoryError" in text:
        return "signal or limit"
    if "Traceback" in text or code not in (0, 2):
        return "traceback"
    if text.count("\n") != 1:
        return "more lines"
    return "page" if code == 0 else "one line"


def run(number: int, top: Path, seed: int, keep: Path | None) -> str:
    """Return how the report of a mutant ends."""
    file, place = FILES[number % len(FILES)], top / str(number)
    folder = shutil.copytree(top / "run", place / "run")
    (folder / file).write_bytes(mutate(random.Random(f"{seed}/{number}"), (folder / file).read_bytes()))
    end = end_of(folder, place / "log")
    if end not in ENDS[:2] and keep is not None:
        shutil.copytree(place, keep / str(number), dirs_exist_ok=True)
    shutil.rmtree(place)
    return end


@click.command()
@click.option("--mutants", type=int, default=500, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--workers", type=int, default=2, show_default=True)
@click.option("--keep", type=click.Path(path_type=Path), help="Where mutants go that ended otherwise")
def main(mutants: int, seed: int, workers: int, keep: Path | None) -> None:
    top = Path(tempfile.mkdtemp())
    sound = make_run(top / "run", ticks=4, sheets=1, side=16)
    add_metric(sound, "fid50k_full", {0: 90.0, 4: 80.0})
    add_metric(sound, "kid_x", {0: 0.5, 4: 0.25}, "kid_x")
    add_diagnostics(sound, 3)
    page.write([sound], top / "report.html")  # imports, in this process, what its children need
    counts: dict[str, Counter[str]] = {file: Counter() for file in FILES}
    # Processes, not threads: each waits for its own children.
    with ProcessPoolExecutor(workers, multiprocessing.get_context("fork")) as pool:
        ends = pool.map(partial(run, top=top, seed=seed, keep=keep), range(mutants))
        for number, end in enumerate(ends):
            file = FILES[number % len(FILES)]
            counts[file][end] += 1
            if end not in ENDS[:2]:
                print(f"mutant {number} of {file}: {end}", file=sys.stderr)
    print(f"| file | {' | '.join(ENDS)} |\n|{' --- |' * (len(ENDS) + 1)}")
    for file, found in counts.items():
        print(f"| `{file}` | {' | '.join(str(found[end]) for end in ENDS)} |")
    shutil.rmtree(top)
    sys.exit(any(found[end] for found in counts.values() for end in ENDS[2:]))


if __name__ == "__main__":
    main()
