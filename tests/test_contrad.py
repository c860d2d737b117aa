"""The contrad plug-in: numbers of the authors, gradients by phase, several processes, options, and runs."""

from __future__ import annotations

import contextlib
import json
import math
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from drivers.states import differences
from support.hosts import ADA, STYLEGAN3
from support.images import color_crops, write_zip
from support.runs import killed_and_resumed, loop, options, run_to_its_end, snapshot
from support.scripts import report_of

from stylegan_plugins.errors import OptionError
from stylegan_plugins.manager import builtin, catalogue
from stylegan_plugins.plugins import contrad
from stylegan_plugins.plugins.contrad import PRESETS, ContraDOptions
from stylegan_plugins.run import arguments as run_arguments
from training_ext.parts import Images, Pass, Step
from training_ext.passes import Unseen, for_term, make_passes

GOLDEN = Path(__file__).parent / "golden" / "contrad.npz"


# Numbers. -----------------------------------------------------------------------------------------


@pytest.mark.unit
def test_the_step_of_d_and_of_g_equals_the_authors_4ac8ce5():
    """Their L_D and L_G on given features and heads: values, and gradients of features and of all heads."""
    with np.load(GOLDEN, allow_pickle=False) as file:
        golden = {key: torch.from_numpy(file[key]) for key in file if file[key].dtype.kind != "U"}
    chosen = ContraDOptions(
        hidden=16, projection=8, lambda_con=golden["step/lambda_con"].item(), temperature=0.1, warmup=0
    )
    D = SimpleNamespace(img_resolution=32)
    session = SimpleNamespace(D=D, rank=0, num_gpus=1, report=lambda name, value: None, layer_shape=lambda _: (5, 2, 2))
    method = contrad.Method(session, chosen)
    heads = method.h.double()
    theirs = {"real": "projection", "generated": "projection2", "logits": "linear"}
    layers = {"0": "0", "2": "2"}
    name_of = lambda name, layer: f"{theirs[name]}.{('l1' if layer == '0' else 'l2') if name == 'logits' else layer}"
    for name, head in heads.items():
        for layer in layers:
            for kind in ("weight", "bias"):
                value = golden[f"step/heads/{name_of(name, layer)}.{kind}"]
                getattr(head[int(layer)], kind).data = value.clone()
    features = golden["step/features"].clone().requires_grad_(True)
    first, second, generated = features.chunk(3)

    blank = torch.zeros([len(first), 1])

    def passed(source, phase, features, **views):
        images = Images(source, phase, blank, blank, blank, blank)
        return Pass(images, None, blank, blank, layers={"b4.conv": features}, views=views)

    real = passed("real", "Dmain", first, second=passed("real", "Dmain", second))
    fake = passed("generated", "Dmain", generated)
    (term,) = method.terms
    contrast = term.compute(Step("Dmain", 0, 0, real, fake)).mean()
    softplus, logits = torch.nn.functional.softplus, method.critic.logits
    adversarial = (softplus(logits(fake)) + softplus(-logits(real))).mean()
    assert contrast.item() == pytest.approx(golden["step/contrast"].item(), rel=1e-12)
    assert adversarial.item() == pytest.approx(golden["step/adversarial"].item(), rel=1e-12)
    (contrast + adversarial).backward()
    torch.testing.assert_close(features.grad, golden["step/grad/features"], rtol=1e-9, atol=1e-12)
    for name, head in heads.items():
        for layer in layers:
            for kind in ("weight", "bias"):
                expected = golden[f"step/grad/heads/{name_of(name, layer)}.{kind}"]
                torch.testing.assert_close(getattr(head[int(layer)], kind).grad, expected, rtol=1e-9, atol=1e-12)
    loss = softplus(-logits(passed("generated", "Gmain", features))).mean()  # theirs was given all
    (gradient,) = torch.autograd.grad(loss, [features])
    torch.testing.assert_close(gradient, golden["step/grad/features/G"], rtol=1e-9, atol=1e-12)


