"""Options of plug-ins: dataclass <-> command line <-> training_options.json, and their effect on the host's arguments.

One process for each host gives many command lines to its train.py (drivers/run_many.py)."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import tempfile
from dataclasses import dataclass, fields

import click
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.hosts import ADA, FAMILIES, STYLEGAN3, install_plugin
from support.scripts import run_many, run_script

from stylegan_plugins import options as plugin_options
from stylegan_plugins.errors import OptionError, PluginError
from stylegan_plugins.manager import split_names
from stylegan_plugins.options import option
from stylegan_plugins.plugins.diffaugment import DiffAugmentOptions
from stylegan_plugins.run import arguments


@dataclass(frozen=True)
class Everything:
    """An option of every kind."""

    count: int = option(3, "a whole number", minimum=0, maximum=100)
    weight: float = option(0.2, "a number", minimum=0)
    shift: float = option(0.0, "a number of any sign")
    limit: int | None = option(None, "a whole number or nothing")
    flip_all: bool = option(True, "a switch")
    name: str = option("anything", "words")
    where: str = option("all", "one of three", choices=("all", "d", "g"))
    file: str | None = option(None, "a file or nothing")


unhurried = settings(deadline=None, max_examples=50)  # the machine may be busy
finite = st.floats(allow_nan=False, allow_infinity=False)
words = st.text(st.characters(blacklist_categories=["Cs", "Cc"]), max_size=20)
everything = st.fixed_dictionaries(
    {},
    optional={
        "count": st.integers(0, 100),
        "weight": finite.filter(lambda value: value >= 0),
        "shift": finite,
        "limit": st.integers(),
        "flip_all": st.booleans(),
        "name": words,
        "where": st.sampled_from(["all", "d", "g"]),
        "file": words,
    },
)


def parse(plugin: str, cls: type, args: list[str]) -> dict:
    """Return the values that click parses from a command line, by field, without options that are not given."""
    command = click.Command(
        "train", params=plugin_options.click_options(plugin, cls, {}), callback=lambda **values: values
    )
    values = command.main(args, standalone_mode=False)
    names = {plugin_options.parameter(plugin, field.name): field.name for field in fields(cls)}
    return {names[name]: value for name, value in values.items() if value is not None}


@pytest.mark.unit
@unhurried
@given(everything)
def test_options_come_through_command_line_and_json_unchanged(values):
    args = [f"{plugin_options.flag('my-plugin', name)}={value}" for name, value in values.items()]
    parsed = plugin_options.build("my-plugin", Everything, parse("my-plugin", Everything, args))
    assert parsed == Everything(**values)
    saved = json.loads(json.dumps(plugin_options.as_dict(parsed)))
    assert saved.keys() == {field.name for field in fields(Everything)}  # defaults included
    assert plugin_options.build("my-plugin", Everything, saved) == parsed


@pytest.mark.unit
@unhurried
@given(st.fixed_dictionaries({"policy": st.permutations(["color", "translation", "cutout"]).map(",".join)}))
def test_options_of_diffaugment_come_through_command_line_and_json_unchanged(values):
    parsed = parse("diffaugment", DiffAugmentOptions, [f"--diffaugment-policy={values['policy']}"])
    chosen = plugin_options.build("diffaugment", DiffAugmentOptions, parsed)
    saved = json.loads(json.dumps(plugin_options.as_dict(chosen)))
    assert plugin_options.build("diffaugment", DiffAugmentOptions, saved) == chosen == DiffAugmentOptions(**values)


@pytest.mark.unit
@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("weight", "nan"), ("weight", "inf"), ("shift", "-inf"), ("shift", "1e999"), ("weight", "-0.1")],
        *[("weight", ""), ("count", "1.5"), ("count", "101"), ("count", "-1"), ("count", "many"), ("limit", "none")],
        *[("where", "D"), ("where", ""), ("flip_all", "perhaps")],
    ],
)
def test_a_value_that_cannot_be_is_refused_on_the_command_line_and_in_a_saved_file(name, value):
    with pytest.raises(click.BadParameter):
        parse("my-plugin", Everything, [f"{plugin_options.flag('my-plugin', name)}={value}"])
    with pytest.raises(OptionError, match=plugin_options.flag("my-plugin", name)):
        plugin_options.build("my-plugin", Everything, {name: value})


@pytest.mark.unit
def test_a_field_that_a_plugin_does_not_have_is_refused_with_those_it_has():
    with pytest.raises(
        OptionError, match="--my-plugin-colour: my-plugin has no such option. It has: --my-plugin-count"
    ):
        plugin_options.build("my-plugin", Everything, {"colour": 1})


@pytest.mark.unit
def test_help_shows_default_bounds_and_the_plugin_an_option_needs():
    command = click.Command("train", params=plugin_options.click_options("my-plugin", Everything, {}))
    text = " ".join(command.get_help(click.Context(command, max_content_width=500, terminal_width=500)).split())
    assert "--my-plugin-weight FLOAT a number [default: 0.2; needs --plugin=my-plugin] [x>=0]" in text
    assert "--my-plugin-limit INT a whole number or nothing [default: none;" in text
    assert "--my-plugin-flip-all BOOL a switch [default: true;" in text
    assert "--my-plugin-where [all|d|g]" in text


@pytest.mark.unit
def test_options_of_an_unknown_kind_are_refused():
    @dataclass(frozen=True)
    class Sizes:
        sizes: tuple = option((), "several numbers")

    with pytest.raises(PluginError, match="'sizes' of 'my-plugin' is annotated .*tuple.*; options are bool, int"):
        plugin_options.check("my-plugin", Sizes)
    for other in (3, dataclass(type("Mutable", (), {}))):
        with pytest.raises(PluginError, match="OPTIONS of 'my-plugin' is .*; give a frozen dataclass"):
            plugin_options.check("my-plugin", other)


# --- --plugin ------------------------------------------------------------------------------------------------------

names = st.lists(st.text("ab-_9", min_size=1, max_size=5), max_size=6)
blanks = st.sampled_from(["", " "])


@pytest.mark.unit
@unhurried
@given(names, st.data())
def test_plugins_are_active_in_the_order_given_however_they_are_written(names, data):
    values, rest = [], list(names)
    while rest:  # some repeat --plugin, some write commas, some leave blanks or commas behind
        count = data.draw(st.integers(1, len(rest)))
        written = [data.draw(blanks) + name + data.draw(blanks) for name in rest[:count]]
        values.append(",".join(written) + data.draw(st.sampled_from(["", ","])))
        rest = rest[count:]
    assert split_names(tuple(values)) == list(dict.fromkeys(names))


@pytest.mark.unit
@pytest.mark.parametrize("values", [(), ("",), ("none",), ("None", ""), (" , ",)])
def test_nothing_and_none_mean_no_plugin(values):
    assert split_names(values) == []


@pytest.mark.unit
@pytest.mark.parametrize(("names", "told"), [(("",), True), ((",", " "), True), (("none",), False), ((), False)])
def test_a_plugin_option_that_names_nothing_is_told(names, told, capsys):
    arguments.Request.parse({"plugin": names, "gan_loss": None}, frozenset())
    assert capsys.readouterr().err.endswith("names no plug-in: training without.\n") == told


@pytest.mark.unit
def test_the_path_of_a_file_is_recorded_in_full_and_a_name_as_it_is(tmp_path, monkeypatch):
    @dataclass(frozen=True)
    class Options:
        weights: str = option("published", "a file", metavar="FILE")
        features: str = option("vgg16", "a name", metavar="NAME|FILE")

    monkeypatch.chdir(tmp_path)
    for name in ("weights.pth", "published", "vgg16"):
        (tmp_path / name).write_bytes(b"")
    assert plugin_options.from_anywhere(Options, "weights", "weights.pth") == str(tmp_path / "weights.pth")
    assert plugin_options.from_anywhere(Options, "weights", "published") == "published"
    assert plugin_options.from_anywhere(Options, "weights", "none.pth") == "none.pth"
    assert plugin_options.from_anywhere(Options, "features", "vgg16") == "vgg16"
    assert plugin_options.from_anywhere(None, "preset", "ffhq") == "ffhq"


# --- The host's training command -----------------------------------------------------------------------------------


def command(*options: str) -> click.Command:
    return click.Command("train", params=[click.Option([name]) for name in options])


@pytest.mark.unit
def test_options_that_a_host_has_itself_are_left_to_it():
    ours = {name for option in arguments.options_for(command("--cbase", "--tick")) for name in option.opts}
    assert {"--plugin", "--device", "--gan-loss", "--cmax", "--batch-gpu", "--diffaugment-policy"} <= ours
    assert not {"--cbase", "--tick"} & ours


@pytest.mark.unit
def test_an_option_of_an_inactive_plugin_is_refused_with_its_value():
    values = {"plugin": (), "gan_loss": None, "diffaugment_cutout": 0.0}
    with pytest.raises(OptionError, match="--diffaugment-cutout=0.0: diffaugment is not active"):
        arguments.Request.parse(values, frozenset())


LINES = {  # command lines without --plugin; the metrics are given, since their default is another one on a CPU
    ADA: [
        [],
        ["--cfg=paper256", "--mirror=1", "--aug=noaug", "--fp32=1"],
        ["--gamma=3", "--kimg=7", "--batch=16", "--aug=fixed", "--p=0.3", "--augpipe=bg", "--workers=1", "--nhwc=1"],
        ["--cfg=cifar", "--subset=10", "--seed=3", "--snap=2", "--target=0.7", "--freezed=2", "--nobench=1"],
    ],
    STYLEGAN3: [
        ["--cfg=stylegan2", "--gpus=1", "--batch=8", "--gamma=1"],
        ["--cfg=stylegan3-r", "--gpus=2", "--batch=32", "--batch-gpu=8", "--gamma=2", "--mirror=1", "--cbase=16384"],
        ["--cfg=stylegan3-t", "--gpus=1", "--batch=8", "--gamma=1", "--aug=fixed", "--tick=1", "--desc=mine"],
    ],
}
SHIM = """
def parse_version(text):
    return tuple(map(int, text.split('+')[0].rstrip('a').split('.')))
