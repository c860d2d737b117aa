"""Run in an ada host's folder: what PluginLoss gives its parts, in each phase. Prints a JSON line of named truths."""

import json
import sys

import torch

sys.path.insert(0, ".")
from stylegan_plugins.host.modules import host_module
from training_ext.loss import PluginLoss
from training_ext.parts import AdversarialTerm, Augmentation, LossTerm, Parts

networks = host_module("training.networks")
torch.manual_seed(0)
torch.set_num_threads(1)
channels = dict(channel_base=256, channel_max=16)
common = dict(c_dim=0, img_resolution=32, img_channels=3)
G = networks.Generator(z_dim=16, w_dim=16, mapping_kwargs=dict(num_layers=2), synthesis_kwargs=channels, **common)
D = networks.Discriminator(epilogue_kwargs=dict(mbstd_group_size=4), **channels, **common)
G.train().requires_grad_(False), D.train().requires_grad_(False)
N = 8
seen = []


def shift(images):
    """T(x; omega) = x + omega."""
    omega = torch.rand([len(images), 1])
    return images + omega[:, :, None, None], {"shift": omega}


def record(evaluated):
    seen.append(evaluated)
    return evaluated.logits.squeeze(1) * 0


def run(phase, parts, heads=None, **kwargs):
    seen.clear()
    calls.clear()
    loss = PluginLoss(torch.device("cpu"), G.mapping, G.synthesis, D, r1_gamma=1, pl_weight=0, **kwargs)
    loss.set_parts(parts, heads)
    module = G if phase.startswith("G") else D
    module.requires_grad_(True)
    module.zero_grad(set_to_none=True)
    real = torch.rand([N, 3, 32, 32]) * 2 - 1
    z, c = torch.randn([N, 16]), torch.zeros([N, 0])
    loss.accumulate_gradients(phase, real_img=real, real_c=c, gen_z=z, gen_c=c, gain=1, sync=True)
    module.requires_grad_(False)
    return list(seen)


calls = []
D.register_forward_pre_hook(lambda module, inputs: calls.append(len(inputs[0])))
T = Augmentation("shift", shift)
fc = frozenset({"fc"})
terms = [LossTerm("seen", network, record, features=fc, clean_features=fc) for network in ("D", "G")]
truth = {}

for phase, sources in {"Gmain": ["generated"], "Dmain": ["generated", "real"], "Dboth": ["generated", "real"]}.items():
    passes = run(phase, Parts([T], terms))
    truth[f"{phase}: sources"] = [p.source for p in passes] == sources
    truth[f"{phase}: one joint forward a pass"] = calls == [2 * N] * len(sources)
    for p in passes:
        omega = p.omega["shift"]["shift"]
        moved = p.clean + omega[:, :, None, None]
        truth[f"{phase} {p.source}: T(clean; omega) is what D saw"] = torch.equal(p.images, moved)
        with torch.no_grad():
            logits = D(p.images, p.labels)
        truth[f"{phase} {p.source}: logits are those of augmented images alone"] = torch.allclose(
            logits, p.logits, atol=1e-6
        )

for phase in ("Dreg", "Greg"):
    passes = run(phase, Parts([T], terms))
    truth[f"{phase}: no term, no clean pass"] = passes == [] and all(count == N for count in calls)

odd = run("Dmain", Parts([T], [LossTerm("seen", "D", record, clean_features=frozenset({"conv"}))]))
conv = odd[0].clean_features["conv"]
truth["conv features are the flattened 4x4 map"] = list(conv.shape) == [N, 16 * 16]

for where, expected in {"all": (1, 2), "d": (0, 2), "reals": (0, 1)}.items():
    from stylegan_plugins.plugins.diffaugment import DiffAugmentOptions

    applies = DiffAugmentOptions(where=where).applies
    part = Augmentation("shift", shift, applies)
    counts = tuple(sum(bool(p.omega) for p in run(phase, Parts([part], terms))) for phase in ("Gmain", "Dmain"))
    truth[f"--diffaugment-where={where}"] = counts == expected

heads = torch.nn.ModuleDict({"head": torch.nn.Linear(16, 1)})
head_term = lambda p: heads["head"](p.features["fc"]).squeeze(1)
both = [LossTerm("head", network, head_term, features=fc) for network in ("D", "G")]
run("Gmain", Parts([], both), heads)
truth["heads get no gradient in G's step"] = all(p.grad is None for p in heads.parameters())
truth["G gets gradient through the head"] = any(p.grad is not None and p.grad.any() for p in G.parameters())
run("Dmain", Parts([], both), heads)
truth["heads get gradient in D's step"] = all(p.grad is not None and p.grad.any() for p in heads.parameters())

joint_args = []
joint = AdversarialTerm(
    "joint", joint=lambda g, r: joint_args.append((g, r)) or g.logits.squeeze(1) * r.logits.squeeze(1)
)
run("Dmain", Parts(adversarial=joint))
ours = [p.grad.clone() for p in D.parameters()]
(g, r) = joint_args[0]
D.requires_grad_(True)
sp = torch.nn.functional.softplus
lg, lr = D(g.images.detach(), g.labels), D(r.images.detach(), r.labels)
expected = torch.autograd.grad((sp(lg) + sp(-lr) + lg * lr).mean(), list(D.parameters()))
truth["a joint term gets both passes, in one backward"] = all(
    torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(ours, expected)
)
truth["no hook of ours stays on D"] = all(not m._forward_hooks for m in D.modules())
print(json.dumps(truth))
