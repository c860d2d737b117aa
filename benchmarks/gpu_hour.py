"""Take measurements that need a GPU, in pieces of at most nine minutes, each with its own result file.

    python benchmarks/gpu_hour.py cost --host HOST --out DIR [--share 1/4] [--minutes 8]
    python benchmarks/gpu_hour.py methods --host HOST --out DIR [--share 1/2] [--minutes 8]
    python benchmarks/gpu_hour.py study --host HOST --out DIR --data TRAIN.zip --heldout HELD.zip [--minutes 8]

--tiny tries a piece out on a CPU.

cost     seconds and memory of a cycle of 16 iterations at 256x256 in half precision: the host's own loss, the same
         with the reference implementations of its ops, the same with the main phases compiled by torch.compile, without
         and with CUDA graphs, and each method, taking turns for ten rounds
methods  train.py fine-tunes the pickle of a first run with each method, at 256x256 in half precision. Each run is
         killed (`kill -9`) after its first state and resumed to its end, some 60 iterations. A value that is not
         finite ends a run. Before it, a batch that fits into no GPU's memory must end in one line
study    three rows of DiffAugment's ablation at 64x64, all at once, then KID, precision and recall on
         EfficientNet-Lite0 against held-out pictures

HOST is a patched stylegan2-ada-pytorch. Nothing is installed. Methods are all methods of the catalogue, and VARIANTS of
them; --share K/N takes every Nth of them from the Kth on, for a piece that does not fit into its minutes. A piece
begins nothing new after its minutes, and says what it left out. Its file, DIR/PIECE.json or DIR/PIECE-K-of-N.json, has
the card's name. benchmarks/noto_faces.py makes TRAIN.zip and HELD.zip."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
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
FROM_PICKLE = {
    "freezed",
    "minegan",
    "scale-shift",
    "transfergan",
}  # without train.py and a pickle they are the host's own
# Further settings of methods: options of train.py; the contestant of cost_gpu.py, and arguments of its loss.
VARIANTS: dict[str, tuple[list[str], str, dict[str, Any]]] = {
    "contrad, joint": (["--contrad-mbstd=joint"], "contrad:mbstd=joint", {}),
    "transfergan, wgan-gp": (
        ["--transfergan-loss=wgan-gp"],
        "transfergan",
        {"gan_loss": "wgan", "gradient_penalty": 10.0, "g_interval": 5, "r1_gamma": 0},
    ),
}
SHORT = {  # schedules that fit a short run, and backbones whose weights are in an installed package
    "contrad": ["--contrad-warmup=0"],
    "disp": ["--disp-features=efficientnet_lite0"],
    "minegan": ["--minegan-stage1-kimg=0.3"],
    "scale-shift": ["--scale-shift-perceptual=efficientnet_lite0"],
    "self-cond": ["--self-cond-clusters=4", "--self-cond-kimg=0.5"],
    "vision-aided": ["--vision-aided-models=efficientnet_lite0", "--vision-aided-warmup-kimg=0"],
}
STUDY = {
    "none": [],
    "diffaugment": ["--plugin=diffaugment"],
    "diffaugment, reals alone": ["--plugin=diffaugment", "--diffaugment-where=reals"],
}


class Piece:
    """A result file, rewritten after each result, and the time that is left."""

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


def methods(given: str | None, share: str) -> list[str]:
    """Return the names of methods and variants: those given with semicolons between, or a share of all."""
    from stylegan_plugins.manager import builtin

    if given:
        return [name.strip() for name in given.split(";")]
    first, every = map(int, share.split("/")) if re.fullmatch(r"\d+/\d+", share) else (0, 0)
    if not 1 <= first <= every:
        raise click.UsageError(f"--share={share}: give K/N, K from 1 to N, such as 1/4.")
    return [*(name for name in builtin() if name not in IDLE), *VARIANTS][first - 1 :: every]


@contextlib.contextmanager
def reference_ops() -> Iterator[None]:
    """Replace the host's custom ops by their reference implementations."""
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


COMPILED = {"host, compiled": "default", "host, CUDA graphs": "reduce-overhead"}  # modes of torch.compile
HOSTS = ("host", "host, reference ops", *COMPILED)


def compile_main_phases(loss: Any, mode: str, tiny: bool) -> None:
    """Compile the networks of a loss for its main phases. Others need second derivatives, which torch.compile lacks.

    tiny: without code for the processor, which takes minutes"""
    import torch

    how: dict[str, Any] = {"backend": "eager"} if tiny else {"mode": mode}
    eager = loss.G_synthesis, loss.D
    compiled = tuple(torch.compile(network, dynamic=False, **how) for network in eager)
    accumulate = loss.accumulate_gradients

    def accumulate_gradients(phase: str, **arguments: Any) -> None:
        loss.G_synthesis, loss.D = compiled if phase.endswith("main") else eager
        accumulate(phase, **arguments)

    loss.accumulate_gradients = accumulate_gradients


