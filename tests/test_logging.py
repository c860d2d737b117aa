"""The plug-ins `wandb` and `tensorboard`: their files, resumed runs, and unchanged training.

wandb is tried in its offline mode, which needs no network."""

from __future__ import annotations

import json
import re
import struct
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import wandb
from drivers.states import _compare, statistics
from support.hosts import ADA
from support.reports import add_line, add_metric, make_run
from support.runs import killed_and_resumed, options, run_to_its_end
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto import wandb_internal_pb2

from stylegan_plugins.errors import DataError
from stylegan_plugins.files.states import newest_state
from stylegan_plugins.plugins import tensorboard as tensorboard_plugin
from stylegan_plugins.plugins import wandb as wandb_plugin
from stylegan_plugins.report.news import News

BLOCK, HEADER = 32768, 7  # bytes: records of wandb's file do not cross blocks


def records(file: Path) -> Iterator[Any]:
    """Return the records in a file that wandb writes offline: a log in LevelDB's format of protocol buffers."""
    data, at, whole = file.read_bytes(), HEADER, b""
    while at + HEADER <= len(data):
        if (left := BLOCK - at % BLOCK) < HEADER:
            at += left
            continue
        _, size, kind = struct.unpack("<IHB", data[at : at + HEADER])
        whole, at = whole + data[at + HEADER : at + HEADER + size], at + HEADER + size
        if kind in (1, 4):  # a whole record, or the last part of one
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            whole = b""
            yield getattr(record, record.WhichOneof("record_type"))


def history(run_dir: Path, calls: int = 0) -> dict[str, list[dict]]:
    """Return the logged values, a dictionary a call, by the name of the offline run's folder, which ends in its id.

    calls: waits, half a minute at most, until as many are in the file: a process of wandb's writes it"""
    until = time.monotonic() + 30
    while sum(map(len, (found := _history(run_dir)).values())) < calls and time.monotonic() < until:
        time.sleep(0.2)
    return found


def _history(run_dir: Path) -> dict[str, list[dict]]:
    found = {}
    for file in sorted(run_dir.glob("wandb/offline-run-*/run-*.wandb")):
        lines = [record for record in records(file) if isinstance(record, wandb_internal_pb2.HistoryRecord)]
        found[file.parent.name] = [
            {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in line.item} for line in lines
        ]
    return found


def images_of(run_dir: Path) -> dict[str, list[tuple[int, int, int]]]:
    """Return (kimg, width, height) of images in TensorBoard's files, by name."""
    read = EventAccumulator(str(run_dir / "images"), size_guidance={"images": 0})
    read.Reload()
    return {name: [(i.step, i.width, i.height) for i in read.Images(name)] for name in read.Tags()["images"]}


def session(run_dir: Path, total_nimg: int = 10**6, rank: int = 0) -> types.SimpleNamespace:
    return types.SimpleNamespace(run_dir=run_dir, rank=rank, total_nimg=total_nimg)


@pytest.fixture(autouse=True)
def nobody(monkeypatch, tmp_path_factory):
    """No key of Weights & Biases, and no file of the user's."""
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
    monkeypatch.delenv("NETRC", raising=False)


@pytest.mark.run
def test_a_run_that_is_logged_killed_and_resumed_trains_as_one_without_both(ada_host, small_zip, tmp_path):
    ticks = {"kimg_per_tick": 0.04, "image_snapshot_ticks": 1, "network_snapshot_ticks": 100, "state_minutes": 10.0}
    flags = ["--plugin=diffaugment,wandb,tensorboard", "--wandb-mode=offline", "--aug=ada", "--device=cpu"]
    args = options(ada_host, ADA, small_zip, tmp_path, *flags)
    args |= ticks | {"total_kimg": 11 * args["batch_size"] / 1000}
    killed_and_resumed(ada_host, args, tmp_path / "logged", 3 * args["batch_size"])
    plugins = {"active": ["diffaugment"], "options": {"diffaugment": args["plugins"]["options"]["diffaugment"]}}
    run_to_its_end(ada_host, args | {"plugins": plugins}, tmp_path / "plain")

    assert statistics(tmp_path / "logged") == statistics(tmp_path / "plain")
    logged, plain = (newest_state(tmp_path / name, print)[2] for name in ("logged", "plain"))
    methods = logged["ranks"][0]["session"].pop("methods")
    assert plain["ranks"][0]["session"].pop("methods") == {}
    assert list(_compare(logged, plain, ())) == []

    runs = history(tmp_path / "logged")
    identity = methods["wandb"]["id"]
    assert runs and all(name.endswith(f"-{identity}") for name in runs)  # of the killed run, and of the resumed one
    calls = [call for lines in runs.values() for call in lines]
    # SIGKILL takes wandb's own process along, with what it has not written yet.
    assert {0.048, 0.088} <= {call["kimg"] for call in calls} <= {0.008, 0.048, 0.088}
    last = statistics(tmp_path / "logged")[-1]
    assert calls[-1]["Loss/G/loss"] == pytest.approx(last["Loss/G/loss"]["mean"])
    found = images_of(tmp_path / "logged")
    assert {name: len(steps) for name, steps in found.items()} == {"samples": 1, "photographs": 1}  # a kimg, one grid


