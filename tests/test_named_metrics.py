"""Metrics of `evaluate` in train.py --metrics: the same figures, no trace in the run, the best snapshot marked."""

from __future__ import annotations

import json
import re
import types
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from drivers.states import differences
from hypothesis import given
from hypothesis import strategies as st
from support.hosts import ADA, STYLEGAN3
from support.images import color_crops, write_zip
from support.runs import LITE0, TINY, driver, options, run_to_its_end
from support.scripts import UNREACHABLE, invoke, run_script

from stylegan_plugins.analysis import evaluate, records
from stylegan_plugins.run import host_metrics
from training_ext.distributed import merged

KID, IS, FID = (f"{name}_efficientnet_lite0" for name in ("kid", "is", "fid"))


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("STYLEGAN_PLUGINS_CACHE", str(tmp_path / "cache"))


def lines_of(folder: Path, label: str) -> list[dict]:
    return records.read_lines(folder / f"metric-{label}.jsonl")


def evaluated(host: Path, run: Path, data: Path, metrics: str, *flags: str):
    done = invoke(host, "evaluate", str(run), f"--data={data}", f"--metrics={metrics}", "--device=cpu", *flags)
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.run
def test_metrics_leave_no_trace_in_a_run_and_are_those_of_evaluate(cache, ada_host, small_zip, tmp_path):
    args = options(
        ada_host, ADA, small_zip, tmp_path, "--plugin=diffaugment", "--aug=ada", "--device=cpu", "--batch=64"
    )
    args |= {"total_kimg": 1, "kimg_per_tick": 1, "network_snapshot_ticks": 9, "image_snapshot_ticks": 9}
    run_to_its_end(ada_host, args, tmp_path / "without")
    output = run_to_its_end(ada_host, args | {"metrics": [KID, IS], "metric_samples": 20}, tmp_path / "with")
    assert differences(tmp_path / "with", tmp_path / "without") == []

    run = tmp_path / "with"
    lines = lines_of(run, KID)
    assert len({line["of"]["pickle"] for line in lines}) == len(lines) == len(list(run.glob("*.pkl"))) == 2
    best = json.loads((run / "best.json").read_text())
    assert best[KID] == min(lines, key=lambda line: line["results"][KID])
    assert best[IS] == max(lines_of(run, IS), key=lambda line: line["results"][f"{IS}_mean"])
    assert f"Best by {KID}: {best[KID]['snapshot_pkl']} (" in output
    # Existing results are not computed again, and results in another folder are the same.
    flags = ["--features=efficientnet_lite0", "--samples=20", "--all"]
    again = evaluated(ada_host, run, small_zip, "kid,is", *flags)
    assert not re.search(r": network-snapshot-", again.stderr) and lines_of(run, KID) == lines
    evaluated(ada_host, run, small_zip, "kid,is", *flags, f"--outdir={tmp_path / 'out'}")
    for label in (KID, IS):
        assert [line["results"] for line in lines_of(tmp_path / "out", label)] == [
            line["results"] for line in lines_of(run, label)
        ]


@pytest.mark.run
def test_two_processes_share_the_images_of_a_metric(cache, stylegan3_host, tmp_path):
    """In stylegan3, with classes; 19 images are two batches and a piece for one process, and one for the other."""
    data = write_zip(tmp_path / "classes.zip", color_crops(32, side=16), [index % 2 for index in range(32)])
    flags = ["--cond=1", "--gpus=2", "--batch=16", "--device=cpu"]
    args = options(stylegan3_host, STYLEGAN3, data, tmp_path, *flags)
    args |= {"total_kimg": 0.016, "kimg_per_tick": 1, "metrics": [FID], "metric_samples": 19}
    run_script(stylegan3_host, *driver(args, tmp_path / "run"))
    found = lines_of(tmp_path / "run", FID)
    evaluated(
        stylegan3_host,
        *(tmp_path / "run", data, "fid", "--features=efficientnet_lite0", "--samples=19"),
        *("--all", f"--outdir={tmp_path / 'out'}"),
    )
    alone = lines_of(tmp_path / "out", FID)
    assert found and [line["of"] for line in found] == [line["of"] for line in alone]
    for line, other in zip(found, alone, strict=True):
        assert line["results"] == pytest.approx(other["results"], rel=1e-5)
        assert line["num_gpus"] == 2 and line["floor_fid"] == other["floor_fid"]