def cost(piece: Piece, host: Path, names: list[str], tiny: bool) -> None:
    from stylegan_plugins.errors import UserError
    from stylegan_plugins.host.modules import host_module, use_host
    from stylegan_plugins.vision import backbones

    use_host(host)
    import torch
    from cost_gpu import CYCLE, Trainer

    backbones._fill = lambda *_: None  # type: ignore[assignment]  # random weights, which cost the same
    backbones._weights_file = lambda *_: Path()  # type: ignore[assignment]
    torch.backends.cudnn.benchmark = True
    for op in ("conv2d_gradfix", "grid_sample_gradfix"):
        host_module(f"torch_utils.ops.{op}").enabled = True  # as the training loop has it
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(1)
    length = 1 if tiny else CYCLE
    trainers: dict[str, Trainer] = {}
    memory: dict[str, float] = {}
    seconds: dict[str, list[float]] = {}

    def report(name: str) -> None:
        trainer = trainers[name]
        ratios = [mine / theirs for mine, theirs in zip(seconds[name], seconds["host"], strict=True)]
        parameters = [*trainer.G.parameters(), *trainer.D.parameters()]
        parameters += [] if trainer.session is None else list(trainer.session.heads.parameters())
        of_time = (statistics.median(ratios), min(ratios), max(ratios))
        result = {
            "time": [round(value, 3) for value in of_time],
            "seconds": round(statistics.median(seconds[name]), 3),
            "MiB": round(memory[name]),
            "rounds": len(ratios),
            "iterations": length * (len(ratios) + 1),
            "finite": all(bool(parameter.isfinite().all()) for parameter in parameters),
        }
        piece.add(name, result)

    for name in [*HOSTS, *names]:  # the first round, in which all is compiled and tuned before
        if piece.left < 0:
            piece.add(name, {"left out": "the minutes were over"})
            continue
        if name in FROM_PICKLE:
            piece.add(name, {"left out": "it starts from a pickle, in the piece `methods`"})
            continue
        held = torch.cuda.memory_allocated() if device.type == "cuda" else 0
        _, contestant, loss = VARIANTS.get(name, ([], "host" if name in HOSTS else name, {}))
        with reference_ops() if "reference" in name else contextlib.nullcontext():
            try:
                trainer = Trainer(contestant, device, 32 if tiny else 256, 4 if tiny else 16, **loss)
                own = (torch.cuda.memory_allocated() - held) / 2**20 if device.type == "cuda" else 0.0
                if name in COMPILED:
                    compile_main_phases(trainer.loss, COMPILED[name], tiny)
                trainer.cycle(length)
                first, peak = trainer.cycle(length)
            except UserError as error:  # it needs what train.py prepares, and the piece `methods` runs it
                piece.add(name, {"left out": str(error)})
                continue
            except (RuntimeError, TypeError) as error:
                if name not in COMPILED:
                    raise
                piece.add(name, {"wrong": f"torch.compile: {str(error)[:300]}"})  # a result, too
                continue
        trainers[name] = trainer
        seconds[name], memory[name] = [first], own + peak
        report(name)
    order = list(trainers)
    for turn in range(1, 2 if tiny else 10):
        if piece.left < 0:
            break
        shift = turn * 5 % len(order)
        for name in order[shift:] + order[:shift]:
            with reference_ops() if "reference" in name else contextlib.nullcontext():
                seconds[name].append(trainers[name].cycle(length)[0])
        for name in order:
            report(name)


def train(host: Path, outdir: Path, *flags: str) -> subprocess.Popen:
    """Start train.py, which writes to `output.txt` of the folder of runs."""
    outdir.mkdir(parents=True, exist_ok=True)
    log = (outdir / "output.txt").open("a")
    command = [sys.executable, "train.py", *flags]
    return subprocess.Popen(command, cwd=host, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)


def _flags(data: Path, outdir: Path, tiny: bool) -> list[str]:
    flags = [
        f"--data={data}",
        f"--outdir={outdir}",
        "--kimg=1",
        "--tick=1",
        "--snap=1",
        "--metrics=none",
        "--no-report",
    ]
    flags += ["--image-minutes=0", "--mirror=1"]
    small = ["--cbase=128", "--cmax=8", "--workers=0", "--aug=noaug", "--batch=64"]
    return [*flags, *(small if tiny else ["--workers=1", "--batch=16"])]


