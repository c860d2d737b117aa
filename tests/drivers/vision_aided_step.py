"""Run in an ada host's folder: single phases of a session with vision-aided. Prints one JSON line of named truths.

The backbones are small networks of timm with random weights: a transformer and a convolutional one."""

import json
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import timm
import torch

sys.path.insert(0, ".")
from stylegan_plugins.host.modules import host_module
from stylegan_plugins.manager import catalogue
from stylegan_plugins.run.session import Session
from training_ext.loss import PluginLoss
from training_ext.parts import Images, Pass, Step
from training_ext.vision_losses import over_levels, sigmoid

networks = host_module("training.networks")
torch.set_num_threads(1)
N, SIDE = 4, 16
folder = Path(tempfile.mkdtemp())
models = []
for name in ("test_vit", "test_resnet"):
    torch.manual_seed(len(models))
    torch.save(timm.create_model(name).state_dict(), folder / f"{name}.pth")
    models.append(f"{name}={folder / name}.pth")
truth = {}


def make(plugins=("vision-aided",), aug=None, labels=0, channels=3, **options):
    torch.manual_seed(0)
    widths = dict(channel_base=128, channel_max=8)
    common = dict(c_dim=labels, img_resolution=SIDE, img_channels=channels)
    G = networks.Generator(z_dim=8, w_dim=8, mapping_kwargs=dict(num_layers=2), synthesis_kwargs=widths, **common)
    D = networks.Discriminator(epilogue_kwargs=dict(mbstd_group_size=4), **widths, **common)
    G.train().requires_grad_(False), D.train().requires_grad_(False)
    loss = PluginLoss(torch.device("cpu"), G.mapping, G.synthesis, D, augment_pipe=aug, pl_weight=2, pl_batch_shrink=1)
    phases = []
    for net, name in ((G, "G"), (D, "D")):
        opt = torch.optim.Adam(net.parameters(), lr=0.002, betas=(0.0, 0.99))
        phases += [SimpleNamespace(name=name + part, module=net, opt=opt) for part in ("main", "reg")]
    given = {"models": ",".join(models), "warmup_kimg": 0.0, "augment": "none", **options}
    session = Session(catalogue().activate(plugins, {"vision-aided": given} if plugins else {}))
    session.attach(G, D, G, aug, loss, phases)
    session.forwards = []
    for key, levels in (method_of(session).levels if plugins else {}).items():
        levels.register_forward_hook(lambda module, inputs, output, key=key: session.forwards.append((key, output)))
    return session


def method_of(session):
    return session.methods["vision-aided"].made


def run(session, phase, seed=1):
    """Run one phase. Returns gradients by name, of the network and of the decoders."""
    session.forwards.clear()
    torch.manual_seed(seed)
    module = session.G if phase.startswith("G") else session.D
    module.requires_grad_(True)
    module.zero_grad(set_to_none=True)
    session.heads.zero_grad(set_to_none=True)
    real = torch.rand([N, module.img_channels, SIDE, SIDE]) * 2 - 1
    z, c = torch.randn([N, 8]), torch.eye(max(session.G.c_dim, 1))[torch.arange(N) % max(session.G.c_dim, 1)]
    c = c[:, : session.G.c_dim]
    session.loss.accumulate_gradients(phase, real_img=real, real_c=c, gen_z=z, gen_c=c, gain=1, sync=True)
    module.requires_grad_(False)
    clone = lambda net: {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}
    return clone(module), clone(session.heads)


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


plain = make(())
stock = {phase: run(plain, phase)[0] for phase in ("Gmain", "Greg", "Dmain", "Dreg", "Dboth")}
session = make()
ensemble = method_of(session)
keys = list(ensemble.levels)
truth["two backbones are in use"] = len(keys) == 2

d, heads = run(session, "Dmain")
truth["Dmain: each backbone sees generated and real images"] = [key for key, _ in session.forwards] == keys * 2
truth["Dmain: features have no graph"] = not any(level.requires_grad for _, out in session.forwards for level in out)
truth["Dmain: D's own gradient is the host's"] = equal(d, stock["Dmain"])
trained = {name for name, _ in session.heads.named_parameters()}
truth["Dmain: all of both decoders learn"] = heads.keys() == trained and all(g.any() for g in heads.values())
d, heads_of_both = run(session, "Dboth")
truth["Dboth: the same for the decoders, and R1 is the host's"] = equal(heads_of_both, heads) and all(
    torch.allclose(value, stock["Dboth"][name], rtol=1e-4, atol=1e-7) for name, value in d.items()
)

for phase in ("Dreg", "Greg"):
    gradients, heads = run(session, phase)
    truth[f"{phase}: no backbone runs, no decoder learns"] = session.forwards == [] and heads == {}
    truth[f"{phase}: the gradient is the host's"] = equal(gradients, stock[phase])

g, heads = run(session, "Gmain")
truth["Gmain: each backbone sees the images once"] = [key for key, _ in session.forwards] == keys
truth["Gmain: the gradient reaches G through the backbones"] = not equal(g, stock["Gmain"]) and any(
    not torch.allclose(g[name], stock["Gmain"][name], rtol=1e-2) for name in g if "torgb" not in name
)
truth["Gmain: decoders do not learn"] = heads == {}

