"""Measurements that need a GPU, in pieces of at most nine minutes, each with a result file of its own.

    python benchmarks/gpu_hour.py PIECE --host HOST --out DIR [--minutes 8] [--data TRAIN.zip --heldout HELD.zip]
    python benchmarks/gpu_hour.py PIECE --host HOST --out DIR --tiny                  # on a CPU, to be tried out

cost    seconds and memory of a cycle of 16 iterations at 256x256 in half precision: the host's own loss, the same with
        the reference implementations of its ops, and each method, taking turns; whether all weights stay finite
resume  each method is trained by train.py, killed (`kill -9`) after its first state, and resumed; a batch that no GPU
        has the memory for ends in one line
study   rows of the talks at 64x64, all at once, then KID, precision and recall on EfficientNet-Lite0 against held-out
        pictures

HOST is a patched stylegan2-ada-pytorch. Nothing is installed. A piece stops taking new turns after its minutes, and its
file, DIR/PIECE.json, has the card's name. TRAIN.zip and HELD.zip are made by benchmarks/noto_faces.py."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))

IDLE = {"diagnostics", "tensorboard", "wandb"}  # they add nothing to an iteration
FROM_PICKLE = {"freezed", "transfergan"}  # they need a network to begin with
STUDY = {
    "none": [],
    "diffaugment": ["--plugin=diffaugment"],
    "diffaugment, reals alone": ["--plugin=diffaugment", "--diffaugment-where=reals"],
    "augself": ["--plugin=augself"],
    "lecam,diffaugment": ["--plugin=lecam,diffaugment"],
}


class Piece:
    """A result file that is written anew after each result, and the time that is left."""

    def __init__(self, name: str, out: Path, minutes: float) -> None:
        import torch

        out.mkdir(parents=True, exist_ok=True)
        self.file, self.until = out / f"{name}.json", time.monotonic() + 60 * minutes
        gpu = torch.cuda.is_available()
        card = torch.cuda.get_device_name() if gpu else "a CPU"
        self.found: dict[str, Any] = {"piece": name, "card": card, "torch": torch.__version__, "results": {}}

    def add(self, key: str, result: Any) -> None:
        self.found["results"][key] = result
        self.file.write_text(json.dumps(self.found, indent=1) + "\n")
        print(f"{key}: {result}", flush=True)

    @property
    def left(self) -> float:
        return self.until - time.monotonic()


def methods(given: str | None) -> list[str]:
    from stylegan_plugins.manager import builtin

    if given:
        return given.split()
    # disp and vision-aided bring networks that a machine without a connection lacks; cost_gpu.py measures them.
    return [name for name in builtin() if name not in IDLE | FROM_PICKLE | {"disp", "vision-aided"}]


@contextlib.contextmanager
def reference_ops() -> Iterator[None]:
    """The host's custom ops stay unused: their reference implementations take their place."""
    from stylegan_plugins.host.modules import host_module

    modules = [host_module(f"torch_utils.ops.{name}") for name in ("bias_act", "upfirdn2d")]
    before = [module._init for module in modules]
    for module in modules:
        module._init = lambda: False
    try:
        yield
    finally:
        for module, init in zip(modules, before, strict=True):
            module._init = init


def cost(piece: Piece, host: Path, names: list[str], tiny: bool) -> None:
    from stylegan_plugins.host.modules import host_module, use_host

    use_host(host)
    import torch
    from cost_gpu import Trainer

    torch.backends.cudnn.benchmark = True
    for op in ("conv2d_gradfix", "grid_sample_gradfix"):
        host_module(f"torch_utils.ops.{op}").enabled = True  # as the training loop has it
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(1)
    trainers: dict[str, Trainer] = {}
    memory: dict[str, float] = {}
    seconds: dict[str, list[float]] = {}

    def report(name: str) -> None:
        trainer, ratios = (
            trainers[name],
            [mine / theirs for mine, theirs in zip(seconds[name], seconds["host"], strict=True)],
        )
        parameters = [*trainer.G.parameters(), *trainer.D.parameters()]
        parameters += [] if trainer.session is None else list(trainer.session.heads.parameters())
        of_time = (statistics.median(ratios), min(ratios), max(ratios))
        result = {
            "time": [round(value, 3) for value in of_time],
            "seconds": round(statistics.median(seconds[name]), 3),
            "MiB": round(memory[name]),
            "rounds": len(ratios),
            "iterations": 16 * (len(ratios) + 1),
            "finite": all(bool(parameter.isfinite().all()) for parameter in parameters),
        }
        piece.add(name, result)

    for name in ["host", "host, reference ops", *names]:  # the first round, in which all is compiled and tuned before
        if piece.left < 0:
            break
        held = torch.cuda.memory_allocated() if device.type == "cuda" else 0
        with reference_ops() if "reference" in name else contextlib.nullcontext():
            trainers[name] = Trainer(name.split(",")[0], device, 32 if tiny else 256, 4 if tiny else 16)
            own = (torch.cuda.memory_allocated() - held) / 2**20 if device.type == "cuda" else 0.0
            trainers[name].cycle()
            first, peak = trainers[name].cycle()
        seconds[name], memory[name] = [first], own + peak
        report(name)
    order = list(trainers)
    for turn in range(1, 2 if tiny else 10):
        shift = turn * 5 % len(order)
        for name in order[shift:] + order[:shift]:
            with reference_ops() if "reference" in name else contextlib.nullcontext():
                seconds[name].append(trainers[name].cycle()[0])
        for name in order:
            report(name)
        if piece.left < 0:
            break


