"""Run in an ada host's folder: check the inputs that PluginLoss gives its parts, in each phase. Prints a JSON line of
named truths."""

import json
import sys
from types import ModuleType, SimpleNamespace

import torch

sys.path.insert(0, ".")
from stylegan_plugins import Augmentation, Batch, Critic, Head, Term, View, hookimpl
from stylegan_plugins.host.modules import host_module
from stylegan_plugins.manager import catalogue
from stylegan_plugins.run.session import Session
from training_ext.loss import PluginLoss

networks = host_module("training.networks")
torch.manual_seed(0)
torch.set_num_threads(1)
channels = dict(channel_base=256, channel_max=16)
common = dict(c_dim=0, img_resolution=32, img_channels=3)
G = networks.Generator(z_dim=16, w_dim=16, mapping_kwargs=dict(num_layers=2), synthesis_kwargs=channels, **common)
D = networks.Discriminator(epilogue_kwargs=dict(mbstd_group_size=4), **channels, **common)
G.train().requires_grad_(False), D.train().requires_grad_(False)
N = 8
PHI = "b4.fc"
steps, calls = [], []
D.register_forward_pre_hook(lambda module, inputs: calls.append(len(inputs[0])))
truth = {}
names = iter(f"plugin{index}" for index in range(1000))


def session_of(**method):
    """Return a session with one method, whose attributes these are."""
    name = next(names)

    @hookimpl
    def setup():
        return SimpleNamespace(**method)

    plugin = ModuleType(name)
    plugin.setup = setup
    catalogue().add(name, plugin)
    return Session(catalogue().activate([name], {}))


def run(phase, session, **kwargs):
    """Run one phase, and return the steps that terms saw."""
    steps.clear()
    values = dict(r1_gamma=1, pl_weight=0, **kwargs)
    loss = PluginLoss(torch.device("cpu"), G.mapping, G.synthesis, D, **values)
    phases = [
        SimpleNamespace(name=name, module=net, opt=torch.optim.Adam(net.parameters(), betas=(0.0, 0.99)))
        for name, net in (("Gmain", G), ("Dmain", D))
    ]
    if not session.methods:
        session.attach(G, D, G, None, loss, phases)
    loss.session = session
    calls.clear()
    module = G if phase.startswith("G") else D
    module.requires_grad_(True)
    module.zero_grad(set_to_none=True)
    session.heads.zero_grad(set_to_none=True)
    real = torch.rand([N, 3, 32, 32]) * 2 - 1
    z, c = torch.randn([N, 16]), torch.zeros([N, 0])
    loss.accumulate_gradients(phase, real_img=real, real_c=c, gen_z=z, gen_c=c, gain=1, sync=True)
    module.requires_grad_(False)
    session.round = 0
    return list(steps)


def draw(images):
    return {"shift": torch.rand([len(images), 1])}


def shift(images, omega):
    """Return T(x; omega) = x + omega."""
    return images + omega["shift"][:, :, None, None]


def record(step):
    steps.append(step)
    return step.one.logits.squeeze(1) * 0


T = Augmentation("shift", draw, shift)
clean = View("clean", lambda images: images.clean)
reads = dict(layers=[PHI], views=[clean])
terms = [Term("seen", "D", record, **reads), Term("seen", "G", record, on="generated", **reads)]

for phase, sources in {"Gmain": ["generated"], "Dmain": ["generated", "real"], "Dboth": ["generated", "real"]}.items():
    seen = run(phase, session_of(augmentations=[T], terms=terms))
    truth[f"{phase}: sources"] = [step.source for step in seen] == sources
    truth[f"{phase}: one joint forward a pass"] = calls == [2 * N] * len(sources)
    for step in seen:
        made = step.one
        truth[f"{phase} {step.source}: a term sees its own pass alone"] = (step.real is None) != (
            step.generated is None
        )
        moved = shift(made.images.clean, made.images.omega["shift"])
        truth[f"{phase} {step.source}: T(clean; omega) is what D saw"] = torch.equal(made.images.shown, moved)
        with torch.no_grad():
            logits = D(made.images.shown, made.labels)
        truth[f"{phase} {step.source}: logits are those of augmented images alone"] = torch.allclose(
            logits, made.logits, atol=1e-6
        )
        truth[f"{phase} {step.source}: the view is of the clean images"] = torch.equal(
            made.views["clean"].batch, made.images.clean
        )

for phase in ("Dreg", "Greg"):
    seen = run(phase, session_of(augmentations=[T], terms=terms))
    truth[f"{phase}: no term, no view"] = seen == [] and all(count == N for count in calls)

for where, expected in {"all": (1, 2), "d": (0, 2), "reals": (0, 1)}.items():
    from stylegan_plugins.plugins.diffaugment import DiffAugmentOptions

    part = Augmentation("shift", draw, shift, DiffAugmentOptions(where=where).applies)
    session = session_of(augmentations=[part], terms=terms)
    counts = tuple(sum(bool(s.one.images.omega) for s in run(phase, session)) for phase in ("Gmain", "Dmain"))
    truth[f"--diffaugment-where={where}"] = counts == expected

