"""Record results of PyTorch-StudioGAN's augmentations as tests/golden/augment_family.npz.

    python benchmarks/record_augment_family.py --repo DIR --out tests/golden

The directory is a checkout of POSTECH-CVLab/PyTorch-StudioGAN at the commit below. As in record_golden.py, their code
runs where it lies and only numbers are written. ADA's groups run in double precision, so that sums in another order do
not show. Their parse_version is that of `packaging` where setuptools no longer has it."""

import argparse
import contextlib
import pathlib
import sys
import types

import numpy as np
import packaging.version
import torch
from record_golden import check_checkout, save

COMMIT = "947b35e9835b67860fdce44d337f6d7fee7c8db3"
FILES = (
    *("src/utils/cr.py", "src/utils/ada_aug.py", "src/utils/style_misc.py", "src/utils/style_ops/upfirdn2d.py"),
    *("src/utils/style_ops/grid_sample_gradfix.py", "src/utils/style_ops/conv2d_gradfix.py", "src/config.py"),
)
PIPES = {  # config.py's `ada_augpipe`
    "ada-blit": ("xflip", "rotate90", "xint"),
    "ada-geom": ("scale", "rotate", "aniso", "xfrac"),
    "ada-color": ("brightness", "contrast", "lumaflip", "hue", "saturation"),
    "ada-filter": ("imgfilter",),
    "ada-noise": ("noise",),
    "ada-cutout": ("cutout",),
}
CASES = (([3, 3, 24, 24], 0.7), ([2, 1, 24, 24], 1.0))  # the filters mirror 21 pixels
SEED = 1


@contextlib.contextmanager
def double_precision():
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def main():
    parser = argparse.ArgumentParser(description="Record golden files from PyTorch-StudioGAN.")
    parser.add_argument("--repo", metavar="DIR", type=pathlib.Path, required=True, help=f"Checkout at {COMMIT}")
    parser.add_argument("--out", metavar="DIR", type=pathlib.Path, required=True, help="Where the .npz file goes")
    args = parser.parse_args()
    check_checkout(args.repo, COMMIT, FILES)
    sys.path.insert(0, str(args.repo / "src"))
    sys.modules.setdefault("pkg_resources", types.SimpleNamespace(parse_version=packaging.version.parse))
    from utils import ada_aug, cr

    torch.set_num_threads(1)
    record = {"commit": COMMIT, "seed": SEED}
    for shape, p in CASES:
        size = "x".join(map(str, shape))
        torch.manual_seed(0)
        images = torch.rand(shape) * 2 - 1
        record |= {f"{size}/input": images, f"{size}/p": np.float64(p)}
        torch.manual_seed(SEED)
        record[f"{size}/flip"] = cr.random_flip(images, 0.5)
        torch.manual_seed(SEED)
        record[f"{size}/flip,shift"] = cr.apply_cr_aug(images)
        with double_precision():
            for name, parts in PIPES.items():
                pipe = ada_aug.AdaAugment(**dict.fromkeys(parts, 1))
                pipe.Hz_fbank = pipe.Hz_fbank.double()
                pipe.p.fill_(p)
                torch.manual_seed(SEED)
                record[f"{size}/{name}"] = pipe(images.double()).float()
    save(args.out / "augment_family.npz", record)


if __name__ == "__main__":
    main()
