"""Options that can have no effect say so: given without one, they are refused, and what the error says is true."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, fields
from types import ModuleType, SimpleNamespace
from typing import Any

import click
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from support.hosts import ADA, FAMILIES, STYLEGAN3
from support.images import color_crops, write_zip
from support.scripts import run_many, run_script

from stylegan_plugins import CountsWith, Preset, hookimpl
from stylegan_plugins import options as plugin_options
from stylegan_plugins.analysis import cells
from stylegan_plugins.cli import cli
from stylegan_plugins.errors import OptionError, PluginError
from stylegan_plugins.manager import builtin, catalogue
from stylegan_plugins.options import option
from stylegan_plugins.plugins.diffaugment import DiffAugmentOptions
from stylegan_plugins.plugins.vision_aided import VisionAidedOptions
from stylegan_plugins.run import arguments

IDLE = {  # an option, and others with which it has no effect
    "--apa-interval=3": "--apa-mode=fixed",
    "--apa-kimg=9": "--apa-mode=fixed",
    "--apa-p=0.3": "--apa-mode=adaptive",
    "--apa-target=0.5": "--apa-mode=fixed",
    "--contrad-cutout-side=0.3": "--contrad-augment=simclr",
    "--contrad-gather=false": "--gpus=1",
    "--diagnostics-nearest-images=9": "--diagnostics-nearest=none",
    "--diagnostics-weights=published": "--diagnostics-nearest=pixels",
    "--diffaugment-ada-p=0.5": "--diffaugment-policy=color,flip",
    "--diffaugment-blur=0.3": "--diffaugment-policy=gray",
    "--diffaugment-brightness=0.3": "--diffaugment-policy=translation,cutout",
    "--diffaugment-contrast=0.3": "--diffaugment-policy=cutout",
    "--diffaugment-crop=0.3": "--diffaugment-policy=color",
    "--diffaugment-cutmix=0.3": "--diffaugment-policy=cutout",
    "--diffaugment-cutout=0.3": "--diffaugment-policy=color",
    "--diffaugment-flip=0.3": "--diffaugment-policy=ada-blit",
    "--diffaugment-gray=0.3": "--diffaugment-policy=jitter",
    "--diffaugment-hue=0.3": "--diffaugment-policy=color",
    "--diffaugment-jitter=0.3": "--diffaugment-policy=gray,blur",
    "--diffaugment-saturation=0.3": "--diffaugment-policy=",
    "--diffaugment-shift=0.3": "--diffaugment-policy=translation",
    "--diffaugment-translation=0.3": "--diffaugment-policy=color,cutout",
    "--diffaugment-where=d": "--diffaugment-policy=",
    "--disp-components=3": "--disp-sampling=mixup",
    "--disp-flips=shared": "--mirror=0",
    "--disp-weights=published": f"--disp-features={__file__}",
    "--genco-bands=32": "--genco-daco=0",
    "--genco-difference=0.1": "--genco-weco=0",
    "--genco-kept=0.5": "--genco-daco=0",
    "--genco-low=0.2": "--genco-daco=0",
    "--maskedgan-bands=32": "--maskedgan-masked-bands=0",
    "--maskedgan-grid=8": "--maskedgan-patches=0",
    "--scale-shift-perceptual-loss=l2": "--scale-shift-perceptual-weight=0",
    "--vision-aided-ada-kimg=3": "--vision-aided-augment=none",
    "--vision-aided-ada-target=0.2": "--vision-aided-augment=diffaugment",
    "--vision-aided-auto-kimg=5": "--vision-aided-auto=1",
    "--vision-aided-sure=0.5": "--vision-aided-auto=0",
    "--vision-aided-target=0.8": "--vision-aided-loss=hinge",
    "--vision-aided-warmup-heads=true": "--vision-aided-auto=1",
    "--wandb-name=first": "--wandb-mode=disabled",
    "--wandb-project=gardens": "--wandb-mode=disabled",
}
# They have an effect in every run. A factor of 0 is one of a sweep's values, not a reason to refuse the others.
ALWAYS = {
    *(f"--augself-{name}" for name in ("d-weight", "g-weight", "predict", "reduction")),
    *(f"--contrad-{name}" for name in ("temperature", "lambda-con", "lambda-dis", "augment", "crop-area", "jitter")),
    *(f"--contrad-{name}" for name in ("hue", "hsv-gradient", "hidden", "projection", "r1", "mbstd", "ema", "warmup")),
    *("--diggan-weight", "--diggan-memory", "--ssgan-d-weight", "--ssgan-g-weight", "--ssgan-share"),
    *(f"--insgen-{name}" for name in ("real-weight", "generated-weight", "g-weight", "temperature", "momentum")),
    *("--insgen-noise", "--insgen-real-queue", "--insgen-generated-queue", "--insgen-ada-linear"),
    *(f"--advaug-{name}" for name in ("d-weight", "g-weight", "d-gamma", "g-gamma", "attack")),
    *("--genco-weco", "--genco-daco"),
    *("--genco-weco", "--genco-daco", "--maskedgan-patches", "--maskedgan-masked-bands"),
    *("--ggdr-weight", "--ggdr-resolution"),
    *(f"--self-cond-{name}" for name in ("clusters", "kimg", "layer", "images", "starts")),
    *(f"--projected-{name}" for name in ("backbone", "separable", "lr", "g-lr", "z", "w", "mapping", "ema")),
    *("--projected-path-length", "--projected-style-mixing", "--projected-r1"),
    *("--diagnostics-holdout", "--diagnostics-images", "--diagnostics-nearest", "--diffaugment-policy"),
    *("--disp-features", "--disp-sampling", "--freezed-layers", "--transfergan-lr", "--transfergan-beta2"),
    "--transfergan-loss",
    *(f"--vision-aided-{name}" for name in ("models", "auto", "warmup-kimg", "weight", "loss", "augment")),
    "--vision-aided-decoder",
    *("--apa-mode", "--lecam-weight", "--lecam-decay", "--mode-seeking-weight"),
    *(f"--cr-{name}" for name in ("weight", "shift", "flip")),
    *(f"--bcr-{name}" for name in ("real-weight", "generated-weight", "shift", "flip")),
    *(f"--scale-shift-{name}" for name in ("lr", "z-lr", "decay", "decay-kimg", "start", "noise", "perceptual")),
    *(f"--scale-shift-{name}" for name in ("perceptual-weight", "relative", "emd-weight", "reg-weight", "temperature")),
    *("--minegan-stage1-kimg", "--minegan-constant", "--minegan-lr"),
    *("--noise-sigma", "--noise-kimg", "--topk-gamma", "--topk-nu", "--topk-epoch-kimg"),
    *("--zcr-d-weight", "--zcr-g-weight", "--zcr-sigma"),
    *("--vision-aided-precision", "--vision-aided-resize", "--wandb-mode"),
}
HOSTS = ["--gpus", "--mirror"]


def parse(*argv: str) -> None:
    """Check a command line as a host's train.py does, with the arguments that the host makes of it."""
    options = [click.Option([name], type=int) for name in HOSTS]
    command = click.Command("train", params=[*options, *arguments.options_for(click.Command("train"))])
    values = command.make_context("train", list(argv)).params
    host = {name: values.pop(name[2:]) for name in HOSTS}
    del values["device"], values["resume_run"]
    request = arguments.Request.parse(values, frozenset())
    request.check_effects({"num_gpus": host["--gpus"] or 1, "training_set_kwargs": {"xflip": host["--mirror"] == 1}})