def train(host: Path, outdir: Path, *flags: str) -> subprocess.Popen:
    """Start train.py, which writes to `output.txt` of the folder of runs."""
    outdir.mkdir(parents=True, exist_ok=True)
    log = (outdir / "output.txt").open("a")
    command = [sys.executable, "train.py", *flags]
    return subprocess.Popen(command, cwd=host, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)


def _killed_and_resumed(host: Path, out: Path, data: Path, name: str, tiny: bool, limit: float) -> dict[str, Any]:
    outdir = out / "runs" / name
    size = ["--batch=8", "--cbase=256", "--cmax=16"] if tiny else ["--batch=32", "--cbase=8192", "--cmax=256"]
    flags = [
        f"--plugin={name}",
        f"--data={data}",
        f"--outdir={outdir}",
        *size,
        "--workers=1",
        "--metrics=none",
        "--tick=1",
        "--snap=50",
    ]
    flags += ["--kimg=1" if tiny else "--kimg=8", "--no-report", "--image-minutes=0", "--mirror=1", "--gamma=1"]
    run = train(host, outdir, *flags, "--state-minutes=0.05")
    until = time.monotonic() + limit
    state = lambda: next(iter(sorted(outdir.glob("0*/training-state-*.pt"))), None)
    while run.poll() is None and state() is None and time.monotonic() < until:
        time.sleep(0.1)
    first, ended = state(), run.poll() is not None
    with contextlib.suppress(ProcessLookupError):
        os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    if first is None:
        return {"wrong": f"no state; see {outdir / 'output.txt'}: {_last_line(outdir)}"}
    resumed = train(host, outdir, f"--resume-run={first.parent}")
    try:
        code = resumed.wait(timeout=max(until - time.monotonic(), 1))
    except subprocess.TimeoutExpired:
        os.killpg(resumed.pid, signal.SIGKILL)
        return {"wrong": "the resumed run took too long"}
    lines = (first.parent / "stats.jsonl").read_text().splitlines()
    kimg = json.loads(lines[-1])["Progress/kimg"]["mean"] if lines else 0
    return {"killed at": first.name, "ended before": ended, "code": code, "kimg": kimg, "last": _last_line(outdir)}


def _last_line(outdir: Path) -> str:
    lines = (outdir / "output.txt").read_text(errors="replace").split("\n")
    return next((line for line in reversed(lines) if line.strip()), "")[:300]


def resume(piece: Piece, host: Path, names: list[str], tiny: bool, out: Path, data: Path) -> None:
    if not tiny:  # whatever the card: 256 pictures of 1024x1024 at a time do not fit
        large = out / "large.zip"
        _noise(large, 1024, 8)
        flags = [f"--data={large}", "--cfg=auto", "--batch=512", "--kimg=1", "--metrics=none", "--workers=1"]
        flags += [f"--outdir={out / 'runs' / 'memory'}"]
        run = train(host, out / "runs" / "memory", *flags, "--no-report", "--image-minutes=0", "--aug=noaug")
        try:
            code = run.wait(timeout=120)
            text = (out / "runs" / "memory" / "output.txt").read_text(errors="replace")
            lines = [line for line in text.splitlines() if "memory" in line or "Traceback" in line]
            piece.add("out of memory", {"code": code, "lines": lines[-3:]})
        except subprocess.TimeoutExpired:
            os.killpg(run.pid, signal.SIGKILL)
            piece.add("out of memory", {"wrong": "nothing after two minutes"})
    with ThreadPoolExecutor(1 if tiny else 7) as pool:
        jobs = {name: pool.submit(_killed_and_resumed, host, out, data, name, tiny, piece.left) for name in names}
        for name, job in jobs.items():
            piece.add(name, job.result())


def _noise(path: Path, side: int, count: int) -> None:
    import zipfile

    import numpy as np

    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for index in range(count):
            data, pixels = io.BytesIO(), np.random.RandomState(index).randint(0, 256, [side, side, 3], np.uint8)
            Image.fromarray(pixels).save(data, format="png")
            archive.writestr(f"img{index:08d}.png", data.getvalue())


