"""Run in a host's folder: two iterations of pairs of methods. Prints a JSON line: pair -> its fault.

combine.py suite     each built-in method with a fixed set of eight
combine.py all       all pairs"""

import itertools
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import timm
import torch

sys.path.insert(0, ".")
from stylegan_plugins.errors import PluginError
from stylegan_plugins.manager import builtin
from stylegan_plugins.testing import TinyRun

# Each kind is here: augmentation, view and head, own critic, critic on labels, own networks, no part.
FIXED = ("diffaugment", "augself", "contrad", "disp", "vision-aided", "diagnostics", "freezed", "transfergan")
LOGGERS = {"tensorboard", "wandb"}  # they read files after a tick, and have no part that could meet another
OF_DATA = {"self-cond"}  # it clusters the images of a host's data set: see self_cond_step.py
LABELS = 12  # width of disp's priors


def how_of(*names: str) -> dict[str, Any]:
    """Return arguments that TinyRun needs for plug-ins."""
    images = 8 if "scale-shift" in names else 0
    return dict(labels=LABELS if "disp" in names else 0, D={"c_dim": 0}, images=images)


def options(folder: Path) -> dict[str, dict[str, object]]:
    """Return options that methods need here, by plug-in."""
    for network in ("test_vit", "test_efficientnet"):
        torch.save(timm.create_model(network).state_dict(), folder / f"{network}.pth")
    return {
        "vision-aided": {"models": f"test_vit={folder / 'test_vit.pth'}", "warmup_kimg": 0.0},
        "projected": {"backbone": f"test_efficientnet={folder / 'test_efficientnet.pth'}"},
        "minegan": {"stage1_kimg": 0.0},
        "apa": {"kimg": 0.1},
        "bcr": {"shift": 0.125},
        "scale-shift": {"perceptual_weight": 0.0},
        "topk": {"epoch_kimg": 0.001},
        "insgen": {"real_queue": 16, "generated_queue": 16},
        "wandb": {"mode": "disabled"},
    }


def fault(pair: tuple[str, ...], given: dict[str, dict[str, object]]) -> str:
    """Return the fault of a pair after two iterations: nothing, that it is refused, or the names of parameters that are
    not finite and of networks that did not train."""
    chosen = {name: values for name, values in given.items() if name in pair}
    try:
        run = TinyRun(pair, chosen, **how_of(*pair))
    except PluginError as error:
        return f"refused: {error}"
    networks = {"G": run.G, "D": run.D}
    before = {kind: [p.detach().clone() for p in network.parameters()] for kind, network in networks.items()}
    run.train(2)
    modules = {**networks, "heads": run.session.heads}
    wrong = [
        f"{kind}.{name}"
        for kind, module in modules.items()
        for name, value in module.named_parameters()
        if not value.isfinite().all()
    ]
    wrong += [
        f"{kind} has not moved"
        for kind, network in networks.items()
        if not (kind == "D" and run.session.plugins.without_D)
        and all(torch.equal(*pair) for pair in zip(before[kind], network.parameters(), strict=True))
    ]
    return ", ".join(wrong)


if __name__ == "__main__":
    torch.set_num_threads(1)
    methods = [name for name in builtin() if name not in LOGGERS | OF_DATA]
    if sys.argv[1] == "all":
        pairs = list(itertools.combinations(methods, 2))
    else:
        pairs = list(dict.fromkeys(tuple(sorted({a, b})) for a in methods for b in FIXED if a != b))
    with tempfile.TemporaryDirectory() as folder:
        given = options(Path(folder))
        print(json.dumps({",".join(pair): fault(pair, given) for pair in pairs}))
