"""Record results of the decoders and losses of the package vision-aided-loss as tests/golden/spectral_decoder.npz.

    python benchmarks/record_spectral_decoder.py --repo DIR --out tests/golden

The directory is a checkout of nupurkmr9/vision-aided-gan at the commit below, whose vision_aided_loss/ is that package.
As in record_golden.py, their code runs where it lies and only numbers are written. Their networks are left out."""

import argparse
import pathlib
import sys
import types
import zlib

import numpy as np
import torch
from record_golden import check_checkout, save

COMMIT = "95fc55beefad3e868783beab421108c5baf583aa"
FILES = [f"vision_aided_loss/{name}.py" for name in ("cv_discriminator", "cv_losses", "blurpool")]
N, CLASSES = 4, 3
LEVELS = {
    "clip": [(5, 7, 7), (5, 7, 7), (6,)],
    "dino": [(5, 14, 14), (5, 14, 14), (6,)],
    "conv7": [(5, 7, 7)],
    "conv8": [(5, 8, 8)],
    "vector": [(6,)],
}


def drawn(name, shape):
    return torch.from_numpy(np.random.RandomState(zlib.crc32(name.encode())).randn(*shape)).float()


def record_case(case, decoder, losses_list):
    """Record logits, losses and gradients of two training steps: each improves the spectral norms by one iteration."""
    decoder.train()
    for name, value in decoder.state_dict().items():
        if not name.endswith("filt"):
            new = drawn(f"{case}/{name}", value.shape)
            value.copy_(new / new.norm() if name.endswith(("_u", "_v")) else new * 0.1)
    levels = [drawn(f"{case}/level{k}", [N, *shape]).requires_grad_(True) for k, shape in enumerate(LEVELS[case])]
    given = levels if len(levels) > 1 else levels[0]
    labels = torch.arange(N) % CLASSES
    record = {}
    for name in ("sigmoid_s", "hinge"):
        output = decoder(given, labels)
        for k, value in enumerate(output if len(levels) > 1 else [output]):
            record[f"{case}/{name}/logits{k}"] = value
        loss_name = f"multilevel_{name}" if len(levels) > 1 else name
        parameters = dict(decoder.named_parameters())
        inputs = {**{f"level{k}": level for k, level in enumerate(levels)}, **parameters}
        for side, flags in (("real", {}), ("generated", {"for_real": False}), ("generator", {"for_G": True})):
            loss = losses_list(loss_name)([output], **flags).mean()
            record[f"{case}/{name}/{side}"] = loss
            gradients = torch.autograd.grad(loss, list(inputs.values()), retain_graph=True)
            for part, gradient in zip(inputs, gradients, strict=True):
                direction = drawn(f"{case}/{part}/probe", gradient.shape)
                record[f"{case}/{name}/{side}/grad/{part}"] = (gradient.double() * direction).sum()
    return record


def main():
    parser = argparse.ArgumentParser(description="Record tests/golden/spectral_decoder.npz.")
    for name in ("repo", "out"):
        parser.add_argument(f"--{name}", metavar="DIR", type=pathlib.Path, required=True)
    args = parser.parse_args()
    check_checkout(args.repo, COMMIT, FILES)
    torch.set_num_threads(1)
    package = types.ModuleType("vision_aided_loss")
    package.__path__ = [str(args.repo / "vision_aided_loss")]
    sys.modules["vision_aided_loss"] = package
    sys.modules["vision_aided_loss.cvmodel"] = types.SimpleNamespace(CVBackbone=None)
    from vision_aided_loss.cv_discriminator import MLPD, MultiLevelDViT, SimpleD
    from vision_aided_loss.cv_losses import losses_list

    how = {"num_classes": CLASSES}
    decoders = {
        "clip": MultiLevelDViT(in_ch1=5, in_ch2=6, out_ch=256, **how),
        "dino": MultiLevelDViT(in_ch1=5, in_ch2=6, out_ch=128, down=2, **how),
        "conv7": SimpleD(in_ch=5, **how),
        "conv8": SimpleD(in_ch=5, out_size=4, **how),
        "vector": MLPD(in_ch=6, **how),
    }
    record = {"commit": COMMIT}
    for case, decoder in decoders.items():
        record |= record_case(case, decoder, losses_list)
    save(args.out / "spectral_decoder.npz", record)


if __name__ == "__main__":
    main()