head = torch.nn.Linear(16, 1)
read_head = lambda step: head(step.one.layers[PHI]).squeeze(1)
both = [Term("head", "D", read_head, layers=[PHI]), Term("head", "G", read_head, on="generated", layers=[PHI])]
with_head = session_of(heads=[Head("head", head)], terms=both)
run("Gmain", with_head)
truth["heads get no gradient in G's step"] = all(p.grad is None for p in head.parameters())
truth["G gets gradient through the head"] = any(p.grad is not None and p.grad.any() for p in G.parameters())
run("Dmain", with_head)
truth["heads get gradient in D's step"] = all(p.grad is not None and p.grad.any() for p in head.parameters())

# A term of both sources, and gradients of D in one backward.
product = lambda step: steps.append(step) or step.generated.logits.squeeze(1) * step.real.logits.squeeze(1)
(step,) = run("Dmain", session_of(terms=[Term("joint", "D", product, on="both")]))
ours = [p.grad.clone() for p in D.parameters()]
D.requires_grad_(True)
sp = torch.nn.functional.softplus
lg, lr = (D(made.batch.detach(), made.labels) for made in (step.generated, step.real))
expected = torch.autograd.grad((sp(lg) + sp(-lr) + lg * lr).mean(), list(D.parameters()))
close = lambda a, b: torch.allclose(a, b, rtol=1e-4, atol=1e-6)
truth["a joint term gets both passes, in one backward"] = all(map(close, ours, expected))
D.requires_grad_(False)

# A term beside a joint one still sees its own pass alone.
alone = Term("alone", "D", record)
seen = run("Dmain", session_of(terms=[alone, Term("joint", "D", lambda s: s.real.logits.squeeze(1) * 0, on="both")]))
truth["beside a joint term, others see one pass"] = [(s.real is None) for s in seen] == [True, False]

# A view with its own targets and its own number of images.
quarter = lambda images: Batch(
    images.clean[-2:].repeat(4, 1, 1, 1), images.labels[-2:].repeat(4, 1), torch.arange(8) % 4
)
own = View("own", quarter, on="real")
sized = Term(
    "sized",
    "D",
    lambda s: steps.append(s) or s.real.views["own"].layers[PHI].mean(1),
    on="real",
    layers=[PHI],
    views=[own],
)
(step,) = run("Dmain", session_of(terms=[sized]))
truth["a view has targets and a size of its own"] = len(step.real.views["own"].targets) == 8

# Gradients of the logits.
norms = lambda step: steps.append(step) or step.one.gradients["shown"].square().sum([1, 2, 3])
seen = run("Dreg", session_of(augmentations=[T], terms=[Term("norms", "D", norms, when="reg", gradients=["shown"])]))
truth["gradients by what D sees, of both sources, in the lazy phase"] = [s.source for s in seen] == [
    "generated",
    "real",
]
for step in seen:
    leaf = step.one.batch.detach().requires_grad_(True)
    (slope,) = torch.autograd.grad(D(leaf, step.one.labels).sum(), [leaf])
    truth[f"gradients of {step.source} images are those of the logits"] = torch.allclose(
        slope, step.one.gradients["shown"], rtol=1e-4, atol=1e-7
    )
g_norms = Term("norms", "G", norms, on="generated", when="reg", gradients=["shown"])
session = session_of(terms=[g_norms])
run("Greg", session)
truth["a term of G in its regularisation phase has a backward of its own"] = len(steps) == 1 and any(
    p.grad is not None and p.grad.any() for p in G.parameters()
)

# Layers of G, weights of samples, real images of a method.
layered = Term(
    "layered",
    "G",
    lambda s: steps.append(s) or s.generated.logits.squeeze(1) * 0,
    on="generated",
    generator_layers=["b8"],
)
(step,) = run("Gmain", session_of(terms=[layered]))
truth["layers of G can be read"] = list(step.generated.images.generator_layers["b8"].shape) == [N, 16, 8, 8]

# A critic without D.
small = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 3))
critic = Critic("small", lambda made: small(made.batch), runs_D=False, r1=None)
run("Dmain", session_of(heads=[Head("small", small)], critic=critic))
truth["a critic with a network of its own needs no D"] = calls == [] and small[1].weight.grad.any().item()

# Pairs.
(step,) = run(
    "Dmain",
    session_of(terms=[Term("pair", "D", lambda s: steps.append(s) or s.real.logits.squeeze(1) * 0, on="both")]),
    gan_loss="relativistic",
)
ours = [p.grad.clone() for p in D.parameters()]
D.requires_grad_(True)
lg, lr = (D(made.batch.detach(), made.labels) for made in (step.generated, step.real))
expected = torch.autograd.grad(sp(lg - lr).mean(), list(D.parameters()))
truth["relativistic: D compares each real image with a generated one"] = all(map(close, ours, expected))
D.requires_grad_(False)
run("Gmain", session_of(terms=[]), gan_loss="relativistic")
truth["relativistic: G learns, and D runs on real images too"] = calls == [N, N] and any(
    p.grad is not None and p.grad.any() for p in G.parameters()
)
truth["no hook of ours stays on D"] = all(not m._forward_hooks for m in D.modules())
print(json.dumps(truth))
