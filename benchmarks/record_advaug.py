"""Record results of the authors' AdvAug as tests/golden/advaug.npz.

    python benchmarks/record_advaug.py --repo DIR --out tests/golden

The directory is a checkout of VITA-Group/Ultra-Data-Efficient-GAN-Training at the commit below. As in record_golden.py,
their code runs where it lies and only numbers are written: one step of D and one of G of `train_adv_gd`, in double
precision, with small networks that have the interface of theirs. `.cuda()` is replaced in memory."""

import argparse
import importlib
import pathlib
import sys
import types

import numpy as np
import torch
from record_golden import check_checkout, patched, save

COMMIT = "9a9a8df7aa4a0cec90255a5889164a8228afa596"
N, SIDE, FEATURES, Z, HIDDEN, GAMMA = 5, 4, 6, 3, 7, 0.05
PIXELS = 3 * SIDE * SIDE


class SmallD(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.l5 = torch.nn.Linear(PIXELS, FEATURES), torch.nn.Linear(FEATURES, 1)

    def forward(self, x, fc=True, only_fc=False):
        x = x if only_fc else torch.tanh(self.first(x.flatten(1)))
        return self.l5(x) if fc or only_fc else x


class SmallG(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.l1, self.last = torch.nn.Linear(Z, HIDDEN), torch.nn.Linear(HIDDEN, PIXELS)

    def forward(self, z, only_l1=False, l1=True):
        h = self.l1(z) if l1 else z
        return h if only_l1 else torch.tanh(self.last(torch.tanh(h))).reshape(-1, 3, SIDE, SIDE)


def main():
    parser = argparse.ArgumentParser(description="Record tests/golden/advaug.npz.")
    parser.add_argument("--repo", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    args = parser.parse_args()
    check_checkout(args.repo, COMMIT, ["SNGAN/functions_adv.py"])
    sys.path.insert(0, str(args.repo / "SNGAN"))
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    networks = {"D": SmallD(), "G": SmallG()}
    record = {"commit": COMMIT, "gamma": GAMMA, "real": torch.rand([N, 3, SIDE, SIDE]) * 2 - 1}
    for key, network in networks.items():
        for parameter in network.parameters():
            parameter.data = torch.randn_like(parameter)
        record |= {f"{key}/{name}": value.detach().clone() for name, value in network.named_parameters()}
    drawn = []

    def normal(*given):
        drawn.append(np.random.RandomState(len(drawn)).randn(*given[2]))
        return drawn[-1]

    def keep(key):
        found = {f"{key}/grad/{n}": v.grad.clone() for n, v in networks[key].named_parameters()}
        record.update(found)

    def optimizer(key):
        return types.SimpleNamespace(zero_grad=networks[key].zero_grad, step=lambda: keep(key))

    settings = types.SimpleNamespace(
        random_seed=0, latent_dim=Z, n_critic=1, gen_batch_size=N, print_freq=1, max_epoch=1
    )
    writer = {"writer": types.SimpleNamespace(add_scalar=lambda *_: None), "train_global_steps": 0}
    # D's step leaves gradients in G and the other way round; each is kept when its own optimiser steps.
    train = importlib.import_module("functions_adv").train_adv_gd
    average = [value.clone().detach() for value in networks["G"].parameters()]
    loader = [(record["real"], None)]
    with (
        patched(torch.Tensor, "cuda", lambda original: lambda self, device=None: self),
        patched(torch.Tensor, "type", lambda original: lambda self, *kind: self),
        patched(torch.cuda, "FloatTensor", lambda original: torch.as_tensor),
        patched(np.random, "normal", lambda original: normal),
    ):
        optimizers = optimizer("G"), optimizer("D")
        train(settings, networks["G"], networks["D"], *optimizers, average, loader, 0, writer, steps=1, gamma=GAMMA)
    record |= {"D/z": torch.from_numpy(drawn[0]), "G/z": torch.from_numpy(drawn[1])}
    save(args.out / "advaug.npz", record)


if __name__ == "__main__":
    main()
