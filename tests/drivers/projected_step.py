"""Run in a host's folder: projected in the test kit. Prints a JSON line: claim -> its fault, empty if it holds."""

import json
import sys
import tempfile
from pathlib import Path

import timm
import torch

sys.path.insert(0, ".")
from stylegan_plugins.errors import PluginError
from stylegan_plugins.testing import TinyRun

torch.set_num_threads(1)
claims: dict[str, str] = {}


def claim(text, holds, what=""):
    claims[text] = "" if holds else what or "no"


with tempfile.TemporaryDirectory() as folder:
    weights = Path(folder, "small.pth")
    torch.save(timm.create_model("test_efficientnet").state_dict(), weights)
    given = {"projected": {"backbone": f"test_efficientnet={weights}"}}
    how = dict(loss={"gan_loss": "hinge", "pl_weight": 0}, labels=3)

    # The networks that each phase trains, and its passes. The critic alone judges bcr's views.
    run = TinyRun(["projected", "bcr"], given | {"bcr": {"shift": 0.125}}, **how)
    calls = dict.fromkeys(("D", "backbone", "G"), 0)
    backbone = run.method("projected").levels.backbone
    for name, module in (("D", run.D), ("backbone", backbone.model.conv_stem), ("G", run.G.synthesis)):
        module.register_forward_hook(lambda *_, name=name: calls.update({name: calls[name] + 1}))
    before = {key: value.clone() for key, value in (run.D.state_dict() | backbone.state_dict()).items()}
    expected = {
        "Dmain": ({"heads.projected.discriminators"}, {"D": 0, "backbone": 4, "G": 1}),
        "Gmain": ({"G.mapping", "G.synthesis"}, {"D": 0, "backbone": 1, "G": 1}),
        "Dreg": (set(), {"D": 0, "backbone": 0, "G": 0}),
    }
    for phase, (trained, passes) in expected.items():
        calls.update(dict.fromkeys(calls, 0))
        found = run.gradients(phase)
        parts = {".".join(name.split(".")[: 3 if name.startswith("heads") else 2]) for name in found}
        claim(f"{phase} trains these", parts == trained, str(parts))
        claim(f"{phase} has so many passes", calls == passes, str(calls))
        if phase == "Dmain":
            idle = [name for name, value in found.items() if not value.any()]
            claim("every weight of the discriminators has a gradient", not idle, str(idle))
    run.train(1)
    after = run.D.state_dict() | backbone.state_dict()
    claim("D and the network stay as they were", all(torch.equal(before[name], after[name]) for name in before))
    saved = set(run.session.state_dict()["heads"])
    claim("the state has no backbone", not any("backbone" in n or "conv_stem" in n for n in saved), str(saved))
    claim("the state has what is random", {"projected.mixing.ccm.0.weight", "projected.mixing.csm.3.bias"} <= saved)

    # A pass that judges changes nothing.
    u = {name: value.clone() for name, value in run.session.heads.named_buffers()}
    run.session.judge(torch.zeros([4, 3, 16, 16]), torch.eye(4, 3))
    claim("judging changes no state", all(torch.equal(u[n], value) for n, value in run.session.heads.named_buffers()))

    try:
        TinyRun(["projected", "augself"], given)
        claims["what reads D is refused"] = "trained"
    except PluginError as error:
        claim("what reads D is refused", "not trained with projected" in str(error), str(error))
    TinyRun(["projected", "augself"], given | {"augself": {"d_weight": 0, "g_weight": 0}})
print(json.dumps(claims))