@pytest.mark.run
def test_labels_of_a_plugin_are_drawn_as_evaluate_draws_them(cache, ada_host, small_zip, tmp_path):
    """With disp, from its sampler, and the labels of the data set have no part in it."""
    args = options(ada_host, ADA, small_zip, tmp_path, "--plugin=disp,diffaugment", LITE0, "--device=cpu")
    args |= {"total_kimg": 0.008, "kimg_per_tick": 1, "metrics": [KID], "metric_samples": 12}
    run_to_its_end(ada_host, args, tmp_path / "run")
    flags = ["--features=efficientnet_lite0", "--samples=12", "--all"]
    again = evaluated(ada_host, tmp_path / "run", small_zip, "kid", *flags)
    assert lines_of(tmp_path / "run", KID) and not re.search(r": network-snapshot-", again.stderr)


class Recorder:
    """In place of sample.Generator: where G lies, and images without one."""

    places: ClassVar[list[torch.device]] = []

    def __init__(self, G, sampler, dataset):
        self.places.append(G.weight.device)

    def images(self, count, share):
        yield torch.zeros(count, 3)


@pytest.mark.unit
def test_the_generator_is_moved_to_where_the_run_computes_and_asked_once(monkeypatch):
    """The hosts' loops hand on a copy that lies on the CPU. (`meta` stands for a GPU.)"""
    monkeypatch.setattr(host_metrics.sample, "Generator", Recorder)
    Recorder.places.clear()
    options = types.SimpleNamespace(G=torch.nn.Linear(2, 2), device=torch.device("meta"), rank=0, num_gpus=1)
    network = lambda images: {"features": images}
    comparison = evaluate.Comparison(network, None, "", 4, 5)
    judge, this = host_metrics.Judge(), host_metrics.named()[KID]
    for _ in range(2):
        assert judge._see(this, options, comparison, None)["features"].shape == (5, 3)
    assert Recorder.places == [torch.device("meta")] and options.G.weight.device.type == "cpu"
    options.G = torch.nn.Linear(2, 2)
    judge._see(this, options, comparison, None)
    assert len(Recorder.places) == 2


@pytest.mark.unit
@given(st.integers(1, 60), st.integers(1, 5))
def test_shares_are_put_together_in_the_order_of_one_process(count, processes):
    values = torch.arange(count * 3.0).reshape(count, 3)
    batches = [values[start : start + 8] for start in range(0, count, 8)]
    shares = [batches[rank::processes] for rank in range(processes)]
    assert merged(shares).tolist() == values.tolist()


