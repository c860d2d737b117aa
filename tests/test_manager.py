"""Discovery of plug-ins, calls of their hooks, what is refused and why, and tracing."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import types
from collections.abc import Callable

import numpy as np
import pytest
import torch
from support.hosts import install_plugin

from stylegan_plugins import hookimpl, hookspecs, manager, tracing
from stylegan_plugins.errors import OptionError, PluginError
from stylegan_plugins.manager import Catalogue, builtin, catalogue
from stylegan_plugins.options import Preset
from stylegan_plugins.plugins import diffaugment
from stylegan_plugins.testing import activate

pytestmark = pytest.mark.unit


def plugin(name: str, *, attributes: dict | None = None, **hooks: Callable) -> types.ModuleType:
    """Return a plug-in as a module: `hooks` are its functions."""
    module = types.ModuleType(name)
    for hook, function in hooks.items():
        function.__name__ = hook
        setattr(module, hook, hookimpl(function))
    vars(module).update(attributes or {})
    return module


@pytest.fixture
def install():
    """install(*modules): a catalogue with these plug-ins beside the installed ones."""

    class Entry:
        def __init__(self, module: types.ModuleType) -> None:
            self.module = module

        def load(self) -> types.ModuleType:
            return self.module

    def install(*modules: types.ModuleType) -> Catalogue:
        found = Catalogue()
        found.sources |= {module.__name__: Entry(module) for module in modules}  # type: ignore[misc]
        return found

    return install


# --- Discovery. ----------------------------------------------------------------------------------------------------


def test_importing_the_manager_imports_neither_a_plugin_nor_torch_nor_reads_entry_points(tmp_path):
    code = (
        "import importlib.metadata, json, sys\n"
        "importlib.metadata.entry_points = None\n"
        "import stylegan_plugins.manager\n"
        "print(json.dumps([name for name in sys.modules if name.startswith(('stylegan_plugins', 'torch', 'loud'))]))"
    )
    path = install_plugin(tmp_path, "loud", "print('imported')")
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)) == {
        "stylegan_plugins",
        "stylegan_plugins.cache",
        "stylegan_plugins.errors",
        "stylegan_plugins.tracing",
        "stylegan_plugins.hookspecs",
        "stylegan_plugins.manager",
        "stylegan_plugins.options",
    }


def test_builtin_plugins_come_first_and_a_package_cannot_take_their_names(tmp_path, monkeypatch):
    install_plugin(tmp_path, "diffaugment", "")
    install_plugin(tmp_path, "aardvark", "")
    monkeypatch.syspath_prepend(tmp_path)
    found = Catalogue()
    names = list(found.sources)
    assert names[: len(builtin())] == list(builtin()) and "aardvark" in names[len(builtin()) :]
    assert found.load("diffaugment") is diffaugment


@pytest.mark.parametrize("name", builtin())
def test_every_builtin_plugin_can_be_imported_and_says_what_it_is(name):
    found = Catalogue()
    module = found.load(name)
    assert module.PAPER and found.hooks_of(name)
    assert found.summary(name) == (manager.headline(module.__doc__), found.hooks_of(name))  # read, not imported


def test_an_unknown_plugin_names_the_nearest_and_lists_the_installed():
    found = Catalogue()
    with pytest.raises(PluginError) as error:
        found.load("difaugment")
    assert str(error.value) == (
        f"--plugin: there is no plug-in 'difaugment'. Did you mean diffaugment? Installed: {', '.join(found.sources)}."
    )


def test_a_name_like_none_other_is_told_no_nearest():
    with pytest.raises(PluginError, match="there is no plug-in 'xyzzy'. Installed: "):
        Catalogue().load("xyzzy")


def test_a_file_is_a_plugin_without_packaging(tmp_path):
    file = tmp_path / "my_noise.py"
    file.write_text('"""Mine."""\nfrom stylegan_plugins import hookimpl\n@hookimpl\ndef setup(): return None\n')
    found = Catalogue()
    plugins = found.activate([str(file), "diffaugment"], {})
    assert plugins.names == ("my-noise", "diffaugment")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert plugins.record()["files"] == {"my-noise": {"path": str(file), "sha256": digest, "hooks": ["setup"]}}
    assert found.hooks_of("my-noise") == ["setup"] and found.summary("my-noise") == ("Mine.", ["setup"])


def test_a_preset_of_a_field_that_is_missing_is_refused(tmp_path):
    preset = types.SimpleNamespace(OPTIONS=None, PRESETS={"p": Preset({"wieght": 2.0}, "x")})
    with pytest.raises(PluginError, match="the preset 'p' of 'mine' sets 'wieght', which is none of its options"):
        Catalogue().add("mine", preset)


def test_the_test_kit_takes_a_plugin_as_it_is_now(tmp_path):
    text = "from stylegan_plugins import hookimpl\nX = {}\n@hookimpl\ndef setup(): return None\nY: int = 0\n"
    for folder, x in (("one", 1), ("one", 2), ("two", 3)):
        file = tmp_path / folder / "same.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text.format(x))
        found = activate(file).catalogue.load("same")
        assert x == found.X
        assert found.__annotations__ == {"Y": int}  # it has no __future__ import of ours
    for x in (1, 2):
        module = types.ModuleType("my_module")
        module.X = x
        assert activate(module).catalogue.load("my-module") is module
    (tmp_path / "disp.py").write_text(text.format(0))
    with pytest.raises(PluginError, match="a plug-in named 'disp' is installed already"):
        activate(tmp_path / "disp.py")
    for name in ("same", "my-module"):
        catalogue().forget(name)
        assert name not in catalogue().sources
    catalogue().forget("disp")
    assert "disp" in catalogue().sources


def test_a_file_that_is_missing_or_has_a_taken_name_is_refused(tmp_path):
    with pytest.raises(PluginError, match="gone.py: there is no such file"):
        Catalogue().activate([str(tmp_path / "gone.py")], {})
    (tmp_path / "diffaugment.py").write_text("")
    with pytest.raises(PluginError, match="a plug-in named 'diffaugment' is installed already"):
        Catalogue().activate([str(tmp_path / "diffaugment.py")], {})


# --- What is refused. ----------------------------------------------------------------------------------------------


def test_a_misspelt_hook_is_refused_by_name(install):
    with pytest.raises(PluginError, match="'misspelt' has a faulty hook: unknown hook 'confugire'"):
        install(plugin("misspelt", confugire=lambda: None)).activate(["misspelt"], {})


def test_a_hook_of_a_method_in_the_module_is_told_its_place(install):
    with pytest.raises(PluginError, match=r"unknown hook 'tick'.*It is a hook of the object that setup\(\) returns"):
        install(plugin("misplaced", tick=lambda: None)).load("misplaced")


def test_an_argument_that_a_hook_does_not_have_is_refused_with_plugin_and_hook_on_one_line(install):
    found = install(plugin("greedy", setup=lambda session, colour: None))
    with pytest.raises(PluginError, match="'greedy' has a faulty hook: .* hook 'setup' .*'colour'") as error:
        found.load("greedy")
    assert "\n" not in str(error.value)
    with pytest.raises(PluginError, match="'greedy'"):  # again, not half registered
        found.hooks_of("greedy")


@pytest.mark.parametrize(
    ("name", "attributes", "message"),
    [
        ("listed", {"requires": "diffaugment"}, "requires of 'listed' is not a list of names"),
        ("preset", {"PRESETS": {"paper": {"weight": 1}}}, "PRESETS of 'preset' is not a dictionary of Preset by name"),
        ("2d", {}, "'2d' is not a name of a plug-in: use letters, digits and hyphens"),
        ("ada", {"ada": "never"}, "ada of 'ada' is 'never'; it is one of"),
    ],
)
def test_a_faulty_attribute_is_refused_and_spoils_no_run_without_it(install, name, attributes, message):
    with pytest.raises(PluginError, match=message):
        install(plugin(name, attributes=attributes)).load(name)
    assert name not in set(install(plugin(name, attributes=attributes)).usable())


def test_a_misspelt_annotation_is_refused_and_spoils_no_run_without_it(tmp_path):
    file = tmp_path / "misspelt.py"
    file.write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\nfrom stylegan_plugins import option\n"
        "@dataclass(frozen=True)\nclass OPTIONS:\n    weight: flaot = option(1.0, 'a factor')\n"
    )
    found = Catalogue()
    found.add_file(file)
    for _ in range(2):  # again, not half registered
        with pytest.raises(PluginError, match="'misspelt' is faulty: NameError: name 'flaot' is not defined"):
            found.load("misspelt")
    assert "misspelt" not in set(found.usable())


def test_configure_returns_options_of_its_plugin():
    active = Catalogue().activate(["diffaugment"], {})
    with pytest.raises(PluginError, match=r"--plugin=diffaugment: configure\(\) returned a dict, not its options"):
        active.with_options("diffaugment", {})


def test_a_missing_requirement_says_what_to_give(install):
    found = install(plugin("first"), plugin("second", attributes={"requires": ("first",)}))
    with pytest.raises(PluginError, match="second needs first: give --plugin=first,second"):
        found.activate(["second"], {})
    for order in (["first", "second"], ["second", "first"]):
        assert found.activate(order, {}).names == tuple(order)


def test_plugins_that_conflict_are_refused_in_either_order_and_alone_accepted(install):
    found = install(plugin("first"), plugin("second", attributes={"conflicts": ("first",)}))
    for order in (["first", "second"], ["second", "first"]):
        with pytest.raises(PluginError, match="second and first cannot be active together"):
            found.activate(order, {})
    found.activate(["second"], {})


def test_an_unknown_kind_of_ada_is_refused(install):
    with pytest.raises(PluginError, match="ada of 'first' is 'never'; it is one of keep, off, refuse"):
        install(plugin("first", attributes={"ada": "never"})).load("first")


def test_an_option_of_an_inactive_plugin_is_refused_with_its_value():
    with pytest.raises(OptionError, match="--diffaugment-cutout=0.0: diffaugment is not active"):
        Catalogue().activate([], {"diffaugment": {"cutout": 0.0}})


@pytest.mark.parametrize("fault", manager.FAULTS)
def test_whatever_a_plugin_raises_on_import_becomes_an_error_that_names_both(fault):
    class Entry:
        def load(self):
            raise fault("two\nlines")

    found = Catalogue()
    found.sources["broken"] = Entry()
    with pytest.raises(PluginError, match=f"'broken' is installed but cannot be imported: {fault.__name__}: two lines"):
        found.load("broken")


# --- Calls. --------------------------------------------------------------------------------------------------------


def test_a_call_asks_one_plugin_alone_and_none_is_no_answer(install):
    found = install(plugin("first", register_metrics=lambda: {"a": 1}), plugin("second", register_metrics=lambda: None))
    plugins = found.activate(["first", "second"], {})
    assert plugins.call("first", "register_metrics") == {"a": 1}
    assert plugins.call("second", "register_metrics") is None
    assert plugins.call("second", "configure", args={}, explicit=frozenset()) is None


def test_what_one_plugin_may_give_is_refused_of_two(install):
    give = {name: plugin(name, register_labels=lambda args: args) for name in ("first", "second")}
    found = install(*give.values())
    assert found.activate(["first"], {}).only("register_labels", args=3) == 3
    assert found.activate([], {}).only("register_labels", args=3) is None
    with pytest.raises(PluginError, match="first and second both have a register_labels"):
        found.activate(["first", "second"], {}).only("register_labels", args=3)


def test_a_plugin_may_take_fewer_arguments_than_its_hook_has(install):
    seen = []
    found = install(plugin("modest", configure=lambda args: seen.append(args)))
    found.activate(["modest"], {}).call("modest", "configure", args={"x": 1}, explicit=frozenset())
    assert seen == [{"x": 1}]


def test_a_record_gives_the_same_plugins_and_options_back():
    plugins = manager.catalogue().activate(["augself"], {"augself": {"preset": "plus", "d_weight": 0.5}})
    again = manager.recorded(json.loads(json.dumps(plugins.record())))
    assert again == plugins and again.options["diffaugment"].translation == 0.25 and bool(again)
    assert not manager.recorded({})


def test_hooks_of_a_plugin_are_all_specified():
    assert Catalogue().hooks_of("augself") == ["configure", "setup"]
    assert all(hasattr(hookspecs, hook) for hook in Catalogue().hooks_of("disp"))


# --- Tracing. ------------------------------------------------------------------------------------------------------


def test_a_trace_shows_every_call_with_shapes_but_no_values(install, capsys):
    found = install(plugin("traced", register_labels=lambda args: [torch.full([3, 4], 0.125)]))
    found.load("traced")
    stop = tracing.trace(found.pm)
    arrays = [torch.full([8, 3, 32, 32], 0.125), np.full([2], 0.125), (torch.zeros([]), "word")]
    found.call("traced", "register_labels", args={"mean": arrays[0], "deep": {"secret": 0.125}}, options=None)
    found.call("traced", "register_labels", args=arrays, options=None)
    found.pm.hook.register_metrics()
    stop()
    found.call("traced", "register_labels", args=arrays, options=None)
    assert capsys.readouterr().err.splitlines() == [
        "[hook] register_labels(args={mean, deep}, options=None) -> traced",
        "[hook] register_labels returned [[Tensor[3, 4]]]",
        "[hook] register_labels(args=[Tensor[8, 3, 32, 32], ndarray[2], [Tensor[], 'word']], options=None) -> traced",
        "[hook] register_labels returned [[Tensor[3, 4]]]",
        "[hook] register_metrics() -> nobody",
    ]


def test_a_trace_shows_no_value_of_a_tensor_inside_a_small_object():
    class Box:
        def __repr__(self):
            return "tensor(0.125)"

    assert tracing.brief(Box()) == "Box"
    assert tracing.brief(diffaugment.DiffAugmentOptions) == "DiffAugmentOptions"


@pytest.mark.parametrize(("value", "traced"), [("1", True), ("0", False), ("", False), (None, False)])
def test_an_environment_variable_switches_tracing_on(value, traced, monkeypatch, capsys):
    if value is None:
        monkeypatch.delenv(manager.TRACE, raising=False)
    else:
        monkeypatch.setenv(manager.TRACE, value)
    found = Catalogue()
    found.load("diffaugment")
    found.pm.hook.register_metrics()
    shown = capsys.readouterr()
    assert shown.out == ""
    assert ("[hook] register_metrics() -> nobody" in shown.err) is traced