"""


@pytest.fixture(scope="module")
def shims(tmp_path_factory):
    """The PYTHONPATH with what an unpatched stylegan3 imports and newer setuptools lack."""
    top = tmp_path_factory.mktemp("shims")
    (top / "pkg_resources.py").write_text(SHIM)
    return str(top)


def dry_run(family, color_zip, *args: str) -> list[str]:
    of_family = ["--cfg=auto"] if family == ADA else LINES[STYLEGAN3][0]
    required = [] if any(arg.startswith("--cfg") for arg in args) else of_family
    outdir = os.path.join(tempfile.gettempdir(), "no-such-folder")  # in full, as a patched host records it
    return [f"--outdir={outdir}", f"--data={color_zip}", "--dry-run", *required, *args]


def options_of(result: dict) -> dict:
    """Return the training options that a dry run printed."""
    assert result["code"] == 0, result["stderr"]
    text = result["stdout"]
    return json.JSONDecoder().raw_decode(text[text.index("{") :])[0]


@pytest.mark.host
@pytest.mark.parametrize("family", FAMILIES)
def test_without_plugins_a_patched_host_has_the_options_of_an_unpatched_one(family, fetched, patched, color_zip, shims):
    runs = [dry_run(family, color_zip, "--metrics=none", *line) for line in LINES[family]]
    runs.append(dry_run(family, color_zip))
    runs += [dry_run(family, color_zip, "--metrics=none", "--device=cpu")]
    stock = run_many(fetched[family], runs[:-1], PYTHONPATH=shims)
    *ours, default, on_cpu = run_many(patched[family], runs)
    host = {"host": str(patched[family])}
    for run, same in zip(ours, stock[:-1], strict=True):
        assert options_of(run) == options_of(same) | host and run["stderr"] == same["stderr"]
        assert run["stdout"].split("}\n\n")[1] == same["stdout"].split("}\n\n")[1]
    # On a CPU the default metric is none.
    assert options_of(stock[-1])["metrics"] == ["fid50k_full"]
    assert options_of(default) == options_of(stock[-1]) | {"metrics": []} | host
    assert options_of(on_cpu) == options_of(ours[0]) | {"device": "cpu"}


@pytest.fixture(scope="module")
def configured(patched, color_zip):
    """Options and output of dry runs of the patched hosts, by family and name."""
    lines = {
        "plain": [],
        "diffaugment": ["--plugin=diffaugment", "--diffaugment-cutout=0.25"],
        "diffaugment with ada": ["--plugin=diffaugment", "--aug=ada"],
        "diffaugment without augmentation": ["--plugin=diffaugment", "--aug=noaug"],
        "hinge": ["--gan-loss=hinge"],
        "nonsaturating": ["--gan-loss=nonsaturating"],
        "rates": ["--glr=0.004", "--dlr=0.003", "--pl-weight=0", "--ema-kimg=0.5"],
        "sizes": ["--cbase=1024", "--cmax=64", "--tick=2", "--batch=16", "--batch-gpu=4"],
        "contrad's half-life": ["--plugin=contrad", "--contrad-ema=5", "--ema-kimg=0.5"],
        "projected's half-life": ["--plugin=projected", "--projected-ema=5", "--ema-kimg=0.5"],
        "subset": ["--subset=20"],
        "too large a subset": ["--subset=65"],
        "no workers": ["--workers=0"],
        "no noise inputs": ["--no-noise-inputs"],
        "no noise inputs of StyleGAN3": ["--cfg=stylegan3-t", *LINES[STYLEGAN3][0][1:], "--no-noise-inputs"],
        "metrics": ["--metrics=fid50k_full"],
    }
    found = {}
    for family in FAMILIES:
        results = run_many(patched[family], [dry_run(family, color_zip, *line) for line in lines.values()])
        found |= {(family, name): result for name, result in zip(lines, results, strict=True)}
    return found


FAMILY = pytest.mark.parametrize("family", FAMILIES)


def difference(ours: dict, plain: dict) -> dict:
    """Return the options of a run that another run lacks or has with other values, nested."""
    return {
        key: difference(value, plain[key]) if isinstance(value, dict) and isinstance(plain.get(key), dict) else value
        for key, value in ours.items()
        if key not in plain or plain[key] != value
    }


@pytest.mark.host
@FAMILY
def test_the_options_of_a_run_hold_every_plugin_and_option_and_its_folder_names_them(family, configured):
    plain, ours = (options_of(configured[family, name]) for name in ("plain", "diffaugment"))
    assert difference(ours, plain) == {
        "plugins": {
            "active": ["diffaugment"],
            "options": {"diffaugment": plugin_options.as_dict(DiffAugmentOptions(cutout=0.25))},
        },
        "loss_kwargs": {"class_name": "training_ext.loss.PluginLoss"},
        "run_dir": plain["run_dir"] + "-diffaugment",
    }
    assert plain.keys() - ours.keys() == {"augment_kwargs", "ada_target"}
    assert ours["run_dir"] in configured[family, "diffaugment"]["stdout"].split("Output directory:")[1]


@pytest.mark.host
@FAMILY
def test_diffaugment_switches_ada_off_and_says_so_unless_aug_was_given(family, configured):
    message = "diffaugment: --aug=noaug, the authors' setting"
    assert message in configured[family, "diffaugment"]["stdout"]
    given = configured[family, "diffaugment with ada"]
    assert message not in given["stdout"]
    assert options_of(given)["augment_kwargs"] == options_of(configured[family, "plain"])["augment_kwargs"]
    assert options_of(given)["ada_target"] == 0.6
    assert message not in configured[family, "diffaugment without augmentation"]["stdout"]
    assert "augment_kwargs" not in options_of(configured[family, "diffaugment without augmentation"])


@pytest.mark.host
@FAMILY
def test_an_adversarial_loss_takes_our_loss_class_and_names_itself(family, configured):
    plain = options_of(configured[family, "plain"])
    for name in ("hinge", "nonsaturating"):
        changed = difference(options_of(configured[family, name]), plain)
        assert changed == {"loss_kwargs": {"class_name": "training_ext.loss.PluginLoss", "gan_loss": name}}


@pytest.mark.host
@FAMILY
def test_capacity_tick_and_batch_of_a_gpu_are_set_where_stylegan3_sets_them(family, configured):
    ours = options_of(configured[family, "sizes"])
    generator = ours["G_kwargs"]["synthesis_kwargs"] if family == ADA else ours["G_kwargs"]
    for network in (generator, ours["D_kwargs"]):
        assert (network["channel_base"], network["channel_max"]) == (1024, 64)
    assert (ours["kimg_per_tick"], ours["batch_size"], ours["batch_gpu"]) == (2, 16, 4)


@pytest.mark.host
@FAMILY
def test_a_subset_is_so_many_images_and_has_its_name_in_the_folder(family, configured):
    ours, plain = (options_of(configured[family, name]) for name in ("subset", "plain"))
    assert ours["training_set_kwargs"] == plain["training_set_kwargs"] | {"max_size": 20, "random_seed": 0}
    assert "-subset20" in configured[family, "subset"]["stdout"]
    refused = configured[family, "too large a subset"]
    assert refused["code"] != 0 and re.search("--subset.*64", refused["stderr"])


@pytest.mark.host
@FAMILY
@pytest.mark.parametrize("name", ["contrad", "projected"])
def test_one_half_life_of_the_average_is_refused_beside_another(family, name, configured):
    refused = configured[family, f"{name}'s half-life"]
    said = f"Error: --{name}-ema=5: --ema-kimg sets the same half-life. Give one of them.\n"
    assert refused["code"] == 2 and refused["stderr"].endswith(said)


@pytest.mark.host
@FAMILY
def test_rates_and_the_weight_of_path_lengths_change_nothing_else(family, configured):
    ours, plain = (options_of(configured[family, name]) for name in ("rates", "plain"))
    for key, rate in (("G_opt_kwargs", 0.004), ("D_opt_kwargs", 0.003)):
        assert ours[key] == plain[key] | {"lr": rate}
    assert ours["loss_kwargs"] == plain["loss_kwargs"] | {"pl_weight": 0}
    assert (ours["ema_kimg"], ours.get("ema_rampup")) == (0.5, plain.get("ema_rampup")) != plain["ema_kimg"]


@pytest.mark.host
@FAMILY
def test_noise_inputs_are_left_out_of_stylegan2_alone(family, configured):
    ours, plain = (options_of(configured[family, name])["G_kwargs"] for name in ("no noise inputs", "plain"))
    if family == ADA:
        ours, plain = ours["synthesis_kwargs"], plain["synthesis_kwargs"]
    assert ours == plain | {"use_noise": False}
    refused = configured[STYLEGAN3, "no noise inputs of StyleGAN3"]
    assert refused["code"] == 2 and "StyleGAN3's generator has no noise inputs" in refused["stderr"]


@pytest.mark.host
@FAMILY
def test_no_workers_leaves_no_prefetch_factor_behind(family, configured):
    assert options_of(configured[family, "no workers"])["data_loader_kwargs"] == {"pin_memory": True, "num_workers": 0}


@pytest.mark.host
@FAMILY
def test_metrics_that_were_given_are_kept_on_a_cpu_and_not_looked_for_in_a_dry_run(family, configured):
    assert options_of(configured[family, "metrics"])["metrics"] == ["fid50k_full"]


GIVEN = """
from stylegan_plugins import hookimpl
@hookimpl
def configure(explicit):
    print("given:", *sorted(explicit))
