"""Record what training leaves after 20 iterations on a CPU, and compare two records bit for bit.

    python benchmarks/baselines.py record OUT --host HOST [--host HOST ...] [--only NAME ...]
    python benchmarks/baselines.py compare BEFORE AFTER

For each patched host and each case: weights and buffers of G, D and G_ema, heads, moments of all optimisers, ADA's p,
the running path length, the states of the random number generators and every statistic. A refactoring that changes
none of these changes no numbers. Records depend on the processor and on the version of PyTorch, so both come from one
machine. OUT gets a file for each host and case; a case that has a file is skipped."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import click
import numpy as np
import PIL.Image
import torch

from stylegan_plugins.host.recognise import recognise

ITERATIONS, IMAGES, SIDE, PRIOR = 20, 64, 16, 12
SMALL = ["--cbase=256", "--cmax=16", "--batch=16", "--batch-gpu=8", "--workers=0", "--kimg=1", "--device=cpu"]
OTHER = {"stylegan3": ["--cfg=stylegan2", "--gpus=1", "--gamma=1", "--map-depth=2"]}
EAGER = {"G_reg_interval": None, "D_reg_interval": None}  # regularisation in each iteration

# Options of train.py, and changes of the training loop's arguments. {work} holds the inputs that `prepare` makes.
VISION = ["--vision-aided-models=test_vit={work}/test_vit.pth", "--vision-aided-warmup-kimg=0.08"]
DISP = ["--disp-features={work}/priors.npy"]
CASES: dict[str, tuple[list[str], dict[str, Any]]] = {
    "none": ([], {}),
    "none-eager-hinge": (["--gan-loss=hinge"], EAGER),
    "none-labels-lsgan": (["--cond=1", "--gan-loss=lsgan"], {}),
    "diffaugment": (["--plugin=diffaugment"], {}),
    "diffaugment-ada": (["--plugin=diffaugment", "--aug=ada"], {}),
    "diffaugment-reals": (["--plugin=diffaugment", "--diffaugment-where=reals"], {}),
    "augself": (["--plugin=augself"], {}),
    "augself-ada-eager": (["--plugin=augself", "--aug=ada"], EAGER),
    "augself-labels": (["--plugin=augself", "--cond=1"], {}),
    "contrad": (["--plugin=contrad"], {}),
    "contrad-ada-eager": (["--plugin=contrad", "--aug=ada", "--contrad-r1=clean", "--contrad-mbstd=apart"], EAGER),
    "augself-contrad": (["--plugin=augself,contrad"], {}),
    "disp": (["--plugin=disp", *DISP], {}),
    "disp-eager": (["--plugin=disp", "--mirror=1", *DISP], EAGER),
    "disp-diffaugment": (["--plugin=disp,diffaugment", *DISP], {}),
    "vision-aided": (["--plugin=vision-aided", *VISION], {}),
    "vision-aided-labels-heads": (
        ["--plugin=vision-aided", "--cond=1", "--vision-aided-warmup-heads=1", *VISION],
        {},
    ),
    "augself-vision-aided": (["--plugin=augself,vision-aided", *VISION], {}),
    "diagnostics": (
        ["--plugin=diagnostics", "--diagnostics-holdout=8", "--diagnostics-images=16"],
        {"kimg_per_tick": 0.1},
    ),
    "diagnostics-contrad": (["--plugin=diagnostics,contrad", "--diagnostics-images=16"], {"kimg_per_tick": 0.1}),
    "freezed": (["--plugin=freezed", "--freezed-layers=4", "--resume={work}/{family}.pkl"], {}),
    "transfergan": (["--plugin=transfergan", "--transfergan-preset=paper", "--resume={work}/{family}.pkl"], {}),
}

# Runs in a host's folder; `changes` go into the training loop's arguments, and what it leaves goes to a file.
DRIVER = """
import json, runpy, sys
import numpy as np, torch
sys.path.insert(0, ".")
changes, out = json.loads(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
from stylegan_plugins import bridge
from training import training_loop as module
loop = module.training_loop

def short(**args):
    iterations = changes.pop("iterations")
    loop(**{**args, **changes, "total_kimg": iterations * args["batch_size"] / 1000})
    session = bridge.session()
    found = {name: getattr(session, name).state_dict() for name in ("G", "D", "G_ema")}
    found["heads"] = session.heads.state_dict()
    found["optimizers"] = [
        {key: value for key, value in opt.state[parameter].items()}
        for opt in session.optimizers for group in opt.param_groups for parameter in group["params"]
    ]
    pipe = session.augment_pipe
    found["p"] = None if pipe is None else pipe.p
    found["loss"] = {n: v for n, v in vars(session.loss).items() if isinstance(v, torch.Tensor)}
    name, keys, *rest = np.random.get_state()
    found["random"] = [torch.get_rng_state(), torch.from_numpy(keys.astype(np.int64)), *rest]
    torch.save(found, out)

module.training_loop = short
sys.argv = ["train.py", *sys.argv[3:]]
runpy.run_path("train.py", run_name="__main__")
"""


def prepare(work: Path) -> None:
    """Write the data set, priors and weights that the cases use; the same ones each time."""
    import timm

    random = np.random.RandomState(0)
    names = [f"00000/img{index:08d}.png" for index in range(IMAGES)]
    with zipfile.ZipFile(work / "images.zip", "w") as archive:
        for name in names:
            small = PIL.Image.fromarray(random.randint(256, size=[4, 4, 3], dtype=np.uint8))
            data = io.BytesIO()
            small.resize((SIDE, SIDE), PIL.Image.Resampling.BICUBIC).save(data, "png")
            archive.writestr(name, data.getvalue())
        labels = [[name, index % 3] for index, name in enumerate(names)]
        archive.writestr("dataset.json", json.dumps({"labels": labels}))
    np.save(work / "priors.npy", random.randn(IMAGES, PRIOR).astype(np.float32))
    torch.manual_seed(0)
    torch.save(timm.create_model("test_vit").state_dict(), work / "test_vit.pth")


def train(host: Path, family: str, work: Path, case: str, out: Path) -> None:
    """Train one case, and write what it leaves to `out`."""
    options, changes = CASES[case]
    filled = [option.format(work=work, family=family) for option in options]
    changes = {"iterations": ITERATIONS, "image_snapshot_ticks": None, **changes}
    runs = work / f"{family}-{case}"
    arguments = [f"--data={work}/images.zip", f"--outdir={runs}", *SMALL, *OTHER.get(family, []), *filled]
    subprocess.run(
        [sys.executable, "-c", DRIVER, json.dumps(changes), str(work / "left.pt"), *arguments],
        cwd=host,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    (run_dir,) = runs.iterdir()
    if case == "none":
        newest = max(run_dir.glob("network-snapshot-*.pkl"))
        (work / f"{family}.pkl").write_bytes(newest.read_bytes())
    lines = [json.loads(line) for line in (run_dir / "stats.jsonl").read_text().splitlines()]
    clocks = ("Timing/", "Resources/", "timestamp")
    statistics = [{n: v for n, v in line.items() if not n.startswith(clocks)} for line in lines]
    torch.save({**torch.load(work / "left.pt", weights_only=True), "statistics": statistics}, out)


@click.group()
def cli() -> None:
    pass


@cli.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--host", "hosts", multiple=True, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--only", multiple=True, type=click.Choice(list(CASES)), help="Cases  [default: all]")
def record(out: Path, hosts: tuple[Path, ...], only: tuple[str, ...]) -> None:
    """Train all cases in turn and write what each leaves to a file in OUT."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as top:
        work = Path(top)
        prepare(work)
        for host in hosts:
            family = recognise(host).family
            for case in dict.fromkeys(["none", *(only or CASES)]):  # fine-tuning starts from its snapshot
                file = out / f"{family}-{case}.pt"
                if case != "none" and file.exists():
                    continue
                train(host, family, work, case, file)
                click.echo(file)


@cli.command()
@click.argument("before", type=click.Path(path_type=Path, exists=True))
@click.argument("after", type=click.Path(path_type=Path, exists=True))
def compare(before: Path, after: Path) -> None:
    """Say for each record what differs. Exit code 1 if anything does."""
    different = 0
    for file in sorted(after.glob("*.pt")):
        if not (before / file.name).exists():
            click.echo(f"{file.stem}: not in {before}")
            continue
        found = differences(*(torch.load(folder / file.name, weights_only=True) for folder in (before, after)))
        click.echo(f"{file.stem}: {', '.join(found[:8]) or 'equal'}{f' and {len(found) - 8} more' * (len(found) > 8)}")
        different += bool(found)
    sys.exit(different > 0)


def differences(one: Any, other: Any, where: str = "") -> list[str]:
    """Return the places where two records differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        missing = [f"{where}/{key} in one alone" for key in sorted(map(str, one.keys() ^ other.keys()))]
        return missing + [d for key in one if key in other for d in differences(one[key], other[key], f"{where}/{key}")]
    if isinstance(one, list) and isinstance(other, list):
        if len(one) != len(other):
            return [f"{where}: {len(one)} and {len(other)} items"]
        return [
            d for index, pair in enumerate(zip(one, other, strict=True)) for d in differences(*pair, f"{where}/{index}")
        ]
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        equal = one.dtype == other.dtype and torch.equal(one.nan_to_num(), other.nan_to_num())
    else:
        equal = one == other or (one != one and other != other)
    return [] if equal else [where]


if __name__ == "__main__":
    cli()
