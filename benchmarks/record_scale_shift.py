"""Record results of the authors' batch statistics adaptation as tests/golden/scale_shift.npz.

    python benchmarks/record_scale_shift.py --repo DIR --out tests/golden

The directory is a checkout of nogu-atsu/small-dataset-image-generation at the commit below. As in record_golden.py,
their code runs where it lies and only numbers are written. It is of Chainer, and is run with the few functions of
Chainer that their losses call, made of PyTorch's. Their generator and VGG16 are replaced by small ones."""

import argparse
import importlib
import pathlib
import sys
import types
from unittest import mock

import torch
from record_golden import check_checkout, save

COMMIT = "d4a5de26e9ef2521e1985c080c5cccd69c29101a"
FILE = "gen_models/ada_generator.py"
M, N, Z, CHANNELS, SIDE = 7, 4, 6, 5, 6  # images, images of a batch, width of z, channels, pixels
LAYERS = ["first", "second"]
CASES = {  # perceptual_type, normalize_l1_loss, l_per
    "l1": ("l1", False, 0.001),
    "l2": ("l2", False, 0.001),
    "relative": ("l1", False, -1),
    "both": ("l2", True, -1),
}


def chainer():
    """Put stand-ins for the modules that the file imports into sys.modules, as Chainer documents them, in float64."""
    F = types.SimpleNamespace(
        mean_absolute_error=lambda a, b: (a - b).abs().mean(),
        mean_squared_error=lambda a, b: (a - b).square().mean(),
        matmul=lambda a, b, transb: a @ (b.T if transb else b),
        sum=lambda x, axis, keepdims=False: x.sum(dim=axis, keepdim=keepdims),
        min=lambda x, axis: x.amin(dim=axis),
        mean=torch.mean,
    )
    module = mock.MagicMock()
    module.Chain, module.functions = object, F
    module.cuda.get_array_module = lambda z: XP
    names = ["gen_models.biggan", "gen_models.sngan", "chainermn", "PIL"]
    sys.modules |= {"chainer": module, **{name: mock.MagicMock() for name in names}}


class Drawn(torch.Tensor):
    """A draw, which the file asks for in float32: it stays as it is."""

    def astype(self, kind):
        return self.as_subclass(torch.Tensor)


DRAWS = []  # of the case at hand


def normal(*moments, size):
    scale = moments[1] if moments else 1
    DRAWS.append(torch.randn(size, dtype=torch.float64) * scale)
    return DRAWS[-1].as_subclass(Drawn)


XP = types.SimpleNamespace(
    random=types.SimpleNamespace(normal=normal),
    array=lambda values, dtype=None: torch.tensor(values, dtype=torch.float64),
    sum=lambda x, axis: x.sum(dim=axis),
    ones=lambda shape, dtype: torch.ones(shape, dtype=torch.float64),
    zeros=lambda shape, dtype: torch.zeros(shape, dtype=torch.float64),
)


def record(repo):
    """Record losses and gradients of one step, by case."""
    chainer()
    sys.path.insert(0, str(repo))
    theirs = importlib.import_module("gen_models.ada_generator")
    torch.Tensor.array = property(lambda self: self.detach())

    def backward(loss):  # Chainer keeps the graph, which the losses share
        loss.backward(retain_graph=True)
        return loss.detach()

    theirs.backward = backward
    draw = lambda *shape: torch.randn(shape, dtype=torch.float64)
    found = {"perm": torch.tensor([5, 0, 3, 2]), "target": draw(M, 3, SIDE, SIDE).tanh()}
    found |= {"G/in": draw(Z, CHANNELS), "G/out": draw(CHANNELS, 3 * SIDE * SIDE)}
    found |= {"vgg/first": draw(8, 3, 3, 3) / 100, "vgg/second": draw(4, 8, 3, 3) / 10}

    def vgg(images, layers):
        first = torch.conv2d(images, found["vgg/first"]).relu()
        return {"first": first, "second": torch.conv2d(first, found["vgg/second"]).relu()}

    class Small(theirs.AdaGenerator):
        bs_reg = theirs.AdaSNGAN.bs_reg

        def __init__(self):
            pass

        def forward(self, z):
            images = ((z @ found["G/in"]).tanh() * self.gamma[0] + self.beta[0]) @ found["G/out"]
            return images.tanh().reshape(-1, 3, SIDE, SIDE)

    for case, (kind, normalised, l_per) in CASES.items():
        z, gamma, beta = draw(M, Z), 1 + draw(CHANNELS) / 5, draw(CHANNELS) / 5
        leaves = {"z": z, "gamma": gamma, "beta": beta}
        for leaf in leaves.values():
            leaf.requires_grad_(True)

        small = Small()
        small.xp, small.z = XP, types.SimpleNamespace(W=z)
        small.gamma, small.beta = [gamma], [beta]
        small.l_per, small.l_emd, small.l_re, small.l_patch_dis, small.l_gp = l_per, 0.1, 0.02, 0, 0
        small.config = types.SimpleNamespace(normalize_l1_loss=normalised, perceptual_type=kind)
        DRAWS.clear()
        images, losses = small.get_loss(found["perm"], vgg, found["target"], layers=LAYERS)
        found |= {f"{case}/eps": DRAWS[0], f"{case}/t": DRAWS[1], f"{case}/images": images}
        found |= {f"{case}/{name}": loss for name, loss in zip(("l1", *LAYERS, "emd", "reg"), losses, strict=True)}
        found |= {f"{case}/{name}": leaf for name, leaf in leaves.items()}
        found |= {f"{case}/grad/{name}": leaf.grad for name, leaf in leaves.items()}
    return found


def main():
    parser = argparse.ArgumentParser(description="Record tests/golden/scale_shift.npz from the authors' repository.")
    source = "Checkout of nogu-atsu/small-dataset-image-generation"
    parser.add_argument("--repo", metavar="DIR", type=pathlib.Path, required=True, help=source)
    parser.add_argument("--out", metavar="DIR", type=pathlib.Path, required=True)
    args = parser.parse_args()
    check_checkout(args.repo, COMMIT, [FILE])
    torch.manual_seed(0)
    torch.set_num_threads(1)
    save(args.out / "scale_shift.npz", {"commit": COMMIT, **record(args.repo.resolve())})


if __name__ == "__main__":
    main()