class StddevD(torch.nn.Module):
    """The authors' small D of `record_contrad.py`, with the names that the hosts give to the layers."""

    class Stddev(torch.nn.Module):
        group_size = 4

        def forward(self, x):
            groups = [x[start :: len(x) // 4] for start in range(len(x) // 4)]  # every so many images
            deviations = torch.stack([(g.var(dim=0, unbiased=False) + 1e-8).sqrt().mean() for g in groups])
            places = torch.arange(len(x)) % (len(x) // 4)
            return torch.cat([x, deviations[places].reshape(-1, 1, 1, 1).expand(-1, 1, *x.shape[2:])], dim=1)

    def __init__(self):
        super().__init__()
        self.seen = []
        self.b4 = torch.nn.Module()
        self.b4.mbstd = self.Stddev()
        self.b4.conv = torch.nn.Sequential(torch.nn.Conv2d(4, 20, 3, padding=1), torch.nn.Tanh())

    def forward(self, images, labels):
        self.seen.append(len(images))
        return self.b4.conv(self.b4.mbstd(images)).mean(dim=[1, 2, 3])[:, None]


@pytest.mark.unit
def test_one_batch_of_both_sources_gives_the_losses_and_gradients_of_the_authors_4ac8ce5():
    with np.load(GOLDEN, allow_pickle=False) as file:
        golden = {key: torch.from_numpy(file[key]).float() for key in file if key.startswith("joint/")}
    D = StddevD()
    report = lambda name, value: None
    session = SimpleNamespace(D=SimpleNamespace(img_resolution=32), rank=0, num_gpus=1, report=report)
    session.layer_shape = lambda _: (20, 4, 4)
    method = contrad.Method(session, ContraDOptions(hidden=16, projection=8, mbstd="joint"))
    heads = {"real": "projection", "generated": "projection2", "logits": "linear"}
    ours = {"conv": D.b4.conv[0]}
    for name, theirs in heads.items():
        ours |= {f"{theirs}.{('l1' if k == 0 else 'l2') if name == 'logits' else k}": method.h[name][k] for k in (0, 2)}
    for name, layer in ours.items():
        layer.weight.data, layer.bias.data = (golden[f"joint/D/{name}.{kind}"] for kind in ("weight", "bias"))
    images = golden["joint/images"].requires_grad_(True)
    first, second, generated = images.chunk(3)
    blank = torch.zeros([8, 0])
    drawn = [Images(source, "Dmain", x, x, x, blank) for source, x in (("real", first), ("generated", generated))]
    (term,) = method.terms
    object.__setattr__(term.views[0], "make", lambda _: second)
    assert method.critic.joint
    made = make_passes(D, method.critic, [Unseen(one, [term]) for one in drawn], contextlib.nullcontext)
    assert D.seen == [24]
    real, fake = (for_term(term, passes) for passes in made)
    contrast = term.compute(Step("Dmain", 0, 0, real, fake)).mean()
    softplus = torch.nn.functional.softplus
    adversarial = (softplus(fake.logits) + softplus(-real.logits)).mean()
    near = lambda actual, name: torch.testing.assert_close(actual, golden[f"joint/{name}"], rtol=1e-6, atol=1e-6)
    near(contrast, "contrast"), near(adversarial, "adversarial")
    (contrast + adversarial).backward()
    near(images.grad, "grad/images")
    for name, layer in ours.items():
        near(layer.weight.grad, f"grad/D/{name}.weight"), near(layer.bias.grad, f"grad/D/{name}.bias")


@pytest.mark.host
def test_each_phase_trains_what_the_paper_says(fetched):
    truths = report_of(fetched[ADA], "contrad_step.py")
    assert len(truths) > 18 and [name for name, holds in truths.items() if not holds] == []


@pytest.mark.host
@pytest.mark.parametrize("pristine", [ADA], indirect=True)
def test_in_nvidias_checkout_each_phase_trains_what_the_paper_says(pristine):
    assert [name for name, holds in report_of(pristine, "contrad_step.py").items() if not holds] == []


@pytest.mark.host
def test_two_processes_give_the_gradients_of_one_with_all_images(fetched, tmp_path):
    relative = report_of(fetched[ADA], "contrad_ranks.py", str(tmp_path / "two"))
    assert relative["loss"] < 1e-12 and relative["vectors"] < 1e-12  # double precision
    # float32 sums of 8 and 8 images instead of 16
    assert relative["D"] < 1e-5 and relative["heads"] < 1e-5
    assert relative["ranks"] == 0


@pytest.mark.run
def test_every_pair_of_plugins_trains(fetched):
    faults = report_of(fetched[ADA], "combine.py", "suite")
    methods = {name for pair in faults for name in pair.split(",")}
    assert methods >= set(builtin()) - {"tensorboard", "wandb", "self-cond"}
    assert len(faults) == 28 + 8 * (len(methods) - 8)  # the eight with one another, and others with each of them
    wrong = {pair: fault for pair, fault in faults.items() if fault}
    needs_D = ("augself", "contrad", "disp", "vision-aided", "diagnostics", "freezed", "transfergan")
    without_D = {",".join(sorted((name, "scale-shift"))) for name in needs_D}
    without_D |= {"augself,projected", "contrad,projected", "disp,projected", "freezed,projected"}
    assert wrong.keys() == {"advaug,contrad", "contrad,disp"} | without_D
    assert all(re.match("refused: .*(?i:leave one of (them|the two) out)", fault) for fault in wrong.values())


# Options. -----------------------------------------------------------------------------------------


def resolved(given: dict) -> ContraDOptions:
    return catalogue().activate(["contrad"], {"contrad": given}).options["contrad"]


@pytest.mark.unit
@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_takes_the_place_of_defaults_and_what_is_given_wins(name):
    options = resolved({"preset": name})
    assert all(getattr(options, field) == value for field, value in PRESETS[name].values.items())
    assert PRESETS[name].values and PRESETS[name].source
    assert resolved({"preset": name, "augment": "simclr"}).augment == "simclr"


@pytest.mark.unit
@pytest.mark.parametrize("resolution, blur", [(32, 0), (64, 0), (128, 0.5), (1024, 0.5)])
def test_the_augmentation_goes_with_the_resolution(resolution, blur):
    assert ContraDOptions().transform(resolution).blur == blur
    assert ContraDOptions(augment="simclr").transform(resolution).blur == 0


def arguments(**changes) -> dict:
    return {
        "loss_kwargs": {"class_name": run_arguments.HOST_LOSS},
        "training_set_kwargs": {"use_labels": False, "resolution": 32},
        "D_kwargs": {"epilogue_kwargs": {"mbstd_group_size": 4}},
        "batch_size": 8,
        "batch_gpu": 8,
        "num_gpus": 1,
        **changes,
    }


def configured(args: dict, **options) -> dict:
    plugins = catalogue().activate(["contrad"], {"contrad": options})
    request = run_arguments.Request(plugins=plugins, dry_run=True)
    return run_arguments.configure("run", args, request)[1]


@pytest.mark.unit
@pytest.mark.parametrize(
    "changes, options, message",
    [
        ({"training_set_kwargs": {"use_labels": True}}, {}, "--cond"),
        ({"batch_size": 1, "batch_gpu": 1}, {}, "--batch=1.*1 at a time"),
        ({"batch_size": 2, "batch_gpu": 1, "num_gpus": 2}, {"gather": False}, "--batch=2.*1 at a time"),
    ],
)
def test_what_cannot_be_contrasted_is_refused(changes, options, message):
    with pytest.raises(OptionError, match=message):
        configured(arguments(**changes), **options)


@pytest.mark.unit
def test_two_gpus_with_an_image_each_are_enough_when_they_share():
    configured(arguments(batch_size=2, batch_gpu=1, num_gpus=2))


@pytest.mark.unit
def test_the_minibatch_stddev_layer_can_be_left_out():
    assert configured(arguments(), mbstd="off")["D_kwargs"]["epilogue_kwargs"]["mbstd_num_channels"] == 0
    assert "mbstd_num_channels" not in configured(arguments())["D_kwargs"]["epilogue_kwargs"]


@pytest.mark.unit
def test_a_pretrained_d_keeps_its_minibatch_stddev_layer():
    with pytest.raises(OptionError, match="--contrad-mbstd=off.*--resume"):
        contrad.configure(arguments(resume_pkl="x.pkl"), ContraDOptions(mbstd="off"), frozenset())


# Runs. --------------------------------------------------------------------------------------------


@pytest.mark.run
def test_a_killed_run_ends_as_one_that_was_not_and_its_snapshot_is_stock(fetched, ada_host, tmp_path):
    """32 iterations, in the warm-up of the learning rates; killed and resumed once."""
    data = write_zip(tmp_path / "crops.zip", color_crops(32, side=16))
    args = options(ada_host, ADA, data, tmp_path, "--plugin=contrad", "--contrad-warmup=100", "--device=cpu")
    args |= {"total_kimg": 32 * args["batch_size"] / 1000, "kimg_per_tick": 9, "state_minutes": 10.0}
    args["image_snapshot_ticks"] = None  # sheets of 1024 samples
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run_to_its_end(ada_host, args, whole)
    killed_and_resumed(ada_host, args, killed, 12 * args["batch_size"])
    assert differences(killed, whole) == []
    lines = [json.loads(line) for line in (whole / "stats.jsonl").read_text().splitlines()]
    for name in ("Loss/D/contrad", "ContraD/real", "ContraD/generated", "Loss/signs/real", "Loss/G/loss"):
        values = [line[name]["mean"] for line in lines if line.get(name, {}).get("num")]
        assert len(set(values)) > 1 and all(math.isfinite(value) for value in values), name
    assert snapshot(fetched[ADA], max(whole.glob("network-snapshot-*.pkl")), "--stock")["finite"]


@pytest.mark.run
def test_stylegan3_trains_on_gray_images(fetched, training_hosts, gray_zip, tmp_path):
    flags = ["--plugin=contrad", "--contrad-mbstd=off", "--contrad-augment=simclr-hq-cutout"]
    args = options(training_hosts[STYLEGAN3], STYLEGAN3, gray_zip, tmp_path, *flags)
    assert "augment_kwargs" not in args
    pickle = loop(training_hosts[STYLEGAN3], args, tmp_path / "run", 4)
    last = json.loads((tmp_path / "run" / "stats.jsonl").read_text().splitlines()[-1])
    assert math.isfinite(last["Loss/D/contrad"]["mean"])
    assert snapshot(fetched[STYLEGAN3], pickle, "--stock")["finite"]
