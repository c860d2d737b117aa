"""The vision-aided plug-in: the authors' numbers, single phases, real architectures, the choice of backbones, runs."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from drivers.states import differences
from support.hosts import ADA, STYLEGAN3
from support.images import color_crops, write_zip
from support.runs import killed_and_resumed, loop, options, run_to_its_end, snapshot
from support.scripts import invoke, report_of

from stylegan_plugins.errors import DataError, OptionError
from stylegan_plugins.files.pickles import read_pickle
from stylegan_plugins.files.states import newest_state
from stylegan_plugins.manager import catalogue
from stylegan_plugins.plugins.vision_aided import LOG, PRESETS, VisionAidedOptions
from stylegan_plugins.run import arguments
from stylegan_plugins.vision import backbones, ranking
from stylegan_plugins.vision.networks import Backbone, Levels, area

GOLDEN = Path(__file__).parent / "golden" / "vision_aided.npz"


@pytest.fixture(scope="session")
def small(shared):
    """Small networks of timm with random weights, by name, as NAME=FILE."""
    names = ("test_vit", "test_vit2", "test_resnet")

    def fill(top: Path) -> None:
        for name in names:
            torch.save(timm.create_model(name).state_dict(), top / f"{name}.pth")

    top = shared("vision-aided-weights", fill)
    return {name: f"{name}={top / name}.pth" for name in names}


# Numbers. -----------------------------------------------------------------------------------------


@pytest.mark.host
@pytest.mark.parametrize("family", [ADA, STYLEGAN3])
def test_decoders_and_losses_equal_the_authors_95fc55b(fetched, family):
    """Logits, losses and gradients of features and weights, for both decoders and three losses."""
    apart = report_of(fetched[family], "vision_aided_golden.py", str(GOLDEN))
    assert len(apart) > 400 and max(apart.values()) < 1e-6, sorted(apart, key=apart.get)[-3:]


@pytest.mark.host
def test_each_phase_trains_what_the_paper_says(fetched):
    truths = report_of(fetched[ADA], "vision_aided_step.py")
    assert len(truths) > 28 and [name for name, holds in truths.items() if not holds] == []


@pytest.mark.host
def test_every_real_architecture_has_the_levels_of_the_paper(fetched):
    found = report_of(fetched[ADA], "vision_aided_backbones.py")
    assert found.keys() == backbones.BACKBONES.keys()
    tokens = lambda side: [[768, side, side]] * 2
    expected = {
        "clip": ([3, 7], [*tokens(7), [512]], [[3, 3], [3, 3], [1]]),
        "dino": ([4, 8], [*tokens(14), [768]], [[3, 3], [3, 3], [1]]),
        "dinov2": ([4, 8], [*tokens(16), [768]], [[4, 4], [4, 4], [1]]),
        "vgg16": (None, [[512, 7, 7]], [[1]]),
        "swin": (None, [[768, 7, 7]], [[1]]),
        "efficientnet_lite0": (None, [[1280, 7, 7]], [[1]]),
        "vgg16_antialiased": (None, [[512, 7, 7]], [[1]]),
        "det_coco": (None, [[768, 8, 8]], [[1]]),
        "seg_ade": (None, [[768, 8, 8]], [[1]]),
        "face_seg": (None, [[256, 8, 8]], [[1]]),
        "face_normals": (None, [[512, 8, 8]], [[1]]),
    }
    for name, (blocks, levels, logits) in expected.items():
        assert (found[name]["blocks"], found[name]["levels"], found[name]["logits"]) == (blocks, levels, logits), name
        assert found[name]["read"] == levels and found[name]["gradient"], name


@pytest.mark.unit
@pytest.mark.parametrize("normalised", [False, True])
def test_levels_of_a_transformer_are_its_tokens_after_some_blocks(normalised):
    """CLIP's are not normalised and its last is projected; DINO's are, and its last is the class token."""
    torch.manual_seed(0)
    model = timm.create_model("test_vit", num_classes=9)
    levels = Levels(Backbone(model, (0.4,) * 3, (0.2,) * 3, 160), normalised=normalised, projected=not normalised)
    images = torch.rand([2, 3, 20, 20]) * 2 - 1
    x = torch.nn.functional.interpolate(images * 0.5 + 0.5, size=(160, 160), mode="area")
    x = model.patch_embed((x - 0.4) / 0.2)
    x = model.norm_pre(model.patch_drop(model._pos_embed(x)))
    expected = []
    for index, block in enumerate(model.blocks):
        x = block(x)
        if index in (1, 3):  # of six blocks
            tokens = (model.norm(x) if normalised else x)[:, 1:]
            expected.append(tokens.transpose(1, 2).reshape(2, 64, 10, 10))
    last = model.norm(x)[:, 0]
    expected.append(last if normalised else model.head(last))
    for ours, theirs in zip(levels(images), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(levels.pooled(images), expected[-1], rtol=1e-5, atol=1e-6)


@pytest.mark.unit
@pytest.mark.parametrize("height, width, size", [(32, 32, 224), (256, 256, 224), (100, 37, 64), (7, 9, 9), (224, 1, 3)])
def test_area_resizing_is_torchs(height, width, size):
    images = torch.rand([2, 3, height, width], dtype=torch.float64)
    expected = torch.nn.functional.interpolate(images, size=(size, size), mode="area")
    torch.testing.assert_close(area(images, size), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.unit
@pytest.mark.parametrize("factor", [1e-6, 1, 1e5])
@pytest.mark.parametrize("precision, largest", [("bfloat16", 0.05), ("float16", 0.01)])
def test_half_precision_has_nearly_the_same_gradient(precision, largest, factor):
    """float16 alone would lose gradients as small, or as large, as these."""
    images = torch.rand([2, 3, 32, 32]) * 2 - 1
    found = {}
    for name in ("float32", precision):
        torch.manual_seed(0)
        levels = Levels(Backbone(timm.create_model("test_vit"), (0.5,) * 3, (0.5,) * 3, 160), precision=name)
        leaf = images.clone().requires_grad_(True)
        output = levels(leaf)
        assert all(level.dtype == torch.float32 for level in output)
        (found[name],) = torch.autograd.grad(sum(level.mean() for level in output) * factor, [leaf])
    relative = (found[precision] - found["float32"]).norm() / found["float32"].norm()
    assert 0 < relative < largest


# Options. -----------------------------------------------------------------------------------------


@pytest.mark.unit
@pytest.mark.parametrize(
    "given, message",
    [
        ({"auto": 5}, "--vision-aided-auto=5.*4 to choose from: clip, dino, vgg16, swin"),
        ({"auto": 2, "models": "clip"}, "--vision-aided-auto=2.*1 to choose from"),
        ({"auto_kimg": "4000,x"}, "--vision-aided-auto-kimg='4000,x'"),
        ({"auto_kimg": "0"}, "--vision-aided-auto-kimg=0"),
        ({"models": " , "}, "no backbone is named"),
        ({"models": "clip,clip"}, "clip is there twice"),
        ({"models": "vgg,vgg16"}, "vgg16 is there twice"),
        ({"models": "clip="}, "clip= names no file"),
        ({"models": "clip=a/w.pth,clip=b/w.pth"}, "two files of one network have the same name"),
    ],
)
def test_options_that_do_not_go_together_are_refused(given, message):
    with pytest.raises(OptionError, match=message):
        VisionAidedOptions(**given)


@pytest.mark.unit
def test_backbones_are_added_at_the_published_times():
    chosen = VisionAidedOptions(auto=3, warmup_kimg=500.0)
    assert [chosen.begins(k) for k in range(4)] == [500_000, 4_500_000, 5_500_000, 6_500_000]


@pytest.mark.unit
@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_published_settings_and_what_is_given_wins(name):
    given_options = lambda given: {"vision-aided": {"preset": name, **given}}
    resolved = lambda **given: catalogue().activate(["vision-aided"], given_options(given)).options["vision-aided"]
    assert all(getattr(resolved(), field) == value for field, value in PRESETS[name].values.items())
    assert PRESETS[name].source and resolved(auto=1).auto == 1


@pytest.mark.unit
@pytest.mark.parametrize("name", ["clip", "resnet50.a1_in1k", "test_vit=w.v2.pth", "a=b c/d=e.pth"])
def test_a_backbones_key_can_name_a_module(name):
    (model,) = backbones.models_of(name, "")
    assert torch.nn.ModuleDict({model.key: torch.nn.Identity()})


@pytest.mark.unit
def test_a_link_to_weights_stays_one(small, tmp_path):
    """A hub's cache has links to files whose names do not end in .safetensors."""
    link = tmp_path / "model.pth"
    link.symlink_to(small["test_vit"].partition("=")[2])
    assert backbones.Model("test_vit", str(link)).absolute().weights == str(link)