@pytest.mark.host
def test_the_hosts_own_metrics_are_marked_too(ada_host, tmp_path):
    """Lines of the host, of which FID has one figure that decides, precision and recall two that may not agree."""
    code = """
import dnnlib, sys
from stylegan_plugins import bridge
from stylegan_plugins.run import host_metrics
from metrics import metric_main
host_metrics.register(); host_metrics.register()
for number, fid, score in ((0, 30.0, 2.0), (1, 20.0, 3.0), (2, float("nan"), 1.0), (3, 25.0, 2.5)):
    figures = {
        "fid50k_full": {"fid50k_full": fid},
        "is50k": {"is50k_mean": score, "is50k_std": 9 - score},
        "pr50k3_full": {"pr50k3_full_precision": fid, "pr50k3_full_recall": score},
        "eqt50k_int": {"eqt50k_int": fid},  # only stylegan3 has it
    }
    metric_main.register_metric(type("eqt50k_int", (), {}))
    for metric, results in figures.items():
        done = dnnlib.EasyDict(results=dnnlib.EasyDict(results), metric=metric)
        pickle = f"{sys.argv[1]}/network-snapshot-{number}.pkl"
        metric_main.report_metric(done, run_dir=sys.argv[1], snapshot_pkl=pickle)
metric_main.report_metric(done)
metric_main.register_metric(type("fid_made_up_full", (), {"__new__": lambda cls, options: {"fid_made_up_full": 1.0}}))
for data in ("a", "b"):
    options = dict(dataset_kwargs=dict(path=sys.argv[1] + "/" + data), num_gpus=1, rank=0, device="cpu")
    done = metric_main.calc_metric(metric="fid_made_up_full", **options)
    metric_main.report_metric(done, run_dir=sys.argv[1], snapshot_pkl=sys.argv[1] + "/network-snapshot-0.pkl")
"""
    write_zip(tmp_path / "a", color_crops(2, side=16))
    write_zip(tmp_path / "b", color_crops(2, side=16, seed=1))
    output = run_script(ada_host, "-c", code, str(tmp_path)).stdout
    best = json.loads((tmp_path / "best.json").read_text())
    # Of other data, which the name of the host's metric does not say.
    first, second = lines_of(tmp_path, "fid_made_up_full")
    assert best.pop("fid_made_up_full") == first and first["of"] != second["of"]
    assert best.pop(f"fid_made_up_full:{records.key_of(second)}") == second
    assert {label: line["snapshot_pkl"] for label, line in best.items()} == {
        "fid50k_full": "network-snapshot-1.pkl",
        "is50k": "network-snapshot-1.pkl",
        "eqt50k_int": "network-snapshot-0.pkl",
    }
    assert output.count("Best by fid50k_full: network-snapshot-1.pkl (20)") == 3
    assert output.count('"metric": "pr50k3_full"') == 4 and '"snapshot_pkl": null' in output


@pytest.mark.run
def test_calc_metrics_takes_them(cache, ada_host, pickles, color_zip):
    args = [
        f"--network={pickles[ADA]}",
        f"--data={color_zip}",
        f"--metrics={KID}",
        "--metric-samples=12",
        "--device=cpu",
    ]
    said = run_script(ada_host, "calc_metrics.py", *args, "--mirror=0").stdout
    (line,) = re.findall(r'^\{"results.*', said, re.MULTILINE)
    assert json.loads(line)["of"]["samples"] == 12 and json.loads(line)["results"][KID] > 0


@pytest.mark.host
@pytest.mark.parametrize(
    "flags, message",
    [
        (["--metrics=fid_clean"], "--metrics=fid_clean: features=inception: its weights are not available"),
        ([f"--metrics={FID}", "--data={few}"], f"--metrics={FID} takes 4 real images; --data has 3"),
        ([f"--metrics={IS}", "--metric-samples=9"], f"--metrics={IS} takes 10 generated images; .* is 9"),
        (["--metrics=is_clip"], "--metrics=is_clip: features=clip: "),
        (["--metrics=fid_nosuch"], "--metrics: there is no fid_nosuch; choose from .*, fid_clean, "),
    ],
)
def test_what_cannot_be_computed_is_said_before_training(cache, ada_host, small_zip, tmp_path, flags, message):
    few = write_zip(tmp_path / "few.zip", color_crops(3, side=16))
    flags = [flag.format(few=few) for flag in flags]
    given = [f"--data={small_zip}", f"--outdir={tmp_path / 'runs'}", *TINY[ADA], "--device=cpu", *flags]
    done = run_script(ada_host, "train.py", *given, check=False, **UNREACHABLE)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert re.search(f"^Error: {message}", done.stderr, re.MULTILINE), done.stderr
    assert not (tmp_path / "runs").exists()
