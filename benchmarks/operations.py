"""Count the operations of each method in a cycle of 16 iterations, and compare them with its equations.

    python benchmarks/operations.py --host HOST [METHOD...]

Operations are convolutions and matrix products, forward and backward, as torch counts them. The equations need a sum of
passes of G and D, each counted alone in the same networks; see NEEDS. Small networks, 32x32, batch 16, on a CPU. Exit
code 1 if a method has over 10% more operations than its equations need."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
import torch
from cost import BATCH, SIDE, Counter, host_trainer

from stylegan_plugins.host.modules import host_module

# Passes that a method adds to the host's in one iteration: (kind of pass, how many), for lazy phases divided by their
# interval. Convolutions of heads are not listed, and operations of FFTs are not counted.
#   D          forward, and backward to D's weights: images have no gradient
#   D through  forward, and backward to images alone, as in G's step; D back is its second half
#   D forward  without gradients
#   D slope    forward, the gradient of logits by images, and its backward to D's weights, as R1 has it
#   G          forward, and backward to G's weights; G back: backward to w alone, without the forward pass
#   G forward  without gradients
NEEDS: dict[str, list[tuple[str, float]]] = {
    "none": [],
    "diffaugment": [],
    "maskedgan": [],
    "noise": [],
    "lecam": [],
    "apa": [],
    "topk": [],
    "ggdr": [],
    "augself": [("D", 2), ("D through", 1)],  # clean images of both sources, and G's
    "contrad": [("D", 1)],  # the second view of real images
    "cr": [("D", 1)],
    "bcr": [("D", 2)],
    "zcr": [("D", 1), ("G forward", 1), ("G", 1)],
    "mode-seeking": [("G", 2)],  # the pair has no style mixing, which the host's images have
    "ssgan": [("D", 1), ("D through", 1)],  # a quarter of the batch at four angles
    "diggan": [("D slope", 1 / 16), ("G forward", 1 / 16)],  # R1 has real images' gradient
    "insgen": [("D forward", 3), ("G forward", 1)],  # keys: two in D's step, one in G's
    "advaug": [("D back", 1), ("G back", 1), ("D through", 1), ("G", 1)],  # the attack, and G's perturbed step
    "genco": [("D", 4), ("D through", 2), ("D slope", 2 / 16)],  # two further discriminators
}


def counted(function: Any) -> int:
    with Counter() as counter:
        function()
    return counter.total


def passes(trainer: Any) -> dict[str, int]:
    """Return operations of one pass of each kind, for one batch."""
    G, D = trainer.G, trainer.D
    no_weight_gradients = host_module("torch_utils.ops.conv2d_gradfix").no_weight_gradients
    z, c = torch.randn([BATCH, G.z_dim]), torch.zeros([BATCH, G.c_dim])
    images, labels = torch.randn([BATCH, 3, SIDE, SIDE]), torch.zeros([BATCH, 0])

    def of_D(weights: bool, inputs: bool) -> int:
        D.requires_grad_(weights)
        count = counted(lambda: D(images.clone().requires_grad_(inputs), labels).sum().backward())
        D.requires_grad_(False)
        return count

    def of_G() -> int:
        G.requires_grad_(True)
        count = counted(lambda: G(z, c).sum().backward())
        G.requires_grad_(False)
        return count

    def slope() -> int:
        D.requires_grad_(True)

        def penalty() -> None:
            leaf = images.clone().requires_grad_(True)
            with no_weight_gradients():
                (gradient,) = torch.autograd.grad(D(leaf, labels).sum(), [leaf], create_graph=True)
            gradient.square().sum().backward()

        count = counted(penalty)
        D.requires_grad_(False)
        return count

    with torch.no_grad():
        forward = {"D forward": counted(lambda: D(images, labels)), "G forward": counted(lambda: G(z, c))}
    w = torch.randn([BATCH, G.num_ws, G.w_dim]).requires_grad_(True)
    through_D = of_D(False, True)
    return {
        **forward,
        "D": of_D(True, False),
        "D through": through_D,
        "D back": through_D - forward["D forward"],
        "D slope": slope(),
        "G": of_G(),
        "G back": counted(lambda: G.synthesis(w).sum().backward()) - counted(lambda: G.synthesis(w.detach())),
    }


@click.command()
@click.option("--host", type=click.Path(path_type=Path, exists=True), required=True, help="An ada host")
@click.argument("methods", nargs=-1)
def main(host: Path, methods: tuple[str, ...]) -> None:
    channels = dict(channel_base=1024, channel_max=32)
    stock = host_trainer(str(host), None, channels)
    units, of_stock = passes(stock), stock.operations()
    print("| method | operations / stock's | needed / stock's | counted / needed |\n| --- | --- | --- | --- |")
    failed = False
    for name in methods or NEEDS:
        trainer = host_trainer(str(host), [] if name == "none" else [name], channels)
        needed = of_stock + 16 * sum(units[kind] * count for kind, count in NEEDS[name])
        share = trainer.operations() / needed
        failed |= share > 1.1
        print(f"| {name} | {share * needed / of_stock:.3f} | {needed / of_stock:.3f} | {share:.3f} |", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
