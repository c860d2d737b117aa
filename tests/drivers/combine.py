"""Run in an ada host's folder: two iterations of every pair of plug-ins. Prints a JSON line: pair -> what is wrong."""

import itertools
import json
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import timm
import torch

sys.path.insert(0, ".")
from stylegan_plugins.errors import PluginError
from stylegan_plugins.host.modules import host_module
from stylegan_plugins.manager import builtin, catalogue
from stylegan_plugins.run.session import Session
from training_ext.loss import PluginLoss

networks = host_module("training.networks")
torch.set_num_threads(1)
N = 4
weights = Path(tempfile.mkdtemp(), "test_vit.pth")
torch.save(timm.create_model("test_vit").state_dict(), weights)
OPTIONS = {"vision-aided": {"models": f"test_vit={weights}", "warmup_kimg": 0.0}}


def iterate(plugins):
    """Two iterations of all phases: names of parameters that are not finite, and of networks that have not moved."""
    torch.manual_seed(0)
    channels = dict(channel_base=128, channel_max=8)
    labels = 12 if "disp" in plugins.names else 0
    common = dict(img_resolution=16, img_channels=3)
    mapping = dict(z_dim=8, w_dim=8, c_dim=labels, mapping_kwargs=dict(num_layers=2))
    G = networks.Generator(synthesis_kwargs=channels, **mapping, **common)
    D = networks.Discriminator(c_dim=0, epilogue_kwargs=dict(mbstd_group_size=4), **channels, **common)
    G.train().requires_grad_(False), D.train().requires_grad_(False)
    loss = PluginLoss(torch.device("cpu"), G.mapping, G.synthesis, D, r1_gamma=1, pl_weight=2, pl_batch_shrink=1)
    phases = []
    for name, net in (("G", G), ("D", D)):
        opt = torch.optim.Adam(net.parameters(), lr=0.002, betas=(0.0, 0.99))
        phases += [SimpleNamespace(name=name + part, module=net, opt=opt) for part in ("main", "reg")]
    session = Session(plugins)
    session.attach(G, D, G, None, loss, phases)
    before = {name: value.clone() for name, value in (*G.named_parameters(), *D.named_parameters())}
    for index in range(2):
        for phase in phases:
            phase.opt.zero_grad(set_to_none=True)
            phase.module.requires_grad_(True)
            real, z, c = torch.rand([N, 3, 16, 16]) * 2 - 1, torch.randn([N, 8]), torch.randn([N, labels])
            loss.accumulate_gradients(phase.name, real_img=real, real_c=c, gen_z=z, gen_c=c, gain=1, sync=True)
            phase.module.requires_grad_(False)
            phase.opt.step()
            session.step_end(phase)
        session.batch_end((index + 1) * N, index + 1)
    parameters = [*G.named_parameters(), *D.named_parameters(), *session.heads.named_parameters()]
    wrong = [name for name, value in parameters if not torch.isfinite(value).all()]
    if not any((value - before[name]).any() for name, value in G.named_parameters()):
        wrong.append("G has not moved")
    if not any((value - before[name]).any() for name, value in D.named_parameters()):
        wrong.append("D has not moved")
    return wrong


faults = {}
for pair in itertools.combinations(builtin(), 2):
    try:
        given = {name: value for name, value in OPTIONS.items() if name in pair}
        plugins = catalogue().activate(pair, given)
    except PluginError:
        faults[",".join(pair)] = "refused"
        continue
    faults[",".join(pair)] = ", ".join(iterate(plugins))
print(json.dumps(faults))
