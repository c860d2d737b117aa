"""Do images follow their priors? Variants of each training image, beside that image, in the feature space.

    python benchmarks/disp_like.py --host HOST [--side 16] [--kimg 10] [--seeds 3] [--outdir DIR] [--markdown FILE]

Trains disp on 64 color crops of photographs with small networks, makes variants of each training image, as
`stylegan-plugins sample --like` does, and takes the mean of their features C. For each image: is it nearer to its
variants than the median of the other images? A permutation test gives the share of 100,000 random assignments of images
to variants in which at least as many images are nearer. There are two distances. The first is between the features. The
second is the angle between them after subtraction of the mean over all variants, or all images: common properties of
generated images, blur for example, move all of them alike in feature space."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from pathlib import Path

import click
import numpy as np
import torch
from PIL import Image

COUNT = 64
SHUFFLES = 100_000


def write_crops(path: Path, side: int) -> None:
    import skimage.data

    photographs = [skimage.data.astronaut(), skimage.data.coffee(), skimage.data.chelsea()]
    random = np.random.RandomState(0)
    with zipfile.ZipFile(path, "w") as archive:
        for index in range(COUNT):
            photograph = photographs[index % len(photographs)]
            size = random.randint(side, 4 * side)
            y, x = (random.randint(length - size) for length in photograph.shape[:2])
            crop = Image.fromarray(photograph[y : y + size, x : x + size]).resize(
                (side, side), Image.Resampling.LANCZOS
            )
            buffer = io.BytesIO()
            crop.save(buffer, "png")
            archive.writestr(f"{index:03d}.png", buffer.getvalue())


def train(host: str, data: Path, outdir: Path, kimg: int, seed: int) -> None:
    nets = ["--cbase=256", "--cmax=32", "--batch=16", "--gamma=0.02", "--workers=0", "--metrics=none", "--device=cpu"]
    length = [f"--kimg={kimg}", f"--tick={kimg}", "--snap=1", f"--seed={seed}", "--aug=noaug", "--gpus=1"]
    plugin = ["--plugin=disp", "--disp-features=efficientnet_lite0"]
    command = [sys.executable, "train.py", f"--data={data}", f"--outdir={outdir}", *nets, *length, *plugin]
    done = subprocess.run(command, cwd=host, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        raise SystemExit(done.stdout[-3000:])


def wins(run: Path, data: Path, variants: int) -> dict[str, tuple[int, float]]:
    """Return, by distance, how many images win, and the share of random assignments in which as many do."""
    from stylegan_plugins.analysis import sample
    from stylegan_plugins.files import datasets
    from stylegan_plugins.vision import backbones

    G, sampler, _ = sample.load_generator(run, torch.device("cpu"))
    backbone = backbones.load("efficientnet_lite0")
    _, images = datasets.read_images(data)
    x = torch.from_numpy(np.stack(list(images))).float() / 127.5 - 1
    made = []
    with torch.no_grad():
        real = torch.cat([backbone(part) for part in x.split(32)])
        for image in x.split(1):
            pictures = sample.images(G, list(range(variants)), sampler=sampler, like=image)
            batch = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1
            made.append(backbone(batch).mean(dim=0))
    generated = torch.stack(made)
    unit = lambda f: torch.nn.functional.normalize(f - f.mean(dim=0))
    distances = {"distance": torch.cdist(generated, real), "angle, centred": -unit(generated) @ unit(real).T}
    found = {}
    for name, d in distances.items():
        nearer = (d[:, None, :] < d[:, :, None]).float().sum(dim=2) / (len(x) - 1)  # share of images nearer than j to i
        won = (nearer < 0.5).numpy()
        random = np.random.RandomState(0)
        shuffled = [won[np.arange(len(x)), random.permutation(len(x))].sum() for _ in range(SHUFFLES)]
        count = int(won.diagonal().sum())
        found[name] = (count, (1 + sum(other >= count for other in shuffled)) / (1 + SHUFFLES))
    return found


@click.command()
@click.option("--host", required=True, type=click.Path(exists=True), help="A patched stylegan2-ada-pytorch host")
@click.option("--side", type=int, default=16, show_default=True)
@click.option("--kimg", type=int, default=10, show_default=True)
@click.option("--seeds", type=int, default=3, show_default=True)
@click.option("--variants", type=int, default=8, show_default=True)
@click.option("--outdir", default="runs/disp_like", show_default=True, type=click.Path(path_type=Path))
@click.option("--markdown", help="Write the table there")
def main(host: str, side: int, kimg: int, seeds: int, variants: int, outdir: Path, markdown: str | None) -> None:
    from stylegan_plugins.host import devices, find

    devices.choose("cpu")
    find.choose_host(Path(host))
    outdir = outdir.resolve()
    outdir.mkdir(parents=True, exist_ok=True)
    data = outdir / f"crops{side}.zip"
    if not data.exists():
        write_crops(data, side)
    lines = [
        "| seed | kimg | distance: nearer | p | angle, centred: nearer | p |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for seed in range(seeds):
        folder = outdir / f"{side}-{kimg}-{seed}"
        if not folder.exists():
            train(host, data, folder, kimg, seed)
        found = wins(next(folder.iterdir()), data, variants)
        cells = [f"{count} of {COUNT} | {p:.2g}" for count, p in found.values()]
        lines.append(f"| {seed} | {kimg} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    text = "\n".join([*lines, "", f"{COUNT} color crops, {side}x{side}, batch 16, cbase 256, cmax 32."])
    print("\n" + text)
    if markdown:
        Path(markdown).write_text(text + "\n")


if __name__ == "__main__":
    main()
