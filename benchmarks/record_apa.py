"""Record results of the authors' APA as tests/golden/apa.npz.

    python benchmarks/record_apa.py --repo DIR --out tests/golden

The directory is a checkout of EndlessSora/DeceiveD at the commit below. As in record_golden.py, their code runs where
it lies and only numbers are written."""

import argparse
import importlib
import pathlib
import sys
import types
import warnings

import torch
from record_golden import FixedMapping, FixedSynthesis, check_checkout, patched, save

COMMIT = "042c5c4a4e65b20866cba89e64cfb99961dd8343"
FILES = ("training/loss.py", "training/networks.py", "torch_utils/misc.py", "torch_utils/persistence.py")
OPS = ("bias_act", "upfirdn2d", "conv2d_resample", "conv2d_gradfix")
N, P, R1_GAMMA = 4, 0.5, 5.0


def main():
    parser = argparse.ArgumentParser(description="Record tests/golden/apa.npz from the authors' repository.")
    parser.add_argument("--repo", metavar="DIR", type=pathlib.Path, required=True, help="EndlessSora/DeceiveD")
    parser.add_argument("--out", metavar="DIR", type=pathlib.Path, required=True)
    args = parser.parse_args()
    check_checkout(args.repo, COMMIT, [*FILES, *(f"torch_utils/ops/{name}.py" for name in OPS)])
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", module=".*conv2d_gradfix.*")
    sys.path.insert(0, str(args.repo))
    networks, loss = (importlib.import_module(f"training.{name}") for name in ("networks", "loss"))

    config = dict(c_dim=0, img_resolution=16, img_channels=3, channel_base=128, channel_max=8)  # of the test kit
    torch.manual_seed(0)
    D = networks.Discriminator(**config, epilogue_kwargs=dict(mbstd_group_size=4))
    with torch.no_grad():
        for name, parameter in D.named_parameters():
            if name.endswith(".bias"):  # they start at 0, where a wrong one would go unseen
                parameter.normal_(std=0.1)
    real, pseudo, generated = (torch.rand([3, N, 3, 16, 16]) * 2 - 1).unbind()
    synthesis = FixedSynthesis(pseudo)
    pipe = types.SimpleNamespace(p=torch.tensor(P))
    record = {"commit": COMMIT, "p": P, "r1_gamma": R1_GAMMA}
    record |= {"input/real": real, "input/pseudo": pseudo, "input/generated": generated}
    record |= {f"D/{name}": value.clone() for name, value in D.named_parameters()}
    theirs = loss.StyleGAN2Loss(
        torch.device("cpu"), FixedMapping(), synthesis, D, pipe, style_mixing_prob=0, r1_gamma=R1_GAMMA
    )
    shown = []
    keep = lambda deceive: lambda images: shown.append(deceive(images)) or shown[-1]
    c, z = torch.zeros([N, 0]), torch.zeros([N, 1])
    for seed, phase in enumerate(("Gmain", "Dmain", "Dreg")):
        if phase == "Dmain":  # D's step has other generated images than G's step
            synthesis.images.data = generated
        D.requires_grad_(phase != "Gmain").zero_grad(set_to_none=True)
        torch.manual_seed(seed)
        with patched(theirs, "adaptive_pseudo_augmentation", keep):
            theirs.accumulate_gradients(phase, real_img=real, real_c=c, gen_z=z, gen_c=c, sync=True, gain=1)
        if phase != "Gmain":
            record |= {f"{phase}/seed": seed, f"{phase}/shown": shown[-1]}
            record |= {f"{phase}/grad/{name}": value.grad for name, value in D.named_parameters()}
    save(args.out / "apa.npz", record)


if __name__ == "__main__":
    main()
