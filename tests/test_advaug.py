"""AdvAug: its equations, the directions of its perturbations, the authors' numbers, and what it does in a host."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from support.hosts import ADA
from support.scripts import report_of
from support.small import Small, assert_same, pictures

from stylegan_plugins import Critic, OptionError, PluginError
from stylegan_plugins.plugins import advaug as plugin
from training_ext import advaug
from training_ext.gan_losses import GAN_LOSSES
from training_ext.passes import changing

GOLDEN = Path(__file__).parent / "golden" / "advaug.npz"
softplus = torch.nn.functional.softplus


@pytest.fixture(autouse=True)
def seeded(monkeypatch):
    no_weight_gradients = SimpleNamespace(no_weight_gradients=contextlib.nullcontext)
    monkeypatch.setattr(plugin, "host_module", lambda name: no_weight_gradients)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.mark.unit
@pytest.mark.parametrize(
    "attack, signs", [("loss", {"real": -1, "generated": 1}), ("score", {"real": 1, "generated": 1})]
)
@pytest.mark.parametrize("source", ["real", "generated"])
def test_Ds_term_is_its_equation(attack, signs, source):
    """The last layer is linear: its gradient is its weight, so delta is gamma times the sign of that."""
    small = Small("advaug", d_weight=0.3, d_gamma=0.2, attack=attack)
    images = pictures()
    v, b = small.D.b4.out.weight[0], small.D.b4.out.bias
    f = small.D.b4.fc(images)
    side = -1 if source == "real" else 1
    clean = softplus(side * (f @ v + b))
    perturbed = softplus(side * ((f + 0.2 * signs[source] * v.detach().sign()) @ v + b))
    loss = small.loss(**{source: small.see(source, images)})
    assert_same(loss, 0.3 * (perturbed - clean).mean(), [*small.D.parameters()], rtol=1e-5, atol=1e-6)


@pytest.mark.unit
@pytest.mark.parametrize("attack, sign", [("loss", -1), ("score", 1)])
def test_Gs_term_is_its_equation(attack, sign):
    small = Small("advaug", g_weight=0.3, g_gamma=0.1, attack=attack)
    synthesis, w = small.G.synthesis, torch.randn([8, 1, 4], dtype=torch.float64, requires_grad=True)
    rest = lambda h: small.D(torch.tanh(synthesis.last(torch.tanh(h))).unflatten(1, [3, 8, 8]), None)
    h = synthesis.b4.conv1(w[:, 0])
    leaf = h.detach().requires_grad_(True)
    delta = 0.1 * sign * torch.autograd.grad(rest(leaf).sum(), leaf)[0].sign()
    expected = 0.3 * (softplus(-rest(h + delta)) - softplus(-rest(h))).mean()

    layers = {}
    with changing(synthesis, {"b4.conv1": lambda value: layers.setdefault("b4.conv1", value)}):  # reads it
        raw = synthesis(w)
    seen = small.see("generated", raw, "G", w=w, generator_layers=layers)
    assert_same(small.loss("G", generated=seen), expected, [w, *synthesis.parameters()], rtol=1e-5, atol=1e-8)


@pytest.mark.unit
def test_perturbations_raise_what_they_attack_and_are_constants():
    features = torch.randn([6, 5], dtype=torch.float64, requires_grad=True)
    v = torch.randn([5, 1], dtype=torch.float64, requires_grad=True)
    for attack, changed in (("loss", softplus), ("score", lambda a: -a)):
        logits = features @ v
        delta = advaug.perturbation(features, softplus(-logits), logits, 0.01, attack)
        assert not delta.requires_grad and delta.abs().unique().tolist() == [0.01]
        assert ((changed(-(features + delta) @ v) - changed(-logits)) > 0).all()


@pytest.mark.unit
def test_the_last_layer_with_labels_is_a_scalar_product_with_their_embedding():
    layer, features, embedding = torch.nn.Linear(3, 4), torch.randn([2, 3]), torch.randn([2, 4])
    expected = [float(a @ b) / math.sqrt(4) for a, b in zip(layer(features).detach(), embedding)]
    torch.testing.assert_close(advaug.last_layer(features, layer, embedding).flatten().tolist(), expected)


@pytest.mark.unit
@pytest.mark.parametrize("network", ["D", "G"])
def test_gradients_equal_the_authors_9a9a8df(network):
    """Their loss is the hinge, their perturbation raises D's score; one step of D and one of G."""
    golden = {k: torch.from_numpy(v) for k, v in np.load(GOLDEN).items() if v.dtype.kind == "f"}
    names = {
        "D": ["first.weight", "first.bias", "l5.weight", "l5.bias"],
        "G": ["l1.weight", "l1.bias", "last.weight", "last.bias"],
    }
    D, G = ([golden[f"{key}/{name}"].requires_grad_(True) for name in names[key]] for key in names)
    gamma, gan = float(golden["gamma"]), GAN_LOSSES["hinge"]
    linear = torch.nn.functional.linear
    phi = lambda images: torch.tanh(linear(images.flatten(1), D[0], D[1]))
    last = lambda f: linear(f, D[2], D[3])
    paint = lambda h: torch.tanh(linear(torch.tanh(h), G[2], G[3])).unflatten(1, [3, 4, 4])
    z = golden[f"{network}/z"]

    def averaged(of, features, judge):
        clean = of(logits := judge(features))
        delta = advaug.perturbation(features, clean, logits, gamma, "score")
        return clean.mean() + 0.5 * advaug.excess(of(judge(features + delta)), clean).mean()

    h = linear(z, G[0], G[1])
    if network == "D":
        loss = averaged(gan.real, phi(golden["real"]), last) + averaged(gan.generated, phi(paint(h).detach()), last)
    else:
        loss = averaged(gan.generator, h, lambda h: last(phi(paint(h))))
    parameters = D if network == "D" else G
    for name, gradient in zip(names[network], torch.autograd.grad(loss, parameters)):
        torch.testing.assert_close(gradient, golden[f"{network}/grad/{name}"], rtol=1e-10, atol=1e-12)


@pytest.mark.unit
def test_paired_losses_and_critics_that_do_not_read_the_last_hidden_layer_are_refused():
    with pytest.raises(OptionError, match="^--gan-loss=relativistic: advaug perturbs images one by one"):
        plugin.configure(args={"loss_kwargs": {"gan_loss": "relativistic"}})
    plugin.configure(args={"loss_kwargs": {}})
    small = Small("advaug")
    small.made.attached()
    small.session.critic = Critic("other", lambda seen: seen.host_logits, layers=["b8"])
    with pytest.raises(PluginError, match="inputs of D.s last layer .b4.fc., and other judges by others"):
        small.made.attached()


@pytest.mark.host
def test_in_a_host_it_is_off_when_off_and_D_runs_no_further_time_in_its_own_step(fetched):
    claims = report_of(fetched[ADA], "heads.py", "advaug")
    assert len(claims) > 6 and {claim: wrong for claim, wrong in claims.items() if wrong} == {}
