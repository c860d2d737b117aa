"""Run in a host's folder: diggan, ssgan, insgen, advaug or ggdr in the test kit. Prints a JSON line: claim -> what is
wrong, nothing if it holds."""

import json
import sys

import torch

sys.path.insert(0, ".")
from stylegan_plugins.testing import TinyRun, assert_off_is_off

torch.set_num_threads(1)
name = sys.argv[1]
OFF = {
    "diggan": {"weight": 0},
    "ssgan": {"d_weight": 0, "g_weight": 0},
}
MEMORYLESS = {"diggan", "ssgan"}  # the same images make the same gradients, in one round or two
PHASES = {  # phases in which a term makes gradients, and of what
    "diggan": {"Dreg": "D"},
    "ssgan": {"Gmain": "G", "Dmain": "D heads"},
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
print(json.dumps(claims))
