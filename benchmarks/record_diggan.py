"""Record results of the authors' DigGAN as tests/golden/diggan.npz.

    python benchmarks/record_diggan.py --repo DIR --out tests/golden

The directory is a checkout of AilsaF/DigGAN at the commit below. As in record_golden.py, their code runs where it lies
and only numbers are written: two iterations of their training function, in double precision, with fixed images in the
place of G's and with a small smooth D. The gradients of the term are the difference of gradients with and without it.
Code that only loads data is replaced in memory, and so is `.cuda()`."""

import argparse
import pathlib
import sys
import types

import torch
from record_golden import check_checkout, patched, save

COMMIT = "6f344aa9ca61b340f0b620580563c4d5b8ef81f2"
FOLDER = "DiffAugment-biggan-cifar"
N, SHAPE, HIDDEN, WEIGHT = 6, (3, 2, 2), 7, 10.0


class SmallD(torch.nn.Module):
    def __init__(self, weights):
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, HIDDEN), torch.nn.Softplus())
        self.out = torch.nn.Linear(HIDDEN, 1)
        self.load_state_dict(weights)

    def forward(self, images):
        return self.out(self.net(images))


def gradients(train_fns, weights, real, generated, on):
    """Return D's gradients in each iteration, with the term or without it."""
    D, seen = SmallD(weights), []

    def keep():
        seen.append({name: value.grad.clone() for name, value in D.named_parameters()})

    D.optim = types.SimpleNamespace(zero_grad=D.zero_grad, step=keep)
    G = types.SimpleNamespace(optim=types.SimpleNamespace(zero_grad=lambda: None))
    images = iter(generated)

    def GD(z, y, x, dy, **_unused):
        shown = torch.cat([next(images), x]).requires_grad_(True)
        return D(shown), shown

    class Draw(list):
        def sample_(self):
            pass

    config = dict(batch_size=N, toggle_grads=False, num_D_steps=1, num_D_accumulations=1, DiffAugment="", CR=0)
    config |= dict(CR_augment=None, use_DigGAN=on, DigGAN_penalty_weight=WEIGHT, D_ortho=0, fix_G=True)
    train = train_fns.GAN_training_function(G, D, GD, Draw(), Draw(), None, {}, config)
    before = (None, None)
    for x in real:
        before = train(x, torch.zeros(N), *before)[1:]
    return seen


def main():
    parser = argparse.ArgumentParser(description="Record tests/golden/diggan.npz.")
    parser.add_argument("--repo", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    args = parser.parse_args()
    files = [f"{FOLDER}/{name}.py" for name in ("train_fns", "losses", "DiffAugment_pytorch")]
    check_checkout(args.repo, COMMIT, files)
    sys.path.insert(0, str(args.repo / FOLDER))
    sys.modules |= {name: types.ModuleType(name) for name in ("utils", "torchvision")}
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    import train_fns

    real, generated = torch.randn([2, 2, N, *SHAPE]).unbind()
    weights = {name: torch.randn(shape) for name, shape in (("net.1.weight", [HIDDEN, 12]), ("net.1.bias", [HIDDEN]))}
    weights |= {"out.weight": torch.randn([1, HIDDEN]), "out.bias": torch.randn([1])}
    record = {"commit": COMMIT, "weight": WEIGHT, "real": real, "generated": generated}
    record |= {f"D/{name}": value for name, value in weights.items()}
    with patched(torch.Tensor, "cuda", lambda original: lambda self: self):
        of_all, without = (gradients(train_fns, weights, real, generated, on) for on in (True, False))
    for iteration, pair in enumerate(zip(of_all, without, strict=True)):
        record |= {f"{iteration}/grad/{name}": pair[0][name] - pair[1][name] for name in pair[0]}
    save(args.out / "diggan.npz", record)


if __name__ == "__main__":
    main()
