"""Run in a host's folder: `session.variant` in passes of D and G. Prints a JSON line: claim -> whether it holds."""

import json
import sys
from types import ModuleType, SimpleNamespace

import torch

sys.path.insert(0, ".")
from stylegan_plugins import Term, View, hookimpl
from stylegan_plugins.testing import TinyRun

torch.set_num_threads(1)
claims: dict[str, bool] = {}
module = ModuleType("variants")


@hookimpl
def setup(session):
    def compare(images):
        before = torch.get_rng_state(), session.G.mapping.w_avg.clone()
        raw, shown = (session.variant(images, images.z, shown=shown) for shown in (False, True))
        other = session.variant(images, images.z + 1)
        unmixed = session.variant(images, images.z, mixing=False)
        claims[f"{images.phase}: raw images are the same"] = torch.equal(raw, images.raw)
        claims[f"{images.phase}: shown images are the same"] = torch.equal(shown, images.shown)
        claims[f"{images.phase}: images of other latents are others"] = not torch.equal(other, images.raw)
        claims[f"{images.phase}: and so are those without style mixing"] = not torch.equal(unmixed, images.raw)
        claims[f"{images.phase}: there is a graph for G alone"] = raw.requires_grad == (images.phase == "Gmain")
        claims[f"{images.phase}: random numbers and moving averages stay"] = torch.equal(
            before[0], torch.get_rng_state()
        ) and torch.equal(before[1], session.G.mapping.w_avg)
        return raw

    zeros = lambda step: step.generated.logits.squeeze(1) * 0
    views = [View("same", compare, on="generated", groups="none")]
    return SimpleNamespace(terms=[Term("v", network, zeros, on="generated", views=views) for network in "DG"])


module.setup = setup
run = TinyRun([module, "diffaugment"], ada=True, labels=3, loss={"style_mixing_prob": 1})
for name, parameter in run.G.named_parameters():
    if "noise_strength" in name:
        parameter.data.fill_(1)
for phase in ("Gmain", "Dmain"):
    run.gradients(phase)
print(json.dumps(claims))