@pytest.mark.unit
def test_a_network_without_such_features_is_refused():
    model = timm.create_model("test_vit")
    model.forward_intermediates = None
    with pytest.raises(OptionError, match="VisionTransformer gives no features"):
        Levels(Backbone(model, (0.5,) * 3, (0.5,) * 3, 160))


@pytest.mark.unit
@pytest.mark.parametrize("name", ["resnet18", "convnext_atto", "levit_128s", "mixer_s32_224", "pit_ti_224"])
def test_networks_of_many_kinds_can_be_read(name):
    recipe = backbones.recipe_of(name, "")
    levels = Levels(backbones.create(recipe))
    assert levels.pooled(torch.zeros([2, 3, 32, 32])).shape == (2, levels.shapes[-1][0])


def configured(kimg=1000, images=64, **given):
    data = {"max_size": images}
    args = {"loss_kwargs": {"class_name": arguments.HOST_LOSS}, "training_set_kwargs": data, "total_kimg": kimg}
    plugins = catalogue().activate(["vision-aided"], {"vision-aided": given})
    request = arguments.Request(plugins=plugins, dry_run=True)
    return arguments.configure("run", args, request)[1]["plugins"]["options"]["vision-aided"]


@pytest.mark.unit
def test_what_a_run_needs_is_found_before_it_begins(small, monkeypatch):
    assert configured(models="efficientnet_lite0")["warmup_kimg"] == 500
    with pytest.raises(OptionError, match="--vision-aided-warmup-kimg=1000 is not below --kimg=1000"):
        configured(warmup_kimg=1000.0)
    with pytest.raises(OptionError, match="--vision-aided-warmup-kimg=500 is not below --kimg=100"):
        configured(kimg=100)
    with pytest.raises(OptionError, match="7 images are too few"):
        configured(images=7, auto=1)
    with pytest.raises(OptionError, match="--vision-aided-precision=float16 is for GPUs"):
        configured(models="efficientnet_lite0", precision="float16")
    with pytest.raises(OptionError, match="--vision-aided-models=nosuch: there is no such backbone"):
        configured(models="nosuch")
    with pytest.raises(DataError, match="--vision-aided-models=test_vit=gone.pth: there is no file"):
        configured(models="test_vit=gone.pth")
    _, _, file = small["test_vit"].partition("=")
    monkeypatch.chdir(Path(file).parent)
    assert configured(models="test_vit=test_vit.pth")["models"] == small["test_vit"]


