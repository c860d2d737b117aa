"""Folders of runs from elsewhere: nothing in them is executed, and each ends in one line or trains."""

from __future__ import annotations

import copy
import hashlib
import json
import shutil

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.hosts import ADA
from support.images import color_crops, write_zip
from support.runs import options, run_to_its_end
from support.scripts import DRIVERS, run_script

from stylegan_plugins import cache
from stylegan_plugins.errors import DataError, OptionError, PluginError, StateError
from stylegan_plugins.files import run_folders, trees
from stylegan_plugins.files.checksums import record_checksum
from stylegan_plugins.files.states import Info
from stylegan_plugins.manager import recorded
from stylegan_plugins.run import argument_schema, arguments, identity
from stylegan_plugins.run.optimizers import fuse_on_cpu, load_optimizer

ADAM = {"class_name": "torch.optim.Adam", "lr": 0.0025, "betas": [0, 0.99], "eps": 1e-8}
CHANNELS = {"channel_base": 256, "channel_max": 16, "num_fp16_res": 4, "conv_clamp": 256}
ARGUMENTS = {
    "num_gpus": 1,
    "training_set_kwargs": {"class_name": "training.dataset.ImageFolderDataset", "path": "a.zip", "use_labels": False},
    "data_loader_kwargs": {"pin_memory": True, "num_workers": 3, "prefetch_factor": 2},
    "G_kwargs": {"class_name": "training.networks.Generator", "z_dim": 512, "synthesis_kwargs": CHANNELS},
    "D_kwargs": {"class_name": "training.networks.Discriminator", "epilogue_kwargs": {"mbstd_group_size": 4}},
    "G_opt_kwargs": ADAM,
    "D_opt_kwargs": ADAM,
    "loss_kwargs": {"class_name": "training_ext.loss.PluginLoss", "r1_gamma": 0.0016},
    "random_seed": 0,
    "total_kimg": 25000,
    "batch_size": 8,
    "batch_gpu": 8,
    "ema_kimg": 10.0,
    "ada_target": 0.6,
    "metrics": [],
}


def paths_of(value: object, path: tuple = ()) -> list[tuple]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(inner for key, item in items for inner in paths_of(item, (*path, key)))]


def with_(path: tuple | str, value: object) -> dict:
    """Return the arguments with another value in one place."""
    changed = copy.deepcopy(ARGUMENTS)
    *parents, last = path.split(".") if isinstance(path, str) else path
    place = changed
    for key in parents:
        place = place[key]
    place[last] = value
    return changed


@pytest.mark.unit
def test_arguments_of_a_run_are_taken():
    argument_schema.check(ARGUMENTS)


@pytest.mark.unit
@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("loss_kwargs.r1_gamma", float("inf"), "--gamma=inf: expected a finite number."),
        ("loss_kwargs.r1_gamma", float("nan"), "--gamma=nan: expected a finite number."),
        ("random_seed", -1, "--seed=-1: expected int >= 0."),
        ("random_seed", 2**40, "--seed=1099511627776: expected int <= 2147483647."),
        ("state_minutes", float("nan"), "--state-minutes=nan: expected a finite number."),
        ("batch_size", 0, "--batch=0: expected int >= 1."),
        ("total_kimg", "many", "--kimg=many: expected float, got str."),
        ("G_kwargs", [], "G_kwargs is []: expected object, got array."),
        ("G_kwargs.z_dim", 2**20, "G_kwargs.z_dim is 1048576: expected int <= 8192."),
        ("augment_p", 1.5, "--p=1.5: expected float <= 1.0."),
    ],
)
def test_a_value_that_no_run_has_is_one_line(path, value, message):
    with pytest.raises(OptionError) as error:
        argument_schema.check(with_(path, value))
    assert str(error.value) == message


NUMBERS = st.integers() | st.floats()
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)


@pytest.mark.unit
@given(st.sampled_from(paths_of(ARGUMENTS)[1:]), JSON)
def test_any_value_in_any_place_is_taken_or_one_line(path, value):
    try:
        argument_schema.check(with_(path, value), "training_options.json: ")
    except OptionError as error:
        assert "\n" not in str(error) and str(error).startswith("training_options.json: ")


@pytest.mark.unit
@given(st.binary(max_size=200) | st.text().map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_bytes_of_others_are_no_tree(data):
    with pytest.raises(DataError):
        trees.from_bytes(data)


TENSORLESS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text() | st.integers(), inner, max_size=4)
    ),
)


