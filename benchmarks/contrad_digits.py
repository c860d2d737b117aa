"""ContraD's representation against that of plain training: linear probes on scikit-learn's digits.

    python benchmarks/contrad_digits.py --host HOST [--seeds 3] [--kimg 20] [--outdir DIR] [--markdown FILE]

1,000 of the digits, 8x8 photographs of handwriting, as 32x32 gray images with their classes; small networks; plain
training and ContraD with the same seeds, batch and number of images.
`stylegan-plugins probe` then fits a logistic regression to frozen features of each D: test accuracy on a quarter of the
images, mean of five splits. Runs that are in DIR already are not repeated."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from io import BytesIO
from pathlib import Path

import click
import numpy as np
from PIL import Image

COUNT, SIDE = 1000, 32
METHODS = {
    "plain": [],
    "contrad": ["--plugin=contrad", "--contrad-warmup=100"],
}


def write_digits(path: Path) -> None:
    from sklearn.datasets import load_digits

    digits = load_digits()
    labels = []
    with zipfile.ZipFile(path, "w") as file:
        for index, (image, label) in enumerate(zip(digits.images[:COUNT], digits.target[:COUNT], strict=True)):
            gray = Image.fromarray((image * 255 / 16).astype(np.uint8)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
            buffer = BytesIO()
            gray.save(buffer, "png")
            name = f"{index:05d}.png"
            file.writestr(name, buffer.getvalue())
            labels.append([name, int(label)])
        file.writestr("dataset.json", json.dumps({"labels": labels}))


def run(*command: str, cwd: str) -> None:
    done = subprocess.run(command, cwd=cwd, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout[-3000:]}")


def accuracy(host: str, data: Path, outdir: Path, options: list[str], kimg: int, seed: int) -> dict[str, float]:
    """Test accuracy by layer, of the D of one run."""
    if not list(outdir.glob("probe-*.json")):
        nets = ["--cbase=512", "--cmax=32", "--batch=32", "--workers=1", "--metrics=none", f"--tick={kimg}"]
        train = [sys.executable, "train.py", f"--data={data}", f"--outdir={outdir}", f"--kimg={kimg}", f"--seed={seed}"]
        run(*train, *nets, "--gpus=1", "--device=cpu", "--aug=noaug", "--snap=1", *options, cwd=host)
        probe = ["probe", str(next(outdir.iterdir())), f"--data={data}", "--host", host, f"--outdir={outdir}"]
        run(str(Path(sys.executable).with_name("stylegan-plugins")), *probe, cwd=host)
    record = json.loads(next(outdir.glob("probe-*.json")).read_text())
    return {row["layer"]: row["accuracy"] for row in record["rows"]}


@click.command()
@click.option("--host", required=True, type=click.Path(exists=True), help="A patched stylegan2-ada-pytorch host")
@click.option("--seeds", type=int, default=3, show_default=True)
@click.option("--kimg", type=int, default=20, show_default=True)
@click.option("--outdir", default="runs/contrad_digits", show_default=True, type=click.Path(path_type=Path))
@click.option("--markdown", help="Write the table there")
def main(host: str, seeds: int, kimg: int, outdir: Path, markdown: str | None) -> None:
    outdir = outdir.resolve()
    outdir.mkdir(parents=True, exist_ok=True)
    data = outdir / "digits.zip"
    if not data.exists():
        write_digits(data)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in METHODS}
    for seed in range(seeds):
        for name, options in METHODS.items():
            folder = outdir / f"{name}-{kimg}-{seed}"
            found[name].append(accuracy(host, data, folder, options, kimg, seed))
            print(name, seed, {layer: round(value, 3) for layer, value in found[name][-1].items()}, flush=True)
    layers = list(found["plain"][0])
    lines = [f"| training | {' | '.join(layers)} |", "| --- |" + " --- |" * len(layers)]
    for name, seen in found.items():
        values = [[100 * one[layer] for one in seen] for layer in layers]
        cells = [f"{np.mean(v):.1f} ± {np.std(v):.1f} ({', '.join(f'{x:.1f}' for x in v)})" for v in values]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    setting = f"{COUNT} digits, {SIDE}x{SIDE}, {kimg} kimg, batch 32, cbase 512, cmax 32, {seeds} seeds"
    text = "\n".join([*lines, "", f"Accuracy in %, mean ± deviation (each seed), by layer of D. {setting}."])
    print("\n" + text)
    if markdown:
        Path(markdown).write_text(text + "\n")


if __name__ == "__main__":
    main()
