"""Run in an ada host's folder: single phases of a session with contrad. Prints one JSON line of named truths."""

import json
import sys
from types import SimpleNamespace

import torch

sys.path.insert(0, ".")
from stylegan_plugins.host.modules import host_module
from stylegan_plugins.manager import catalogue
from stylegan_plugins.run.session import Session
from training_ext.batches import join, split
from training_ext.loss import PluginLoss
from training_ext.passes import read

networks = host_module("training.networks")
torch.set_num_threads(1)
N, SIDE, GAMMA = 8, 32, 3.0
images_seen = []
truth = {}


def make(plugins=("contrad",), d_kwargs=None, **options):
    """Return a session on small networks; PluginLoss with its parts."""
    torch.manual_seed(0)
    channels = dict(channel_base=256, channel_max=16)
    common = dict(c_dim=0, img_resolution=SIDE, img_channels=3)
    G = networks.Generator(z_dim=16, w_dim=16, mapping_kwargs=dict(num_layers=2), synthesis_kwargs=channels, **common)
    D = networks.Discriminator(epilogue_kwargs=dict(mbstd_group_size=4), **channels, **common)
    G.train().requires_grad_(False), D.train().requires_grad_(False)
    D.register_forward_pre_hook(lambda module, inputs: images_seen.append(inputs[0]))
    loss = PluginLoss(torch.device("cpu"), G.mapping, G.synthesis, D, r1_gamma=GAMMA, pl_weight=0)
    optimizers = [torch.optim.Adam(net.parameters(), lr=0.002, betas=(0.0, 0.99)) for net in (G, D)]
    phases = [
        SimpleNamespace(name=name, module=net, opt=opt)
        for net, opt, names in zip((G, D), optimizers, (("Gmain",), ("Dmain", "Dreg")))
        for name in names
    ]
    session = Session(catalogue().activate(plugins, {"contrad": options}))
    session.attach(G, D, G, None, loss, phases)
    return session


def run(session, phase):
    """Run one phase. Returns gradients by name, of the network and of the heads."""
    images_seen.clear()
    torch.manual_seed(1)
    module = session.G if phase.startswith("G") else session.D
    module.requires_grad_(True)
    module.zero_grad(set_to_none=True)
    session.heads.zero_grad(set_to_none=True)
    real = torch.rand([N, 3, SIDE, SIDE]) * 2 - 1
    z, c = torch.randn([N, 16]), torch.zeros([N, 0])
    session.loss.accumulate_gradients(phase, real_img=real, real_c=c, gen_z=z, gen_c=c, gain=1, sync=True)
    module.requires_grad_(False)
    clone = lambda net: {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}
    return clone(module), clone(session.heads)


def encoder(gradients):
    return {name: value for name, value in gradients.items() if not name.startswith(("b4.fc", "b4.out"))}


session = make()
of_encoder = len(encoder(dict(session.D.named_parameters())))
d, heads = run(session, "Dmain")
truth["Dmain: one view of generated images, two of real ones"] = [len(x) for x in images_seen] == [N, 2 * N]
truth["Dmain: the two views differ"] = not torch.equal(*images_seen[1].chunk(2))
truth["Dmain: the encoder learns"] = len(encoder(d)) == of_encoder and all(g.any() for g in encoder(d).values())
truth["Dmain: D's own last layers do not"] = encoder(d).keys() == d.keys()
truth["Dmain: all heads learn"] = len(heads) == 12 and all(g.any() for g in heads.values())

session._terms = []
d, heads = run(session, "Dmain")
truth["L_dis gives the encoder no gradient at all"] = d == {} or not any(g.any() for g in d.values())
truth["L_dis trains h_d alone"] = {name.split(".")[1] for name in heads} == {"logits"}

session = make()
g, heads = run(session, "Gmain")
truth["Gmain: one view"] = [len(x) for x in images_seen] == [N]
truth["Gmain: G learns through h_d, encoder and T"] = sum(bool(v.any()) for v in g.values()) > len(g) / 2
truth["Gmain: heads do not learn"] = heads == {}

