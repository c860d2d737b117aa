"""Record results of published code of CR and bCR as tests/golden/consistency.npz.

    python benchmarks/record_consistency.py --contrad-repo DIR --studiogan-repo DIR --out tests/golden

The directories are checkouts of jh-jeong/ContraD (the penalties) and POSTECH-CVLab/PyTorch-StudioGAN (T) at the commits
below. The authors of CR and bCR have published no code for PyTorch. As in record_golden.py, code runs where it lies and
only numbers are written."""

import argparse
import pathlib
import sys
import types

import torch
from record_golden import check_checkout, load_file, save

CONTRAD = "4ac8ce538cfc5d068da52b960afe5227862162ff"
STUDIOGAN = "947b35e9835b67860fdce44d337f6d7fee7c8db3"
N, SIDE = 6, 8


def main():
    parser = argparse.ArgumentParser(description="Record tests/golden/consistency.npz from published repositories.")
    for name in ("contrad", "studiogan"):
        parser.add_argument(f"--{name}-repo", metavar="DIR", type=pathlib.Path, required=True)
    parser.add_argument("--out", metavar="DIR", type=pathlib.Path, required=True)
    args = parser.parse_args()
    check_checkout(args.contrad_repo, CONTRAD, ["penalty.py"])
    check_checkout(args.studiogan_repo, STUDIOGAN, ["src/utils/cr.py"])
    sys.modules["gin"], sys.modules["utils"] = types.ModuleType("gin"), types.ModuleType("utils")  # not called
    sys.modules["utils"].call_with_accepted_args = None
    penalty, cr = load_file(args.contrad_repo / "penalty.py"), load_file(args.studiogan_repo / "src/utils/cr.py")
    torch.set_num_threads(1)

    # T with its draws: the order of the draws is theirs.
    torch.manual_seed(0)
    images = torch.rand([2 * N, 3, SIDE, SIDE], dtype=torch.float64) * 2 - 1
    torch.manual_seed(1)
    moved = cr.apply_cr_aug(images)
    torch.manual_seed(1)
    mirrored = torch.FloatTensor(2 * N, 1).uniform_(0, 1) < 0.5
    offset = [torch.randint(-SIDE // 8, SIDE // 8 + 1, [2 * N, 1, 1]) for _ in range(2)]
    record = {"contrad_commit": CONTRAD, "studiogan_commit": STUDIOGAN, "images": images, "moved": moved}
    record |= {"mirrored": mirrored.flatten(), "offset": torch.stack(offset, dim=1).flatten(1)}

    # The penalties, with D(x) = v tanh(W x); the first half of the images is real.
    torch.manual_seed(2)
    W = (torch.randn([5, 3 * SIDE * SIDE], dtype=torch.float64) / SIDE).requires_grad_(True)
    v = torch.randn([1, 5], dtype=torch.float64, requires_grad=True)
    D = lambda x: (x.flatten(1) @ W.t()).tanh() @ v.t()
    record |= {"D/W": W, "D/v": v, "weight": 10.0, "generated_weight": 4.0}
    of_real = types.SimpleNamespace(augment_fn=lambda x: moved[:N])
    of_all = types.SimpleNamespace(augment_fn=lambda x: moved)
    losses = {
        "cr": penalty.consistency(D, of_real, images[:N], D(images[:N]), 10.0),
        "bcr": penalty.balanced_consistency(D, of_all, images, D(images[:N]), D(images[N:]), 10.0, 4.0),
    }
    for name, loss in losses.items():
        record[f"{name}/loss"] = loss
        record[f"{name}/grad/W"], record[f"{name}/grad/v"] = torch.autograd.grad(loss, [W, v])
    save(args.out / "consistency.npz", record)


if __name__ == "__main__":
    main()
