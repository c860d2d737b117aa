"""Optimisers without torch's compiler: the same steps, and torch's own methods as soon as it is imported."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.host

STEPS = """
import json, sys, torch
from stylegan_plugins.run import optimizers

def trained(differentiable):
    torch.manual_seed(0)
    parameter = torch.randn([4], requires_grad=True)
    adam = torch.optim.Adam([parameter.clone() if differentiable else parameter], differentiable=differentiable)
    for _ in range(3):
        adam.zero_grad()
        (adam.param_groups[0]["params"][0] ** 2).sum().backward() if not differentiable else None
        adam.param_groups[0]["params"][0].grad = torch.ones([4])
        adam.step()
    adam.load_state_dict(adam.state_dict())
    adam.add_param_group({"params": [torch.zeros([1], requires_grad=True)]})
    last = adam.param_groups[0]["params"][0]
    return last.tolist(), last.grad_fn is not None, torch.is_grad_enabled()

found = {}
if "ours" in sys.argv:
    optimizers.leave_compiler_out()
    optimizers.leave_compiler_out()
found["steps"] = [trained(False), trained(True)]
found["compiler"] = "torch._dynamo" in sys.modules
import torch._dynamo
calls = []
torch._dynamo.graph_break = lambda: calls.append(1)
found["later"] = trained(False)
found["breaks"] = len(calls)
found["compiled"] = torch.compile(lambda x: x + 1, backend="eager")(torch.ones([2])).tolist()
print(json.dumps(found))
"""


def steps(*arguments):
    done = subprocess.run([sys.executable, "-c", STEPS, *arguments], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_adam_steps_without_the_compiler_as_with_it():
    ours, torchs = steps("ours"), steps()
    assert (ours.pop("compiler"), torchs.pop("compiler")) == (False, True)
    assert ours == torchs and ours["breaks"] > 0
