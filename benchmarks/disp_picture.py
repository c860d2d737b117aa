"""Draw the pictures of docs/methods/disp.md: samples of a run, and variants of some of its training images.

    python benchmarks/disp_picture.py RUN --data=ZIP --host=HOST --out=docs/pictures/disp.png

A row of the left block is a training image, then eight variants of it from `stylegan-plugins sample --like`. The right
block has the images of `stylegan-plugins sample` for seeds 0 to 63."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import torch
from PIL import Image

ROWS, GAP = 8, 8


@click.command()
@click.argument("run", type=click.Path(exists=True, path_type=Path))
@click.option("--data", required=True)
@click.option("--host", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path))
def main(run: Path, data: str, host: Path, out: Path) -> None:
    from stylegan_plugins.analysis import sample
    from stylegan_plugins.files import datasets
    from stylegan_plugins.host import devices, find

    devices.choose("cpu")
    find.choose_host(host)
    G, sampler, _ = sample.load_generator(run, torch.device("cpu"))
    _, images = datasets.read_images(data)
    chosen = list(images)[:ROWS]
    side = G.img_resolution
    canvas = np.full([ROWS * side, 17 * side + 2 * GAP, 3], 255, dtype=np.uint8)
    for row, image in enumerate(chosen):
        like = torch.from_numpy(image)[None].float() / 127.5 - 1
        variants = sample.images(G, list(range(8)), sampler=sampler, like=like)
        samples = sample.images(G, list(range(8 * row, 8 * row + 8)), sampler=sampler)
        top = slice(row * side, (row + 1) * side)
        canvas[top, :side] = image.transpose(1, 2, 0)
        canvas[top, side + GAP : 9 * side + GAP] = np.concatenate(variants, axis=1)
        canvas[top, 9 * side + 2 * GAP :] = np.concatenate(samples, axis=1)
    picture = Image.fromarray(canvas)
    picture.resize((picture.width * 2, picture.height * 2), Image.Resampling.NEAREST).save(out)
    print(out)


if __name__ == "__main__":
    main()