@pytest.mark.unit
@given(TENSORLESS)
def test_a_tree_comes_back_as_it_was(value):
    assert trees.from_bytes(trees.to_bytes(value)) == value


@pytest.mark.unit
def test_a_plugin_file_of_a_run_from_elsewhere_is_not_executed_before_the_user_allows_it(tmp_path, monkeypatch):
    monkeypatch.setenv("STYLEGAN_PLUGINS_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "mine.py"
    file.write_text(f"open({str(tmp_path / 'was-run')!r}, 'w')\n")
    from stylegan_plugins.cli import cli

    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    record = {"active": ["mine"], "options": {}, "files": {"mine": {"path": str(file), "sha256": digest}}}
    with pytest.raises(PluginError, match="would be executed, and which you have not used here so far"):
        recorded(record)
    assert not (tmp_path / "was-run").exists()
    cli(["info", str(file)], standalone_mode=False)
    cache.check_trust(record["files"])
    file.write_text("changed")
    with pytest.raises(PluginError, match="has changed since the run began"):
        recorded(record)


@pytest.mark.unit
def test_the_newest_whole_snapshot_and_the_newest_run_are_taken(tmp_path, capsys):
    for number, name in ((0, "a"), (2, "b"), (10, "c")):
        (tmp_path / f"{number:05d}-{name}").mkdir()
        (tmp_path / f"{number:05d}-{name}" / "training_options.json").write_text("{}")
    (tmp_path / "00011-without-options").mkdir()
    run = run_folders.newest_run(tmp_path)
    assert run.name == "00010-c" and run_folders.newest_run(run) == run
    contents = {0: b"whole.", 4: b"changed later.", 8: b"cut o"}
    for kimg, content in contents.items():
        file = run / f"network-snapshot-{kimg:06d}.pkl"
        file.write_bytes(content)
        if kimg == 4:
            record_checksum(file)
            file.write_bytes(b"other.")
    assert run_folders.newest_pickle(run).name == "network-snapshot-000000.pkl"
    assert capsys.readouterr().err.count("is cut off or damaged") == 2


# Runs. --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def unfinished(ada_host, small_zip, tmp_path_factory):
    """A run of two iterations that continues for one more."""
    top = tmp_path_factory.mktemp("unfinished")
    args = options(ada_host, ADA, small_zip, top, "--plugin=diffaugment,augself", "--aug=ada", "--device=cpu")
    args |= {"total_kimg": 2 * args["batch_size"] / 1000, "kimg_per_tick": 9, "state_minutes": 10.0}
    run_to_its_end(ada_host, args | {"image_snapshot_ticks": 9, "network_snapshot_ticks": 9}, top / "run")
    file = top / "run" / "training_options.json"
    args = json.loads(file.read_text()) | {"total_kimg": 3 * args["batch_size"] / 1000}
    file.write_text(json.dumps(args | {"image_snapshot_ticks": None, "network_snapshot_ticks": None}))
    return top / "run"


@pytest.mark.run
def test_nothing_that_a_crafted_run_names_is_called(ada_host, unfinished, tmp_path):
    marker = tmp_path / "was-run"
    run = shutil.copytree(unfinished, tmp_path / "run")
    args = json.loads((run / "training_options.json").read_text())
    for class_name in ("os.system", "training.dataset.os.system", "subprocess.call", "builtins.exec"):
        crafted = args | {"loss_kwargs": {"class_name": class_name, "command": f"touch {marker}"}}
        (run / "training_options.json").write_text(json.dumps(crafted))
        done = run_script(ada_host, "train.py", f"--resume-run={run}", check=False)
        assert done.returncode == 2 and f"is {class_name!r}, which is not a class of this host" in done.stderr
    assert not marker.exists()


@pytest.mark.run
def test_a_run_without_a_data_set_is_one_line(ada_host, unfinished, tmp_path):
    run = shutil.copytree(unfinished, tmp_path / "run")
    args = json.loads((run / "training_options.json").read_text())
    del args["training_set_kwargs"]["path"]
    (run / "training_options.json").write_text(json.dumps(args))
    done = run_script(ada_host, "train.py", f"--resume-run={run}", check=False)
    assert done.returncode == 2 and "training_set_kwargs.path, of the data set, is missing." in done.stderr


@pytest.mark.run
def test_mutants_of_a_run_train_or_are_refused_in_one_line(ada_host, unfinished, tmp_path):
    # The same ones each time; benchmarks/mutants_of_runs.py draws others.
    done = run_script(ada_host, str(DRIVERS / "mutants.py"), str(unfinished), "16", "1", timeout=400)
    ends = json.loads(done.stdout.splitlines()[-1])
    assert [mutant for mutant in ends if mutant[2] not in ("trained", "refused")] == []
    assert len(ends) == 16


@pytest.mark.unit
def test_a_run_goes_on_with_the_same_data_and_arguments_or_with_a_yes(tmp_path, monkeypatch):
    monkeypatch.setenv("STYLEGAN_PLUGINS_CACHE", str(tmp_path / "cache"))
    crops = color_crops(5, side=16)
    args = with_("training_set_kwargs.path", str(write_zip(tmp_path / "a.zip", crops[:4])))
    info = Info(8, 1, **identity.identity_of(args))
    moved = shutil.copy(tmp_path / "a.zip", tmp_path / "moved.zip")
    free = {
        "total_kimg": 9,
        "metrics": ["fid50k_full"],
        "run_dir": "elsewhere",
        "state_minutes": 1.0,
        "resume_pkl": None,
    }
    told: list[str] = []
    identity.check_identity(info, args | free, False, told.append)
    path = lambda file: {"training_set_kwargs": args["training_set_kwargs"] | {"path": str(file)}}
    identity.check_identity(info, args | path(moved), False, told.append)
    assert told == []
    changes = {
        "are not those that the run was trained on": path(write_zip(tmp_path / "more.zip", crops)),
        "images of .*other.zip are not": path(write_zip(tmp_path / "other.zip", crops[1:])),
        "batch_size is 16 in training_options.json, and the run was trained with 8": {"batch_size": 16},
        r"loss_kwargs.r1_gamma is 5 in": {"loss_kwargs": args["loss_kwargs"] | {"r1_gamma": 5}},
        "augment_p is 0.5 in training_options.json, and the run was trained with None": {"augment_p": 0.5},
    }
    for message, change in changes.items():
        with pytest.raises(StateError, match=message):
            identity.check_identity(info, args | change, False, told.append)
        identity.check_identity(info, args | change, True, told.append)
    assert len(told) == len(changes) and all(line.startswith("Accepted: ") for line in told)
    info.versions["PyTorch"] = "1.0"
    identity.check_identity(info, args, False, told.append)
    assert told[-1].startswith(f"PyTorch is {torch.__version__}, and was 1.0: the run goes on")


@pytest.mark.unit
def test_every_option_that_a_run_records_is_known_when_it_is_resumed():
    assert {*arguments.KEPT, "plugins", "device", "trust_pickle"} <= {*argument_schema.Arguments.__struct_fields__}
    with pytest.raises(OptionError, match="on_nan is 'maybe': expected"):
        argument_schema.check({**ARGUMENTS, "on_nan": "maybe"})


@pytest.mark.unit
def test_labels_count_for_a_run_that_uses_them_and_arguments_of_forks_count(tmp_path, monkeypatch):
    monkeypatch.setenv("STYLEGAN_PLUGINS_CACHE", str(tmp_path / "cache"))
    crops = color_crops(4, side=16)
    data = [
        write_zip(tmp_path / f"{name}.zip", crops, labels) for name, labels in (("a", [0, 1, 0, 1]), ("b", [1] * 4))
    ]
    args = [with_("training_set_kwargs.path", str(file)) for file in data]
    identity.check_identity(Info(8, 1, **identity.identity_of(args[0])), args[1], False, print)
    for these in args:
        these["training_set_kwargs"]["use_labels"] = True
    info = Info(8, 1, **identity.identity_of(args[0]))
    with pytest.raises(StateError, match="labels of .*b.zip are not those that the run was trained on"):
        identity.check_identity(info, args[1], False, print)
    with pytest.raises(StateError, match="metrics_of_a_fork is 1 in training_options.json"):
        identity.check_identity(info, args[0] | {"metrics_of_a_fork": 1}, False, print)


@pytest.mark.unit
@pytest.mark.parametrize("value", [[[[[]]]], [1], {"a": 1}])
def test_options_of_plugins_that_are_lists_are_one_line(value):
    with pytest.raises(OptionError, match="--diffaugment-brightness: expected float, not"):
        recorded({"active": ["diffaugment"], "options": {"diffaugment": {"brightness": value}}})


@pytest.mark.unit
def test_optimisers_of_crafted_states_are_refused():
    parameters = [torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(2, 2))]
    optimizer = torch.optim.Adam(parameters, lr=0.002, betas=(0.0, 0.99))
    sum(parameter.sum() for parameter in parameters).backward()
    optimizer.step()
    sound = optimizer.state_dict()
    load_optimizer(optimizer, trees.from_bytes(trees.to_bytes(sound)))
    crafted = {
        "exp_avg of parameter 0 has another shape": lambda state: state["state"][0].update(exp_avg=torch.ones(4)),
        "exp_avg_sq of parameter 1 has another shape": lambda state: state["state"][1].update(
            exp_avg_sq=torch.ones([])
        ),
        "step of parameter 1 has another shape": lambda state: state["state"][1].update(step=torch.ones(2, 2)),
        "in another order": lambda state: state["param_groups"][0].update(params=[1, 0]),
        "are missing": lambda state: state["state"][0].pop("exp_avg_sq"),
        "'str' object has no attribute": lambda state: state["state"][0].update(exp_avg="x"),
        "lr of the optimiser is nan": lambda state: state["param_groups"][0].update(lr=float("nan")),
        "betas of the optimiser": lambda state: state["param_groups"][0].update(betas=[0]),
        "fused of the optimiser is 1": lambda state: state["param_groups"][0].update(fused=1),
        "list index out of range": lambda state: state["state"].update({7: state["state"][0]}),
    }
    for message, craft in crafted.items():
        state = copy.deepcopy(sound)
        craft(state)
        with pytest.raises((ValueError, LookupError, AttributeError), match=message):
            load_optimizer(optimizer, state)


