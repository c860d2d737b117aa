"""A machine without a GPU, what stylegan3 requires, a GPU whose memory is not enough, and a command that is given
again."""

from __future__ import annotations

import click
import PIL.Image
import pytest
import torch
from support.hosts import ADA
from support.images import color_crops, write_zip
from support.runs import TINY, last_run, stats
from support.scripts import run_script

from stylegan_plugins import bridge
from stylegan_plugins.errors import RunError
from stylegan_plugins.files import prepare
from stylegan_plugins.run import defaults
from stylegan_plugins.run.memory import out_of_memory


@pytest.mark.unit
def test_a_cpu_gets_what_is_not_given_and_says_it(capsys):
    assert defaults.for_cpu({}) == {"workers": 0} | defaults.SMALL | defaults.FAST
    line = (
        "No GPU: --workers=0, --cbase=512, --cmax=32, --batch=16, --gamma=0.05, --glr=0.006, --dlr=0.006, "
        "--pl-weight=0, --no-noise-inputs, pictures of at most 32x32 (--size), a length of about an hour (--kimg). "
        "Give other values, or --cfg for the host's own.\n"
    )
    assert capsys.readouterr().out == line
    assert defaults.for_cpu({"cmax": 8, "kimg": 4, "size": "64"}) == {"workers": 0, "cbase": 512}
    assert capsys.readouterr().out.startswith("No GPU: --workers=0, --cbase=512. Give")
    some = {"glr": 0.1, "gpus": 2}
    assert defaults.for_cpu({"batch_gpu": 32}).items() >= (defaults.FAST.items() - {("batch", 16)})
    assert "batch" not in defaults.for_cpu({"batch_gpu": 32}) and not {"batch", *some} & defaults.for_cpu(some).keys()
    capsys.readouterr()
    assert defaults.for_cpu({"resume": "network.pkl", "kimg": 1}) == {"workers": 0}
    assert defaults.for_cpu({"cfg": "auto"}) == {}
    everything = {"workers": 2, "cbase": 1, "cmax": 1, "kimg": 1, "size": "32"}
    capsys.readouterr()
    assert defaults.for_cpu(everything) == {} and capsys.readouterr().out == ""


@pytest.mark.unit
@pytest.mark.parametrize(
    ("seconds", "given", "expected"),
    [(0.05, (), (72, 2, 5)), (0.0101, (), (360, 12, 5)), (60, (), (1, 1, 5)), (0.05, ("tick", "snap"), (72, 4, 50))],
)
def test_a_run_of_no_given_length_takes_about_an_hour(seconds, given, expected, monkeypatch):
    of_class = {"class_name": "x", "num_fp16_res": 4, "synthesis_kwargs": {"num_fp16_res": 4}}
    args = {"training_set_kwargs": {}, "G_kwargs": of_class, "D_kwargs": of_class, "batch_gpu": 4, "total_kimg": 25000}
    args |= {"kimg_per_tick": 4, "image_snapshot_ticks": 50, "network_snapshot_ticks": 50}
    made = []

    class Made:
        label_dim, resolution, num_channels = 0, 32, 3
        requires_grad_ = lambda self, value: self

    def construct(kwargs, **shape):
        made.append(kwargs)
        return Made()

    monkeypatch.setattr(defaults, "construct", construct)
    monkeypatch.setattr(defaults.estimate, "seconds_per_image", lambda G, D, batch: seconds)
    line = defaults.set_length(args, given)
    assert (args["total_kimg"], args["kimg_per_tick"], args["network_snapshot_ticks"]) == expected
    assert args["image_snapshot_ticks"] == args["network_snapshot_ticks"] and line.startswith(f"--kimg={expected[0]}: ")
    assert made[1]["synthesis_kwargs"]["num_fp16_res"] == made[2]["num_fp16_res"] == 0
    assert of_class["num_fp16_res"] == 4  # the run's own arguments stay


@click.command()
@click.option("--cfg", required=True)
@click.option("--gpus", required=True, type=int)
@click.option("--batch", required=True, type=int)
@click.option("--gamma", required=True, type=float)
@click.option("--cbase", default=32768)
def requiring(**options):
    pass


@pytest.mark.unit
def test_stylegan3_without_cfg_is_stylegan2_as_the_other_family_has_it():
    assert defaults.relax(requiring) and not defaults.relax(requiring)
    defaults_of = {"cfg": None, "gpus": None, "batch": None, "gamma": None, "cbase": 32768}
    assert defaults.complete(requiring, {}, 256, defaults_of) == {
        **{"cfg": "stylegan2", "gpus": 1, "batch": 16, "gamma": 0.0002 * 256**2 / 16, "mbstd_group": 4},
        **{"map_depth": 2, "glr": 0.0025, "dlr": 0.0025, "cbase": 16384},
    }
    given = {"batch": 2, "gamma": 5.0, "cbase": 99}
    found = defaults.complete(requiring, given, 512, defaults_of | given)
    assert found["mbstd_group"] == 2 and found.items() >= given.items()
    chosen = defaults.SMALL | defaults.FAST
    small = defaults.complete(requiring, chosen, 32, defaults_of | chosen)
    assert small.items() >= chosen.items()
    with click.Context(requiring), pytest.raises(click.MissingParameter, match="gpus"):
        defaults.complete(requiring, {"cfg": "stylegan3-t", "batch": 4, "gamma": 1.0}, 32, defaults_of)


