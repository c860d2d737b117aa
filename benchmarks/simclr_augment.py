"""SimCLR's augmentation, ours beside kornia's: cost of a forward and backward pass, and what each of them can do.

    pip install kornia
    python benchmarks/simclr_augment.py [--rounds 15] [--markdown FILE]

Both transform the same images in one process, taking turns; the ratio is of their times, ours / kornia's."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import click
import kornia
import numpy as np
import torch
from cost import interval

from training_ext.contrad import SIMCLR, SimCLR


def kornias(blur: bool, side: int) -> torch.nn.Module:
    K = kornia.augmentation
    layers = [
        K.RandomResizedCrop((side, side), scale=(0.2, 1.0), ratio=(3 / 4, 4 / 3), cropping_mode="resample"),
        K.RandomHorizontalFlip(p=0.5),
        K.ColorJitter(0.4, 0.4, 0.4, 0.1, p=0.8),
        K.RandomGrayscale(p=0.2),
    ]
    if blur:
        radius = side // 10 // 2
        layers.append(K.RandomGaussianBlur((2 * radius + 1, 2 * radius + 1), (0.1, 2.0), p=0.5))
    sequence = torch.nn.Sequential(*layers)
    return lambda x: sequence((x + 1) / 2) * 2 - 1


def seconds(function: Callable, images: torch.Tensor) -> float:
    start = time.perf_counter()
    leaf = images.clone().requires_grad_(True)
    function(leaf).square().mean().backward()
    return time.perf_counter() - start


def works(check: Callable[[], bool]) -> str:
    try:
        return "yes" if check() else "no"
    except (RuntimeError, ValueError) as error:
        return f"no ({str(error).splitlines()[0][:90]})"


def checks(function: Callable, side: int) -> dict[str, str]:
    images = torch.rand([16, 3, side, side]) * 2 - 1

    def twice() -> bool:
        leaf = images.clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(function(leaf).square().sum(), [leaf], create_graph=True)
        torch.autograd.grad(gradient.square().sum(), [leaf])
        return True

    def finite_on_gray() -> bool:
        leaf = torch.full([32, 3, side, side], 0.2, requires_grad=True)
        total = sum(torch.autograd.grad(function(leaf).sum(), [leaf])[0] for _ in range(4))
        return bool(torch.isfinite(total).all())

    def one_channel() -> bool:
        return function(images[:, :1]).shape == images[:, :1].shape

    def own_draws() -> bool:
        same = images[:1].expand(16, -1, -1, -1)
        return len({round(float(x), 4) for x in function(same).sum([1, 2, 3])}) > 12

    return {
        "second derivative (R1 of clean images)": works(twice),
        "finite gradients on gray images": works(finite_on_gray),
        "images of one channel": works(one_channel),
        "separate draws for each image": works(own_draws),
    }


@click.command()
@click.option("--rounds", type=int, default=15, show_default=True)
@click.option("--threads", type=int, default=1, show_default=True)
@click.option("--markdown", help="Write the tables there")
def main(rounds: int, threads: int, markdown: str | None) -> None:
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    lines = ["| images | variant | ours / kornia | 95% interval |", "| --- | --- | --- | --- |"]
    for side, batch, variant in ((32, 64, "simclr"), (128, 16, "simclr-hq"), (256, 8, "simclr-hq")):
        ours = lambda x, variant=variant: SimCLR(**SIMCLR[variant])(x)[0]
        contestants = {"ours": ours, "kornia": kornias(variant != "simclr", side)}
        images = torch.rand([batch, 3, side, side]) * 2 - 1
        times: dict[str, list[float]] = {name: [] for name in contestants}
        for number in range(rounds + 1):
            for name in sorted(contestants, reverse=bool(number % 2)):
                spent = sum(seconds(contestants[name], images) for _ in range(5))
                if number:  # the first round warms up
                    times[name].append(spent)
        median, low, high = interval(np.array(times["ours"]) / np.array(times["kornia"]))
        lines.append(f"| {batch} of {side}x{side} | {variant} | {median:.2f} | {low:.2f} to {high:.2f} |")
        print(lines[-1], flush=True)
    found = {
        "ours": checks(lambda x: SimCLR(hsv_gradient="exact")(x)[0], 32),
        "kornia": checks(kornias(False, 32), 32),
    }
    lines += ["", "| check | ours | kornia |", "| --- | --- | --- |"]
    lines += [f"| {check} | {found['ours'][check]} | {found['kornia'][check]} |" for check in found["ours"]]
    lines += ["", f"kornia {kornia.__version__}, torch {torch.__version__}, {threads} CPU thread(s), {rounds} rounds."]
    text = "\n".join(lines)
    print("\n" + text)
    if markdown:
        Path(markdown).write_text(text + "\n")


if __name__ == "__main__":
    main()