d, heads = run(session, "Dreg")
truth["R1: one view"] = [len(x) for x in images_seen] == [N]
truth["R1 reaches the encoder and h_d"] = len(encoder(d)) >= of_encoder - 1 and {
    name.split(".")[1] for name in heads
} == {"logits"}
leaf = images_seen[0].detach().requires_grad_(True)
session.D.requires_grad_(True)
_, layers = read(session.D, ["b4.conv"], leaf, torch.zeros([N, 0]))
logits = session.heads["contrad"]["logits"](layers["b4.conv"].flatten(1))
(slope,) = torch.autograd.grad(logits.sum(), [leaf], create_graph=True)
penalty = (slope.square().sum([1, 2, 3]) * GAMMA / 2).mean()
names = [name for name in d if d[name].any()]
expected = torch.autograd.grad(penalty, [session.D.get_parameter(name) for name in names])
truth["R1 is that of the augmented images"] = all(
    torch.allclose(d[name], value, rtol=1e-4, atol=1e-9) for name, value in zip(names, expected)
)
session.D.requires_grad_(False)
clean = make(r1="clean")
d_clean, _ = run(clean, "Dreg")
truth["R1 of clean images, with --contrad-r1=clean, is another"] = not torch.allclose(
    d["b4.conv.weight"], d_clean["b4.conv.weight"], rtol=1e-2
)

d, heads = run(make(lambda_con=0, lambda_dis=0), "Dreg")
truth["SimCLR alone has no R1"] = d == {} and heads == {}
both, _ = run(make(), "Dboth")
truth["without lazy regularisation, R1 has a pass of its own"] = [len(x) for x in images_seen] == [N, 2 * N, N]


def views(session):
    """Return features of both views of real images, as the terms get them, and the images."""
    method, seen = session.methods["contrad"], []
    phi = method.made.phi
    method.made.phi = lambda made: seen.append(made) or phi(made)
    run(session, "Dmain")
    real = next(made for made in seen if made.images.source == "real" and made.view is None and made.views)
    return [phi(made).detach() for made in (real, real.views["second"])], images_seen[1].detach()


def conv(session, images):
    with torch.no_grad():
        _, layers = read(session.D, ["b4.conv"], images, torch.zeros([len(images), 0]))
    return layers["b4.conv"].flatten(1)


mixed = make()
got, images = views(mixed)
truth["views: minibatch-stddev groups hold views of both kinds"] = torch.equal(torch.cat(got), conv(mixed, images))
apart = make(mbstd="apart")
got, images = views(apart)
first, second = split(images, [N, N], 4)
truth["apart: each view has groups of its own"] = all(
    torch.allclose(value, conv(apart, view), atol=1e-6) for value, view in zip(got, (first, second))
) and torch.equal(join([first, second], 4), images)

joint = make(mbstd="joint")
d_joint, heads = run(joint, "Dmain")
whole = images_seen[0].detach()
truth["joint: one pass of two views and generated images"] = [len(x) for x in images_seen] == [3 * N]
truth["joint: encoder and heads learn"] = len(encoder(d_joint)) == of_encoder and len(heads) == 12
seen, phi = [], joint.methods["contrad"].made.phi
joint.methods["contrad"].made.phi = lambda made: seen.append((made, phi(made))) or phi(made)
run(joint, "Dmain")
of = {(made.images.source, made.view): value.detach() for made, value in seen}
order = [("real", None), ("real", "second"), ("generated", None)]
truth["joint: groups span views and generated images, which come last"] = torch.equal(
    torch.cat([of[key] for key in order]), conv(joint, images_seen[0].detach())
)
run(make(), "Dmain")
truth["joint: images and draws are those of two passes"] = torch.equal(whole[: 2 * N], images_seen[1]) and torch.equal(
    whole[2 * N :], images_seen[0]
)
apart_from = make()
pairs = [(run(joint, phase)[0], run(apart_from, phase)[0]) for phase in ("Gmain", "Dreg")]
truth["joint: G's step and R1 are as without"] = all(
    torch.equal(value, other[name]) for one, other in pairs for name, value in one.items()
)
run(make(["augself", "contrad"], mbstd="joint"), "Dmain")
truth["joint, with augself: all in one pass"] = [len(x) for x in images_seen] == [5 * N]

with_augself = make(["augself", "contrad"])
d, heads = run(with_augself, "Dmain")
truth["with augself: two views and the clean images in one pass"] = [len(x) for x in images_seen] == [2 * N, 3 * N]
truth["with augself: its head learns, too"] = {name.split(".")[0] for name in heads} == {"augself", "contrad"}

warm = make(warmup=10)
rates = lambda: {group["lr"] for opt in warm.optimizers for group in opt.param_groups}
seen = [rates()]
for done in (1, 4, 9, 50):
    warm.batch_end(done * N, done)
    seen.append(rates())
truth["learning rates rise to their full values"] = all(
    len(rate) == 1 and abs(rate.pop() / 0.002 - part) < 1e-6 for rate, part in zip(seen, (0.1, 0.2, 0.5, 1, 1))
)
print(json.dumps(truth))