@pytest.mark.unit
@pytest.mark.parametrize(("given", "fused"), [({}, True), ({"fused": False}, False), ({"foreach": True}, None)])
def test_adam_is_fused_on_a_cpu_unless_the_run_says_otherwise(given, fused):
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.ones(3))], **given)
    fuse_on_cpu([optimizer])
    assert [group["fused"] for group in optimizer.param_groups] == [fused]
    across = torch.nn.Parameter(
        torch.ones(3, 2, 2, 2).to(memory_format=torch.channels_last)
    )  # a state has it contiguous
    for parameter, how in ((across, {}), (torch.nn.Parameter(torch.ones(3)), {"differentiable": True})):
        adam = torch.optim.Adam([parameter], **how)
        fuse_on_cpu([adam])
        assert adam.param_groups[0]["fused"] is None
    others = torch.optim.SGD([torch.nn.Parameter(torch.ones(3))])
    fuse_on_cpu([others])
    assert others.param_groups[0]["fused"] is None


@pytest.mark.unit
def test_a_run_begun_before_adam_was_fused_continues_as_it_was():
    def stepped(optimizer, count):
        for _ in range(count):
            parameter.grad = parameter.detach() * 0.3
            optimizer.step()

    parameter = torch.nn.Parameter(torch.linspace(-1, 1, 50))
    old = torch.optim.Adam([parameter], lr=0.002, betas=(0.0, 0.99))
    stepped(old, 3)
    state, weights = trees.from_bytes(trees.to_bytes(old.state_dict())), parameter.detach().clone()
    stepped(old, 3)
    expected = parameter.detach().clone()
    new = torch.optim.Adam([parameter], lr=0.002, betas=(0.0, 0.99))
    fuse_on_cpu([new])
    with torch.no_grad():
        parameter.copy_(weights)
    load_optimizer(new, state)
    stepped(new, 3)
    assert torch.equal(parameter, expected) and not new.param_groups[0]["fused"]


@pytest.mark.unit
def test_a_state_does_not_fuse_the_steps_of_weights_that_lie_in_another_order():
    """One call takes weights and moments as they lie in memory, and would mix them up."""
    plain, across = (torch.nn.Parameter(torch.ones(3, 2, 2, 2)) for _ in range(2))
    across.data = across.data.to(memory_format=torch.channels_last)
    fused = torch.optim.Adam([plain], lr=0.002, betas=(0.0, 0.99), fused=True)
    plain.sum().backward()
    fused.step()
    with pytest.raises(ValueError, match="fused of the optimiser is True"):
        load_optimizer(torch.optim.Adam([across], lr=0.002, betas=(0.0, 0.99)), fused.state_dict())