@pytest.mark.unit
def test_missing_weights_without_a_network_are_one_error_soon(monkeypatch, tmp_path):
    monkeypatch.setattr(backbones, "HUB", "http://127.0.0.1:9")
    monkeypatch.setenv("STYLEGAN_PLUGINS_CACHE", str(tmp_path))
    begin_at = time.monotonic()
    with pytest.raises(DataError) as error:
        configured(models="dino")
    assert time.monotonic() - begin_at < 10
    message = str(error.value)
    assert message.startswith("--vision-aided-models=dino: its weights are not available")
    assert "vit_base_patch16_224.dino/resolve/main/model.safetensors" in message and "\n" not in message
    assert str(tmp_path / "backbones" / "vit_base_patch16_224.dino.safetensors") in message


# Runs, and the choice of backbones. ---------------------------------------------------------------


@pytest.fixture(scope="session")
def few_zip(shared):
    """24 images of 16x16 pixels: each choice of a backbone takes twice as many passes through each candidate."""
    return shared("vision-aided-data", lambda top: write_zip(top / "few.zip", color_crops(24, side=16))) / "few.zip"


@pytest.fixture(scope="session")
def run(shared, ada_host, small, few_zip):
    """(arguments, run directory) of 14 iterations: warm-up, then two backbones one after the other, of three."""
    flags = ["--plugin=vision-aided", f"--vision-aided-models={','.join(small.values())}", "--vision-aided-auto=2"]
    flags += ["--vision-aided-warmup-kimg=0.032", "--vision-aided-auto-kimg=0.032", "--mirror=1", "--device=cpu"]

    def fill(top: Path) -> None:
        args = options(ada_host, ADA, few_zip, top, *flags)
        args |= {"total_kimg": 14 * args["batch_size"] / 1000, "kimg_per_tick": 9, "state_minutes": 10.0}
        args |= {"image_snapshot_ticks": None}  # no sheets of 1024 samples
        run_to_its_end(ada_host, args, top / "run")

    top = shared("vision-aided-run", fill)
    return json.loads((top / "run.json").read_text()), top / "run"


