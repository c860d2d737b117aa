"""Run in an ada host's folder: steps of the authors' AugSelf, recorded in augself.npz, through our session and loss.

Prints one JSON line: relative differences of gradients by phase, and the batches that went through D."""

import json
import sys

import numpy as np
import torch

sys.path.insert(0, ".")
from stylegan_plugins.host.modules import host_module
from stylegan_plugins.manager import catalogue
from stylegan_plugins.run.session import Session
from training_ext.diffaugment import GROUPS
from training_ext.loss import PluginLoss

torch.set_num_threads(1)
recorded = np.load(sys.argv[1])
golden = {name: torch.from_numpy(recorded[name]) for name in recorded.files if recorded[name].dtype.kind != "U"}
networks = host_module("training.networks")
config = {name.split("/")[1]: int(value) for name, value in golden.items() if name.startswith("config/")}
D = networks.Discriminator(**config, epilogue_kwargs=dict(mbstd_group_size=int(golden["mbstd_group_size"])))
weights = {name[2:]: value for name, value in golden.items() if name.startswith("D/") and "augself" not in name}
D.load_state_dict({**D.state_dict(), **weights})
D.requires_grad_(False)


class Mapping(torch.nn.Module):
    def forward(self, z, c, **kwargs):
        return torch.zeros([len(z), 1, 1])


class Synthesis(torch.nn.Module):
    """Stands in for a generator: fixed images, as in the recording."""

    def __init__(self):
        super().__init__()
        self.images = torch.nn.Parameter(golden["input/generated"].float() / 127.5 - 1)

    def forward(self, ws, **kwargs):
        return self.images * 1


class Generator(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.mapping, self.synthesis = Mapping(), G


class Phase:
    def __init__(self, name, module):
        self.name, self.module = name, module
        self.opt = torch.optim.Adam(module.parameters(), lr=0.002, betas=(0.0, 0.99))


G = Synthesis()
values = dict(style_mixing_prob=0, pl_weight=0, r1_gamma=float(golden["r1_gamma"]))
loss = PluginLoss(torch.device("cpu"), Mapping(), G, D, **values)
weight = dict(d_weight=float(golden["d_weight"]), g_weight=float(golden["g_weight"]))
session = Session(catalogue().activate(["augself"], {"augself": weight}))
session.attach(Generator(), D, G, None, loss, [Phase("Dmain", D)])
layers = session.heads["augself"].groups
for group in GROUPS:
    for part in ("weight", "bias"):
        getattr(layers[group], part).data.copy_(golden[f"D/b4.out_augself.{group}.{part}"])

forwards = []
D.register_forward_pre_hook(lambda module, inputs: forwards.append(len(inputs[0])))


def run(phase):
    module = G if phase == "Gmain" else D
    module.requires_grad_(True)
    real, z, c = golden["input/real"].float() / 127.5 - 1, torch.zeros([8, 1]), torch.zeros([8, 0])
    loss.accumulate_gradients(phase, real_img=real, real_c=c, gen_z=z, gen_c=c, gain=1, sync=True)
    module.requires_grad_(False)
    heads = {f"b4.out_augself.{name}": p.grad for name, p in layers.named_parameters()}
    gradients = {name: p.grad for name, p in D.named_parameters()} | heads
    result = {name: value.clone() for name, value in gradients.items() if value is not None}
    D.zero_grad(), session.heads.zero_grad()
    return result


def difference(actual, expected):
    """Return the length of the difference of two gradients, relative to the expected one's. Each is a dictionary of
    tensors that is one long vector."""
    squared = sum(float((actual[name] - expected[name]).double().square().sum()) for name in expected)
    return (squared / sum(float(value.double().square().sum()) for value in expected.values())) ** 0.5


def recorded_gradient(*passes):
    names = {key.split("/grad/")[1] for key in golden if any(key.startswith(f"{p}/grad/") for p in passes)}
    return {
        name: sum(golden[f"{p}/grad/{name}"] for p in passes if f"{p}/grad/{name}" in golden) for name in sorted(names)
    }


torch.manual_seed(int(golden["seed"]))
differences = {}
run("Gmain")
differences["G: images"] = difference({"images": G.images.grad}, {"images": golden["G/grad_images"]})
actual, expected = run("Dmain"), recorded_gradient("D_generated", "D_real")
heads = [name for name in expected if "augself" in name]
assert len(heads) == 6 and len(expected) > 20
differences["D: parameters"] = difference(actual, {n: v for n, v in expected.items() if n not in heads})
differences["D: heads"] = difference(actual, {n: expected[n] for n in heads})
differences["R1: parameters"] = difference(run("Dreg"), recorded_gradient("D_r1"))
differences["forward passes of D"] = forwards
print(json.dumps(differences))
