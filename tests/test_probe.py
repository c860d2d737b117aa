"""`stylegan-plugins probe`: a logistic regression on the features of a frozen discriminator."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.hosts import ADA
from support.images import color_crops, write_zip
from support.pickles import make_pickle
from support.scripts import DRIVERS, run_script

from stylegan_plugins.analysis import probe
from training_ext import linear_evaluation


def command(*args: str | Path, check: bool = True):
    code = "from stylegan_plugins.cli import main; main()"
    return run_script(Path.cwd(), "-c", code, "probe", *args, "--device=cpu", check=check)


def striped(count: int) -> list[np.ndarray]:
    """Return noise with horizontal or vertical stripes, uint8 [32, 32, 3]: two classes that convolutions tell apart."""
    random = np.random.RandomState(0)
    images = []
    for index in range(count):
        stripes = np.tile((np.arange(32) % 4 < 2) * 120, (32, 1))
        image = (stripes if index % 2 else stripes.T)[:, :, None] + random.randint(0, 100, [32, 32, 3])
        images.append(image.astype(np.uint8))
    return images


@pytest.fixture(scope="module")
def stripes_zip(tmp_path_factory):
    return write_zip(tmp_path_factory.mktemp("stripes") / "stripes.zip", striped(80), [i % 2 for i in range(80)])


@pytest.mark.host
def test_classes_are_predicted_from_each_layer(family, fetched, pickles, stripes_zip, tmp_path):
    done = command(
        pickles[family], f"--data={stripes_zip}", f"--host={fetched[family]}", f"--outdir={tmp_path / 'out'}"
    )
    name = tmp_path / "out" / f"probe-classes-{family}"
    record = json.loads(name.with_suffix(".json").read_text())
    assert record["task"] == "classes" and record["images"] == 80
    assert [row["layer"] for row in record["rows"]] == ["b32", "b16", "b8", "conv", "fc"]
    assert [row["chance"] for row in record["rows"]] == [0.5] * 5
    # An untrained D tells such stripes apart; pixels averaged over an image would not.
    assert max(row["accuracy"] for row in record["rows"]) > 0.9
    for row in record["rows"]:
        assert f"| classes | {row['layer']} | {row['width']} | {row['accuracy']:.3f} ±" in done.stdout
    with PIL.Image.open(name.with_suffix(".png")) as image:
        assert image.width > 300 and len(np.unique(np.asarray(image.convert("L")))) > 20


@pytest.mark.host
def test_without_classes_it_is_asked_what_the_augmentation_did(fetched, pickles, color_zip, tmp_path):
    command(pickles[ADA], f"--data={color_zip}", f"--host={fetched[ADA]}", f"--outdir={tmp_path}")
    rows = json.loads((tmp_path / f"probe-omega-{ADA}.json").read_text())["rows"]
    assert list(dict.fromkeys(row["question"] for row in rows)) == ["color", "translation", "cutout"]
    best = {q: max(row["accuracy"] for row in rows if row["question"] == q) for q in ("color", "translation", "cutout")}
    assert min(best.values()) > 0.7  # a difference of features shows it even at a random start
    assert all(0.45 < row["chance"] < 0.6 for row in rows)


@pytest.mark.host
def test_labels_of_a_conditional_discriminator_are_handed_on(fetched, labelled_zip, tmp_path):
    pickle = make_pickle(fetched[ADA], tmp_path / "c.1.pkl", c_dim=3)
    command(pickle, f"--data={labelled_zip}", f"--host={fetched[ADA]}")
    assert (tmp_path / "probe-classes-c.1.json").exists()  # beside the pickle, and with all of its name


@pytest.mark.host
@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--task=classes"], "--task=classes: the data set has no classes"),
        (["--data=gray"], "[1, 32, 32], the discriminator takes [3, 32, 32]"),
        (["--protocol=linear"], "--protocol=linear: the data set has no classes"),
        (["--epochs=3"], "--epochs=3 has no effect without --protocol=linear"),
        (["--host=."], "No host in"),
        (["--data=nothing.zip"], "nothing.zip does not exist"),
    ],
)
def test_what_cannot_be_probed_is_one_line(args, message, fetched, pickles, color_zip, gray_zip, tmp_path):
    if "--data=gray" in args:
        args = [f"--data={gray_zip}"]
    done = command(
        pickles[ADA], f"--data={color_zip}", f"--host={fetched[ADA]}", f"--outdir={tmp_path}", *args, check=False
    )
    assert done.returncode == 2 and message in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.host
def test_a_folder_without_snapshots_is_one_line(fetched, color_zip, tmp_path):
    done = command(tmp_path, f"--data={color_zip}", f"--host={fetched[ADA]}", check=False)
    assert done.returncode == 2 and re.search(r"Error: .* has no network-snapshot-\*\.pkl", done.stderr)


@pytest.mark.unit
@given(st.integers(2, 5), st.integers(0, 1000))
@settings(deadline=None, max_examples=6)
def test_a_class_that_is_a_feature_is_always_found_and_noise_is_not(classes, seed):
    random = np.random.RandomState(seed)
    target = np.arange(40 * classes) % classes
    order = np.arange(len(target))
    splits = [(order[10 * classes :], order[: 10 * classes])]
    noise = random.randn(len(target), 4)
    assert probe.accuracies(np.concatenate([noise, np.eye(classes)[target] * 9], axis=1), target, splits) == [1.0]
    assert probe.accuracies(noise, random.permutation(target), splits)[0] < 0.95


@pytest.mark.unit
@pytest.mark.parametrize("count", [8, 11, 16])
def test_the_last_batch_is_filled_up_so_that_groups_stay_whole(count, monkeypatch):
    class Layer(torch.nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :4]

    class D(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.b4 = torch.nn.Module()
            self.b4.conv, self.b4.fc = Layer(), Layer()
            self.weight = torch.nn.Parameter(torch.zeros([]))

        def forward(self, images, labels):
            assert len(images) == len(labels) == 8
            self.b4.conv(images)
            return self.b4.fc(images)

    images = torch.randn([count, 3, 4, 4])
    monkeypatch.setattr(probe, "BATCH", 8)
    features = probe.features_of(D(), lambda index: images[index], torch.zeros([count, 0]))
    assert np.array_equal(features["fc"], images.flatten(1)[:, :4].numpy())


@pytest.mark.unit
def test_a_linear_classifier_is_what_sgd_makes_of_the_same_draws(monkeypatch):
    """Cross-entropy and its gradient by hand, in double precision, with the published schedule."""
    protocol = linear_evaluation.Protocol(epochs=10, batch=8)
    rates = [0.1] * 6 + [0.01] * 2 + [0.001] + [0.0001]  # 7.5 is rounded to 8
    assert [protocol.rate_at(epoch) for epoch in range(10)] == pytest.approx(rates)
    assert [epoch for epoch in range(1, 100) if protocol.rate_at(epoch) < protocol.rate_at(epoch - 1)] == [6, 8, 9]
    whole = linear_evaluation.Protocol()
    assert [epoch for epoch in range(1, 100) if whole.rate_at(epoch) < whole.rate_at(epoch - 1)] == [60, 75, 90]
    targets = torch.arange(20) % 3
    images = torch.randn([20, 1, 4, 4]) + targets[:, None, None, None]
    torch.manual_seed(5)
    fitted = linear_evaluation.fit(lambda x: x.flatten(1).tanh(), lambda index: images[index], targets, protocol)
    torch.manual_seed(5)
    weight = bias = None
    for epoch in range(10):
        order = torch.randperm(20)
        for index in (order[:8], order[8:16], order[16:]):
            x = linear_evaluation.draw_views(images[index], 0.2).flatten(1).tanh().double().numpy()
            if weight is None:
                start = torch.nn.Linear(16, 3)
                weight, bias = (value.detach().double().numpy().copy() for value in (start.weight, start.bias))
            shares = np.exp(x @ weight.T + bias)
            error = (shares / shares.sum(axis=1, keepdims=True) - np.eye(3)[targets[index]]) / len(index)
            weight, bias = weight - rates[epoch] * error.T @ x, bias - rates[epoch] * error.sum(axis=0)
    np.testing.assert_allclose(fitted.weight, weight, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(fitted.bias, bias, rtol=1e-4, atol=1e-6)
    found = linear_evaluation.accuracy(fitted, lambda x: x.flatten(1).tanh(), lambda index: images[index], targets)
    logits = images.flatten(1).tanh().double().numpy() @ weight.T + bias
    assert found == np.mean(logits.argmax(axis=1) == targets.numpy())


@pytest.mark.unit
@pytest.mark.parametrize(("count", "size", "calls"), [(7, 4, [8]), (256, 4, [32] * 8), (3, 1, [3]), (5, None, [5])])
def test_an_encoder_sees_whole_groups(count, size, calls):
    seen = []
    encoder = linear_evaluation.in_groups(lambda x: seen.append(len(x)) or x, size, 32)
    assert torch.equal(encoder(torch.arange(count)), torch.arange(count)) and seen == calls


@pytest.mark.host
def test_the_linear_evaluation_writes_its_accuracy_and_its_protocol(fetched, pickles, stripes_zip, tmp_path):
    args = [pickles[ADA], f"--data={stripes_zip}", f"--host={fetched[ADA]}", "--protocol=linear", "--epochs=4"]
    done = command(*args, f"--outdir={tmp_path}", "--runs=2")
    record = json.loads((tmp_path / f"probe-linear-{ADA}.json").read_text())
    (row,) = record["rows"]
    assert row["layer"] == "conv" and row["untrained"] is None and row["chance"] == 0.5
    assert record["test_images"] == 20 and record["protocol"]["epochs"] == 4 and record["runs"] == 2
    assert f"| classes | conv | {row['width']} | {row['accuracy']:.3f} ±" in done.stdout


@pytest.mark.run
def test_during_training_the_head_learns_more_than_a_head_on_a_discriminator_that_does_not(fetched, tmp_path):
    images = dict(train=np.stack(color_crops(300, side=16)), held_out=np.stack(color_crops(128, side=16, seed=1)))
    np.savez(tmp_path / "crops.npz", **images)
    done = run_script(fetched[ADA], str(DRIVERS / "augself_heldout.py"), str(tmp_path / "crops.npz"), "80")
    errors = json.loads(done.stdout.splitlines()[-1])
    trained, frozen = errors["trained"], errors["frozen"]
    assert trained[0] == frozen[0]  # the same start
    assert trained[1] < 0.9 * min(frozen)
