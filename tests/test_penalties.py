"""R2, the gradient penalty and spectral normalisation in the loss, and their options."""

from __future__ import annotations

import json

import pytest
import torch
from support.hosts import FAMILIES
from support.scripts import report_of

from stylegan_plugins.analysis import probe
from stylegan_plugins.errors import OptionError
from stylegan_plugins.run import arguments
from training_ext.gan_losses import GAN_LOSSES
from training_ext.penalties import one_centred, zero_centred

HOST = {"class_name": arguments.HOST_LOSS, "r1_gamma": 10.0}


@pytest.mark.host
@pytest.mark.parametrize("family", FAMILIES)
def test_penalties_and_normalised_layers_are_those_of_plain_autograd(fetched, family):
    claims = report_of(fetched[family], "penalties.py")
    assert len(claims) == 13 and {claim: wrong for claim, wrong in claims.items() if wrong} == {}


@pytest.mark.unit
def test_penalties_equal_their_equations():
    gradient = torch.randn([3, 2, 4, 4], dtype=torch.float64, requires_grad=True)
    norms = torch.stack([sum(value**2 for value in one.flatten()) for one in gradient]).sqrt()
    torch.testing.assert_close(zero_centred(gradient), norms**2)
    torch.testing.assert_close(one_centred(gradient), (norms - 1) ** 2)
    zero = torch.zeros([1, 1, 2, 2], requires_grad=True)
    one_centred(zero).sum().backward()
    assert torch.equal(zero.grad, torch.zeros_like(zero))


def configured(explicit: tuple[str, ...] = (), **given: object) -> dict:
    """Return the arguments of a training loop with options of the loss."""
    args = {"loss_kwargs": dict(HOST), "augment_kwargs": {}, "ada_target": 0.6}
    arguments._set_loss(args, arguments.Request.parse({"plugin": (), **given}, frozenset(explicit)))
    return args


@pytest.mark.unit
def test_options_of_the_loss_become_its_arguments():
    plain = {"augment_kwargs": {}, "ada_target": 0.6}
    assert configured() == plain | {"loss_kwargs": HOST}
    ours = {"class_name": arguments.PLUGIN_LOSS}
    assert configured(r2=2.0, gradient_penalty=0.0, d_spectral_norm=True, g_interval=5) == plain | {
        "loss_kwargs": HOST
        | ours
        | {"r2_gamma": 2.0, "gradient_penalty": 0.0, "d_spectral_norm": True, "g_interval": 5}
    }
    every_step = configured(d_reg_interval=0)
    assert every_step["D_reg_interval"] is None and every_step["loss_kwargs"] == HOST
    assert configured(d_reg_interval=8)["D_reg_interval"] == 8


@pytest.mark.unit
def test_r1_is_the_hosts_gamma_and_both_are_refused_unless_they_are_equal():
    def taken(**given: float) -> dict:
        values = {"r1": None, "gamma": None, **given}
        arguments.take_r1(values, given)
        assert values == {"gamma": None, **given}
        return given

    assert taken() == {} and taken(gamma=3.0) == {"gamma": 3.0}
    assert taken(r1=0.0) == {"gamma": 0.0} and taken(r1=2.0, gamma=2.0) == {"gamma": 2.0}
    with pytest.raises(OptionError, match="^--r1=2: --gamma=10 is the same weight. Give one of them.$"):
        taken(r1=2.0, gamma=10.0)


@pytest.mark.unit
@pytest.mark.parametrize("name", GAN_LOSSES)
def test_losses_whose_signs_mean_nothing_switch_ada_off_unless_it_was_asked_for(name, capsys):
    signed = name in ("nonsaturating", "minimax", "hinge")
    assert ("augment_kwargs" in configured(gan_loss=name)) is signed
    assert (f"--gan-loss={name}: --aug=noaug, since ADA reads signs" in capsys.readouterr().out) is not signed
    assert "augment_kwargs" in configured(explicit=("aug",), gan_loss=name)


@pytest.mark.unit
@pytest.mark.parametrize("normalised", [True, False])
def test_probe_reads_d_as_the_run_trained_it(normalised, tmp_path, monkeypatch):
    layer = torch.nn.Linear(3, 3, bias=False)
    layer.weight_gain = 0.5
    before = layer.weight.detach().clone()
    monkeypatch.setattr(probe, "load_network", lambda pickle, name: layer)
    (tmp_path / "training_options.json").write_text(json.dumps({"loss_kwargs": {"d_spectral_norm": normalised}}))
    kept = probe.trained_discriminator(tmp_path / "network-snapshot-000001.pkl").weight
    sigma = torch.linalg.matrix_norm(before, ord=2)
    torch.testing.assert_close(kept, before / (sigma * 0.5) if normalised else before, rtol=1e-3, atol=0)
