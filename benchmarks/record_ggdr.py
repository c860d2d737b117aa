"""Record results of the authors' GGDR as tests/golden/ggdr.npz.

    python benchmarks/record_ggdr.py --repo DIR --out tests/golden

The directory is a checkout of naver-ai/GGDR at the commit below. As in record_golden.py, their code runs where it lies
and only numbers are written: their D with decoder on images, its maps and prediction, their loss and its gradients; and
their pipe of augmentations on images and maps."""

import argparse
import importlib
import pathlib
import sys

import torch
from record_golden import check_checkout, patched, save

COMMIT = "7071792bf715c05177b0c21577df14769fbdfb4e"
FILES = (
    *("training/loss_ggdr.py", "training/networks_ggdr.py", "training/networks.py", "training/augment.py"),
    *("torch_utils/misc.py", "torch_utils/persistence.py", "torch_utils/ops/bias_act.py"),
    *("torch_utils/ops/upfirdn2d.py", "torch_utils/ops/conv2d_resample.py", "torch_utils/ops/conv2d_gradfix.py"),
)
N, SIDE, RESOLUTION, SEED, P = 4, 32, 16, 5, 0.7
PIPE = dict(xflip=1, rotate90=1, xint=1, scale=1, rotate=1, aniso=1, xfrac=1, brightness=1, contrast=1, hue=1)


def main():
    parser = argparse.ArgumentParser(description="Record tests/golden/ggdr.npz.")
    parser.add_argument("--repo", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    args = parser.parse_args()
    check_checkout(args.repo, COMMIT, FILES)
    sys.path.insert(0, str(args.repo))
    torch.set_num_threads(1)
    modules = ("networks_ggdr", "loss_ggdr", "augment")
    networks, loss_module, augment = (importlib.import_module(f"training.{name}") for name in modules)

    torch.manual_seed(0)
    how = dict(c_dim=0, img_resolution=SIDE, img_channels=3, channel_base=192, channel_max=16, decoder_res=RESOLUTION)
    D = networks.Discriminator(**how)
    maps = {}
    for r in (4, 8):

        def keep(module, inputs, output, r=r):
            maps[r] = output[0].detach().requires_grad_(True)  # its gradient is that of the decoder alone
            return maps[r], output[1]

        getattr(D, f"b{2 * r}").register_forward_hook(keep)
    decoder = {name: value for name, value in D.named_parameters() if "_dec" in name}
    for name, value in decoder.items():
        value.data.copy_(torch.randn_like(value) if "weight" in name else 0.1 * torch.randn_like(value))
    _, predicted = D(torch.randn([N, 3, SIDE, SIDE]), torch.zeros([N, 0]))
    target = torch.randn_like(predicted[RESOLUTION])
    theirs = loss_module.StyleGAN2GGDRLoss(torch.device("cpu"), None, None, D)
    loss = theirs.get_ggdr_reg([RESOLUTION], predicted, {RESOLUTION: target})
    maps = {r: maps[r] for r in (4, 8)}
    gradients = torch.autograd.grad(loss, [*maps.values(), *decoder.values()])
    record = {"commit": COMMIT, "seed": SEED, "p": P, "loss": loss, "target": target}
    record |= {f"map/{r}": value for r, value in maps.items()} | {f"decoder/{n}": value for n, value in decoder.items()}
    record["predicted"] = predicted[RESOLUTION]
    names = [*(f"map/{r}" for r in maps), *(f"decoder/{name}" for name in decoder)]
    record |= {f"grad/{name}": value for name, value in zip(names, gradients, strict=True)}

    pipe = augment.AugmentPipeGFeat(**PIPE)
    pipe.p.fill_(P)
    images, features = torch.rand([N, 3, SIDE, SIDE]) * 2 - 1, torch.randn([N, 5, 8, 8])
    # They enlarge maps by bilinear interpolation before they move them; the line in which they took the filter of
    # images stands there as a comment.
    enlarge = lambda maps, **_unused: augment.upfirdn2d.upsample2d(x=maps, f=pipe.Hz_geom, up=2)
    torch.manual_seed(SEED)
    with patched(augment.F, "interpolate", lambda original: enlarge):
        shown, moved = pipe(images, {8: features})
    record |= {"pipe/images": images, "pipe/shown": shown, "pipe/maps": features, "pipe/moved": moved[8]}
    record |= {f"pipe/strength/{name}": value for name, value in PIPE.items()}
    save(args.out / "ggdr.npz", record)


if __name__ == "__main__":
    main()
