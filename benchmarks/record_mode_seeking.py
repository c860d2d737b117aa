"""Record results of the authors' mode-seeking loss as tests/golden/mode_seeking.npz.

    python benchmarks/record_mode_seeking.py --repo DIR --out tests/golden

The directory is a checkout of HelenMao/MSGAN at the commit below. As in record_golden.py, their code runs where it lies
and only numbers are written: G's step of their DCGAN, on given images and latents, without its adversarial loss."""

import argparse
import pathlib
import sys
import types

import torch
from record_golden import check_checkout, load_file, save

COMMIT = "e386c252f059703fcf5d439258949ae03dc46519"
FILE = "DCGAN-Mode-Seeking/model.py"
N = 5


def main():
    parser = argparse.ArgumentParser(description="Record tests/golden/mode_seeking.npz from the authors' repository.")
    parser.add_argument("--repo", metavar="DIR", type=pathlib.Path, required=True, help="Checkout of HelenMao/MSGAN")
    parser.add_argument("--out", metavar="DIR", type=pathlib.Path, required=True)
    args = parser.parse_args()
    check_checkout(args.repo, COMMIT, [FILE])
    sys.modules["networks"] = types.ModuleType("networks")  # not called
    update_G = load_file(args.repo / FILE).CDCGAN.update_G
    torch.set_num_threads(1)
    torch.manual_seed(0)
    images = (torch.rand([2, N, 3, 8, 8], dtype=torch.float64) * 2 - 1).requires_grad_(True)
    z = torch.randn([2, N, 7], dtype=torch.float64)
    step = types.SimpleNamespace(
        **{"gen_opt": types.SimpleNamespace(zero_grad=lambda: None, step=lambda: None), "D": None},
        **{"backward_G": lambda *args: 0, "label_one_hot": None},
        **{"fake_image1": images[0], "fake_image2": images[1], "z_random": z[0], "z_random2": z[1]},
    )
    update_G(step)
    save(
        args.out / "mode_seeking.npz",
        {"commit": COMMIT, "images": images, "z": z, "loss": step.loss_lz, "grad": images.grad},
    )


if __name__ == "__main__":
    main()