"""


@pytest.mark.host
@FAMILY
def test_a_plugin_is_told_exactly_the_options_that_were_given(family, patched, color_zip, tmp_path):
    path = install_plugin(tmp_path, "curious", GIVEN)
    extra = [] if family == ADA else ["--gamma=1", "--gpus=1", "--cfg=stylegan2"]
    args = [*dry_run(family, color_zip, *extra), "--plugin=curious", "--batch=8", "--batch-gpu=8", "--mirror=0"]
    (result,) = run_many(patched[family], [args], PYTHONPATH=path)
    given = result["stdout"].split("given: ")[1].splitlines()[0].split()
    names = [arg[2:].split("=")[0].replace("-", "_") for arg in args]
    assert given == sorted(names), "defaults are not given, whichever family has the option"


@pytest.mark.unit
def test_a_device_from_the_environment_does_not_become_a_key(monkeypatch):
    monkeypatch.setitem(os.environ, "STYLEGAN_PLUGINS_DEVICE", "cpu")
    args = {"metrics": []}
    assert arguments.configure("run", args, arguments.Request()) == ("run", {"metrics": []})


@pytest.mark.host
def test_a_gpu_may_get_as_many_images_as_nvidias_minibatch_layer_takes(family, fetched):
    name = "networks" if family == ADA else "networks_stylegan2"
    code = f"""
import itertools, json, torch
from stylegan_plugins.host import compat; compat.install()
from training.{name} import MinibatchStdLayer
taken = []
for group, count in itertools.product([None, *range(1, 9)], range(1, 21)):
    try:
        MinibatchStdLayer(group)(torch.zeros([count, 1, 4, 4]))
    except RuntimeError:
        continue
    taken.append([group, count])
print(json.dumps(taken))
"""
    taken = json.loads(run_script(fetched[family], "-c", code).stdout.splitlines()[-1])
    ours = []
    for group, count in itertools.product([None, *range(1, 9)], range(1, 21)):
        args = {"batch_size": count, "batch_gpu": count, "D_kwargs": {"epilogue_kwargs": {"mbstd_group_size": group}}}
        with contextlib.suppress(OptionError):
            arguments._check_groups(args, frozenset())
            ours.append([group, count])
    assert ours == taken and [4, 2] in taken and [4, 6] not in taken


@pytest.mark.host
def test_a_small_batch_gpu_is_taken_with_a_larger_group(patched, color_zip):
    (result,) = run_many(patched[ADA], [dry_run(ADA, color_zip, "--batch=8", "--batch-gpu=2")])
    assert result["code"] == 0 and '"batch_gpu": 2' in result["stdout"]
