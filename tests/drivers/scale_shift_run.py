"""Run in a host's folder: scale-shift in the test kit. Prints a JSON line of named truths."""

import json
import sys
import tempfile

import timm
import torch

sys.path.insert(0, ".")
from stylegan_plugins.errors import PluginError
from stylegan_plugins.testing import TinyRun, differences
from training_ext.scale_shift import is_scale_or_shift

torch.set_num_threads(1)
FOLDER = tempfile.TemporaryDirectory()
torch.save(timm.create_model("test_resnet").state_dict(), f"{FOLDER.name}/network.pth")
OPTIONS = {"scale-shift": {"perceptual": f"test_resnet={FOLDER.name}/network.pth", "relative": "both"}}
WITHOUT = {"scale-shift": {"perceptual_weight": 0.0}}
truth = {}

# The parameters with gradients, and the passes of a step.
run = TinyRun(["scale-shift", "diffaugment"], OPTIONS, images=8)
passes = {"D": 0, "G": 0, "mapping": 0}


def count(name):
    return lambda *_: passes.update({name: passes[name] + 1})


for name, module in (("D", run.D), ("G", run.G.synthesis), ("mapping", run.G.mapping)):
    module.register_forward_pre_hook(count(name))
trained = {name for name, _ in run.G.named_parameters() if is_scale_or_shift(f"G.{name}")}
found = {phase: set(run.gradients(phase)) for phase in ("Gmain", "Greg", "Dmain", "Dreg")}
truth["scales, shifts and latents have gradients"] = found.pop("Gmain") == {
    *(f"G.{name}" for name in trained),
    "heads.scale-shift.z",
}
truth["no other phase trains anything"] = not any(found.values())
truth["a step is one pass of G"] = passes == {"D": 0, "G": 1, "mapping": 1}

# Pairs have one draw of the augmentations.
pairs = []
method = run.method("scale-shift")
spied = run.session.compute
run.session.compute = lambda term, step: pairs.append((step.real.images, step.generated.images)) or spied(term, step)
run.gradients("Gmain")
del run.session.compute
real, generated = pairs[0]
truth["a pair has one draw"] = differences(real.omega, generated.omega) == [] and bool(real.omega)
shown = real.raw
for augmentation in run.session.augmentations:
    shown = augmentation.apply(shown, generated.omega[augmentation.name])
truth["the draw of the pair is used"] = torch.equal(shown, real.shown) and not torch.equal(real.shown, real.raw)
truth["its latents are those of its images"] = bool(
    ((generated.z - method.module.z[real.index]).abs() < 0.1).all()
    and (generated.z != method.module.z[real.index]).all()
)

# Frozen weights do not change. Snapshots have a temperature, training has none.
before = run.state()["networks"]
after = run.train(3).state()["networks"]
moved = set(differences(before["G"], after["G"])) - {"/mapping.w_avg"}
truth["everything else is as it was"] = differences(before["D"], after["D"]) == [] and moved == {
    f"/{name}" for name in trained
}
z, c = torch.randn([4, 8]), torch.zeros([4, 0])
G = run.G_ema
with torch.no_grad():
    w, average = G.mapping(z, c), G.mapping.w_avg.clone()
    full = G.mapping.train()(z, c)
truth["outside of training w is nearer to its mean"] = torch.allclose(w, average + 0.3 * (full - average), atol=1e-6)

# Two rounds make the gradients of one; only L_EMD and relative losses depend on the round.
alike = {"perceptual_weight": 0.0, "emd_weight": 0.0, "noise": 0.0, "relative": "none"}
of_rounds = []
for rounds in (1, 2):
    run = TinyRun("scale-shift", {"scale-shift": alike}, images=8, rounds=rounds)
    of_rounds.append({name: gradient / rounds for name, gradient in run.gradients("Gmain").items()})
one, two = of_rounds
truth["two rounds make the gradients of one"] = all(torch.allclose(one[n], two[n], rtol=1e-4, atol=1e-7) for n in one)

# Plug-ins that need D are refused.
try:
    TinyRun(["scale-shift", "augself"], WITHOUT, images=8)
except PluginError as error:
    truth["augself is refused"] = "augself reads the host's D, which is not trained with scale-shift" in str(error)
print(json.dumps(truth))
