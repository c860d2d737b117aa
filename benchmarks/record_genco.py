"""Record results of the authors' GenCo as tests/golden/genco.npz.

    python benchmarks/record_genco.py --repo DIR --out tests/golden

The directory is a checkout of jxhuang0508/GenCo at the commit below. As in record_golden.py, their code runs where it
lies and only numbers are written. T is the identity here, so that nothing is drawn; the bands that DaCo keeps are
given."""

import argparse
import importlib
import pathlib
import sys
import warnings

import numpy as np
import torch
from record_golden import FixedMapping, FixedSynthesis, check_checkout, save

COMMIT = "f8f6dfb6f65ddef8951f6734398f02fb4645b422"
FILES = (
    *("DiffAugment_pytorch.py", "training/loss.py", "training/networks.py", "torch_utils/misc.py"),
    *("torch_utils/persistence.py", "torch_utils/ops/bias_act.py", "torch_utils/ops/upfirdn2d.py"),
    *("torch_utils/ops/conv2d_resample.py", "torch_utils/ops/conv2d_gradfix.py"),
)
N, SIDE, BANDS = 8, 16, 64
R1_GAMMA, DAMPING = 10.0, 0.75
CONFIG = dict(c_dim=0, img_resolution=SIDE, img_channels=3, channel_base=64, channel_max=8)


def discriminator(networks):
    D = networks.Discriminator(**CONFIG, epilogue_kwargs=dict(mbstd_group_size=4))
    with torch.no_grad():
        for name, parameter in D.named_parameters():
            if name.endswith(".bias"):  # they start at 0, where a wrong one would go unseen
                parameter.normal_(std=0.1)
    return D.requires_grad_(False)


def main():
    parser = argparse.ArgumentParser(description="Record golden files from GenCo.")
    parser.add_argument("--repo", metavar="DIR", type=pathlib.Path, required=True, help=f"Checkout at {COMMIT}")
    parser.add_argument("--out", metavar="DIR", type=pathlib.Path, required=True, help="Where the .npz file goes")
    args = parser.parse_args()
    warnings.filterwarnings("ignore", module=".*(conv2d_gradfix|functional|DiffAugment).*")
    check_checkout(args.repo, COMMIT, [f"Lowshot_DA/{file}" for file in FILES])
    sys.path.insert(0, str(args.repo / "Lowshot_DA"))
    networks, loss = (importlib.import_module(f"training.{name}") for name in ("networks", "loss"))
    torch.set_num_threads(1)

    torch.manual_seed(0)
    D, weco, daco = (discriminator(networks) for _ in range(3))
    real, generated = (torch.rand([N, 3, SIDE, SIDE]) * 2 - 1 for _ in range(2))
    kept = torch.zeros([N, BANDS], dtype=torch.bool)
    for row in kept:
        row[8 + torch.randperm(BANDS - 8)[:44]] = True
    synthesis = FixedSynthesis(generated)
    theirs = loss.StyleGAN2Loss(
        torch.device("cpu"), FixedMapping(), synthesis, D, weco, daco, style_mixing_prob=0, r1_gamma=R1_GAMMA
    )

    record = {"commit": COMMIT, "r1_gamma": R1_GAMMA, "damping": DAMPING, "mbstd_group_size": 4}
    record |= {"input/real": real, "input/generated": generated, "kept": kept}
    record |= {f"config/{key}": np.int64(value) for key, value in CONFIG.items()}
    record["filtered"] = theirs.fre_remove_random(real, kept[:, :, None, None, None].float())
    modules = {"D": D, "weco": weco, "daco": daco}
    record |= {f"{key}/{name}": value for key, module in modules.items() for name, value in module.named_parameters()}

    c, z = torch.zeros([N, 0]), torch.zeros([N, 1])
    trained = {"Gmain": synthesis, "D2main": weco, "Dhighmain": daco, "D2reg": weco, "Dhighreg": daco}
    for phase, module in trained.items():
        module.requires_grad_(True)
        theirs.accumulate_gradients(
            phase, real, kept[:, :, None, None, None].float(), c, z, c, sync=True, gain=1, damping=DAMPING
        )
        module.requires_grad_(False)
        for name, parameter in module.named_parameters():
            record[f"{phase}/{name}"] = parameter.grad
            parameter.grad = None
    save(args.out / "genco.npz", record)


if __name__ == "__main__":
    main()