@pytest.mark.unit
def test_pictures_are_small_on_a_cpu_unless_a_size_is_given(tmp_path, monkeypatch):
    monkeypatch.setenv("STYLEGAN_PLUGINS_CACHE", str(tmp_path / "cache"))
    data = tmp_path / "large.zip"
    write_zip(data, color_crops(20, side=64))
    limited = prepare.prepared(str(data), prepare.How(limit=32))
    assert limited.pictures["source"] == str(data) and prepare.datasets.check_dataset(limited.path)[1] == 32
    assert prepare.prepared(str(data), prepare.How()).path == str(data)
    assert prepare.prepared(str(data), prepare.How(size=64, limit=32)).path == str(data)
    assert prepare.prepared(str(data), prepare.How(limit=64)).path == str(data)


@pytest.mark.unit
@pytest.mark.parametrize(
    ("count", "group", "advice"),
    [
        (32, 4, "--batch-gpu=16, or smaller networks"),
        (12, 4, "--batch-gpu=4, or smaller networks"),
        (4, 4, "with smaller networks"),
        (6, 2, "--batch-gpu=2, or"),
        (1, 1, "with smaller networks (--cbase, --cmax) or pictures (--size)."),
    ],
)
def test_a_gpu_whose_memory_is_not_enough_is_one_line(count, group, advice):
    args = {"batch_gpu": count, "D_kwargs": {"epilogue_kwargs": {"mbstd_group_size": group}}}
    text = str(out_of_memory(args))
    assert text.startswith(f"The GPU ran out of memory with {count} images at a time.") and advice in text


@pytest.mark.unit
def test_a_training_loop_that_runs_out_of_memory_ends_with_that_line(tmp_path, monkeypatch):
    def training_loop(**args):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")

    args = {"batch_size": 32, "batch_gpu": 16, "run_dir": str(tmp_path), "total_kimg": 1, "G_kwargs": {}}
    monkeypatch.setattr(bridge.signals, "install", lambda: None)
    monkeypatch.setattr(bridge.host_metrics, "register", lambda: None)
    with pytest.raises(RunError, match="ran out of memory with 16 images at a time.*--batch-gpu=8"):
        bridge.run(training_loop, 0, D_kwargs={"epilogue_kwargs": {"mbstd_group_size": 4}}, **args)


@pytest.mark.unit
@pytest.mark.parametrize(("kind", "workers", "kept"), [("cpu", 3, True), ("cuda", 3, False), ("cuda", 0, True)])
def test_a_run_leaves_the_compiler_out_and_keeps_memory_where_it_helps(tmp_path, monkeypatch, kind, workers, kept):
    calls = []

    def training_loop(**args):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(bridge, "device", lambda rank: torch.device(kind))
    monkeypatch.setattr(bridge.signals, "install", lambda: None)
    monkeypatch.setattr(bridge.host_metrics, "register", lambda: None)
    monkeypatch.setattr(bridge.memory, "keep_freed_memory", lambda: calls.append("kept"))
    monkeypatch.setattr(bridge.optimizers, "leave_compiler_out", lambda: calls.append("compiler"))
    args = {"batch_size": 32, "batch_gpu": 16, "run_dir": str(tmp_path), "G_kwargs": {}, "D_kwargs": {}}
    with pytest.raises(RunError):
        bridge.run(training_loop, 0, data_loader_kwargs={"num_workers": workers}, **args)
    assert calls == (["kept", "compiler"] if kept else ["compiler"])


@pytest.mark.run
def test_the_same_command_goes_on_with_its_run_until_it_is_complete(ada_host, small_zip, tmp_path):
    command = ["train.py", f"--data={small_zip}", f"--outdir={tmp_path}", "--plugin=diffaugment", "--resume=auto"]
    run = lambda *more, **how: run_script(ada_host, *command, *TINY[ADA], *more, **how)
    first = run("--image-minutes=0.0001", "--batch=16")
    assert first.stdout.startswith("No GPU: pictures of at most 32x32 (--size). ") and "\nAbout " in first.stdout
    run_dir = last_run(tmp_path)
    assert {"report.html", "reals.png", "fakes000000.png", "fakes000001.png"} <= {
        file.name for file in run_dir.iterdir()
    }
    again = run("--batch=16")
    assert (
        "the run is complete at 1.008 kimg. Give a larger --kimg" in again.stdout and len(list(tmp_path.iterdir())) == 1
    )
    longer = run("--batch=16", "--kimg=2", "--resume-run=auto")
    assert "Going on from " in longer.stdout and stats(run_dir)[-1]["Progress/kimg"]["mean"] >= 2
    other = run("--dry-run", "--batch=16", "--seed=3")
    assert "00001-" in other.stdout  # another run


@pytest.mark.host
def test_a_run_on_a_cpu_has_small_networks_and_pictures_unless_cfg_is_given(family, patched, tmp_path, color_zip):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, image in enumerate(color_crops(12, side=40)):  # a folder is prepared, gray and 32x32
        PIL.Image.fromarray(image).save(folder / f"{number}.png")
    required = ["--gpus=1", "--batch=8", "--gamma=1"]
    stock = ["--cfg=auto"] if family == ADA else ["--cfg=stylegan2", *required]
    small, whole = (
        run_script(patched[family], "train.py", f"--data={color_zip}", f"--outdir={tmp_path}", "--dry-run", *more)
        for more in ([], stock)
    )
    assert small.stdout.startswith("No GPU: --workers=0, --cbase=512, --cmax=32, ") and "No GPU" not in whole.stdout
    assert '"num_workers": 0' in small.stdout and '"num_workers": 3' in whole.stdout
    tuned = run_script(patched[family], "train.py", f"--data={folder}", "--outdir=o", "--dry-run", "--resume=people32")
    assert "people32.safetensors" in tuned.stdout and f'"path": "{folder}"' not in tuned.stdout  # prepared
    assert f'"run_dir": "{patched[family] / "o"}' in tuned.stdout
    assert '"channel_base": 512' in small.stdout and '"channel_base": 512' not in whole.stdout