def plugin_of(flag: str) -> str:
    return max((name for name in builtin() if flag.startswith(f"--{name}-")), key=len)


def refusal(*argv: str) -> str | None:
    """Return the error about an option without effect, None if there is none."""
    try:
        parse(*argv)
    except OptionError as error:
        assert "\n" not in str(error)
        return str(error)
    return None


def advised(error: str, argv: list[str]) -> list[str]:
    """Return the command line after the error's second piece of advice."""
    found = re.search("or give (.*), for example", error)
    assert found is not None, error
    flags = found[1].split()
    names = [flag.partition("=")[0] for flag in flags]
    return [arg for arg in argv if arg.partition("=")[0] not in names] + flags


@pytest.mark.unit
def test_every_option_of_a_built_in_plugin_is_in_one_of_the_lists():
    found = catalogue()
    every = {
        plugin_options.flag(name, field.name)
        for name in builtin()
        for field in (fields(found.options_class(name)) if found.options_class(name) else ())
    }
    idle = {argument.partition("=")[0] for argument in IDLE}
    assert every == idle | ALWAYS and not idle & ALWAYS


@pytest.mark.unit
@pytest.mark.parametrize("argument", IDLE)
def test_an_option_without_effect_is_refused_and_both_pieces_of_advice_help(argument):
    plugin = f"--plugin={plugin_of(argument)}"
    error = refusal(plugin, argument, IDLE[argument])
    assert error is not None and error.startswith(f"{argument} has no effect with")
    assert refusal(plugin, IDLE[argument]) is None
    assert refusal(*advised(error, [plugin, argument, IDLE[argument]])) is None


