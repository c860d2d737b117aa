"""Run in a host's folder: compare gradients of PluginLoss and of the host's own loss, phase by phase.

Prints one JSON line: phase and variant -> names of the parameters whose gradients differ in any bit."""

import json
import sys

import torch

sys.path.insert(0, ".")
from stylegan_plugins.host.modules import host_module

host_loss = host_module("training.loss")
host_module("torch_utils.ops.grid_sample_gradfix").enabled = True  # as the training loop has it
from types import ModuleType, SimpleNamespace

from stylegan_plugins import Augmentation, Term, hookimpl
from stylegan_plugins.manager import catalogue
from stylegan_plugins.run.session import Session
from training_ext.loss import PluginLoss

family = sys.argv[1]
ADA = family == "stylegan2-ada-pytorch"
torch.set_num_threads(1)


def networks():
    torch.manual_seed(0)
    common = dict(c_dim=3, img_resolution=32, img_channels=3)
    channels = dict(channel_base=256, channel_max=16)
    module = host_module("training.networks" if ADA else "training.networks_stylegan2")
    kwargs = dict(synthesis_kwargs=channels) if ADA else channels
    G = module.Generator(z_dim=16, w_dim=16, mapping_kwargs=dict(num_layers=2), **kwargs, **common)
    D = module.Discriminator(**channels, **common)
    pipe = host_module("training.augment").AugmentPipe(xflip=1, rotate90=1, scale=1, brightness=1, saturation=1)
    pipe.p.fill_(0.5)
    for parameter in G.parameters():  # noise strengths and biases start at 0, which would hide an order of operations
        parameter.data += 0.1 * torch.randn_like(parameter)
    return G.train().requires_grad_(False), D.train().requires_grad_(False), pipe.train().requires_grad_(False)


def make(cls, G, D, pipe, **kwargs):
    if ADA:
        return cls(torch.device("cpu"), G.mapping, G.synthesis, D, augment_pipe=pipe, r1_gamma=1, **kwargs)
    blur = dict(blur_init_sigma=2, blur_fade_kimg=1)
    return cls(
        torch.device("cpu"), G, D, augment_pipe=pipe, r1_gamma=1, pl_weight=2, style_mixing_prob=0.9, **blur, **kwargs
    )


def gradients(loss, G, D, phase):
    """Return every gradient, and the state that a phase leaves: pl_mean, w_avg and the random numbers that follow."""
    torch.manual_seed(1)
    batch = 8
    arguments = dict(
        real_img=torch.rand([batch, 3, 32, 32]) * 2 - 1,
        real_c=torch.eye(3)[torch.arange(batch) % 3],
        gen_z=torch.randn([batch, 16]),
        gen_c=torch.eye(3)[torch.arange(batch) % 3],
        gain=16,
    )
    arguments |= dict(sync=True) if ADA else dict(cur_nimg=100)
    module = G if phase.startswith("G") else D
    module.requires_grad_(True)
    loss.accumulate_gradients(phase=phase, **arguments)
    module.requires_grad_(False)
    result = {f"{type(net).__name__}.{name}": p.grad for net in (G, D) for name, p in net.named_parameters()}
    result |= {f"buffer {name}": b.clone() for name, b in G.named_buffers()}
    result |= {"pl_mean": loss.pl_mean.clone(), "random state": torch.get_rng_state()}
    return result


def no_term(step):
    raise AssertionError("a term of weight 0 is not computed")


def draw(images):
    return {"none": images.new_zeros([len(images), 1])}


off = [Term("off", "D", no_term, weight=0), Term("off", "G", no_term, weight=0, on="generated")]
VARIANTS = {
    "no parts": {},
    "one term of weight 0": {"terms": off},
    "an augmentation that does nothing": {"augmentations": [Augmentation("identity", draw, lambda x, omega: x)]},
}


def attach(loss, G, D, variant):
    """Return a session with a method that has these parts, in this loss."""

    @hookimpl
    def setup():
        return SimpleNamespace(**VARIANTS[variant])

    name = variant.replace(" ", "-")
    if name not in catalogue().sources:
        plugin = ModuleType(name)
        plugin.setup = setup
        catalogue().add(name, plugin)
    session = Session(catalogue().activate([name], {}))
    phases = [
        SimpleNamespace(name=n + "main", module=m, opt=torch.optim.Adam(m.parameters()))
        for n, m in (("G", G), ("D", D))
    ]
    session.attach(G, D, G, None, loss, phases)
    session.nimg = 100


differences = {}
for with_pipe in (True, False):
    for phase in ("Gmain", "Greg", "Gboth", "Dmain", "Dreg", "Dboth"):
        G, D, pipe = networks()
        expected = gradients(make(host_loss.StyleGAN2Loss, G, D, pipe if with_pipe else None), G, D, phase)
        assert any(value is not None for name, value in expected.items() if not name.startswith("buffer"))
        for variant in VARIANTS:
            G, D, pipe = networks()
            loss = make(PluginLoss, G, D, pipe if with_pipe else None)
            attach(loss, G, D, variant)
            actual = gradients(loss, G, D, phase)
            assert actual.keys() == expected.keys()
            differences[f"{phase}, {variant}, ADA {with_pipe}"] = [
                name
                for name in expected
                if (expected[name] is None) != (actual[name] is None)
                or (expected[name] is not None and not torch.equal(expected[name], actual[name]))
            ]
print(json.dumps(differences))
