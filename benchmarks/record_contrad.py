"""Record results of the authors' ContraD as tests/golden/contrad.npz.

    pip install kornia gin-config tensorboardX six tqdm
    python benchmarks/record_contrad.py --repo DIR --out tests/golden

The directory is a checkout of jh-jeong/ContraD at the commit below. As in record_golden.py, their code runs where it
lies and only numbers are written. Their imports from kornia and gin have other names and shapes today; the old ones are
restored in memory. Draws are recorded where they are made: the matrix of a crop, the factors of a jitter."""

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
    *("models/gan/stylegan2/discriminator.py", "test_gan_sample_cddls.py"),
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
    """Record both contrastive losses of unit vectors, and their gradients, in double precision."""
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
    """Record the authors' L_D for given features of two views and of generated images, and its gradients."""
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


def record_joint():
    """Record the authors' L_D for a D with minibatch-stddev: two views and generated images in one batch."""
    from models.gan.base import BaseDiscriminator
    from training.gan.contrad import loss_D_fn

    layers = types.ModuleType("models.gan.stylegan2.layers")  # theirs compile CUDA code
    layers.ConvLayer = layers.EqualLinear = layers.Downsample = torch.nn.Module
    sys.modules[layers.__name__] = layers
    from models.gan.stylegan2.discriminator import _minibatch_stddev_layer

    class Small(BaseDiscriminator):
        def __init__(self, channels):
            super().__init__(WIDTH * 16, d_hidden=HIDDEN, d_project=PROJECTION, mlp_linear=True)
            self.conv = torch.nn.Conv2d(channels + 1, WIDTH, 3, padding=1)

        def penultimate(self, inputs):
            return torch.tanh(self.conv(_minibatch_stddev_layer(inputs))).flatten(1)

    torch.manual_seed(3)
    n, channels = 8, 3
    D = Small(channels).double()
    images = torch.randn([3 * n, channels, 4, 4], dtype=torch.float64, requires_grad=True)
    P = types.SimpleNamespace(augment_fn=lambda _: images, temp=0.1, lbd_a=1.0, distributed=False)
    blank = torch.zeros([n, 1])
    contrast, aux = loss_D_fn(P, D, {"loss": "nonsat"}, blank, blank)
    (contrast + aux["penalty"]).backward()
    record = {"joint/images": images, "joint/contrast": contrast, "joint/adversarial": aux["penalty"]}
    record["joint/grad/images"] = images.grad
    for name, value in D.named_parameters():
        record.update({f"joint/D/{name}": value, f"joint/grad/D/{name}": value.grad})
    return record


def record_cddls():
    """Record their sampler, after one step and after several, with the numbers that it drew."""
    from models.gan.base import BaseDiscriminator, LinearWrapper
    from test_gan_sample_cddls import _sample_cddls

    class Generator(torch.nn.Linear):
        def sample_latent(self, n):
            return torch.rand([n, self.in_features], dtype=torch.float64) * 2 - 1

        def forward(self, z):
            return torch.sigmoid(super().forward(z))

    class Small(BaseDiscriminator):
        def __init__(self, pixels):
            super().__init__(WIDTH, d_hidden=HIDDEN, d_project=PROJECTION, mlp_linear=True)
            self.encoder = torch.nn.Linear(pixels, WIDTH)

        def penultimate(self, inputs):
            return torch.tanh(self.encoder(inputs))

    torch.manual_seed(4)
    G, D = Generator(5, 12).double(), Small(12).double()
    D.classifier = LinearWrapper(WIDTH, 3).double()
    with torch.no_grad():
        D.linear.l1.weight.mul_(8), D.classifier.weight.mul_(8)  # far enough for z to be clamped
    record = {f"cddls/G/{name}": value for name, value in G.named_parameters()}
    record |= {f"cddls/D/{name}": value for name, value in D.named_parameters() if "projection" not in name}
    for steps in (1, 7):
        drawn = []
        keep = lambda original, drawn=drawn: lambda *a, **k: drawn.append(original(*a, **k)) or drawn[-1].clone()
        P = types.SimpleNamespace(n_steps=steps, eps=0.05, lbd=0.7, sigma_n=0.1)
        with patched(torch, "rand", keep), patched(torch, "randn_like", keep):
            record[f"cddls/{steps}/images"] = _sample_cddls(P, G, D, 2, 4)
        record[f"cddls/{steps}/z"] = drawn[0] * 2 - 1
        record |= {f"cddls/{steps}/noise{index}": value for index, value in enumerate(drawn[1:])}
    return record


def record_augmentation():
    """Record each transformation with its draws, and the gradient of a weighted sum of its output."""
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
    record |= record_joint() | record_cddls()
    save(args.out / "contrad.npz", record)


if __name__ == "__main__":
    main()
