"""Run in a host's folder: diggan, ssgan, insgen, advaug or ggdr in the test kit. Prints a JSON line: claim -> its
fault, empty if it holds.

heads.py NAME [GOLDEN]"""

import json
import sys
from types import SimpleNamespace

import numpy as np
import torch

sys.path.insert(0, ".")
from stylegan_plugins.host.modules import host_module
from stylegan_plugins.manager import catalogue
from stylegan_plugins.run.session import Session
from stylegan_plugins.testing import TinyRun, assert_off_is_off
from training_ext.ada import moves, noting_draws
from training_ext.parts import Images, Pass
from training_ext.passes import read

torch.set_num_threads(1)
name = sys.argv[1]
OFF = {
    "diggan": {"weight": 0},
    "ssgan": {"d_weight": 0, "g_weight": 0},
    "advaug": {"d_weight": 0, "g_weight": 0},
    "ggdr": {"weight": 0},
    "insgen": {"real_weight": 0, "generated_weight": 0, "g_weight": 0},
}
PHASES = {  # phases in which a term makes gradients, and their networks
    "diggan": {"Dreg": "D"},
    "ssgan": {"Gmain": "G", "Dmain": "D heads"},
    "advaug": {"Gmain": "G", "Dmain": "D"},
    "ggdr": {"Dmain": "D heads"},
    "insgen": {"Gmain": "G", "Dmain": "D heads"},
}
claims: dict[str, str] = {}


def claim(text, holds, what=""):
    claims[text] = "" if holds else what or "no"


try:
    assert_off_is_off(name, {name: OFF[name]}, iterations=2)
    claims["off is off"] = ""
except AssertionError as error:
    claims["off is off"] = str(error)

# Which phases have gradients of the terms, and of which networks.
for phase in ("Gmain", "Greg", "Dmain", "Dreg"):
    stock, with_terms = (TinyRun(*given).gradients(phase) for given in ((), (name,)))
    # Views change sums: D sees a larger batch.
    changed = {
        key.split(".")[0]
        for key, value in with_terms.items()
        if key not in stock or (value - stock[key]).norm() > 1e-4 * stock[key].norm() + 1e-7
    }
    claim(f"{phase} has the gradients of its terms", changed == set(PHASES[name].get(phase, "").split()), str(changed))


# Numbers of the authors. --------------------------------------------------------------------------


def relative(actual, expected):
    """Return the length of the difference of two dictionaries of tensors, relative to the expected one's."""
    squares = [(actual[name] - expected[name]).double().square().sum() for name in expected]
    return float((sum(squares) / sum(value.double().square().sum() for value in expected.values())).sqrt())


class LinearG(torch.nn.Module):
    """G of the recordings: a w is z, an image is linear in it."""

    def __init__(self, weight, side):
        super().__init__()
        self.weight, self.side = torch.nn.Parameter(weight), side

    def forward(self, ws, **kwargs):
        return (ws[:, 0] @ self.weight).reshape(-1, 3, self.side, self.side)