def study(piece: Piece, host: Path, tiny: bool, out: Path, data: Path, heldout: Path, images: int) -> None:
    """All rows train at once on the one GPU until the time is up. Compared are snapshots after as many images."""
    size = (
        ["--batch=8", "--cbase=256", "--cmax=16", "--kimg=1"] if tiny else ["--batch=32", "--cbase=8192", "--cmax=256"]
    )
    common = [f"--data={data}", f"--subset={images}", *size, f"--tick={1 if tiny else 5}", "--snap=1", "--gamma=0.4"]
    common += ["--mirror=1", "--aug=noaug", "--workers=1", "--metrics=none", "--no-report", "--image-minutes=0"]
    rows = dict(list(STUDY.items())[:2]) if tiny else STUDY
    runs = []
    for index, flags in enumerate(rows.values()):
        outdir = out / "study" / str(index)
        runs.append(train(host, outdir, f"--outdir={outdir}", *common, *flags))
    for run in runs:
        with contextlib.suppress(subprocess.TimeoutExpired):
            run.wait(timeout=max(piece.left - (0 if tiny else 60), 1))
    for run in runs:
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
            run.wait()
    folders = [next((out / "study" / str(index)).glob("0*")) for index in range(len(rows))]
    snapshots = [{file.stem[-6:] for file in folder.glob("network-snapshot-*.pkl")} for folder in folders]
    kimg = max(set.intersection(*snapshots))
    with ThreadPoolExecutor(1 if tiny else 5) as pool:
        jobs = [pool.submit(_measured, host, folder, kimg, heldout, tiny) for folder in folders]
        for name, job, made in zip(rows, jobs, snapshots, strict=True):
            piece.add(name, job.result() | {"kimg": int(kimg), "reached": int(max(made))})
    grids = []
    for folder in folders:
        with Image.open(folder / f"fakes{kimg}.png") as grid:
            grids.append(grid.convert("RGB").crop((0, 0, min(grid.width, 12 * 64), 2 * 64)))
    sheet = Image.new("RGB", (max(grid.width for grid in grids), sum(grid.height for grid in grids)))
    for index, grid in enumerate(grids):
        sheet.paste(grid, (0, index * grid.height))
    sheet.save(out / "study.png")


def _measured(host: Path, folder: Path, kimg: str, heldout: Path, tiny: bool) -> dict[str, Any]:
    """Evaluate a snapshot of a run."""
    pickle = folder / f"network-snapshot-{kimg}.pkl"
    command = [sys.executable, "-c", "from stylegan_plugins.cli import cli; cli()", "evaluate", str(pickle)]
    command += [f"--data={heldout}", f"--host={host}", "--metrics=kid,pr", "--features=efficientnet_lite0"]
    command += [f"--samples={64 if tiny else 1000}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=host)
    table = [line for line in done.stdout.splitlines() if line.startswith("|")]
    if done.returncode or len(table) < 3:
        return {"wrong": done.stderr[-500:]}
    names, values = ([cell.strip() for cell in line.strip("|").split("|")] for line in (table[0], table[-1]))
    return {
        name.replace("_efficientnet_lite0", ""): float(value) for name, value in zip(names[1:], values[1:], strict=True)
    }


@click.command()
@click.argument("piece", type=click.Choice(["cost", "resume", "study"]))
@click.option("--host", type=click.Path(path_type=Path, exists=True, resolve_path=True), required=True)
@click.option("--out", type=click.Path(path_type=Path, resolve_path=True), required=True, help="For results and runs")
@click.option("--minutes", default=8.0, show_default=True)
@click.option("--methods", "given", help="Plug-ins, with spaces  [default: those built in]")
@click.option("--data", type=click.Path(path_type=Path, exists=True, resolve_path=True), help="Pictures to train on")
@click.option("--heldout", type=click.Path(path_type=Path, exists=True, resolve_path=True), help="Held-out pictures")
@click.option("--images", default=100, show_default=True, help="Training pictures of the study")
@click.option("--tiny", is_flag=True, help="Small networks, to try the script out on a CPU")
def main(
    piece: str,
    host: Path,
    out: Path,
    minutes: float,
    given: str | None,
    data: Path | None,
    heldout: Path | None,
    images: int,
    tiny: bool,
) -> None:
    made = Piece(piece, out, minutes)
    if piece == "cost":
        return cost(made, host, methods(given), tiny)
    if data is None or (piece == "study" and heldout is None):
        raise click.UsageError("this piece needs --data, and the study --heldout; benchmarks/noto_faces.py makes both.")
    if piece == "resume":
        return resume(made, host, methods(given), tiny, out, data)
    assert heldout is not None
    return study(made, host, tiny, out, data, heldout, images)


if __name__ == "__main__":
    main()
