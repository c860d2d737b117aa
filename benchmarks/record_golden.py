"""Record results of the authors' own code as the golden files that tests/ compare with.

    python benchmarks/record_golden.py --diffaugment-repo DIR --augself-repo DIR --out tests/golden

The directories are checkouts of mit-han-lab/data-efficient-gans and liang-hou/augself-gan at the commits below; files
that differ from these commits are refused. The authors' code is imported and run where it lies, on a CPU in float32,
and nothing of it is written: only numbers. Their modules run on torch 2.14 as they are; the one thing that is replaced,
in memory, is the method of a tensor that starts the backward pass, so that each loss can be read before it is lost.
"""

import argparse
import contextlib
import importlib
import importlib.util
import pathlib
import subprocess
import sys
import warnings

import numpy as np
import torch

DIFFAUGMENT_COMMIT = "0b6339510be1e3859d360cbf464d0a425514a6b4"
AUGSELF_COMMIT = "bb0760ea9dcc72566e38f3b29f180c0d4c62b7c6"
POLICIES = ("color", "translation", "cutout", "color,translation,cutout", "cutout,color", "")
SHAPES = ([5, 3, 16, 16], [4, 1, 9, 14])  # the second: grey, not square, an odd side
STRENGTHS = {
    "default": {},
    "plus": dict(translation=0.25, cutout=0.75),  # AugSelf-GAN+
    "all": dict(brightness=0.5, saturation=1.5, contrast=0.25, translation=0.3, cutout=0.2),
}
GROUPS = "color,translation,cutout"
D_WEIGHT, G_WEIGHT, R1_GAMMA = 1.0, 0.2, 10.0


# The authors' checkouts. --------------------------------------------------------------------------


def check_checkout(repo, commit, paths):
    """Raise SystemExit unless every path in the checkout is, bit for bit, the one of the commit."""

    def git(*args):
        return subprocess.run(["git", "-C", str(repo), *args], stdout=subprocess.PIPE, text=True, check=True).stdout

    for path in paths:
        if git("hash-object", "--no-filters", path) != git("rev-parse", f"{commit}:{path}"):
            raise SystemExit(f"{repo}: {path} differs from commit {commit}. Use an unchanged checkout of that commit.")