def _killed_and_resumed(piece: Piece, host: Path, outdir: Path, flags: list[str]) -> dict[str, Any]:
    """Train to a state after the first iteration, kill the run, and resume it to its end."""
    if piece.left < 0:
        return {"left out": "the minutes were over"}
    until = time.monotonic() + max(piece.left, 60)
    run = train(host, outdir, *flags, "--state-minutes=0.03")
    states = lambda: sorted(outdir.glob("0*/training-state-*.pt"))
    state = lambda: next((file for file in states() if not file.stem.endswith("-000000000")), None)
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
        resumed.wait()
        return {"wrong": "the resumed run took too long"}
    file = first.parent / "stats.jsonl"
    lines = file.read_text().splitlines() if file.is_file() else []
    kimg = json.loads(lines[-1])["Progress/kimg"]["mean"] if lines else 0
    return {"killed at": first.name, "ended before": ended, "code": code, "kimg": kimg, "last": _last_line(outdir)}


def _last_line(outdir: Path) -> str:
    lines = (outdir / "output.txt").read_text(errors="replace").split("\n")
    return next((line for line in reversed(lines) if line.strip()), "")[:300]


def each_method(piece: Piece, host: Path, names: list[str], tiny: bool, out: Path) -> None:
    if not tiny:  # whatever the card: 512 pictures of 1024x1024 at a time do not fit
        large = out / "large.zip"
        _noise(large, 1024, 8)
        flags = [f"--data={large}", "--cfg=auto", "--batch=512", "--kimg=1", "--metrics=none", "--workers=1"]
        flags += [f"--outdir={out / 'runs' / 'memory'}"]
        run = train(host, out / "runs" / "memory", *flags, "--no-report", "--image-minutes=0", "--aug=noaug")
        try:
            code = run.wait(timeout=60)
            text = (out / "runs" / "memory" / "output.txt").read_text(errors="replace")
            lines = [line for line in text.splitlines() if "memory" in line or "Traceback" in line]
            piece.add("out of memory", {"code": code, "lines": lines[-3:]})
        except subprocess.TimeoutExpired:
            os.killpg(run.pid, signal.SIGKILL)
            run.wait()
            piece.add("out of memory", {"wrong": "nothing after a minute"})
    data, plain = out / "noise.zip", out / "runs" / "plain"
    _noise(data, 32 if tiny else 256, 64)
    pickles = lambda: sorted(plain.glob("0*/network-snapshot-000001.pkl"))
    if not pickles():  # of another share
        train(host, plain, *_flags(data, plain, tiny)).wait(timeout=max(piece.left, 60))
    if not pickles():
        return piece.add("plain", {"wrong": _last_line(plain)})
    with ThreadPoolExecutor(1 if tiny else 7) as pool:
        jobs = {}
        for name in names:
            plugin, _, variant = name.partition(", ")
            outdir = out / "runs" / name.replace(", ", "-")
            flags = [f"--plugin={plugin}", f"--resume={pickles()[-1]}", *SHORT.get(plugin, [])]
            flags += [*(VARIANTS[name][0] if variant else []), *_flags(data, outdir, tiny)]
            jobs[name] = pool.submit(_killed_and_resumed, piece, host, outdir, flags)
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
    """Train all rows at once on the one GPU until the time is up, and compare snapshots after equally many images."""
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
@click.argument("name", metavar="PIECE", type=click.Choice(["cost", "methods", "study"]))
@click.option("--host", type=click.Path(path_type=Path, exists=True, resolve_path=True), required=True)
@click.option("--out", type=click.Path(path_type=Path, resolve_path=True), required=True, help="For results and runs")
@click.option("--minutes", default=8.0, show_default=True)
@click.option("--share", default="1/1", show_default=True, metavar="K/N", help="Every Nth method from the Kth on")
@click.option("--methods", "given", metavar="A;B;...", help="Methods instead of a share of all")
@click.option("--data", type=click.Path(path_type=Path, exists=True, resolve_path=True), help="Pictures of the study")
@click.option("--heldout", type=click.Path(path_type=Path, exists=True, resolve_path=True), help="Held-out pictures")
@click.option("--images", default=100, show_default=True, help="Training pictures of the study")
@click.option("--tiny", is_flag=True, help="Small networks, to try the script out on a CPU")
def main(
    name: str,
    host: Path,
    out: Path,
    minutes: float,
    share: str,
    given: str | None,
    data: Path | None,
    heldout: Path | None,
    images: int,
    tiny: bool,
) -> None:
    piece = Piece(name if share == "1/1" else f"{name}-{share.replace('/', '-of-')}", out, minutes)
    if name == "cost":
        return cost(piece, host, methods(given, share), tiny)
    if name == "methods":
        return each_method(piece, host, methods(given, share), tiny, out)
    if data is None or heldout is None:
        raise click.UsageError("study needs --data and --heldout; benchmarks/noto_faces.py makes both.")
    return study(piece, host, tiny, out, data, heldout, images)


if __name__ == "__main__":
    main()
