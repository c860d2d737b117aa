"""The diagnostics plug-in: its numbers, the held-out set, unchanged training, and runs."""

from __future__ import annotations

import json
import math
import re
import types
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from drivers.states import _compare, differences, statistics
from hypothesis import given, settings
from hypothesis import strategies as st
from support.hosts import ADA, STYLEGAN3
from support.images import color_crops, write_zip
from support.runs import driver, killed_and_resumed, options, run_to_its_end
from support.scripts import report_of, run_script

from stylegan_plugins.errors import DataError, OptionError
from stylegan_plugins.files.states import newest_state
from stylegan_plugins.manager import catalogue
from stylegan_plugins.plugins import diagnostics as plugin
from stylegan_plugins.run import arguments
from training_ext import diagnostics

# Numbers. -----------------------------------------------------------------------------------------

LOGITS = st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=9)


@pytest.mark.unit
@settings(max_examples=100, deadline=None)
@given(LOGITS, LOGITS, LOGITS)
def test_the_summary_is_that_of_the_equations(train, held_out, generated):
    tensors = {"train": train, "held_out": held_out, "generated": generated}
    found = diagnostics.summary({kind: torch.tensor(values) for kind, values in tensors.items()})
    mean = {kind: sum(values) / len(values) for kind, values in tensors.items()}
    assert found["scores"] == pytest.approx(mean, rel=1e-5, abs=1e-5)
    assert found["r_t"] == pytest.approx(sum((d > 0) - (d < 0) for d in train) / len(train))
    if abs(mean["train"] - mean["generated"]) > 0.01:  # float32 has 7 digits
        expected = (mean["train"] - mean["held_out"]) / (mean["train"] - mean["generated"])
        assert found["r_v"] == pytest.approx(expected, rel=1e-2, abs=1e-2)
    right = {"train": [d > 0 for d in train], "held_out": [d > 0 for d in held_out]}
    right["generated"] = [d < 0 for d in generated]
    assert found["accuracy"] == pytest.approx({kind: sum(values) / len(values) for kind, values in right.items()})


@pytest.mark.unit
def test_what_there_is_no_number_for_is_none():
    one = torch.ones([4])
    found = diagnostics.summary({"train": one, "generated": one})
    assert found["scores"]["held_out"] is found["accuracy"]["held_out"] is found["r_v"] is None
    assert diagnostics.summary({"train": one, "held_out": one - 1, "generated": one})["r_v"] is None  # 1 / 0
    found = diagnostics.summary({"train": one * math.nan, "generated": one})
    assert found["scores"]["train"] is None and json.loads(json.dumps(found, allow_nan=False)) == found


@pytest.mark.unit
def test_r_v_is_0_for_unseen_images_like_training_ones_and_1_for_such_like_generated_ones():
    train, generated = torch.tensor([1.0, 3.0]), torch.tensor([-1.0, -2.0])
    assert diagnostics.r_v(train, train, generated) == 0 and diagnostics.r_v(train, generated, generated) == 1


@pytest.mark.unit
@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(1, 40), st.integers(1, 7), st.integers(1, 50), st.integers(0, 2**31))
def test_the_nearest_distance_is_the_least_of_all(queries, among, width, chunk, seed):
    random = np.random.RandomState(seed)
    q, a = random.randn(queries, width).astype(np.float32), random.randn(among, width).astype(np.float32)
    expected = np.sqrt(((q[:, None].astype(float) - a[None]) ** 2).mean(axis=2)).min(axis=1)
    found = diagnostics.nearest(torch.from_numpy(q), torch.from_numpy(a), chunk)[0].numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.unit
def test_a_copy_of_a_training_image_has_distance_0_at_any_size():
    torch.manual_seed(0)
    images = torch.rand([5, 3, 64, 64]) * 2 - 1
    vectors = diagnostics.shrunk(images)
    assert vectors.shape == (5, 3 * 32 * 32) and diagnostics.shrunk(images[..., :16, :16]).shape == (5, 3 * 16 * 16)
    boxes = images.reshape(5, 3, 32, 2, 32, 2).mean(dim=(3, 5)).flatten(1)
    torch.testing.assert_close(vectors, boxes)
    distances, index = diagnostics.nearest(vectors[[3, 1]], vectors)
    assert distances.tolist() == [0, 0] and index.tolist() == [3, 1]


