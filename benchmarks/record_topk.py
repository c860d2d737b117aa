"""Record results of StudioGAN's top-k training as tests/golden/topk.npz.

    python benchmarks/record_topk.py --repo DIR --out tests/golden

The directory is a checkout of POSTECH-CVLab/PyTorch-StudioGAN at the commit below. The authors of top-k have published
no code. As in record_golden.py, code runs where it lies and only numbers are written: of src/utils/losses.py the two
functions that are used, since the file imports CUDA extensions."""

import argparse
import ast
import pathlib

import torch
from record_golden import check_checkout, save

COMMIT = "947b35e9835b67860fdce44d337f6d7fee7c8db3"
FILE = "src/utils/losses.py"
BATCH, GAMMA, NU, EPOCHS = 32, 0.97, 0.5, 30


def functions(path, *names):
    """Return these functions of a file."""
    tree = ast.parse(path.read_text())
    wanted = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in names]
    scope = {"torch": torch, "F": torch.nn.functional}
    exec(compile(ast.Module(wanted, []), str(path), "exec"), scope)
    return [scope[name] for name in names]


def main():
    parser = argparse.ArgumentParser(description="Record tests/golden/topk.npz from StudioGAN.")
    parser.add_argument("--repo", metavar="DIR", type=pathlib.Path, required=True)
    parser.add_argument("--out", metavar="DIR", type=pathlib.Path, required=True)
    args = parser.parse_args()
    check_checkout(args.repo, COMMIT, [FILE])
    adjust_k, g_logistic = functions(args.repo / FILE, "adjust_k", "g_logistic")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    record = {"commit": COMMIT, "gamma": GAMMA, "nu": NU}
    k, ks, losses, gradients = BATCH, [], [], []
    logits = torch.randn([EPOCHS, BATCH], dtype=torch.float64)
    for row in logits:
        row = row.clone().requires_grad_(True)
        loss = g_logistic(torch.topk(row, int(k)).values, DDP=False)  # as src/worker.py does
        ks.append(int(k))
        losses.append(loss)
        gradients += torch.autograd.grad(loss, [row])
        k = adjust_k(k, GAMMA, int(BATCH * NU))
    record |= {"logits": logits, "k": torch.tensor(ks), "loss": torch.stack(losses), "grad": torch.stack(gradients)}
    save(args.out / "topk.npz", record)


if __name__ == "__main__":
    main()
