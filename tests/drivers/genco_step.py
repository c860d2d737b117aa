"""Run in a host's folder: GenCo's steps. Prints a JSON line.

genco_step.py GOLDEN   in ada: differences of gradients to the authors', relative to their length
genco_step.py          what gets gradients, passes of each discriminator by phase, rounds, off"""

import json
import sys
from types import SimpleNamespace

import numpy as np
import torch

sys.path.insert(0, ".")
from stylegan_plugins.host.modules import host_module
from stylegan_plugins.run.session import Session
from stylegan_plugins.testing import TinyRun, activate, assert_off_is_off
from training_ext.loss import PluginLoss

torch.set_num_threads(1)


def golden(path: str) -> dict[str, float]:
    with np.load(path) as file:
        recorded = {name: torch.from_numpy(file[name]) for name in file if file[name].dtype.kind != "U"}
    config = {name.split("/")[1]: int(value) for name, value in recorded.items() if name.startswith("config/")}
    D = host_module("training.networks").Discriminator(**config, epilogue_kwargs=dict(mbstd_group_size=4))

    class Synthesis(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.images = torch.nn.Parameter(recorded["input/generated"])

        def forward(self, ws: torch.Tensor) -> torch.Tensor:
            return self.images * 1

    class Mapping(torch.nn.Module):
        def forward(self, z: torch.Tensor, c: torch.Tensor, **kwargs: object) -> torch.Tensor:
            return torch.zeros([len(z), 1, 1])

    G = torch.nn.Module()
    G.mapping, G.synthesis = Mapping(), Synthesis()
    loss = PluginLoss(
        torch.device("cpu"), G.mapping, G.synthesis, D, style_mixing_prob=0, r1_gamma=float(recorded["r1_gamma"])
    )
    session = Session(activate("genco"), total_nimg=1000)
    opt = torch.optim.Adam(D.parameters(), lr=0.002, betas=(0.0, 0.99))
    session.attach(G, D, G, None, loss, [SimpleNamespace(name="Dmain", module=D, opt=opt)])
    session.nimg = round(1000 * (1 - float(recorded["damping"])))
    method = session.methods["genco"].made
    method.bands[0] = recorded["kept"]
    networks = {"D": D, **method.D}
    for key, module in networks.items():
        for name, parameter in module.named_parameters():
            parameter.data.copy_(recorded[f"{key}/{name}"])
    session.heads.requires_grad_(False)

    def run(phase: str, module: torch.nn.Module) -> None:
        module.requires_grad_(True)
        n, real = len(recorded["input/real"]), recorded["input/real"]
        z, c = torch.zeros([n, 1]), torch.zeros([n, 0])
        loss.accumulate_gradients(phase, real_img=real, real_c=c, gen_z=z, gen_c=c, gain=1, sync=True)
        module.requires_grad_(False)
        session.round = 0

    def difference(theirs: str, module: torch.nn.Module) -> float:
        pairs = [(parameter.grad, recorded[f"{theirs}/{name}"]) for name, parameter in module.named_parameters()]
        squared = sum(float((ours - expected).double().square().sum()) for ours, expected in pairs)
        module.zero_grad()
        return (squared / sum(float(expected.double().square().sum()) for _, expected in pairs)) ** 0.5

    found = {"filtered": float((method.banded(recorded["input/real"]) - recorded["filtered"]).abs().max())}
    run("Gmain", G.synthesis)
    found["Gmain"] = difference("Gmain", G.synthesis)
    for phase, suffix in (("Dmain", "main"), ("Dreg", "reg")):
        run(phase, D)
        found |= {
            f"{name}{suffix}": difference(f"{name}{suffix}", method.D[key])
            for name, key in (("D2", "weco"), ("Dhigh", "daco"))
        }
    return found


def passes(phase: str, **how: object) -> dict[str, object]:
    """Return the images that each discriminator got, and which of them got gradients."""
    run = TinyRun("genco", {"genco": how.pop("options", {})}, **how)  # type: ignore[arg-type]
    seen: dict[str, list[int]] = {"D": [], "weco": [], "daco": []}
    for name, module in {"D": run.D, **run.method("genco").D}.items():
        module.register_forward_pre_hook(lambda module, inputs, name=name: seen[name].append(len(inputs[0])))
    found = run.gradients(phase)
    kinds = {"D": "D.", "weco": "heads.genco-weco.", "daco": "heads.genco-daco.", "G": "G."}
    trained = [key for key, start in kinds.items() if any(name.startswith(start) for name in found)]
    return {"seen": seen, "trained": trained}


def of_difference(rounds: int) -> torch.Tensor:
    """Return the gradients that the similarity of weights adds to one step, for each round."""
    groups = {"epilogue_kwargs": dict(mbstd_group_size=2)}
    one, none = (
        TinyRun("genco", {"genco": {"difference": weight, "daco": 0.0}}, rounds=rounds, D=groups).gradients("Dmain")
        for weight in (1.0, 0.0)
    )
    return torch.cat([(one[name] - none[name]).flatten() for name in one if name.startswith("heads.")]) / rounds


if len(sys.argv) > 1:
    print(json.dumps(golden(sys.argv[1])))
else:
    found: dict[str, object] = {phase: passes(phase) for phase in ("Gmain", "Dmain", "Dreg")}
    found["Dboth"] = passes("Dboth", lazy=False)
    found["no R1"] = passes("Dreg", loss=dict(r1_gamma=0))
    found["relativistic"] = passes("Dmain", loss=dict(gan_loss="relativistic"))
    one, two = of_difference(1), of_difference(2)
    found["rounds"] = float((one - two).norm() / one.norm())
    assert_off_is_off("genco", {"genco": {"weco": 0.0, "daco": 0.0}})
    TinyRun(["genco", "diffaugment"], loss=dict(gan_loss="relativistic"), ada=True, labels=3).train(2)
    print(json.dumps(found))