@pytest.mark.unit
def test_what_a_preset_sets_decides_and_need_not_count_itself():
    assert refusal("--plugin=contrad", "--contrad-preset=afhq-cat", "--contrad-cutout-side=0.3") is None
    told = refusal("--plugin=contrad", "--contrad-preset=afhq-dog", "--contrad-cutout-side=0.3")
    assert told is not None and "with --contrad-augment=simclr-hq." in told
    assert refusal("--plugin=augself", "--augself-preset=plus", "--diffaugment-policy=color") is None


@pytest.mark.unit
def test_a_target_and_a_certainty_that_are_both_given_both_count():
    given = {"auto": 2, "target": 0.7, "sure": 0.95}
    for explicit, sure in ((frozenset(), 0.0), (frozenset({"vision_aided_sure"}), 0.95)):
        request = arguments.Request(
            catalogue().activate(["vision-aided"], {"vision-aided": given}), explicit=explicit, dry_run=True
        )
        options = settled(request)
        assert (options["target"], options["sure"]) == (0.7, sure)


def settled(request: arguments.Request) -> dict[str, Any]:
    """Return options of vision-aided after its `configure`, without looking for weights."""
    args = {"total_kimg": 9000, "training_set_kwargs": {}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stylegan_plugins.vision.backbones.Model.load", lambda self, *args, **how: None)
        options = request.plugins.call("vision-aided", "configure", args=args, explicit=request.explicit)
    return plugin_options.as_dict(options)


@pytest.mark.unit
@pytest.mark.parametrize("sampling, refused", [("mixup", True), ("mixture", False)])
def test_components_of_a_mixture_are_refused_if_the_number_of_images_makes_it_mixup(sampling, refused):
    plugins = catalogue().activate(["disp"], {"disp": {"components": 3}})
    args = {"D_kwargs": {"class_name": "D"}, "plugins": {"options": {"disp": {"sampling": sampling}}}}
    call = lambda explicit: plugins.call("disp", "configure", args=args, explicit=frozenset(explicit))
    call([])
    if refused:
        with pytest.raises(OptionError, match="^--disp-components: with less than 1000 images"):
            call(["disp_components"])
    else:
        call(["disp_components"])


# The text of errors. ------------------------------------------------------------------------------

subsets = st.lists(st.sampled_from(["color", "translation", "cutout"]), unique=True).map(",".join)
STRENGTHS = ("brightness", "saturation", "contrast", "translation", "cutout")
values = {
    "contrad": {"augment": st.sampled_from(["auto", "simclr", "simclr-hq-cutout"]), "cutout_side": st.just(0.25)},
    "diagnostics": {
        "nearest": st.sampled_from(["pixels", "none", "dino"]),
        "nearest_images": st.integers(1, 9),
        "weights": st.just("published"),
    },
    "diffaugment": {
        "policy": subsets,
        "where": st.sampled_from(["all", "d"]),
        **dict.fromkeys(STRENGTHS, st.sampled_from([0.0, 0.25, 0.5])),
    },
    "disp": {"sampling": st.sampled_from(["auto", "mixup", "mixture", "images"]), "components": st.integers(0, 3)},
    "vision-aided": {
        "auto": st.integers(0, 3),
        "auto_kimg": st.just("5,6"),
        "warmup_heads": st.booleans(),
        "loss": st.sampled_from(["sigmoid", "hinge"]),
        "target": st.just(0.75),
        "sure": st.just(0.5),
        "augment": st.sampled_from(["ada", "diffaugment", "none"]),
        "ada_target": st.just(0.25),
        "ada_kimg": st.just(100.0),
    },
}
lines = st.sampled_from(sorted(values)).flatmap(
    lambda name: st.tuples(st.just(name), st.fixed_dictionaries({}, optional=values[name]))
)


@pytest.mark.unit
@settings(deadline=None, max_examples=60)
@given(lines)
def test_what_an_error_says_is_true(line):
    plugin, given = line
    flags = {name: plugin_options.flag(plugin, name) for name in given}
    argv = [f"--plugin={plugin}", *(f"{flags[name]}={plugin_options.written(value)}" for name, value in given.items())]
    error = refusal(*argv)
    if error is None:
        return
    blamed = error.partition(" has no effect")[0]
    assert blamed in argv
    rest = [arg for arg in argv if arg != blamed]
    options = catalogue().activate([plugin], {plugin: given}).options[plugin]
    reasons = re.findall(r"with (--\S*?)=(\S*?)(?= and |\. Leave)", error)
    assert reasons
    for flag, value in reasons:  # it names the values of the run
        field = flag.removeprefix(f"--{plugin}-").replace("-", "_")
        assert value == plugin_options.written(getattr(options, field))
    for better in (rest, advised(error, argv)):  # no advice leads to the same error again
        again = refusal(*better)
        assert again is None or again.partition("=")[0] != blamed.partition("=")[0]


@pytest.mark.unit
@settings(deadline=None, max_examples=40)
@given(subsets, st.sampled_from(STRENGTHS))
def test_a_strength_of_diffaugment_is_refused_if_and_only_if_images_are_the_same_with_another(policy, name):
    images = torch.rand([4, 3, 16, 16], generator=torch.Generator().manual_seed(0)) * 2 - 1

    def transformed(strength: float) -> torch.Tensor:
        torch.manual_seed(1)
        return DiffAugmentOptions(policy=policy, **{name: strength}).transform()(images)[0]

    same = torch.equal(transformed(0.25), transformed(1.0))
    assert same is (
        refusal("--plugin=diffaugment", f"--diffaugment-policy={policy}", f"--diffaugment-{name}=1") is not None
    )


@pytest.mark.unit
@settings(deadline=None, max_examples=20)
@given(st.integers(0, 4))
def test_kimg_between_additions_are_refused_if_and_only_if_no_addition_comes_after_them(auto):
    begins = lambda kimg: [VisionAidedOptions(auto=auto, auto_kimg=kimg).begins(index) for index in range(auto)]
    told = refusal("--plugin=vision-aided", f"--vision-aided-auto={auto}", "--vision-aided-auto-kimg=7")
    assert (begins("7") == begins("8")) is (told is not None)


@pytest.mark.unit
def test_a_condition_on_an_option_that_the_plugin_lacks_is_refused():
    @dataclass(frozen=True)
    class Broken:
        weight: float = option(1.0, "a number", counts=(CountsWith("where", bool, "all"),))

    with pytest.raises(PluginError, match="'weight' of 'mine' counts with 'where', which is none of its options"):
        plugin_options.check("mine", Broken)


# train.py's own options, and commands. ------------------------------------------------------------

REFUSED = {
    "--trust-pickle": "--trust-pickle: there is no pickle to load",
    "--metric-samples=9": "--metric-samples=9 has no effect with --metrics=none",
    "--metric-samples=8 --metrics=fid50k_full": "--metric-samples=8 has no effect with --metrics=fid50k_full",
    "--plugin=contrad --contrad-gather=1": "--contrad-gather=true has no effect without --gpus=2",
    "--plugin=disp --disp-flips=own": "--disp-flips=own has no effect without --mirror=1",
    "--plugin=vision-aided --vision-aided-warmup-kimg=0 --vision-aided-warmup-heads=1": "there is no warm-up",
}


@pytest.mark.host
@pytest.mark.parametrize("family", FAMILIES)
def test_options_of_train_py_without_effect_are_refused_in_one_line(family, patched, color_zip):
    required = ["--cfg=stylegan2", "--gpus=1", "--batch=8", "--gamma=1"] if family == STYLEGAN3 else []
    base = ["--outdir=no-such-folder", f"--data={color_zip}", "--dry-run", "--device=cpu", *required]
    results = run_many(patched[family], [[*base, *line.split()] for line in REFUSED])
    for message, result in zip(REFUSED.values(), results, strict=True):
        assert result["code"] == 2, result
        (line,) = [line for line in result["stderr"].splitlines() if line.startswith("Error: ")]
        assert message in line and "Traceback" not in result["stderr"]


@pytest.mark.unit
def test_options_of_a_plugin_in_no_combination_are_refused_by_compare():
    given = ["--gamma=1", "--diffaugment-cutout", "0.2", "--augself-d-weight=0"]
    cells.check_arguments([("none", ()), ("augself", ())], given, {})
    with pytest.raises(OptionError, match="^--contrad-warmup=5 has no effect: its plug-in is in no combination"):
        cells.check_arguments([("none", ()), ("augself", ())], ["--gamma=1", "--contrad-warmup=5"], {})


@pytest.mark.unit
def test_a_device_is_refused_by_a_report_that_generates_nothing(tmp_path):
    done = CliRunner().invoke(cli, ["report", str(tmp_path), f"--out={tmp_path / 'r.html'}", "--device=cpu"])
    assert done.exit_code == 2 and "--device=cpu has no effect without --generate" in done.output


@pytest.mark.unit
@pytest.mark.parametrize("line", ["interpolate --features=clip", "sheet --features=pixels", "sheet --pairs=4"])
def test_what_is_of_nearest_images_is_refused_without_images(tmp_path, monkeypatch, line):
    monkeypatch.setattr("stylegan_plugins.host.find.choose_host", lambda *_: None)
    found = SimpleNamespace(img_resolution=16), None, tmp_path / "n.pkl"
    monkeypatch.setattr("stylegan_plugins.analysis.sample.load_generator", lambda *_: found)
    name, flag = line.split()
    done = CliRunner().invoke(cli, [name, str(tmp_path), f"--outdir={tmp_path}", "--device=cpu", flag])
    assert done.exit_code == 2 and f"{flag} has no effect without images to look for nearest ones" in done.output


@pytest.mark.host
def test_calc_metrics_refuses_a_number_of_samples_that_no_metric_of_ours_takes(ada_host, color_zip):
    args = ["--network=x.pkl", f"--data={color_zip}", "--metrics=fid50k_full", "--metric-samples=12", "--device=cpu"]
    done = run_script(ada_host, "calc_metrics.py", *args, check=False)
    assert done.returncode == 2 and "--metric-samples=12 has no effect with --metrics=fid50k_full" in done.stderr


@pytest.mark.unit
@pytest.mark.parametrize("flag", ["--weights={file}", "--flips", "--no-flips", "--device=cpu"])
def test_what_is_of_a_backbone_is_refused_by_priors_with_a_file_of_features(tmp_path, flag):
    file = tmp_path / "own.npy"
    file.write_bytes(b"")
    data = write_zip(tmp_path / "data.zip", color_crops(2, side=16))
    done = CliRunner().invoke(cli, ["priors", f"--data={data}", f"--features={file}", flag.format(file=file)])
    assert done.exit_code == 2 and f"has no effect with --features={file}, a file of features" in done.output


# Presets. -----------------------------------------------------------------------------------------

PRESETS = {(name, key): preset for name in builtin() for key, preset in catalogue().presets(name).items()}


def flags_in(preset: Preset) -> list[str]:
    """Return the options of train.py that the source of a preset names with values."""
    return re.findall(r"--[a-z]+=[\w.]*\w", preset.source)


@pytest.mark.host
def test_settings_that_presets_name_are_the_hosts_and_the_published_ones(patched, color_zip):
    lines = list(dict.fromkeys(tuple(flags_in(preset)) for preset in PRESETS.values()))  # each once
    base = [f"--data={color_zip}", "--outdir=no-such-folder", "--dry-run", "--device=cpu"]
    results = dict(zip(lines, run_many(patched[ADA], [[*base, *line] for line in lines]), strict=True))
    assert [result["stderr"] for result in results.values() if result["code"]] == []
    settings_of = lambda stdout: json.JSONDecoder().raw_decode(stdout[stdout.index("{") :])[0]
    found = {key: settings_of(results[tuple(flags_in(preset))]["stdout"]) for key, preset in PRESETS.items()}
    # The row of paper256_2fmap in the fork's train.py: batch, group, channels, learning rate, gamma, EMA, depth.
    few = found["vision-aided", "few-shot"]
    assert (few["batch_size"], few["D_kwargs"]["epilogue_kwargs"]["mbstd_group_size"]) == (16, 4)
    assert few["G_kwargs"]["synthesis_kwargs"]["channel_base"] == few["D_kwargs"]["channel_base"] == 32768
    assert few["G_opt_kwargs"]["lr"] == few["D_opt_kwargs"]["lr"] == 0.002
    assert (few["loss_kwargs"]["r1_gamma"], few["ema_kimg"], few["ema_rampup"]) == (1, 10, None)
    assert few["G_kwargs"]["mapping_kwargs"]["num_layers"] == 8


@pytest.mark.unit
@pytest.mark.parametrize("name, lbd_r1", [("cifar", 0.1), ("afhq-dog", 0.5), ("afhq-cat", 0.5), ("afhq-wild", 0.5)])
def test_gamma_of_contrads_presets_makes_the_authors_penalty(name, lbd_r1):
    """Theirs is of the gradient by images in [0, 1], which D scales to [-1, 1]; the hosts' of that by the latter."""
    gamma = next(float(flag[8:]) for flag in flags_in(PRESETS["contrad", name]) if flag.startswith("--gamma="))
    D = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)).double()
    theirs = torch.rand([2, 3, 4, 4], dtype=torch.float64).requires_grad_(True)
    ours = (theirs.detach() * 2 - 1).requires_grad_(True)
    penalties = [
        torch.autograd.grad(D(seen).sum(), leaf)[0].square().sum()
        for seen, leaf in ((theirs * 2 - 1, theirs), (ours, ours))
    ]
    torch.testing.assert_close(lbd_r1 / 2 * penalties[0], gamma / 2 * penalties[1])


@pytest.mark.unit
def test_the_hole_of_contrads_presets_has_the_published_255_of_512_pixels():
    for name in ("afhq-cat", "afhq-wild"):
        assert PRESETS["contrad", name].values["cutout_side"] * 512 == 255
    assert "cutout_side" not in PRESETS["contrad", "afhq-dog"].values


@pytest.mark.unit
@pytest.mark.parametrize("names", [["topk", "counting"], ["counting", "topk"]])
def test_plugins_that_change_the_data_set_are_configured_first(names):
    @hookimpl
    def configure(args: Any) -> None:
        args["training_set_kwargs"]["max_size"] = 100

    found = catalogue()
    if "counting" not in found.sources:
        plugin = ModuleType("counting")
        plugin.configure, plugin.changes_data = configure, True
        found.add("counting", plugin)
    args = {"training_set_kwargs": {"max_size": 200}, "loss_kwargs": {}, "G_kwargs": {}}
    plugins = found.activate(names, {})
    arguments._configure_plugins(args, plugins, frozenset())
    assert args["plugins"]["options"]["topk"]["epoch_kimg"] == 0.1 and args["plugins"]["active"] == names
