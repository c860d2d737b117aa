"""Run in a host's folder: networks of other programs, made by our code, beside what their authors' code recorded.

foreign_networks.py authors GOLDEN OUT       prints the largest differences from the recorded images and logits, by name
foreign_networks.py state-dicts GOLDEN OUT   state dicts of networks of the host, saved and read in each way"""

import itertools
import json
import pickle
import sys
from pathlib import Path

sys.path.insert(0, ".")
import numpy as np
import safetensors.torch
import torch

from stylegan_plugins.files.pickles import read_pickle
from stylegan_plugins.host import networks
from stylegan_plugins.host.modules import host_module


def module(*names):
    for name in names:
        try:
            return host_module(name)
        except ModuleNotFoundError:
            continue
    raise SystemExit(f"none of {names}")


def difference(found, expected):
    return float((found - torch.as_tensor(expected)).abs().max())


def authors(golden, out):
    ours = {key: networks.load_network(golden / "foreign_rosinality.pt", key) for key in ("G", "G_ema", "D")}
    record = np.load(golden / "foreign_rosinality.npz")
    z = torch.as_tensor(record["z"])
    found = {key: difference(ours[key](z, None, noise_mode="const"), record[key]) for key in ("G", "G_ema")}
    found["D"] = difference(ours["D"](torch.as_tensor(record["images"]), None), record["logits"])
    found["w_avg"] = difference(ours["G_ema"].mapping.w_avg, record["latent_avg"])
    data = {"g_ema": read_pickle(golden / "foreign_rosinality.pt").data["g_ema"]}
    torch.save(data | {"latent_avg": torch.as_tensor(record["latent_avg"])}, out / "converted.pt")
    G = networks.load_network(out / "converted.pt", "G_ema")
    found["truncated"] = difference(G(z, None, noise_mode="const", truncation_psi=0.7), record["truncated"])
    record = np.load(golden / "foreign_projected_gan.npz")
    G = networks.load_network(golden / "foreign_projected_gan.pkl", "G_ema")
    found["projected-gan"] = difference(G(torch.as_tensor(record["z"]), None, noise_mode="const"), record["G_ema"])
    return found


def state_dicts(golden, out):
    stylegan2 = module("training.networks", "training.networks_stylegan2")
    common = dict(img_channels=3, channel_base=512, channel_max=24, num_fp16_res=0)
    made = {}
    for architecture, side, c_dim in itertools.product(("skip", "resnet", "orig"), (8, 32), (0, 3)):
        settings = dict(c_dim=c_dim, img_resolution=side)
        synthesis = dict(channel_base=512, channel_max=24, architecture=architecture, conv_clamp=256, num_fp16_res=0)
        kwargs = dict(
            z_dim=12, w_dim=16, img_channels=1, mapping_kwargs=dict(num_layers=3, layer_features=20), **settings
        )
        G = stylegan2.Generator(**networks.in_the_shape_of(stylegan2.Generator, {**kwargs, **synthesis}))
        D = stylegan2.Discriminator(architecture=architecture, **common, **settings)
        made[f"G {architecture} {side} {c_dim}"], made[f"D {architecture} {side} {c_dim}"] = G, D
    try:
        stylegan3 = host_module("training.networks_stylegan3")
        for name, kernel, radial in (("t", 3, False), ("r", 1, True)):
            more = dict(channel_base=512, channel_max=16, conv_kernel=kernel, use_radial_filters=radial, num_fp16_res=0)
            kwargs = dict(
                z_dim=16, c_dim=2, w_dim=16, img_resolution=32, img_channels=3, mapping_kwargs=dict(num_layers=2)
            )
            made[f"G stylegan3-{name}"] = stylegan3.Generator(**kwargs, **more)
    except ModuleNotFoundError:
        pass
    ways = {
        "zip": torch.save,
        "legacy": lambda value, file: torch.save(value, file, _use_new_zipfile_serialization=False),
        "pickle": lambda value, file: Path(file).write_bytes(pickle.dumps(value)),
        "safetensors": safetensors.torch.save_file,
        "module": lambda value, file: torch.save(
            {"model": {f"module.{key}": item for key, item in value.items()}}, file
        ),
    }
    found = {}
    for (name, network), way in zip(made.items(), itertools.cycle(ways)):
        network.eval().requires_grad_(False)
        for value in network.parameters():
            value.add_(torch.randn(value.shape) * 0.1)
        state = {key: value.contiguous() for key, value in network.state_dict().items()}
        ways[way](state, str(out / "x"))
        key = "D" if name[0] == "D" else "G_ema"
        again = networks.build(read_pickle(out / "x").network(key))
        assert {n for n, _ in again.named_parameters()} == {n for n, _ in network.named_parameters()}, name
        c = torch.eye(3)[:2, : network.c_dim]
        if key == "D":
            data = torch.randn([2, 3, network.img_resolution, network.img_resolution])
            found[f"{name}, {way}"] = difference(again(data, c), network(data, c))
        else:
            z = torch.randn([2, network.z_dim])
            how = {} if "stylegan3" in name else {"noise_mode": "const"}
            found[f"{name}, {way}"] = difference(again(z, c, **how), network(z, c, **how))
    torch.save(stylegan2.Generator(16, 0, 16, 8, 1), out / "bare.pt")
    (out / "bare.pkl").write_bytes(pickle.dumps(made["D skip 8 0"]))
    for name, key in (("bare.pt", "G_ema"), ("bare.pkl", "D")):
        networks.load_network(out / name, key)
    return found


host_module("dnnlib")  # its repair tries gradients
work = {"authors": authors, "state-dicts": state_dicts}[sys.argv[1]]
with torch.no_grad():
    print(json.dumps(work(*map(Path, sys.argv[2:]))))