@pytest.mark.run
def test_backbones_are_chosen_one_after_the_other(run):
    _, run_dir = run
    additions = [json.loads(line) for line in (run_dir / "vision-aided.jsonl").read_text().splitlines()]
    assert [addition["nimg"] for addition in additions] == [32, 64]
    assert [len(addition["rows"]) for addition in additions] == [3, 2]
    assert {row["images"] for addition in additions for row in addition["rows"]} == {48}  # without flips
    for addition in additions:
        accuracies = [row["accuracy"] for row in addition["rows"]]
        assert accuracies == sorted(accuracies, reverse=True) and all(0.4 < value <= 1 for value in accuracies)
    first, second = (addition["rows"][0]["model"] for addition in additions)
    assert first != second and first not in [row["model"] for row in additions[1]["rows"]]
    last = json.loads((run_dir / "stats.jsonl").read_text().splitlines()[-1])
    used = {name.split("/")[1] for name, value in last.items() if name.startswith("VisionAided/") and value["num"]}
    assert used == {backbones.models_of(name, "")[0].key for name in (first, second)}
    assert math.isfinite(last["Loss/G/vision-aided"]["mean"])


@pytest.mark.run
def test_a_snapshot_is_stock_and_no_backbone_is_in_it_or_in_a_state(fetched, run):
    _, run_dir = run
    pickle = max(run_dir.glob("network-snapshot-*.pkl"))
    assert snapshot(fetched[ADA], pickle, "--stock")["finite"]
    assert set(read_pickle(pickle).networks) == {"G", "D", "G_ema", "augment_pipe"}
    _, _, state = newest_state(run_dir, print)
    names = list(state["session"]["heads"])
    assert names and all(name.split(".")[0] == "vision-aided" for name in names)
    assert {name.split(".")[2] for name in names} == {"maps", "last", "out"}  # decoders' alone


@pytest.mark.run
def test_a_run_that_is_killed_chooses_the_same_and_ends_as_one_that_was_not(ada_host, run, tmp_path):
    args, whole = run
    killed_and_resumed(ada_host, args, tmp_path / "killed", 6 * args["batch_size"])
    assert differences(tmp_path / "killed", whole) == []
    assert (tmp_path / "killed" / "vision-aided.jsonl").read_text() == (whole / "vision-aided.jsonl").read_text()


@pytest.mark.run
def test_until_the_warm_up_ends_a_run_is_the_one_without_the_plug_in(ada_host, small, small_zip, tmp_path):
    flags = ["--plugin=vision-aided", f"--vision-aided-models={small['test_resnet']}", "--vision-aided-warmup-kimg=0.5"]
    found = []
    for name, more in (("with", flags), ("without", [])):
        args = options(ada_host, ADA, small_zip, tmp_path, *more)
        found.append(snapshot(ada_host, loop(ada_host, args, tmp_path / name, 2)))
    assert found[0] == found[1] and found[0]["finite"]