@pytest.mark.unit
@settings(max_examples=300, deadline=None)
@given(st.integers(1, 100), st.integers(1, 8), st.sampled_from([1, 2, 4, 8]))
def test_all_images_are_scored_once_in_full_groups_that_hold_no_image_twice(count, rounds, group):
    batch = diagnostics.batch_for(count, rounds * group, group)
    assert batch % group == 0 and batch <= rounds * group
    scores = diagnostics.scored(lambda index: index[:, None].double(), count, rounds * group, group)
    assert scores.tolist() == list(range(count))
    for index in diagnostics.full_batches(count, batch):
        assert len(index) == batch
        if count >= group:  # the hosts' groups: a batch is reshaped to [group, batch / group]
            for column in index.reshape(group, -1).T:
                assert len(set(column.tolist())) == group


@pytest.mark.host
def test_logits_are_those_that_train_and_nothing_else_changes(fetched):
    holds = report_of(fetched[ADA], "diagnostics_logits.py")
    assert len(holds) == 18 and [claim for claim, true in holds.items() if not true] == []


# The held-out set. --------------------------------------------------------------------------------


@pytest.mark.host
def test_no_image_is_both_trained_on_and_held_out_whatever_the_sizes(fetched):
    """Any data set, subset, seed, with and without horizontal flips and labels, by the host's own choice of images."""
    assert report_of(fetched[ADA], "diagnostics_split.py")["cases"] >= 200


@pytest.mark.host
def test_a_run_trains_on_what_is_not_held_out(ada_host, small_zip, tmp_path):
    flags = ["--plugin=diagnostics", "--diagnostics-holdout=16"]
    data = options(ada_host, ADA, small_zip, tmp_path, *flags, "--mirror=1", "--seed=3")["training_set_kwargs"]
    assert (data["max_size"], data["random_seed"], data["xflip"]) == (48, 3, True)
    data = options(ada_host, ADA, small_zip, tmp_path, *flags, "--subset=40")["training_set_kwargs"]
    assert data["max_size"] == 40  # which leaves 24 out already


@pytest.mark.host
@pytest.mark.parametrize(
    "flag, message",
    [
        ("--diagnostics-holdout=64", "--diagnostics-holdout=64: .*crops.zip has 64 images, so none would be left"),
        ("--diagnostics-holdout=2", "--diagnostics-holdout=2: D looks at images in groups of 4"),
    ],
)
def test_what_cannot_be_held_out_is_one_line(ada_host, small_zip, tmp_path, flag, message):
    args = [f"--data={small_zip}", f"--outdir={tmp_path}", "--plugin=diagnostics", "--dry-run", "--batch=8", flag]
    done = run_script(ada_host, "train.py", *args, check=False)
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert re.search(message, line), line


@pytest.mark.unit
@pytest.mark.parametrize(
    "given, message",
    [
        ({"nearest": "nosuch"}, "--diagnostics-nearest=nosuch: there is no such backbone"),
        ({"nearest": "efficientnet_lite0", "weights": "gone.pth"}, "--diagnostics-weights: there is no file gone.pth"),
    ],
)
def test_a_backbone_is_looked_for_before_the_run_begins(given, message):
    with pytest.raises((OptionError, DataError), match=message):
        request = arguments.Request(catalogue().activate(["diagnostics"], {"diagnostics": given}), dry_run=True)
        arguments.configure("run", {"loss_kwargs": {"class_name": arguments.HOST_LOSS}}, request)


# Runs. --------------------------------------------------------------------------------------------

SHORT = {"kimg_per_tick": 0.04, "image_snapshot_ticks": None, "network_snapshot_ticks": 100, "state_minutes": 10.0}