frozen = [p for levels in ensemble.levels.values() for p in levels.parameters()]
truth["backbones want no gradient and got none"] = not any(p.requires_grad or p.grad is not None for p in frozen)
optimized = {id(p) for opt in session.optimizers for group in opt.param_groups for p in group["params"]}
owned = {id(p) for net in (session.G, session.D, session.heads) for p in net.parameters()}
truth["backbones are in no optimizer, network or head"] = not {id(p) for p in frozen} & (optimized | owned)
session.heads.train()
truth["backbones stay in evaluation mode"] = not any(
    module.training for levels in ensemble.levels.values() for module in levels.train().modules()
)


def recomputed(side, images, labels, target):
    """Return the sum over backbones and levels, from the equations."""
    gan = sigmoid(target)
    return sum(
        over_levels(getattr(gan, side), session.heads["vision-aided"][key](levels(images), labels)).mean()
        for key, levels in ensemble.levels.items()
    )


x = torch.rand([N, 3, SIDE, SIDE]) * 2 - 1
blank = torch.zeros([N, 1])
seen = {}
for side, phase, source in (
    ("real", "Dmain", "real"),
    ("generated", "Dmain", "generated"),
    ("generator", "Gmain", "generated"),
):
    made = Pass(Images(source, phase, x, x, x, blank[:, :0]), None, x, blank[:, :0])
    step = Step(phase, 0, 0, **{source: made})
    seen[side] = torch.allclose(ensemble.term(step).mean(), recomputed(side, x, blank[:, :0], 0.8), atol=1e-6)
truth["the losses are those of the equations, smoothed"] = all(seen.values())

warm = make(warmup_kimg=1.0)
g, d = run(warm, "Gmain")[0], run(warm, "Dmain")[0]
truth["warm-up: both networks have the host's gradients"] = equal(g, stock["Gmain"]) and equal(d, stock["Dmain"])
truth["warm-up: no backbone runs"] = warm.forwards == []
warm.batch_end(1000, 250)
run(warm, "Gmain")
truth["after the warm-up they do"] = len(warm.forwards) == 2
learning = make(warmup_kimg=1.0, warmup_heads=True)
g, _ = run(learning, "Gmain")
truth["decoders may learn in the warm-up, without G"] = equal(g, stock["Gmain"]) and learning.forwards == []
truth["decoders learn in it"] = run(learning, "Dmain")[1].keys() == trained
off = make(weight=0.0)
run(off, "Gmain"), run(off, "Dmain")
truth["weight 0: no backbone runs"] = off.forwards == []

pipe = host_module("training.augment").AugmentPipe(xflip=1)
ada = make(aug=pipe, augment="ada")
pipes = [augment.pipe for augment in method_of(ada).adaptive.values()]
truth["ada: each backbone has a pipe of its own, apart from the host's"] = len({id(p) for p in (*pipes, pipe)}) == 3
one, other = method_of(ada).adaptive.values()
run(ada, "Dmain")
truth["ada: logits of real images are observed"] = all(float(a.controller.signs[0]) == N for a in (one, other))
for augment in (one, other):
    augment.controller.signs.zero_()
for _ in range(2):
    (
        one.controller.observe(torch.tensor([[3.0], [0.1], [-1.0]])),
        other.controller.observe(torch.tensor([[-3.0], [0.1], [-1.0]])),
    )
one.controller.target = other.controller.target = 0.3
ada.batch_end(12, 3)
truth["ada: p waits for four iterations"] = float(one.pipe.p) == 0
ada.batch_end(16, 4)  # mean signs 1/3 and -1/3 of six images
truth["ada: p rises by images / 500 kimg, and does not fall below 0"] = (
    abs(float(one.pipe.p) - 6 / 500_000) < 1e-10 and float(other.pipe.p) == 0 and float(pipe.p) == 1
)
one.controller.observe(torch.full([3, 1], -1.0))
ada.batch_end(32, 8)
truth["ada: p falls"] = abs(float(one.pipe.p) - 3 / 500_000) < 1e-10

for name, options in (
    ("labels", dict(labels=3)),
    ("gray images", dict(channels=1)),
    ("DiffAugment", dict(augment="diffaugment")),
    ("hinge", dict(loss="hinge")),
    ("bilinear resizing", dict(resize="bilinear")),
):
    other = make(**options)
    finite = all(
        torch.isfinite(value).all()
        for phase in ("Gmain", "Dmain")
        for part in run(other, phase)
        for value in part.values()
    )
    truth[f"{name}: all gradients are finite"] = finite
    if name == "labels":
        truth["labels: their projection learns"] = all(
            value.any() for key, value in run(other, "Dmain")[1].items() if "embed" in key
        )

perceptual = make(models=models[1], decoder="perceptual", labels=3)
_, heads = run(perceptual, "Dmain")
trained = {name for name, _ in perceptual.heads.named_parameters()}
truth["perceptual, Dmain: all stages learn"] = heads.keys() == trained and all(g.any() for g in heads.values())
truth["perceptual, Dmain: maps have no graph"] = not any(
    level.requires_grad for _, out in perceptual.forwards for level in out
)
g, heads = run(perceptual, "Gmain")
truth["perceptual, Gmain: the gradient reaches G, and no stage learns"] = heads == {} and any(
    value.any() for value in g.values()
)
print(json.dumps(truth))
