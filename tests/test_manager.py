"""Discovery of plug-ins, calls of their hooks, what is refused and why, and tracing."""

from __future__ import annotations

import json
import subprocess
import sys
import types

import numpy as np
import pytest
import torch
from support.hosts import install_plugin

from stylegan_plugins import hookimpl, hookspecs, manager
from stylegan_plugins.errors import PluginError
from stylegan_plugins.plugins import diffaugment
from stylegan_plugins.session import Session
from training_ext.parts import Head

pytestmark = pytest.mark.unit


def plugin(name: str, *, attributes: dict | None = None, **hooks) -> types.ModuleType:
    """A plug-in as a module: `hooks` are its functions."""
    module = types.ModuleType(name)
    for hook, function in hooks.items():
        function.__name__ = hook
        setattr(module, hook, hookimpl(function))
    vars(module).update(attributes or {})
    return module


@pytest.fixture
def install(monkeypatch):
    """Adds plug-ins to the installed ones, for one test."""
    added: dict[str, object] = {}

    class Entry:
        def __init__(self, module: types.ModuleType) -> None:
            self.module = module

        def load(self) -> types.ModuleType:
            return self.module

    really = manager.installed
    monkeypatch.setattr(manager, "installed", lambda: really() | added)

    def install(*modules: types.ModuleType) -> None:
        added.update({module.__name__: Entry(module) for module in modules})

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
        "stylegan_plugins.errors",
        "stylegan_plugins.hookspecs",
        "stylegan_plugins.manager",
    }


def test_builtin_plugins_come_first_and_a_package_cannot_take_their_names(tmp_path, monkeypatch):
    install_plugin(tmp_path, "diffaugment", "")
    install_plugin(tmp_path, "aardvark", "")
    monkeypatch.syspath_prepend(tmp_path)
    names = list(manager.installed())
    assert names[: len(manager.BUILTIN)] == list(manager.BUILTIN)
    assert "aardvark" in names
    assert manager.load("diffaugment") is diffaugment


def test_every_builtin_plugin_can_be_imported_and_says_what_it_is():
    for name in manager.BUILTIN:
        module = manager.load(name)
        assert module.__doc__ and manager.hooks_of(module), name
        assert module.PAPER, name


def test_an_unknown_plugin_names_the_nearest_and_lists_the_installed():
    with pytest.raises(PluginError) as error:
        manager.load("difaugment")
    installed = ", ".join(manager.installed())
    assert str(error.value) == (
        f"--plugin: there is no plug-in 'difaugment'. Did you mean diffaugment? Installed: {installed}."
    )


def test_a_name_like_none_other_is_told_no_nearest():
    with pytest.raises(PluginError, match="there is no plug-in 'xyzzy'. Installed: "):
        manager.load("xyzzy")


# --- What is refused. ----------------------------------------------------------------------------------------------


def test_a_misspelt_hook_is_refused_by_name(install):
    install(plugin("misspelt", optoins=lambda: None))
    with pytest.raises(PluginError, match="'misspelt' has a faulty hook: unknown hook 'optoins'"):
        manager.build(["misspelt"])


def test_an_argument_that_a_hook_does_not_have_is_refused_with_plugin_and_hook_on_one_line(install):
    install(plugin("greedy", tick=lambda session, colour: None))
    with pytest.raises(PluginError, match="'greedy' has a faulty hook: .* hook 'tick' .*'colour'") as error:
        manager.build(["greedy"])
    assert "\n" not in str(error.value)
    with pytest.raises(PluginError, match="'greedy'"):
        manager.hooks_of(manager.load("greedy"))


def test_a_missing_requirement_says_what_to_give(install):
    install(plugin("first"), plugin("second", attributes={"requires": ("first",)}))
    with pytest.raises(PluginError, match="second needs first: give --plugin=first,second"):
        manager.build(["second"])
    for order in (["first", "second"], ["second", "first"]):
        manager.build(order)


def test_plugins_that_conflict_are_refused_in_either_order_and_alone_accepted(install):
    install(plugin("first"), plugin("second", attributes={"conflicts": ("first",)}))
    for order in (["first", "second"], ["second", "first"]):
        with pytest.raises(PluginError, match="second and first cannot be active together"):
            manager.build(order)
    manager.build(["second"])


@pytest.mark.parametrize("fault", manager.FAULTS)
def test_whatever_a_plugin_raises_on_import_becomes_an_error_that_names_both(fault, monkeypatch):
    class Entry:
        def load(self):
            raise fault("two\nlines")

    monkeypatch.setattr(manager, "installed", lambda: {"broken": Entry()})
    with pytest.raises(PluginError, match=f"'broken' is installed but cannot be imported: {fault.__name__}: two lines"):
        manager.load("broken")


