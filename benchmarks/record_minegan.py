"""Record results of the authors' miner as tests/golden/minegan.npz.

    python benchmarks/record_minegan.py --repo DIR --out tests/golden

The directory is a checkout of yaxingwang/MineGAN at the commit below. As in record_golden.py, their code runs where it
lies and only numbers are written. Their own CUDA operations, which the miner does not use, are left out."""

import argparse
import pathlib
import sys
from unittest import mock

import torch
from record_golden import check_checkout, load_file, save

COMMIT = "a810f2d77f36ea9cf6993dede958b6f5d458f4b6"
FILE = "styleGANv2/model.py"
WIDTH, N = 6, 4


def main():
    parser = argparse.ArgumentParser(description="Record tests/golden/minegan.npz from the authors' repository.")
    parser.add_argument(
        "--repo", metavar="DIR", type=pathlib.Path, required=True, help="Checkout of yaxingwang/MineGAN"
    )
    parser.add_argument("--out", metavar="DIR", type=pathlib.Path, required=True)
    args = parser.parse_args()
    check_checkout(args.repo, COMMIT, [FILE])
    sys.modules["op"] = mock.MagicMock()
    torch.manual_seed(0)
    miner = load_file(args.repo / FILE).Miner(WIDTH).double()
    u = torch.randn([N, WIDTH], dtype=torch.float64, requires_grad=True)
    (z,) = miner(u)
    z.square().sum().backward()
    named = {name.removeprefix("transform."): value for name, value in miner.named_parameters()}
    record = {f"M/{name}": value for name, value in named.items()}
    record |= {f"grad/{name}": value.grad for name, value in [*named.items(), ("u", u)]}
    save(args.out / "minegan.npz", {"commit": COMMIT, "u": u, "z": z, **record})


if __name__ == "__main__":
    main()