@pytest.mark.unit
def test_news_are_figures_results_and_grids_since_the_last_tick(tmp_path):
    folder = make_run(tmp_path / "run", ticks=1, sheets=1, side=16)
    PIL.Image.new("RGB", (9 * 16, 5 * 16)).save(folder / "reals.png")
    news = News(folder)
    first = news.at(64)
    assert first.figures["Progress/kimg"] == 0.0 and set(first.images) == {"samples", "photographs"}
    assert first.images["samples"].size == (8 * 16, 4 * 16)
    add_line(folder, 4.0, **{"Loss/G/loss": 2.5, "Loss/D/loss": float("nan")})
    add_metric(folder, "fid", {0: 90.0, 4: 80.0, 5: 1.0}, "fid")
    noise = np.random.RandomState(0).randint(256, size=(5 * 16, 9 * 16, 3)).astype(np.uint8)
    PIL.Image.fromarray(noise).save(folder / "fakes000004.png")
    second = news.at(4001)
    assert second.figures == {"Progress/kimg": 4.0, "Loss/G/loss": 2.5, "Metrics/fid": 80.0}
    assert [*second.images] == ["samples"]
    assert np.array_equal(np.asarray(second.images["samples"]), noise[: 4 * 16, : 8 * 16])
    again = News(folder)
    again.load_state_dict(news.state_dict())
    assert again.at(4500).images == {} and News(tmp_path).at(5).figures == {}
    (folder / "fakes000008.png").write_bytes(b"no picture")
    assert again.at(8000).images == {}