# --- Calls. --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [["first", "second", "third"], ["third", "first", "second"]])
def test_hooks_are_called_and_parts_collected_in_the_order_of_the_command_line(order, install):
    called = []

    def numbered(name):
        return plugin(
            name,
            register_heads=lambda session: [name],
            batch_end=lambda session, cur_nimg: called.append(f"{name} {cur_nimg}"),
        )

    install(*[numbered(name) for name in ("first", "second", "third")])
    session = Session(order, {})
    assert session.collect("register_heads") == order
    session.batch_end(64, 1)
    assert called == [f"{name} 64" for name in order]


def test_a_call_asks_one_plugin_alone(install):
    install(plugin("first", state_dict=lambda session: {"a": 1}), plugin("second", state_dict=lambda session: {"b": 2}))
    pm = manager.build(["first", "second"])
    assert manager.call(pm, "second", "state_dict", session=None) == [{"b": 2}]
    assert manager.call(pm, "second", "options") == []


def test_none_is_no_answer(install):
    install(plugin("quiet", register_heads=lambda session: None))
    assert Session(["quiet"], {}).collect("register_heads") == []


def test_a_plugin_may_take_fewer_arguments_than_its_hook_has(install):
    seen = []
    install(plugin("modest", configure=lambda args: args.update(seen=True) or seen.append(args)))
    manager.call(manager.build(["modest"]), "modest", "configure", args={}, options=None, given=frozenset())
    assert seen == [{"seen": True}]


def test_hooks_of_a_plugin_are_sorted_and_all_specified():
    hooks = manager.hooks_of(diffaugment)
    assert hooks == sorted(hooks)
    assert set(hooks) == {"options", "configure", "register_augmentations"}
    assert all(hasattr(hookspecs, hook) for hook in hooks)


# --- Tracing. ------------------------------------------------------------------------------------------------------


def test_a_trace_shows_every_call_with_shapes_but_no_values(install):
    state = {"mean": torch.full([3, 4], 0.125), "deep": {"secret": 0.125}}
    install(
        plugin("traced", load_state_dict=lambda session, state: None, register_heads=lambda session: [state["mean"]])
    )
    pm = manager.build(["traced"])
    lines: list[str] = []
    stop = manager.trace(pm, lines.append)
    arrays = [torch.full([8, 3, 32, 32], 0.125), np.full([2], 0.125), (torch.zeros([]), "word")]
    manager.call(pm, "traced", "load_state_dict", session=Session([], {}), state=state)
    manager.call(pm, "traced", "register_heads", session=arrays)
    pm.hook.tick(session=None, cur_nimg=4000)
    stop()
    manager.call(pm, "traced", "register_heads", session=arrays)
    assert lines == [
        "[hook] load_state_dict(session=Session, state={mean, deep}) -> traced",
        "[hook] load_state_dict returned []",
        "[hook] register_heads(session=[Tensor[8, 3, 32, 32], ndarray[2], [Tensor[], 'word']]) -> traced",
        "[hook] register_heads returned [[Tensor[3, 4]]]",
        "[hook] tick(session=None, cur_nimg=4000) -> nobody",
    ]


def test_a_trace_shows_no_value_of_a_tensor_inside_a_small_object():
    class Box:
        def __repr__(self):
            return "tensor(0.125)"

    assert manager._brief(Box()) == "Box"
    assert manager._brief(diffaugment.DiffAugmentOptions) == "DiffAugmentOptions"


@pytest.mark.parametrize(("value", "traced"), [("1", True), ("0", False), ("", False), (None, False)])
def test_an_environment_variable_switches_tracing_on(value, traced, monkeypatch, capsys):
    if value is None:
        monkeypatch.delenv(manager.TRACE, raising=False)
    else:
        monkeypatch.setenv(manager.TRACE, value)
    Session(["diffaugment"], {})
    shown = capsys.readouterr()
    assert shown.out == ""
    assert ("[hook] options() -> diffaugment\n[hook] options returned [DiffAugmentOptions]\n" in shown.err) is traced


def test_making_heads_leaves_the_random_numbers_of_cpu_and_gpus_as_they_were(monkeypatch):
    def seeded(seed: int) -> None:
        raise AssertionError("all GPUs were seeded, alike on every process")

    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded)
    session = Session([], {})
    session.D, session.device = torch.nn.Linear(2, 1), torch.device("cpu")
    phase = types.SimpleNamespace(module=session.D, opt=torch.optim.Adam(session.D.parameters(), lr=0.5))
    before = torch.get_rng_state()
    session._make_heads([Head(name, lambda: torch.nn.Linear(4, 3)) for name in ("a", "b")], [phase])
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(session.heads["a"].weight, session.heads["b"].weight)
    assert session.heads_opt.defaults["lr"] == 0.5
