"""DigGAN: its equation, the authors' numbers, and what it does in a host."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from support.hosts import ADA
from support.scripts import report_of
from support.small import Small, assert_same, pictures

from stylegan_plugins.plugins.diggan import PRESETS
from training_ext import diggan

GOLDEN = Path(__file__).parent / "golden" / "diggan.npz"


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def slopes(D: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Return ||grad D|| of each image [N] of the small D, by hand: W^T (v (1 - tanh^2 W x))."""
    layer, last = D.b4.fc[1], D.b4.out
    hidden = torch.tanh(images.flatten(1) @ layer.weight.T + layer.bias)
    return ((last.weight * (1 - hidden**2)) @ layer.weight).square().sum(dim=1).sqrt()


@pytest.mark.unit
def test_the_term_is_its_equation_and_so_are_its_gradients():
    small = Small("diggan", weight=3.0)
    (term,) = small.method.terms
    assert (term.network, term.weight, term.on, term.when) == ("D", 3.0, "both", "reg")
    x, g = pictures(), pictures()
    seen = {source: small.see(source, raw.requires_grad_(True)) for source, raw in (("real", x), ("generated", g))}
    expected = 3.0 * (slopes(small.D, x) - slopes(small.D, g)).square().mean()
    assert_same(small.loss(**seen), expected, [small.D.b4.fc[1].weight, small.D.b4.fc[1].bias, small.D.b4.out.weight])
    torch.testing.assert_close(small.reported["DigGAN/real"], slopes(small.D, x))


@pytest.mark.unit
@pytest.mark.parametrize("memory", [0.0, 0.5])
def test_gradients_equal_the_authors_6f344aa(memory):
    """Their first iteration has no stored norms: it is the paper's equation. From the second on it needs a memory."""
    golden = {k: torch.from_numpy(v) for k, v in np.load(GOLDEN).items() if v.dtype.kind == "f"}
    names = ("net.1.weight", "net.1.bias", "out.weight")
    W, b, v = (golden[f"D/{name}"].requires_grad_(True) for name in names)

    def norms(images: torch.Tensor) -> torch.Tensor:
        images = images.clone().requires_grad_(True)
        logits = torch.nn.functional.softplus(images.flatten(1) @ W.T + b) @ v.T
        return diggan.gradient_norms(torch.autograd.grad(logits.sum(), images, create_graph=True)[0])

    before = {"real": None, "generated": None}
    for iteration in range(2 if memory else 1):
        found = {}
        for source in before:
            found[source] = diggan.remembered(norms(golden[source][iteration]), before[source], memory)
            before[source] = found[source].detach()
        loss = golden["weight"] * diggan.gradient_gap(found["real"], found["generated"]).mean()
        for name, gradient in zip(names, torch.autograd.grad(loss, [W, b, v])):
            # Double precision; theirs is a difference of two gradients.
            torch.testing.assert_close(gradient, golden[f"{iteration}/grad/{name}"], rtol=1e-9, atol=1e-10)


@pytest.mark.unit
def test_there_is_a_gradient_where_norms_are_0():
    slope = torch.zeros([4, 3, 2, 2], requires_grad=True)
    diggan.gradient_norms(slope).sum().backward()
    assert torch.equal(slope.grad, torch.zeros_like(slope))


@pytest.mark.unit
def test_memory_is_of_each_round_and_goes_into_the_state():
    small, other = (Small("diggan", memory=0.25) for _ in range(2))
    other.D.load_state_dict(small.D.state_dict())
    images = [pictures().requires_grad_(True) for _ in range(6)]
    seen = [small.see(("real", "generated")[k % 2], image) for k, image in enumerate(images)]
    for round in range(2):
        small.session.round = round
        small.loss(real=seen[2 * round], generated=seen[2 * round + 1])
    other.method.load_state_dict(small.method.state_dict(), torch.device("cpu"))
    small.session.round = other.session.round = 1
    now, before = (small.made, slopes(small.D, images[4])), slopes(small.D, images[2])
    expected = 0.75 * now[1] + 0.25 * before - (0.75 * slopes(small.D, images[5]) + 0.25 * slopes(small.D, images[3]))
    for this in (small, other):
        value = this.loss(real=seen[4], generated=seen[5])
        torch.testing.assert_close(value, 500 * expected.square().mean())


@pytest.mark.unit
def test_presets_have_the_weights_of_the_authors_scripts():
    assert {name: preset.values["weight"] for name, preset in PRESETS.items()} == {
        **{"cifar": 1000, "cifar-20": 5000, "cifar-10": 10000},
        **{"cifar-diffaugment": 10, "cifar-20-diffaugment": 250, "cifar-10-diffaugment": 1000},
    }


@pytest.mark.host
def test_in_a_host_it_is_off_when_off_and_trains_D_alone_in_the_lazy_phase(fetched):
    claims = report_of(fetched[ADA], "heads.py", "diggan")
    assert claims and {claim: wrong for claim, wrong in claims.items() if wrong} == {}