def records(run_dir: Path) -> list[dict]:
    return [json.loads(line) for line in (run_dir / plugin.LOG).read_text().splitlines()]


def lines_of(run_dir: Path) -> list[dict]:
    return [json.loads(line) for line in (run_dir / "stats.jsonl").read_text().splitlines()]


@pytest.fixture(scope="session")
def run(shared, ada_host, small_zip):
    """(arguments, run directory) of 11 iterations and 3 ticks: 48 images with horizontal flips, 16 held out, ADA on."""
    flags = ["--plugin=diffaugment,diagnostics", "--diagnostics-holdout=16", "--diagnostics-images=64", "--mirror=1"]

    def fill(top: Path) -> None:
        args = options(ada_host, ADA, small_zip, top, *flags, "--aug=ada", "--device=cpu")
        run_to_its_end(ada_host, args | SHORT | {"total_kimg": 11 * args["batch_size"] / 1000}, top / "run")

    top = shared("diagnostics-run", fill)
    return json.loads((top / "run.json").read_text()), top / "run"


@pytest.mark.run
def test_each_tick_has_a_record_and_its_statistics(run):
    _, run_dir = run
    found, lines = records(run_dir), lines_of(run_dir)
    assert [record["kimg"] for record in found] == [0.008, 0.048, 0.088]
    assert [line["Progress/kimg"]["mean"] for line in lines] == pytest.approx([0.008, 0.048, 0.088])
    sizes = {"train": 48, "held_out": 16, "generated": 64}
    for record, line in zip(found, lines, strict=True):
        of = lambda name, line=line: line[f"Diagnostics/{name}"]
        for kind, size in sizes.items():
            assert of(f"scores/{kind}")["num"] == of(f"accuracy/{kind}")["num"] == size
            assert of(f"scores/{kind}")["mean"] == pytest.approx(record["scores"][kind], rel=1e-5)
            assert of(f"accuracy/{kind}")["mean"] == pytest.approx(record["accuracy"][kind])
        assert [of(name)["mean"] for name in ("r_t", "r_v")] == pytest.approx([record["r_t"], record["r_v"]])
        samples, held_out = record["nearest"]["samples"], record["nearest"]["held_out"]
        names = ("nearest/samples", "nearest/held_out", "nearest/ratio")
        assert [of(name)["mean"] for name in names] == pytest.approx([samples, held_out, samples / held_out], rel=1e-5)
    assert len({record["scores"]["train"] for record in found}) == len(found)
    assert len({record["nearest"]["held_out"] for record in found}) == 1  # images stay the same


@pytest.mark.run
def test_the_last_record_follows_from_the_last_snapshot_and_the_images(fetched, run):
    _, run_dir = run
    expected, found = report_of(fetched[ADA], "diagnostics_again.py", str(run_dir), "16"), records(run_dir)[-1]
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, rel=1e-4, abs=1e-5), key


@pytest.mark.run
def test_a_run_that_is_killed_measures_as_one_that_was_not(ada_host, run, tmp_path):
    args, whole = run
    killed_and_resumed(ada_host, args, tmp_path / "killed", 3 * args["batch_size"])
    assert differences(tmp_path / "killed", whole) == []
    assert records(tmp_path / "killed") == records(whole)


@pytest.mark.run
def test_a_run_that_goes_on_needs_the_data_set_that_it_began_with(run, monkeypatch):
    _, run_dir = run
    _, _, state = newest_state(run_dir, print)
    assert state["ranks"][0]["session"]["methods"] == {"diagnostics": {"images": 64}}

    method = plugin.Method(types.SimpleNamespace(log=Path), plugin.DiagnosticsOptions(holdout=8))
    method.all, method.data = range(65), {"path": "crops.zip"}
    with pytest.raises(DataError, match=r"--resume-run: crops.zip has 65 images, the run began with 64"):
        method.load_state_dict({"images": 64})