@pytest.mark.host
def test_wandb_gets_settings_statistics_metrics_and_grids_over_kimg(tmp_path):
    folder = make_run(tmp_path / "00000-faces", ticks=1, sheets=1, side=16)
    chosen = wandb_plugin.WandbOptions(mode="offline", project="gardens")
    PIL.Image.new("RGB", (9 * 16, 5 * 16)).save(folder / "reals.png")
    method = wandb_plugin.Method(session(folder, 4000), chosen)
    method.tick(8)
    add_line(folder, 4.0, **{"Loss/G/loss": 2.5})
    add_metric(folder, "fid", {4: 80.0}, "fid")
    method.tick(4000)
    ((name, calls),) = history(folder, calls=2).items()
    assert name.endswith(method.id) and [call["kimg"] for call in calls] == [0.008, 4.0]
    assert calls[1]["Loss/G/loss"] == 2.5 and calls[1]["Metrics/fid"] == 80.0 and calls[0]["samples.width"] == 128
    assert not any("photographs" in name for call in calls for name in call)
    (file,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    kept = list(records(file))
    (run,) = [record for record in kept if isinstance(record, wandb_internal_pb2.RunRecord)]
    assert (run.project, run.display_name, run.run_id) == ("gardens", "00000-faces", method.id)
    config = {update.key: json.loads(update.value_json) for update in run.config.update}
    assert config["batch_size"] == 16 and config["plugins"]["active"] == ["method"]
    axes = {record.name or record.glob_name: record.step_metric for record in kept if hasattr(record, "step_metric")}
    assert axes == {"kimg": "", "*": "kimg"}


@pytest.mark.unit
def test_a_resumed_run_has_the_id_of_its_state():
    begun = []
    run = types.SimpleNamespace(define_metric=lambda *names, **how: None)
    service = types.SimpleNamespace(init=lambda **how: begun.append(how["id"]) or run, Settings=lambda **how: None)
    for state in (None, None, {"id": "00c0ffee", "kimg": 3}):
        method = wandb_plugin.Method(session(Path("run")), wandb_plugin.WandbOptions())
        assert method.state_dict() == {"id": None, "kimg": -1}
        if state is not None:
            method.load_state_dict(state)
        method._begin(service)
        assert method.state_dict()["id"] == begun[-1]
    assert all(re.fullmatch(r"[0-9a-f]{8}", identity) for identity in begun)
    assert begun[0] != begun[1] and begun[2] == "00c0ffee"


@pytest.mark.unit
@pytest.mark.parametrize("mode, rank", [("disabled", 0), ("online", 1)])
def test_nothing_is_logged_when_disabled_or_by_other_processes(mode, rank, tmp_path, monkeypatch):
    monkeypatch.setattr(wandb, "init", lambda **how: pytest.fail("wandb was begun"))
    folder = make_run(tmp_path / "run", sheets=0)
    wandb_plugin.Method(session(folder, rank=rank), wandb_plugin.WandbOptions(mode=mode)).tick(16000)
    tensorboard_plugin.Method(session(folder, rank=1)).tick(16000)
    assert not (folder / "wandb").exists() and not (folder / "images").exists()


@pytest.mark.unit
def test_an_error_of_wandb_ends_the_logging_and_not_the_run(tmp_path, monkeypatch, capsys):
    tried = []

    def fails(**how):
        tried.append(how)
        raise wandb.errors.CommError("no\nroute")

    monkeypatch.setattr(wandb, "init", fails)
    method = wandb_plugin.Method(session(make_run(tmp_path / "run", sheets=0)), wandb_plugin.WandbOptions())
    for nimg in (8, 4000):
        method.tick(nimg)
    assert capsys.readouterr().out == "wandb: no route Nothing more is logged there; the run goes on.\n"
    assert len(tried) == 1 and tried[0]["resume"] == "allow" and tried[0]["mode"] == "online"


@pytest.mark.unit
def test_what_is_missing_is_said_before_the_run_begins(monkeypatch):
    with pytest.raises(DataError, match=r"--wandb-mode=online: .* \(there is no key\). Run 'wandb login', or give"):
        wandb_plugin.configure({}, wandb_plugin.WandbOptions())
    offline = wandb_plugin.WandbOptions(mode="offline")
    assert wandb_plugin.configure({}, offline) == offline
    monkeypatch.setattr(wandb, "login", lambda prompt: True)
    wandb_plugin.configure({}, wandb_plugin.WandbOptions())

    def refused(prompt):
        raise wandb.errors.AuthenticationError("a wrong\nkey")

    monkeypatch.setattr(wandb, "login", refused)
    with pytest.raises(DataError, match=r"\(a wrong key\)"):
        wandb_plugin.configure({}, wandb_plugin.WandbOptions())
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"needs wandb: pip install 'stylegan-plugins\[wandb\]'"):
        wandb_plugin.configure({}, offline)
    with pytest.raises(DataError, match=r"needs tensorboard: pip install 'stylegan-plugins\[tensorboard\]'"):
        tensorboard_plugin.configure({})


@pytest.mark.unit
def test_tensorboard_gets_grids_and_a_resumed_run_replaces_those_that_it_makes_again(tmp_path):
    folder = make_run(tmp_path / "run", ticks=1, sheets=2, side=16)  # of 0 and 200 kimg
    method = tensorboard_plugin.Method(session(folder, 201_000))
    for nimg in (8, 200_000):
        method.tick(nimg)
    assert images_of(folder) == {"samples": [(0, 128, 64), (200, 128, 64)]}
    method = tensorboard_plugin.Method(session(folder, 201_000))
    method.load_state_dict({"kimg": 0})
    for nimg in (200_000, 201_000):
        method.tick(nimg)
    assert images_of(folder) == {"samples": [(0, 128, 64), (200, 128, 64)]}
