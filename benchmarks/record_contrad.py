"""Records what the authors' ContraD computes, as tests/golden/contrad.npz.

    pip install kornia gin-config tensorboardX six
    python benchmarks/record_contrad.py --repo DIR --out tests/golden

The directory is a checkout of jh-jeong/ContraD at the commit below. As in record_golden.py, their code runs where it
lies and only numbers are written. What they import of kornia and gin has other names and shapes today; it is put back
in memory. Draws are recorded where they are made: the matrix of a crop, the factors of a jitter."""

import argparse
import pathlib
import sys
import types

import numpy as np
import torch
from record_golden import check_checkout, patched, save

COMMIT = "4ac8ce538cfc5d068da52b960afe5227862162ff"
FILES = (
    *("training/gan/contrad.py", "training/criterion.py", "models/gan/base.py", "utils.py"),
    *("augment/__init__.py", "augment/spatial.py", "augment/color_jitter.py", "augment/utils.py"),
)
N, WIDTH, HIDDEN, PROJECTION = 6, 20, 16, 8


def old_names():
    import gin
    import kornia.filters

    configurable = gin.configurable
    gin.configurable = lambda *args, whitelist=None, **kwargs: configurable(*args, allowlist=whitelist, **kwargs)

    kernel = kornia.filters.get_gaussian_kernel2d
    kornia.filters.filter2D = kornia.filters.filter2d
    kornia.filters.get_gaussian_kernel2d = lambda size, sigma: kernel(size, sigma).squeeze(0)


def record_losses():
    """Both contrastive losses of unit vectors, and their gradients, in double precision."""
    from training.criterion import nt_xent
    from training.gan.contrad import supcon_fake

    record = {}
    torch.manual_seed(0)
    for temperature in (0.1, 0.5):
        vectors = torch.nn.functional.normalize(torch.randn([3, N, PROJECTION], dtype=torch.float64), dim=2)
        vectors.requires_grad_(True)
        record[f"losses/{temperature}/vectors"] = vectors
        for name, value in (
            ("nt_xent", nt_xent(vectors[0], vectors[1], temperature=temperature)),
            ("supcon_fake", supcon_fake(*vectors, temperature=temperature)),
        ):
            record[f"losses/{temperature}/{name}"] = value
            (record[f"losses/{temperature}/{name}/grad"],) = torch.autograd.grad(value, [vectors])
    return record


def record_discriminator():
    """L_D of the authors for given features of two views and of generated images; gradients of features and heads."""
    from models.gan.base import BaseDiscriminator
    from training.gan.contrad import loss_D_fn, loss_G_fn

    class Heads(BaseDiscriminator):
        def penultimate(self, inputs):
            return inputs

    torch.manual_seed(1)
    heads = Heads(WIDTH, d_hidden=HIDDEN, d_project=PROJECTION, mlp_linear=True).double()
    features = torch.randn([3 * N, WIDTH], dtype=torch.float64, requires_grad=True)
    record = {"step/features": features}
    record.update({f"step/heads/{name}": value for name, value in heads.named_parameters()})
    P = types.SimpleNamespace(augment_fn=lambda _: features, temp=0.1, lbd_a=0.7, distributed=False)
    images = torch.zeros([N, 1])
    contrast, aux = loss_D_fn(P, heads, {"loss": "nonsat"}, images, images)
    record.update({"step/lambda_con": P.lbd_a, "step/temperature": P.temp})
    record.update({"step/contrast": contrast, "step/adversarial": aux["penalty"]})
    (contrast + aux["penalty"]).backward()
    record["step/grad/features"] = features.grad
    record.update({f"step/grad/heads/{name}": value.grad for name, value in heads.named_parameters()})
    (gradient,) = torch.autograd.grad(loss_G_fn(P, heads, {"loss": "nonsat"}, images, images), [features])
    record["step/grad/features/G"] = gradient
    return record


def record_augmentation():
    """Each transformation with its draws, and the gradient of a weighted sum of its output."""
    import augment
    from augment import color_jitter, spatial

    torch.manual_seed(2)
    np.random.seed(2)
    images = torch.rand([4, 3, 20, 20])
    images[0] = images[0, :1]  # a gray one
    images[1] = images[1] * 1.4 - 0.2  # out of range, as generated images are
    weights = torch.randn(images.shape)
    record = {"augment/images": images, "augment/weights": weights}

    def keep(name, function, **draws):
        leaf = images.clone().requires_grad_(True)
        output = function(leaf)
        (gradient,) = torch.autograd.grad((output * weights).sum(), [leaf])
        record.update({f"augment/{name}": output, f"augment/{name}/grad": gradient})
        record.update({f"augment/{name}/{key}": value() for key, value in draws.items()})

    seen = []
    capture = lambda original: lambda *args, **kwargs: seen.append(args) or original(*args, **kwargs)
    for name, layer in (
        ("crop", spatial.RandomResizeCropLayer(scale=(0.2, 1.0))),
        ("flip", spatial.HorizontalFlipLayer()),
    ):
        with patched(spatial, "affine_grid", capture):
            keep(name, layer, theta=lambda: seen[-1][0].clone())
    jitter = color_jitter.ColorJitterLayer(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)
    drawn = []
    draw = lambda original: lambda *args, **kwargs: drawn.append(original(*args, **kwargs).clone()) or drawn[-1]
    order = {0.9: "contrast-first", 0.1: "hsv-first"}
    for coin, name in order.items():
        drawn.clear()
        with patched(color_jitter.np.random, "rand", lambda _, coin=coin: lambda: coin):
            with patched(torch.Tensor, "uniform_", draw):
                keep(f"jitter-{name}", jitter)
        for index, value in enumerate(drawn):
            record[f"augment/jitter-{name}/draw{index}"] = value.flatten()
    keep("gray", augment.RandomColorGrayLayer())
    for sigma in (0.1, 0.7, 2.0):
        keep(f"blur-{sigma}", augment.GaussianBlur(sigma_range=(sigma, sigma)))
    return record


def main():
    parser = argparse.ArgumentParser(description="Record tests/golden/contrad.npz from the authors' repository.")
    parser.add_argument("--repo", metavar="DIR", type=pathlib.Path, required=True, help="Checkout of jh-jeong/ContraD")
    parser.add_argument("--out", metavar="DIR", type=pathlib.Path, required=True)
    args = parser.parse_args()
    check_checkout(args.repo, COMMIT, FILES)
    torch.set_num_threads(1)
    old_names()
    sys.path.insert(0, str(args.repo))
    record = {"contrad_commit": COMMIT, **record_losses(), **record_discriminator(), **record_augmentation()}
    save(args.out / "contrad.npz", record)


if __name__ == "__main__":
    main()
