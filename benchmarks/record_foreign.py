"""Record small networks of other programs, and the results of their authors' code, as tests/golden/foreign_*.

    python benchmarks/record_foreign.py --rosinality DIR --lucidrains DIR --projected-gan DIR --out tests/golden

The directories are checkouts at the commits below. As in record_golden.py their code runs where it lies, on a CPU, and
nothing of it is written. Replaced in memory: compilers of custom ops, which have paths for CPUs beside them; widths,
which are constants of the code; libraries that are imported and not used here."""

import argparse
import copy
import pathlib
import pickle
import sys
import types

import numpy as np
import torch
import torch.utils.cpp_extension
from record_golden import check_checkout, patched, save

COMMITS = {
    "rosinality": ("bef283a1c24087da704d16c30abc8e36e63efa0e", ("model.py", "op/fused_act.py", "op/upfirdn2d.py")),
    "lucidrains": ("ce7f830bc10d037cddc75d6166904baf07945cf6", ("stylegan2_pytorch/stylegan2_pytorch.py",)),
    "projected_gan": (
        "e1c246b8bdce4fac3c2bfcb69df309fc27df9b86",
        ("pg_modules/networks_stylegan2.py", "pg_modules/discriminator.py", "pg_modules/projector.py"),
    ),
}
SIDE, STYLE, DEPTH, WIDTH, N = 32, 16, 3, 12, 4  # D looks at images in groups of four


def narrow(cls):
    """Give a class of rosinality's, whose channels are constants of its code, few channels."""
    code = cls.__init__.__code__
    assert 512 in code.co_consts
    cls.__init__.__code__ = code.replace(co_consts=tuple(WIDTH if c == 512 else c for c in code.co_consts))


def stir(network):
    """Give noise and biases, which begin at zero, values that show a mistake."""
    for name, value in network.named_parameters():
        if value.ndim < 2 or name.endswith("bias"):
            torch.nn.init.normal_(value, std=0.3)
    return network.eval()


def record_rosinality(out):
    with patched(torch.utils.cpp_extension, "load", lambda original: lambda *args, **kwargs: None):
        import model
    narrow(model.Generator)
    narrow(model.Discriminator)
    torch.manual_seed(0)
    g, g_ema = (stir(model.Generator(SIDE, STYLE, DEPTH)) for _ in range(2))
    d = stir(model.Discriminator(SIDE))
    args = argparse.Namespace(path="data", size=SIDE, latent=STYLE, n_mlp=DEPTH, channel_multiplier=2, ckpt=None)
    optimizer = torch.optim.Adam(d.parameters())
    state = {"g": g.state_dict(), "d": d.state_dict(), "g_ema": g_ema.state_dict()}
    torch.save(
        state | {"d_optim": optimizer.state_dict(), "args": args, "ada_aug_p": 0.0}, out / "foreign_rosinality.pt"
    )
    z, images = torch.randn([N, STYLE]), torch.randn([2 * N, 3, SIDE, SIDE])
    average = g_ema.style(torch.randn([10_000, STYLE])).mean(dim=0)
    draw = lambda G, **how: G([z], randomize_noise=False, **how)[0]
    record = {"commit": COMMITS["rosinality"][0], "z": z, "images": images, "logits": d(images), "latent_avg": average}
    record |= {"G": draw(g), "G_ema": draw(g_ema)}
    record["truncated"] = draw(g_ema, truncation=0.7, truncation_latent=average)
    save(out / "foreign_rosinality.npz", record)


def record_lucidrains(out):
    for name in ("fire", "aim", "kornia", "kornia.filters", "vector_quantize_pytorch", "torchvision", "einops"):
        sys.modules[name] = types.ModuleType(name)
    for name, of in (
        *(("filter2d", "kornia.filters"), ("VectorQuantize", "vector_quantize_pytorch")),
        *(("transforms", "torchvision"), ("rearrange", "einops"), ("repeat", "einops")),
    ):
        setattr(sys.modules[of], name, None)
    with patched(torch.cuda, "is_available", lambda original: lambda: True):
        from stylegan2_pytorch.stylegan2_pytorch import StyleGAN2
    torch.manual_seed(0)
    with patched(torch.nn.Module, "cuda", lambda original: lambda self, rank: self):
        network = StyleGAN2(8, latent_dim=8, style_depth=2, network_capacity=1)
    torch.save({"GAN": network.state_dict(), "version": "1.9.0"}, out / "foreign_lucidrains.pt")


def record_projected_gan(out):
    import timm
    from pg_modules import networks_stylegan2
    from pg_modules.discriminator import ProjectedDiscriminator

    torch.manual_seed(0)
    small = dict(channel_base=128, channel_max=WIDTH, num_fp16_res=0)
    G = networks_stylegan2.Generator(
        z_dim=STYLE,
        c_dim=0,
        w_dim=STYLE,
        img_resolution=SIDE,
        img_channels=3,
        mapping_kwargs=dict(num_layers=2),
        **small,
    )

    def create(original):
        def untrained(name, pretrained):
            network = original(name, pretrained=False)
            network.act1 = torch.nn.Identity()  # a part of bn1 in newer versions of timm
            return network

        return untrained

    with patched(timm, "create_model", create):
        D = ProjectedDiscriminator(
            diffaug=True, interp224=False, backbone_kwargs=dict(cout=8, expand=True, proj_type=2)
        )
    for module in D.modules():  # of D its classes are needed, not its numbers
        for values in (vars(module), module._parameters, module._buffers):
            for value in values.values():
                if isinstance(value, torch.Tensor):
                    value.data = value.data.new_empty([0])
    G = stir(G).requires_grad_(False)
    data = dict(G=G, D=D, G_ema=copy.deepcopy(G), training_set_kwargs=None)
    z = torch.randn([N, STYLE])
    images = G(z, None, noise_mode="const")
    for module in (*G.modules(), *data["G_ema"].modules()):
        if hasattr(module, "_orig_module_src"):
            type(module)._orig_module_src = ""  # their code, which pickles carry
    (out / "foreign_projected_gan.pkl").write_bytes(pickle.dumps(data))
    record = {"commit": COMMITS["projected_gan"][0], "z": z, "G_ema": images}
    save(out / "foreign_projected_gan.npz", record)


def main():
    parser = argparse.ArgumentParser(description="Record tests/golden/foreign_* from the authors' repositories.")
    for name in COMMITS:
        parser.add_argument(f"--{name.replace('_', '-')}", metavar="DIR", type=pathlib.Path, help="Checkout")
    parser.add_argument("--out", metavar="DIR", type=pathlib.Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    for name, (commit, files) in COMMITS.items():
        if (repo := getattr(args, name)) is not None:
            check_checkout(repo, commit, files)
            sys.path.insert(0, str(repo))
            with torch.no_grad():
                globals()[f"record_{name}"](args.out)


if __name__ == "__main__":
    np.random.seed(0)
    main()
