"""Give mutants of valid snapshots to commands, each in its own process with limits.

    python benchmarks/mutants_of_pickles.py HOST [--count=1000] [--seed=0] [--snapshot=PKL] > mutants_of_pickles.md

Of ten mutants `sample` gets six, `inspect` three and `train.py --resume --dry-run` one, in forks of this process with
20 s and 1 GiB more address space than it has. Right is `success` or `one line` (exit code 2). Prints a table; exit code
1 if anything else happens. The mutants that did it are kept in the current folder."""

from __future__ import annotations

import argparse
import collections
import gc
import os
import random
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path[:0] = [str(TESTS)]

import torch  # noqa: E402
from support.children import outcome  # noqa: E402
from support.images import color_crops, write_zip  # noqa: E402
from support.mutants import Mutator  # noqa: E402

from stylegan_plugins.cli import cli  # noqa: E402
from stylegan_plugins.host import devices, find, networks  # noqa: E402

RIGHT = {"success", "one line"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("host", type=Path)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--snapshot", type=Path)
    args = parser.parse_args()
    host, kept = args.host.resolve(), Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder)
        snapshot = args.snapshot or top / "valid.pkl"
        if args.snapshot is None:
            command = [sys.executable, TESTS / "drivers" / "make_pickle.py", snapshot]
            subprocess.run(command, cwd=host, check=True)
        data = write_zip(top / "data.zip", color_crops(16))
        path = top / "mutant.pkl"
        ways: dict[str, Callable[[], object]] = {
            "inspect": lambda: cli(["inspect", str(path)]),
            "sample": lambda: cli(
                ["sample", str(path), "--seeds=0", f"--outdir={top / 'out'}", "--device=cpu", f"--host={host}"]
            ),
            "train.py --resume": lambda: train(host, data, path),
        }
        torch.set_num_threads(1)
        os.chdir(host)
        devices.choose("cpu")
        find.choose_host(host)
        networks.load_network(snapshot, "G_ema")  # modules of the host are imported once
        gc.freeze()  # children need not look at what is imported
        mutator = Mutator(snapshot.read_bytes())
        counts: collections.Counter[tuple[str, str]] = collections.Counter()
        for number in range(args.count):
            path.write_bytes(mutator.mutant(random.Random(args.seed * 10**6 + number)))
            way = ["inspect", "sample", "train.py --resume"][(number % 10 > 2) + (number % 10 == 9)]
            how, said = outcome(ways[way])
            counts[way, how] += 1
            if how not in RIGHT:
                (kept / f"mutant-{args.seed}-{number}.pkl").write_bytes(path.read_bytes())
                print(f"{number}, {way}: {how}: {said.strip()[-300:]}", file=sys.stderr)
    print(table(counts, args.count, host.name))
    sys.exit(any(how not in RIGHT for _, how in counts))


def train(host: Path, data: Path, pickle: Path) -> None:
    """Run the host's train.py up to where training would start."""
    small = ["--cfg=stylegan2", "--gpus=1", "--batch=4", "--gamma=1"] if "stylegan3" in host.name else []
    sys.argv = [
        "train.py",
        f"--data={data}",
        "--outdir=runs",
        f"--resume={pickle}",
        "--dry-run",
        "--device=cpu",
        *small,
    ]
    sys.path[:0] = [str(host)]
    runpy.run_path("train.py", run_name="__main__")


def table(counts: collections.Counter[tuple[str, str]], mutants: int, host: str) -> str:
    """Write counts of outcomes by command as a Markdown table."""
    hows = sorted({how for _, how in counts} | RIGHT, key=lambda how: (how not in RIGHT, how))
    lines = [f"{mutants} mutants of a snapshot of {host}", "", f"| command | {' | '.join(hows)} |"]
    lines += ["| --- |" + " --- |" * len(hows)]
    for way in dict.fromkeys(way for way, _ in counts):
        lines.append(f"| `{way}` | {' | '.join(str(counts[way, how]) for how in hows)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
