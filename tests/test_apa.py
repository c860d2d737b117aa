"""apa: its equations, the authors' code, and what it does in a run."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from support.hosts import ADA
from support.scripts import report_of

from stylegan_plugins import Images, OptionError, Pass, Step
from stylegan_plugins.plugins import apa as plugin
from training_ext.apa import deceive

GOLDEN = Path(__file__).parent / "golden/apa.npz"
N = 8


def made(**values):
    """Return the method with these options, and its session, which keeps what is reported."""
    reported = {}
    session = SimpleNamespace(device=torch.device("cpu"), num_gpus=1, round=0, report=reported.__setitem__)
    return session, plugin.setup(session=session, options=plugin.APAOptions(**{"kimg": 500.0, **values})), reported


def picture(value):
    """Return N images of 2x2 whose pixels tell them apart: value, value + 1, ..."""
    return (value + torch.arange(N, dtype=torch.float32)).reshape(-1, 1, 1, 1).expand(-1, 3, 2, 2)


def step_of(source, phase, raw, logits, round=0):
    images = Images(source, phase, raw, raw, raw, raw.new_zeros([N, 0]))
    return Step(phase, 0, round, **{source: Pass(images, None, raw, images.labels, judged=logits)})


@pytest.mark.unit
@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_each_image_is_replaced_with_probability_p_by_the_image_of_its_round(p):
    session, method, _ = made()
    labels = torch.arange(N).reshape(-1, 1)
    for round in (0, 1):
        method.observe(step_of("generated", "Gmain", picture(100 * (round + 1)), torch.zeros([N, 1]), round))
    method.observe(step_of("generated", "Dmain", picture(900), torch.zeros([N, 1])))  # of D's step: not kept
    method.controller.p.fill_(p)
    for round in (0, 1):
        session.round = round
        torch.manual_seed(round)
        shown, shown_labels = method.real_images(picture(0), labels)
        torch.manual_seed(round)
        m = (torch.rand([N, 1, 1, 1]) < p).float()
        assert torch.equal(shown, m * picture(100 * (round + 1)) + (1 - m) * picture(0))
        assert torch.equal(shown_labels, labels) and (0 < m.sum() < N or p in (0, 1))


@pytest.mark.unit
def test_real_images_are_shown_before_there_are_generated_ones():
    _, method, _ = made(mode="fixed", p=1.0)
    assert torch.equal(method.real_images(picture(0), torch.zeros([N, 0]))[0], picture(0))


@pytest.mark.unit
def test_p_follows_adas_rule_and_stays_between_0_and_1():
    """p <- p + sign(mean sign - target) * images / (1000 kimg), every 4 iterations; the signs of Dreg count, too."""
    _, method, _ = made(kimg=0.1, target=0.6)
    random = np.random.RandomState(0)
    expected, signs, seen = 0.0, [], []
    for done in range(1, 41):
        share = 1 if done <= 24 else 0.5  # of positive logits
        for phase in ("Dmain", "Dreg") if done % 3 == 0 else ("Dmain",):
            logits = np.where(random.rand(N) < share, 1.5, -0.5)
            method.observe(step_of("generated", phase, picture(0), torch.full([N, 1], -1.0)))
            method.observe(step_of("real", phase, picture(0), torch.from_numpy(logits).float().reshape(N, 1)))
            signs += np.sign(logits).tolist()
        method.batch_end(nimg=done * N, batch_idx=done)
        if done % 4 == 0:
            expected += np.sign(np.mean(signs) - 0.6) * N * 4 / (0.1 * 1000)
            expected, signs = min(max(expected, 0), 1), []
        assert method.controller.p.item() == pytest.approx(expected, abs=1e-6)
        seen.append(expected)
    assert max(seen) == 1 and seen[-1] == 0 and len(set(seen)) > 3


@pytest.mark.unit
def test_a_fixed_p_stays_and_the_state_comes_back_with_the_images_that_were_kept():
    _, method, _ = made(mode="fixed", p=0.4)
    method.observe(step_of("real", "Dmain", picture(0), torch.ones([N, 1])))
    method.batch_end(nimg=4 * N, batch_idx=4)
    assert method.controller.p.item() == pytest.approx(0.4)
    _, method, reported = made(kimg=0.1)
    method.observe(step_of("generated", "Gmain", picture(7), torch.zeros([N, 1]), round=1))
    method.observe(step_of("real", "Dmain", picture(0), torch.ones([N, 1])))
    _, other, _ = made(kimg=0.1)
    other.load_state_dict(method.state_dict())
    for this in (method, other):
        this.batch_end(nimg=4 * N, batch_idx=4)
    assert other.controller.p == method.controller.p > 0
    assert list(other.pseudo) == [1] and torch.equal(other.pseudo[1], picture(7))
    method.statistics()
    assert reported["APA/p"] == method.controller.p


@pytest.mark.unit
def test_losses_without_sign_are_refused_and_p_rises_faster_from_a_pickle():
    adaptive = plugin.APAOptions()
    given = lambda options=adaptive, **args: plugin.configure(args={"loss_kwargs": {}} | args, options=options)
    assert given().kimg == 500 and given(resume_pkl="x.pkl").kimg == 100
    for loss in plugin.WITHOUT_SIGN:
        with pytest.raises(OptionError, match=f"--gan-loss={loss}: apa reads the sign of logits"):
            given(loss_kwargs={"gan_loss": loss})
        assert given(plugin.APAOptions(mode="fixed", p=0.3), loss_kwargs={"gan_loss": loss}).p == 0.3


@pytest.mark.unit
def test_the_images_shown_equal_the_authors_042c5c4():
    with np.load(GOLDEN) as file:
        for phase in ("Dmain", "Dreg"):
            torch.manual_seed(int(file[f"{phase}/seed"]))
            real, pseudo, expected = (
                torch.from_numpy(file[k]) for k in ("input/real", "input/pseudo", f"{phase}/shown")
            )
            u = torch.rand([len(real), 1, 1, 1])
            assert torch.equal(deceive(real, pseudo, u, torch.from_numpy(file["p"])), expected)
            assert not torch.equal(expected, real) and not torch.equal(expected, pseudo)


@pytest.mark.host
def test_gradients_equal_the_authors_and_p_spans_processes_and_rounds(fetched):
    adaptive, off = {"interval": 1, "target": -1, "kimg": 0.1}, {"mode": "fixed", "p": 0}
    args = (fetched[ADA], "regularizers.py", "apa", json.dumps(adaptive), json.dumps(off), "ranks", str(GOLDEN))
    found = report_of(*args)
    assert found["off"] == ""
    assert all(with_it == without for with_it, without in found["passes"].values())
    assert len(found["golden"]) == 36 and max(found["golden"].values()) < 1e-6  # Dmain and Dreg, with R1
    for other in ("ranks", "rounds"):
        assert max(found[other].values()) < 1e-6 and "controller.p" in found[other]
