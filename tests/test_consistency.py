"""cr, bcr and zcr: their equations, published code, and what they do in a run."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from support.hosts import ADA
from support.scripts import report_of

from stylegan_plugins import OptionError
from stylegan_plugins.plugins import bcr, cr
from training_ext.consistency import closeness, difference, draw, move, moved

GOLDEN = Path(__file__).parent / "golden/consistency.npz"


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as file:
        return {key: torch.from_numpy(file[key]) for key in file if file[key].dtype.kind != "U"}


@pytest.mark.unit
def test_terms_are_their_equations():
    logits, others = torch.randn([2, 4, 3], dtype=torch.float64).unbind()
    images, near = torch.randn([2, 4, 3, 5, 5], dtype=torch.float64).unbind()
    for n in range(4):
        squares = [(a - b) ** 2 for a, b in zip(logits[n].tolist(), others[n].tolist())]
        assert difference(logits, others)[n].item() == pytest.approx(sum(squares) / 3, rel=1e-12)
        pixels = [(a - b) ** 2 for a, b in zip(images[n].flatten().tolist(), near[n].flatten().tolist())]
        assert closeness(images, near)[n].item() == pytest.approx(-sum(pixels) / 75, rel=1e-12)


@pytest.mark.unit
def test_T_flips_half_of_the_images_and_reaches_every_shift_alike():
    mirrored, offset = draw(torch.zeros([20000, 1, 16, 16]), 0.125, True)
    assert abs(mirrored.double().mean().item() - 0.5) < 0.02  # 5 standard deviations: 0.018
    for axis in (0, 1):
        shifts, counts = offset[:, axis].unique(return_counts=True)
        assert shifts.tolist() == [-2, -1, 0, 1, 2]
        assert (counts / 20000 - 0.2).abs().max() < 0.015  # 5 standard deviations: 0.014
    images = torch.randn([50, 3, 8, 8])
    assert torch.equal(moved(images, 0.0, False), images)


@pytest.mark.unit
def test_T_equals_studiogans_947b35e_bit_for_bit(golden):
    assert torch.equal(move(golden["images"], golden["mirrored"], golden["offset"]), golden["moved"])
    assert golden["mirrored"].any() and not golden["mirrored"].all() and golden["offset"].min() < 0


@pytest.mark.unit
def test_losses_and_gradients_of_cr_and_bcr_equal_contrads_4ac8ce5(golden):
    W, v = (golden[f"D/{name}"].requires_grad_(True) for name in "Wv")
    D = lambda x: (x.flatten(1) @ W.t()).tanh() @ v.t()
    n = len(golden["images"]) // 2
    terms = difference(D(golden["images"]), D(golden["moved"]))
    real, generated = terms[:n].mean(), terms[n:].mean()
    losses = {"cr": 10 * real, "bcr": 10 * real + golden["generated_weight"] * generated}
    for name, loss in losses.items():
        torch.testing.assert_close(loss.detach(), golden[f"{name}/loss"], rtol=1e-12, atol=0)
        for key, gradient in zip("Wv", torch.autograd.grad(loss, [W, v], retain_graph=True)):
            # Double precision: sums in another order.
            torch.testing.assert_close(gradient, golden[f"{name}/grad/{key}"], rtol=1e-10, atol=1e-13)


@pytest.mark.unit
@pytest.mark.parametrize("plugin, name", [(cr, "cr"), (bcr, "bcr")])
def test_a_T_that_changes_nothing_is_refused(plugin, name):
    configure = partial(plugin.configure, args={"training_set_kwargs": {"resolution": 16}})
    still = type(plugin.OPTIONS())(shift=0.03, flip=False)
    with pytest.raises(OptionError, match=f"--{name}-shift=0.03: less than half a pixel of 16x16"):
        configure(options=still)
    configure(options=type(still)(shift=0.03, flip=True))
    configure(options=type(still)(shift=0.0625, flip=False))


CASES = {  # options, options with which it is off, what it trains, and images through D and G with it
    "cr": ({}, {"weight": 0}, {"Dmain": ["D"]}, {"Dmain": {"D": [4, 8], "G": [4]}}),
    "bcr": (
        *({"shift": 0.125}, {"real_weight": 0, "generated_weight": 0}, {"Dmain": ["D"]}),
        {"Dmain": {"D": [8, 8], "G": [4]}},
    ),
    "zcr": (
        *({}, {"d_weight": 0, "g_weight": 0}, {"Dmain": ["D"], "Gmain": ["G"]}),
        {"Dmain": {"D": [8, 4], "G": [4, 4]}, "Gmain": {"D": [4], "G": [4, 4]}},
    ),
}


@pytest.mark.host
@pytest.mark.parametrize("name", CASES)
def test_each_trains_what_its_equation_says_with_the_passes_that_it_needs(name, fetched):
    options, off, trained, passes = CASES[name]
    found = report_of(fetched[ADA], "regularizers.py", name, json.dumps(options), json.dumps(off))
    assert found["off"] == ""
    assert {phase: kinds for phase, kinds in found["trained"].items() if kinds} == trained
    assert {phase: mine for phase, (mine, stock) in found["passes"].items() if mine != stock} == passes
