"""Run in an ada host's folder: disp's discriminator and its start from a pickle. Prints one JSON line.

disp_step.py PICKLE SNAPSHOT"""

import json
import sys
from types import SimpleNamespace

import torch

sys.path.insert(0, ".")
from stylegan_plugins.files.pickles import read_pickle
from stylegan_plugins.host import networks as made
from stylegan_plugins.host.modules import host_module
from stylegan_plugins.manager import catalogue
from stylegan_plugins.run import finetune
from stylegan_plugins.run.session import Session
from training_ext import disp
from training_ext.labels import embed, map_embedded
from training_ext.loss import PluginLoss
from training_ext.passes import read

networks = host_module("training.networks")
torch.set_num_threads(1)
N, SIDE, WIDTH = 8, 32, 12
result = {}


def make():
    torch.manual_seed(0)
    channels = dict(channel_base=256, channel_max=16)
    common = dict(c_dim=WIDTH, img_resolution=SIDE, img_channels=3)
    G = networks.Generator(z_dim=16, w_dim=16, mapping_kwargs=dict(num_layers=2), synthesis_kwargs=channels, **common)
    D = disp.unconditional(host_class="training.networks.Discriminator", **channels, **common)
    G.train().requires_grad_(False), D.train().requires_grad_(False)
    loss = PluginLoss(torch.device("cpu"), G.mapping, G.synthesis, D, r1_gamma=1, pl_weight=0)
    phases = [
        SimpleNamespace(name=name, module=net, opt=torch.optim.Adam(net.parameters(), lr=0.002, betas=(0.0, 0.99)))
        for name, net in (("Gmain", G), ("Dmain", D))
    ]
    session = Session(catalogue().activate(["disp"], {}))
    session.attach(G, D, G, None, loss, phases)
    return session


def run(session, phase):
    torch.manual_seed(1)
    module = session.G if phase.startswith("G") else session.D
    module.requires_grad_(True)
    module.zero_grad(set_to_none=True)
    session.heads.zero_grad(set_to_none=True)
    real, z, c = torch.rand([N, 3, SIDE, SIDE]) * 2 - 1, torch.randn([N, 16]), torch.randn([N, WIDTH])
    session.loss.accumulate_gradients(phase, real_img=real, real_c=c, gen_z=z, gen_c=c, gain=1, sync=True)
    module.requires_grad_(False)
    clone = lambda net: {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}
    return clone(module), clone(session.heads), real, c


session = make()
D, head = session.D, session.heads["disp"]
result["D has no labels"] = D.c_dim == 0 and type(D).__name__ == "Discriminator"
images, labels = torch.rand([N, 3, SIDE, SIDE]) * 2 - 1, torch.randn([N, WIDTH])
logits = lambda: session.judge(images, labels)
with torch.no_grad():
    result["with D_emb zero it is the unconditional D"] = torch.equal(logits(), D(images, None))
    head.weight.normal_()
    head.bias.normal_()
    plain, layers = read(D, ["b4.fc"], images, None)
    f = layers["b4.fc"]
    embedded = labels @ head.weight.T / WIDTH**0.5 + head.bias
    expected = torch.stack([plain[n, 0] + sum(f[n] * embedded[n]) / len(f[n]) ** 0.5 for n in range(N)])[:, None]
    result["the projection form equals a plain recomputation"] = torch.allclose(
        logits(), expected, rtol=1e-4, atol=1e-5
    )
d, heads, _, _ = run(session, "Dmain")
result["D and D_emb learn"] = all(g.any() for g in d.values()) and all(g.any() for g in heads.values())
g, heads, _, _ = run(session, "Gmain")
result["G's embedding of priors learns, D_emb does not"] = bool(g["mapping.embed.weight"].any()) and heads == {}
d, heads, real, c = run(session, "Dreg")
leaf = real.requires_grad_(True)
D.requires_grad_(True), head.requires_grad_(True)
plain, layers = read(D, ["b4.fc"], leaf, None)
conditional = plain + disp.projection(layers["b4.fc"], head(c))
(slope,) = torch.autograd.grad(conditional.sum(), [leaf], create_graph=True)
penalty = (slope.square().sum([1, 2, 3]) / 2).mean()
expected = torch.autograd.grad(penalty, [D.b4.fc.weight, head.weight])
result["R1 is that of the conditional logits"] = torch.allclose(
    d["b4.fc.weight"], expected[0], rtol=1e-3, atol=1e-7
) and torch.allclose(heads["disp.weight"], expected[1], rtol=1e-3, atol=1e-7)

# The start from a pickle without labels.
source, snapshot = read_pickle(sys.argv[1]), read_pickle(sys.argv[2])
for key in ("G", "D"):
    before = made.build(source.network(key))
    after = made.build(snapshot.network(key))
    torch.manual_seed(2)
    with torch.no_grad():
        if key == "G":
            z = torch.randn([N, before.z_dim])
            x = before(z, None, noise_mode="const")
            y = after(z, torch.randn([N, after.c_dim]) * 3, noise_mode="const")
        else:
            x, y = before(images, None), after(images, None)
    result[f"{key} starts as the pickle's, to 1e-6"] = float((x - y).abs().max() / x.abs().max()) < 1e-6
with torch.no_grad():
    G = made.build(snapshot.network("G"))
    priors = torch.randn([N, G.c_dim])
    z = torch.randn([N, G.z_dim])
    result["priors can be given as G embeds them"] = torch.equal(
        map_embedded(G, z, embed(G, priors)), G.mapping(z, priors)
    )
narrow, wide = torch.randn([5, 6]), finetune._widened(torch.randn([5, 6]), 10)
result["what is new of a layer ignores its inputs"] = not wide[:, 6:].any() and list(wide.shape) == [5, 10]
print(json.dumps(result))