@pytest.mark.run
def test_a_run_trains_with_diagnostics_as_without_bit_for_bit(ada_host, run, tmp_path):
    """On the same images: networks, optimisers, random states and all other statistics."""
    args, run_dir = run
    plugins = {"active": ["diffaugment"], "options": {"diffaugment": args["plugins"]["options"]["diffaugment"]}}
    run_to_its_end(ada_host, args | {"plugins": plugins}, tmp_path / "without")
    drop = lambda line: {key: value for key, value in line.items() if not key.startswith("Diagnostics/")}
    assert [drop(line) for line in statistics(run_dir)] == statistics(tmp_path / "without")
    without, measured = (newest_state(path, print)[2] for path in (tmp_path / "without", run_dir))
    this = measured["ranks"][0]
    assert this["session"].pop("methods") == {"diagnostics": {"images": 64}}
    assert without["ranks"][0]["session"].pop("methods") == {}
    this |= {name: drop(this[name]) for name in ("counters", "cumulative")}
    collectors = this["collectors"]
    collectors["stats_collector"] = {kind: drop(values) for kind, values in collectors["stats_collector"].items()}
    assert list(_compare(without, measured, ())) == []


@pytest.mark.run
def test_disp_has_no_prior_of_a_held_out_image_among_its_own(ada_host, small_zip, tmp_path):
    np.save(tmp_path / "own.npy", np.random.RandomState(0).randn(64, 6).astype(np.float32))
    flags = ["--plugin=disp,diagnostics", f"--disp-features={tmp_path / 'own.npy'}", "--diagnostics-holdout=16"]
    args = options(ada_host, ADA, small_zip, tmp_path, *flags, "--diagnostics-images=8", "--mirror=1", "--device=cpu")
    run_to_its_end(ada_host, args | SHORT | {"total_kimg": 0.016}, tmp_path / "run")
    with np.load(tmp_path / "run" / "priors.npz") as priors:
        used = priors["used"]
    order = np.arange(64)
    np.random.RandomState(0).shuffle(order)
    assert used.tolist() == sorted(order[:48].tolist())
    assert all(math.isfinite(value) for value in records(tmp_path / "run")[-1]["scores"].values())


@pytest.mark.host
def test_two_processes_measure_once_and_without_held_out_images_nothing_is_said_of_them(ada_host, small_zip, tmp_path):
    flags = ["--plugin=contrad,diagnostics", "--gpus=2", "--diagnostics-images=12"]
    args = options(ada_host, ADA, small_zip, tmp_path, *flags, "--device=cpu")
    run_script(ada_host, *driver(args | SHORT | {"total_kimg": 0.016}, tmp_path / "run"))
    _, record = records(tmp_path / "run")
    assert record["scores"]["held_out"] is record["r_v"] is record["nearest"]["held_out"] is None
    last = lines_of(tmp_path / "run")[-1]
    assert last["Diagnostics/scores/train"]["num"] == last["Diagnostics/scores/generated"]["num"] == 12
    assert not [name for name in last if name.startswith("Diagnostics/") and ("held_out" in name or "r_v" in name)]


@pytest.mark.run
def test_stylegan3_measures_gray_images_with_labels_by_features(training_hosts, tmp_path):
    crops = [np.asarray(crop).mean(axis=2).astype(np.uint8) for crop in color_crops(24, side=16)]
    data = write_zip(tmp_path / "gray.zip", crops, [i % 3 for i in range(24)])
    torch.manual_seed(0)
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "weights.pth")
    flags = ["--plugin=diagnostics", "--cond=1", "--diagnostics-holdout=8", "--diagnostics-images=8", "--aug=ada"]
    flags += ["--diagnostics-nearest=test_resnet", f"--diagnostics-weights={tmp_path / 'weights.pth'}", "--device=cpu"]
    args = options(training_hosts[STYLEGAN3], STYLEGAN3, data, tmp_path, *flags)
    run_to_its_end(training_hosts[STYLEGAN3], args | SHORT | {"total_kimg": 0.016}, tmp_path / "run")
    last = records(tmp_path / "run")[-1]
    assert last["nearest"]["samples"] > 0 and last["nearest"]["held_out"] > 0
    assert all(math.isfinite(value) for value in last["scores"].values())
