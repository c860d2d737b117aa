"""Record results of the authors' decoders and losses of vision-aided training as tests/golden/vision_aided.npz.

    python benchmarks/record_vision_aided.py --repo DIR --out tests/golden

The directory is a checkout of nupurkmr9/vision-aided-gan at the commit below. As in record_golden.py, their code runs
where it lies and only numbers are written. Their backbones are not needed, and left out."""

import argparse
import pathlib
import sys
import types
import zlib

import numpy as np
import torch
from record_golden import check_checkout, save

COMMIT = "95fc55beefad3e868783beab421108c5baf583aa"
FILES = tuple(
    f"stylegan2/{name}"
    for name in ("vision_module/cv_discriminator.py", "vision_module/cv_losses.py", "training/networks.py")
)
N = 8
MULTI = ("multilevel_sigmoid", "multilevel_sigmoid_s", "multilevel_hinge")
SINGLE = ("sigmoid", "sigmoid_s", "hinge")
LEVELS = {
    "clip": [(5, 7, 7), (5, 7, 7), (6,)],
    "dino": [(5, 14, 14), (5, 14, 14), (6,)],
    "conv7": [(5, 7, 7)],
    "conv8": [(5, 8, 8)],
}


def drawn(name, shape):
    """Draw the numbers of a name and a shape, so that the file does not need large weights."""
    return torch.from_numpy(np.random.RandomState(zlib.crc32(name.encode())).randn(*shape)).float()


def record_case(case, decoder, names):
    """Record logits, losses, and gradients of features and weights as one number each: their product with `drawn`."""
    from vision_module.cv_losses import losses_list

    for name, parameter in decoder.named_parameters():
        scale = 0.1 if name.endswith("bias") else 1.0
        parameter.data = scale * drawn(f"{case}/{name}", parameter.shape)
    levels = [drawn(f"{case}/level{k}", [N, *shape]).requires_grad_(True) for k, shape in enumerate(LEVELS[case])]
    output = decoder(levels) if len(levels) > 1 else decoder(levels[0])
    record = {f"{case}/logits{k}": value for k, value in enumerate(output if len(levels) > 1 else [output])}
    for loss in names:
        for side, flags in (
            ("real", {"for_real": True}),
            ("generated", {"for_real": False}),
            ("generator", {"for_G": True}),
        ):
            value = losses_list(loss)([output], **flags).mean()
            record[f"{case}/{loss}/{side}"] = value
            parameters = dict(decoder.named_parameters())
            grads = torch.autograd.grad(value, [*levels, *parameters.values()], retain_graph=True)
            names_of = [*(f"level{k}" for k in range(len(levels))), *parameters]
            for name, gradient in zip(names_of, grads, strict=True):
                probe = drawn(f"{case}/{name}/probe", gradient.shape).double()
                record[f"{case}/{loss}/{side}/grad/{name}"] = (gradient.double() * probe).sum()
    return record


def main():
    parser = argparse.ArgumentParser(description="Record tests/golden/vision_aided.npz from the authors' repository.")
    parser.add_argument(
        "--repo", metavar="DIR", type=pathlib.Path, required=True, help="Checkout of nupurkmr9/vision-aided-gan"
    )
    parser.add_argument("--out", metavar="DIR", type=pathlib.Path, required=True)
    args = parser.parse_args()
    check_checkout(args.repo, COMMIT, FILES)
    torch.set_num_threads(1)
    sys.path.insert(0, str(args.repo / "stylegan2"))
    sys.modules["vision_module.cvmodel"] = types.SimpleNamespace(CVBackbone=None)
    from vision_module.cv_discriminator import MultiLevelDViT, SimpleD

    record = {
        "vision_aided_commit": COMMIT,
        **record_case("clip", MultiLevelDViT(in_ch1=5, in_ch2=6, out_ch=256), MULTI),
        **record_case("dino", MultiLevelDViT(in_ch1=5, in_ch2=6, out_ch=128, down=2), MULTI),
        **record_case("conv7", SimpleD(in_ch=5), SINGLE),
        **record_case("conv8", SimpleD(in_ch=5, out_size=4), SINGLE),
    }
    save(args.out / "vision_aided.npz", record)


if __name__ == "__main__":
    main()
