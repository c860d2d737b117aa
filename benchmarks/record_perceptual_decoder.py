"""Record results of the authors' perceptual discriminator as tests/golden/perceptual_decoder.npz.

    python benchmarks/record_perceptual_decoder.py --repo DIR --out tests/golden

The directory is a checkout of egorzakharov/PerceptualGAN at the commit below. As in record_golden.py, their code runs
where it lies and only numbers are written. Their frozen network is replaced by given maps with few channels."""

import argparse
import pathlib
import sys
import types
import zlib

import numpy as np
import torch
from record_golden import check_checkout, save

COMMIT = "8aee6601f4296811a765b5942e6d8d951e997500"
N, SIDES, CHANNELS, OUTPUTS = 2, [256, 128, 64, 32, 16], [3, 4, 5, 6, 7], [8, 4, 1]


def drawn(name, shape):
    return torch.from_numpy(np.random.RandomState(zlib.crc32(name.encode())).randn(*shape))


def main():
    parser = argparse.ArgumentParser(description="Record tests/golden/perceptual_decoder.npz.")
    for name in ("repo", "out"):
        parser.add_argument(f"--{name}", metavar="DIR", type=pathlib.Path, required=True)
    args = parser.parse_args()
    check_checkout(args.repo, COMMIT, ["models/discriminator.py"])
    torch.set_num_threads(1)
    sys.path.insert(0, str(args.repo))
    sys.modules["src"] = types.SimpleNamespace(utils=types.SimpleNamespace(weights_init=lambda module: None))
    from models.discriminator import Discriminator

    options = types.SimpleNamespace(
        dis_input_sizes=SIDES,
        dis_input_num_channels=CHANNELS,
        dis_output_sizes=OUTPUTS,
        dis_num_channels=64,
        dis_max_channels=256,
        dis_kernel_size=4,
        dis_kernel_size_io=3,
    )
    network = Discriminator(options).double()
    parameters = dict(network.named_parameters())
    for name, value in parameters.items():
        value.data = drawn(name, value.shape) / max(value[0].numel(), 1) ** 0.5
    levels = [
        drawn(f"level{k}", [N, channels, side, side]).requires_grad_(True)
        for k, (channels, side) in enumerate(zip(CHANNELS, SIDES, strict=True))
    ]
    logits = network(torch.zeros([N, 3, 1, 1]), encoder=lambda image: levels)
    loss = sum(torch.nn.functional.binary_cross_entropy_with_logits(each, torch.ones_like(each)) for each in logits)
    inputs = {**{f"level{k}": level for k, level in enumerate(levels)}, **parameters}
    gradients = torch.autograd.grad(loss, list(inputs.values()))
    record = {"commit": COMMIT, "loss": loss, **{f"logits{k}": value for k, value in enumerate(logits)}}
    for (name, _), gradient in zip(inputs.items(), gradients, strict=True):
        record[f"grad/{name}"] = (gradient * drawn(f"{name}/probe", gradient.shape)).sum()
    save(args.out / "perceptual_decoder.npz", record)


if __name__ == "__main__":
    main()