def load_file(path):
    spec = importlib.util.spec_from_file_location(f"authors_{abs(hash(str(path)))}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# DiffAugment. -------------------------------------------------------------------------------------


def record_diffaugment(diffaugment_repo, augself_repo):
    """Record inputs, seeds and outputs of both versions of DiffAugment_pytorch.py, and AugSelf's omega."""
    check_checkout(diffaugment_repo, DIFFAUGMENT_COMMIT, ["DiffAugment_pytorch.py"])
    check_checkout(augself_repo, AUGSELF_COMMIT, ["augself-stylegan2/DiffAugment_pytorch.py"])
    plain = load_file(diffaugment_repo / "DiffAugment_pytorch.py").DiffAugment
    augself = load_file(augself_repo / "augself-stylegan2/DiffAugment_pytorch.py").DiffAugment
    seed = 1
    record = {"seed": seed, "diffaugment_commit": DIFFAUGMENT_COMMIT, "augself_commit": AUGSELF_COMMIT}
    for shape in SHAPES:
        size = "x".join(map(str, shape))
        torch.manual_seed(0)
        images = torch.rand(shape) * 2 - 1
        record[f"{size}/input"] = images
        for policy in POLICIES:
            torch.manual_seed(seed)
            record[f"{size}/diffaugment/{policy}/output"] = plain(images, policy=policy)
        for name, strengths in STRENGTHS.items():
            torch.manual_seed(seed)
            output, omega = augself(images, policy=GROUPS, config=strengths)
            record[f"{size}/augself/{name}/output"] = output
            record.update({f"{size}/augself/{name}/omega/{group}": value for group, value in omega.items()})
    for name, strengths in STRENGTHS.items():
        record.update({f"strength/{name}/{key}": np.float64(value) for key, value in strengths.items()})
    return record


# AugSelf. -----------------------------------------------------------------------------------------


class FixedMapping(torch.nn.Module):
    """In place of the mapping network: one w per image, which nothing reads."""

    def forward(self, z, c, **_unused):
        return torch.zeros([z.shape[0], 1, 1])


class FixedSynthesis(torch.nn.Module):
    """In place of the synthesis network: "generates" given images, and collects the gradient with respect to them."""

    def __init__(self, images):
        super().__init__()
        self.images = torch.nn.Parameter(images)

    def forward(self, ws):
        return self.images * 1


@contextlib.contextmanager
def patched(owner, name, make):
    original = getattr(owner, name)
    setattr(owner, name, make(original))
    try:
        yield
    finally:
        setattr(owner, name, original)


def small_images(n, seed, contrast):
    """Return smooth images as a data set holds them, [n, 3, 32, 32] uint8."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn([n, 3, 4, 4], generator=generator) * contrast
    smooth = torch.nn.functional.interpolate(coarse, size=[32, 32], mode="bilinear", align_corners=False)
    return (smooth * 60 + 128).clamp(0, 255).to(torch.uint8)


def record_augself(repo):
    """Record a Gmain, a Dmain and a Dreg of the authors' StyleGAN2 loss, with a small D and fixed generated images."""
    root = repo / "augself-stylegan2"
    check_checkout(
        repo,
        AUGSELF_COMMIT,
        [
            f"augself-stylegan2/{path}"
            for path in (
                "DiffAugment_pytorch.py",
                "training/loss.py",
                "training/networks.py",
                "torch_utils/misc.py",
                "torch_utils/persistence.py",
                "torch_utils/ops/bias_act.py",
                "torch_utils/ops/upfirdn2d.py",
                "torch_utils/ops/conv2d_resample.py",
                "torch_utils/ops/conv2d_gradfix.py",
            )
        ],
    )
    sys.path.insert(0, str(root))
    networks, loss = (importlib.import_module(f"training.{name}") for name in ("networks", "loss"))

    n = 8
    real, generated = small_images(n, seed=10, contrast=1.0), small_images(n, seed=11, contrast=0.6)
    config = dict(c_dim=0, img_resolution=32, img_channels=3, channel_base=256, channel_max=16)
    torch.manual_seed(0)
    discriminator = networks.Discriminator(**config, augself=GROUPS, epilogue_kwargs=dict(mbstd_group_size=4))
    with torch.no_grad():
        # Biases start at 0, where a wrong bias would not show; random ones make the comparison useful.
        for name, parameter in discriminator.named_parameters():
            if name.endswith(".bias"):
                parameter.normal_(std=0.1)
    synthesis = FixedSynthesis(generated.to(torch.float32) / 127.5 - 1)
    stylegan2_loss = loss.StyleGAN2Loss(
        device=torch.device("cpu"),
        G_mapping=FixedMapping(),
        G_synthesis=synthesis,
        D=discriminator,
        diffaugment=GROUPS,
        style_mixing_prob=0,
        r1_gamma=R1_GAMMA,
        D_augself=D_WEIGHT,
        G_augself=G_WEIGHT,
    )

    record = {
        "augself_commit": AUGSELF_COMMIT,
        "d_weight": D_WEIGHT,
        "g_weight": G_WEIGHT,
        "r1_gamma": R1_GAMMA,
        "seed": 2,
        "input/real": real,
        "input/generated": generated,
        "mbstd_group_size": 4,
    }
    record.update({f"config/{key}": value for key, value in config.items()})
    record.update({f"D/{name}": parameter for name, parameter in discriminator.named_parameters()})
    torch.manual_seed(2)
    for phase, passes in (("Gmain", ["G"]), ("Dmain", ["D_generated", "D_real"]), ("Dreg", ["D_r1"])):
        discriminator.requires_grad_(phase != "Gmain")
        synthesis.requires_grad_(phase == "Gmain")
        record.update(run_phase(stylegan2_loss, phase, passes, real))
    return record


def run_phase(stylegan2_loss, phase, passes, real):
    """Run one phase of the authors' loss, and return {key: value}, keys per pass (one pass = one backward)."""
    discriminator, synthesis = stylegan2_loss.D, stylegan2_loss.G_synthesis
    record, pending, fc_outputs, mse = {}, list(passes), [], []

    def make_run_d(run_d):
        def wrapped(*args, **kwargs):
            logits, preds, omegas = run_d(*args, **kwargs)
            record[f"{pending[0]}/logits"] = logits
            record.update({f"{pending[0]}/omega/{group}": omegas[group] for group in omegas})
            record.update({f"{pending[0]}/pred/{group}": preds[group] for group in preds})
            return logits, preds, omegas

        return wrapped

    def make_mse(mse_loss):
        def wrapped(*args, **kwargs):
            mse.append(mse_loss(*args, **kwargs))
            return mse[-1]

        return wrapped

    def make_backward(backward):
        def wrapped(total, *args, **kwargs):
            name = pending.pop(0)
            augmented, clean = fc_outputs
            clean.retain_grad()
            backward(total, *args, **kwargs)
            record.update(
                {f"{name}/loss": total, f"{name}/features/augmented": augmented, f"{name}/features/clean": clean}
            )
            if mse:  # in the order of the groups; G has two per group
                record[f"{name}/mse"] = torch.stack(mse)
                record[f"{name}/grad_features/clean"] = clean.grad
            for key, parameter in discriminator.named_parameters():
                if parameter.grad is not None:
                    record[f"{name}/grad/{key}"] = parameter.grad
                    parameter.grad = None
            if synthesis.images.grad is not None:
                record[f"{name}/grad_images"] = synthesis.images.grad
                synthesis.images.grad = None
            fc_outputs.clear()
            mse.clear()

        return wrapped

    hook = discriminator.b4.fc.register_forward_hook(lambda _module, _inputs, output: fc_outputs.append(output))
    c = torch.zeros([real.shape[0], 0])
    z = torch.zeros([real.shape[0], 1])
    with (
        patched(stylegan2_loss, "run_D", make_run_d),
        patched(torch.nn.functional, "mse_loss", make_mse),
        patched(torch.Tensor, "backward", make_backward),
    ):
        stylegan2_loss.accumulate_gradients(
            phase, real_img=real.to(torch.float32) / 127.5 - 1, real_c=c, gen_z=z, gen_c=c, sync=True, gain=1
        )
    hook.remove()
    assert not pending, f"{phase}: no backward pass was seen for {pending}"
    return record


# Files. -------------------------------------------------------------------------------------------


def save(path, record):
    arrays = {
        key: value.detach().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
        for key, value in record.items()
    }
    np.savez_compressed(path, torch_version=np.asarray(torch.__version__), **arrays)
    print(f"{path}: {len(arrays)} arrays, {path.stat().st_size / 1024:.0f} KiB")


def main():
    parser = argparse.ArgumentParser(description="Record golden files from the authors' repositories.")
    parser.add_argument(
        "--diffaugment-repo",
        metavar="DIR",
        type=pathlib.Path,
        required=True,
        help=f"Checkout of mit-han-lab/data-efficient-gans at {DIFFAUGMENT_COMMIT}",
    )
    parser.add_argument(
        "--augself-repo",
        metavar="DIR",
        type=pathlib.Path,
        required=True,
        help=f"Checkout of liang-hou/augself-gan at {AUGSELF_COMMIT}",
    )
    parser.add_argument("--out", metavar="DIR", type=pathlib.Path, required=True, help="Where the .npz files go")
    args = parser.parse_args()
    warnings.filterwarnings("ignore", module=".*(conv2d_gradfix|functional|DiffAugment).*")
    torch.set_num_threads(1)  # sums in one order, whatever the machine
    args.out.mkdir(parents=True, exist_ok=True)
    save(args.out / "diffaugment.npz", record_diffaugment(args.diffaugment_repo, args.augself_repo))
    save(args.out / "augself.npz", record_augself(args.augself_repo))


if __name__ == "__main__":
    main()