@pytest.mark.run
def test_two_processes_choose_the_same(stylegan3_host, small, few_zip, tmp_path):
    models = ",".join(small.values())
    flags = ["--plugin=vision-aided", f"--vision-aided-models={models}", "--vision-aided-auto=1", "--device=cpu"]
    flags += ["--vision-aided-warmup-kimg=0.03", "--gpus=2", "--batch=16"]
    args = options(stylegan3_host, STYLEGAN3, few_zip, tmp_path, *flags)
    args |= {"total_kimg": 0.112, "kimg_per_tick": 9, "image_snapshot_ticks": None, "network_snapshot_ticks": None}
    run_to_its_end(stylegan3_host, args, tmp_path / "run")
    (line,) = (tmp_path / "run" / LOG).read_text().splitlines()
    accuracies = {row["model"]: row["accuracy"] for row in json.loads(line)["rows"]}  # each process probed its share
    assert set(accuracies) == set(small.values()) and list(accuracies.values()) == sorted(accuracies.values())[::-1]
    _, _, state = newest_state(tmp_path / "run", print)
    first, second = (rank["session"]["methods"]["vision-aided"] for rank in state["ranks"])
    assert len(first["in_use"]) == 1 and first["in_use"] == second["in_use"]
    values = {key: [float(of["augment"][key]["p"]) for of in (first, second)] for key in first["augment"]}
    assert all(a == b for a, b in values.values())
    (key,) = first["in_use"]  # seven iterations: signs of the last three, of 8 images each, are not used yet
    assert [int(of["augment"][key]["signs"][0]) for of in (first, second)] == [24, 24]


@pytest.mark.run
def test_stylegan3_trains_with_labels_and_on_gray_images(fetched, training_hosts, small, tmp_path):
    crops = [np.asarray(crop).mean(axis=2).astype(np.uint8) for crop in color_crops(24, side=16)]
    data = write_zip(tmp_path / "gray.zip", crops, [i % 3 for i in range(24)])
    models = f"{small['test_vit']},{small['test_resnet']}"
    flags = ["--plugin=vision-aided,augself", f"--vision-aided-models={models}", "--vision-aided-warmup-kimg=0"]
    args = options(
        training_hosts[STYLEGAN3], STYLEGAN3, data, tmp_path, *flags, "--cond=1", "--vision-aided-loss=hinge"
    )
    pickle = loop(training_hosts[STYLEGAN3], args, tmp_path / "run", 2)
    last = json.loads((tmp_path / "run" / "stats.jsonl").read_text().splitlines()[-1])
    assert all(math.isfinite(last[f"Loss/{network}/vision-aided"]["mean"]) for network in "DG")
    assert snapshot(fetched[STYLEGAN3], pickle, "--stock")["finite"]


@pytest.mark.run
def test_select_ranks_a_pretrained_network_above_the_same_with_random_weights(ada_host, run, tmp_path):
    args, run_dir = run
    torch.manual_seed(0)
    torch.save(timm.create_model("tf_efficientnet_lite0").state_dict(), tmp_path / "random.pth")
    models = f"efficientnet_lite0={tmp_path / 'random.pth'},efficientnet_lite0"
    data = args["training_set_kwargs"]["path"]
    done = invoke(
        ada_host,
        "select",
        str(run_dir),
        f"--data={data}",
        f"--models={models}",
        f"--outdir={tmp_path / 'out'}",
        "--max-images=12",
    )
    assert done.returncode == 0, done.stderr
    (record,) = (tmp_path / "out").glob("select-*.json")
    rows = json.loads(record.read_text())["rows"]
    assert rows[0]["model"] == "efficientnet_lite0" and rows[0]["accuracy"] > rows[1]["accuracy"]
    assert f"| efficientnet_lite0 | 1280 | {rows[0]['accuracy']:.3f}" in done.stdout
    assert record.with_suffix(".png").stat().st_size > 5000


@pytest.mark.unit
def test_the_probe_is_the_authors():
    """Halves, three times; C = 0.2 on raw features. Classes that a plane divides are told apart, equal ones are not."""
    random = np.random.RandomState(0)
    real, generated = random.randn(60, 5), random.randn(60, 5)
    held_out, training_part = ranking.probe(real + np.eye(5)[0] * 4, generated)
    assert len(held_out) == 3 and min(held_out) > 0.9 and min(training_part) > 0.9
    assert 0.3 < np.mean(ranking.probe(real, generated)[0]) < 0.7


@pytest.mark.run
def test_what_select_cannot_do_is_one_line(ada_host, run, tmp_path):
    _, run_dir = run
    few = write_zip(tmp_path / "few.zip", color_crops(3, side=32))  # of another size: they are resized to the run's
    done = invoke(ada_host, "select", str(run_dir), f"--data={few}", "--models=efficientnet_lite0")
    assert done.returncode == 2 and "3 pictures of 16x16, prepared in" in done.stdout
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert "3 images are too few" in line