class FirstW(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("w_avg", torch.zeros([1]))

    def forward(self, z, c, **kwargs):
        return z.unsqueeze(1)


def recorded_run(golden, values):
    """Return the networks of a recording in a session of the plug-in, and a function of a phase -> gradients."""
    from training_ext.loss import PluginLoss

    given = lambda prefix: {key[len(prefix) :]: value for key, value in golden.items() if key.startswith(prefix)}
    config = {key: int(value) for key, value in given("config/").items()}
    D = host_module("training.networks").Discriminator(**config)
    D.load_state_dict({**D.state_dict(), **{k: v for k, v in given("D/").items() if k in D.state_dict()}})
    G = torch.nn.Module()
    G.mapping, G.synthesis = FirstW(), LinearG(golden["G/weight"], config["img_resolution"])
    phases = [SimpleNamespace(name=f"{n}main", opt=torch.optim.Adam(m.parameters())) for n, m in (("G", G), ("D", D))]
    loss = PluginLoss(torch.device("cpu"), G.mapping, G.synthesis, D, style_mixing_prob=0, pl_weight=0, r1_gamma=0)
    session = Session(catalogue().activate([name], {name: values}))
    session.attach(G, D, G, None, loss, phases)
    heads = session.heads

    def gradients(phase):
        for network in (G, D, heads):
            network.requires_grad_(network is (G if phase[0] == "G" else D)).zero_grad()
        real, z = golden["real"], golden["z"]
        c = torch.zeros([len(z), 0])
        loss.accumulate_gradients(phase, real_img=real, real_c=c, gen_z=z, gen_c=c, gain=1, sync=True)
        found = {
            k: p.grad for k, p in (*G.synthesis.named_parameters(), *D.named_parameters(), *heads.named_parameters())
        }
        return {key: value.clone() for key, value in found.items() if value is not None}

    return session, gradients


def check_insgen(golden):
    values = {"real_queue": 12, "generated_queue": 12}
    session, gradients = recorded_run(golden, values)
    made, theirs = session.methods["insgen"].made, {"real": "D", "generated": "G"}
    layers = {"first": "0", "last": "2"}
    names = {
        f"insgen_{source}.{layer}.{part}": f"{key}/mlp/{index}.{part}"
        for source, key in theirs.items()
        for layer, index in layers.items()
        for part in ("weight", "bias")
    }
    for ours, key in names.items():
        session.heads.get_parameter(ours).data.copy_(golden[key])
    for source, key in theirs.items():
        made.key_head[source].load_state_dict(made.head[source].state_dict())
        made.queue[source] = golden[f"{key}/queue"]
    generate, near = session.generate, golden["near"]
    session.generate = lambda z, c: generate(near, c)  # z + delta as they drew it
    expected = lambda phase: {k.split("/grad/")[1]: v for k, v in golden.items() if k.startswith(f"{phase}/grad/")}
    found = gradients("Gmain")
    claim("G's gradients equal the authors'", relative(found, expected("Gmain")) < 1e-6)
    claim("G's step leaves the queue alone", not made.new["generated"])
    found = gradients("Dmain")
    of_heads = {ours: golden[key.replace(f"{key[0]}/mlp", f"Dmain/grad/{key[0]}")] for ours, key in names.items()}
    of_D = {k: v for k, v in expected("Dmain").items() if k[:2] not in ("D/", "G/")}
    claim("D's gradients equal the authors'", (what := relative(found, of_D)) < 1e-6, str(what))
    claim("the heads' gradients equal the authors'", (what := relative(found, of_heads)) < 1e-6, str(what))
    session.step_end(SimpleNamespace(name="Dmain"))
    for source, key in theirs.items():
        queues = [torch.tensor(sorted(queue.tolist())) for queue in (made.queue[source], golden[f"Dmain/{key}/queue"])]
        claim(f"the queue of {source} images has the authors' keys", (queues[0] - queues[1]).abs().max() < 1e-6)


def check_ggdr(golden):
    strengths = {key.split("/")[-1]: int(value) for key, value in golden.items() if key.startswith("pipe/strength/")}
    pipe = host_module("training.augment").AugmentPipe(**strengths)
    pipe.p.fill_(golden["p"])
    torch.manual_seed(int(golden["seed"]))
    with noting_draws(pipe) as drawn:
        shown = pipe(golden["pipe/images"])
    before = torch.get_rng_state()
    moved = moves(pipe, drawn)(golden["pipe/maps"])
    close = lambda one, other: (one - other).norm() < 1e-6 * other.norm()  # sums in another order
    claim("ADA's pipe is the authors'", close(shown, golden["pipe/shown"]))
    apart = (moved - golden["pipe/moved"]).norm() / moved.norm()
    claim("maps are moved as the authors move them", apart < 1e-6, str(apart))
    many = golden["pipe/maps"].repeat(1, 20, 1, 1)
    claim("many channels are moved as few", close(moves(pipe, drawn)(many)[:, 90:95], moved))
    claim("maps are moved without new random numbers", torch.equal(before, torch.get_rng_state()))
    claim("nothing of it stays in the pipe", not pipe._forward_pre_hooks and pipe.brightness == 1)


def passes(run, phase):
    """Return how many images go through G, D and the averaged D in a phase."""
    seen = {"G": 0, "D": 0, "key D": 0}
    modules = {"G": run.G.synthesis, "D": run.D}
    if name == "insgen":
        modules["key D"] = run.method(name).key_D

    def count(key):
        def hook(module, inputs):
            seen[key] += len(inputs[0])

        return hook

    hooks = [module.register_forward_pre_hook(count(key)) for key, module in modules.items()]
    run.gradients(phase)
    for hook in hooks:
        hook.remove()
    return [seen[key] for key in seen]


if len(sys.argv) > 2:
    arrays = np.load(sys.argv[2])
    arrays = {key: torch.from_numpy(arrays[key]) for key in arrays.files if arrays[key].dtype.kind != "U"}
    {"insgen": check_insgen, "ggdr": check_ggdr}[name](arrays)

if name == "insgen":
    run = TinyRun(name)  # batches of 4
    claim("real images cost a pass of the key's D, generated ones of G, too", passes(run, "Dmain") == [8, 8, 8])
    claim("in G's step there is a pass of the key's D", passes(run, "Gmain") == [4, 4, 4])
    one, two = (TinyRun(name, {name: {"real_queue": 16}}, batch=8, rounds=rounds).train(1) for rounds in (1, 2))
    queues = [run.method(name).queue["real"] for run in (one, two)]
    claim("keys of all rounds are in the queue", all((q[:8] == queues[0][:8]).all() for q in queues))
    claim("nothing waits for the next step", not any(two.method(name).new.values()))
if name == "ggdr":
    claim("D runs no further time", passes(TinyRun(name), "Dmain") == [4, 8, 0])
    both = TinyRun([name, "diffaugment"])
    claim("beside diffaugment D also sees clean images", passes(both, "Dmain") == [4, 12, 0])
    # A G whose map is its image: a horizontal flip by ADA flips the map, too.
    run = TinyRun(name, ada=True)
    run.loss.augment_pipe.p.fill_(1)
    step = []
    run.session.compute = lambda term, given: step.append(given) or torch.zeros([4])
    run.accumulate("Dmain")
    images = step[0].generated.images
    # The kit's ADA flips and changes brightness.
    change = images.clean - images.moved(images.raw)
    claim("maps are moved as the image of the same place in the batch", change.flatten(1).std(dim=1).max() < 1e-6)
    claim("some of them are", not torch.allclose(images.moved(images.raw), images.raw, atol=1e-3))
    claim("G's maps have no gradient", not images.generator_layers["b8"].requires_grad)

if name == "advaug":
    run = TinyRun(name)
    claim("D's step has no further pass", passes(run, "Dmain") == [4, 8, 0])
    claim("G's step has one of G and one of D", passes(run, "Gmain") == [8, 8, 0])
    # Labels: the last layer is recomputed as the host's D computes it.
    run = TinyRun(name, labels=3, D={"mapping_kwargs": {"num_layers": 2}})
    made, images, labels = run.method(name), torch.randn([4, 3, 16, 16]), torch.randn([4, 3])
    logits, layers = read(run.D, ["b4.fc", "mapping"], images, labels)
    seen = Pass(Images("real", "Dmain", images, images, images, labels), None, images, labels, layers=layers)
    again = made.logits(seen, layers["b4.fc"])
    claim("logits with labels are recomputed exactly", torch.equal(again, logits), str((again - logits).abs().max()))
    # delta raises G's loss: it is D's score that falls.
    value = run.session.compute
    raised = []
    run.session.compute = lambda term, step: raised.append(value(term, step)) or raised[-1]
    run.accumulate("Dmain")
    claim("perturbations raise D's loss of each image", all((one > 0).all() for one in raised) and len(raised) == 2)
print(json.dumps(claims))
