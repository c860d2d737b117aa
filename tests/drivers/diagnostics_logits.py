"""Run in an ada host's folder: the logits that diagnostics measure, for each way in which a plug-in makes them. Prints
a JSON line: claim -> whether it holds."""

import json
import sys
from types import SimpleNamespace

import torch

sys.path.insert(0, ".")
from stylegan_plugins.host.modules import host_module
from stylegan_plugins.manager import catalogue
from stylegan_plugins.run.session import Session
from training_ext.diagnostics import evaluating
from training_ext.loss import PluginLoss
from training_ext.passes import read

networks, augment = host_module("training.networks"), host_module("training.augment")
torch.set_num_threads(1)
N = 8
holds = {}
for name in ("diffaugment", "contrad", "disp"):
    torch.manual_seed(0)
    channels = dict(channel_base=128, channel_max=8)
    labels = 5 if name == "disp" else 0
    common = dict(img_resolution=16, img_channels=3)
    G = networks.Generator(
        z_dim=8, w_dim=8, c_dim=labels, mapping_kwargs=dict(num_layers=2), synthesis_kwargs=channels, **common
    )
    D = networks.Discriminator(c_dim=0, **channels, **common)
    G.train().requires_grad_(False), D.train().requires_grad_(False)
    pipe = augment.AugmentPipe(xflip=1, brightness=1).train().requires_grad_(False)
    pipe.p.copy_(torch.as_tensor(1.0))
    loss = PluginLoss(torch.device("cpu"), G.mapping, G.synthesis, D, augment_pipe=pipe)
    optimizer = torch.optim.Adam(D.parameters())
    session = Session(catalogue().activate([name, "diagnostics"], {}))
    session.attach(G, D, G, pipe, loss, [SimpleNamespace(name="Dmain", module=D, opt=optimizer)])
    for parameter in session.heads.parameters():
        parameter.data.normal_()
    images, c = torch.rand([N, 3, 16, 16]) * 2 - 1, torch.randn([N, labels])
    random, kept = torch.get_rng_state(), loss.augment_pipe
    with evaluating(D, G):
        modes = [D.training, G.mapping.training]
        logits = session.judge(images, c)
    with torch.no_grad():
        expected, layers = read(D, ["b4.conv", "b4.fc"], images, c)
    if name == "contrad":
        expected = session.heads["contrad"]["logits"](layers["b4.conv"].flatten(1))
    if name == "disp":
        embedded = session.heads["disp"](c)
        expected = expected + (embedded * layers["b4.fc"]).sum(dim=1, keepdim=True) / layers["b4.fc"].shape[1] ** 0.5
    holds[f"{name}: logits are those that train"] = bool(torch.allclose(logits, expected, rtol=1e-6, atol=1e-6))
    holds[f"{name}: evaluation, without gradients"] = modes == [False, False] and not logits.requires_grad
    holds[f"{name}: modes are as they were"] = D.training and all(module.training for module in G.modules())
    holds[f"{name}: no random numbers are drawn"] = torch.equal(random, torch.get_rng_state())
    holds[f"{name}: the pipe is in its place"] = loss.augment_pipe is kept
    stats = host_module("torch_utils.training_stats")
    holds[f"{name}: nothing is reported"] = not stats._counters
print(json.dumps(holds))
