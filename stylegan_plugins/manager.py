"""The installed and the active plug-ins of this process. Importing a plug-in has no effect: --plugin activates it."""

from __future__ import annotations

import ast
import contextlib
import difflib
import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import pluggy

from stylegan_plugins import hookspecs, tracing
from stylegan_plugins import options as plugin_options
from stylegan_plugins.cache import check_trust
from stylegan_plugins.errors import OptionError, PluginError, UserError
from stylegan_plugins.options import PRESET

ENTRY_POINTS = "stylegan_plugins"
TRACE = "STYLEGAN_PLUGINS_TRACE"
ADA = ("keep", "off", "refuse")
Source = Path | importlib.metadata.EntryPoint

# Errors that a faulty module raises on import, and a faulty hook when it is called.
FAULTS = (
    *(ImportError, SyntaxError, NameError, AttributeError, TypeError, ValueError),
    *(LookupError, ArithmeticError, AssertionError, RuntimeError, OSError),
)


def builtin() -> dict[str, Path]:
    """Return the built-in plug-ins by name: the files of the folder `plugins`."""
    files = sorted(Path(__file__).with_name("plugins").glob("[a-z]*.py"))
    return {file.stem.replace("_", "-"): file for file in files}


def split_names(values: Iterable[str]) -> list[str]:
    """Return the names in values of --plugin, each once. The option is repeatable and takes commas; `none` and an empty
    value mean no plug-in."""
    names = [name.strip() for value in values for name in value.split(",")]
    return list(dict.fromkeys(name for name in names if name and name.lower() != "none"))


def is_file(name: str) -> bool:
    """Return whether a value of --plugin is a file, not the name of an installed plug-in."""
    return name.endswith(".py")


# The installed plug-ins. --------------------------------------------------------------------------


class Catalogue:
    """All installed plug-ins by name: one scan of entry points, and one plug-in manager. A plug-in is registered in the
    manager at its first use.

    sources  a file or an entry point, by name; built-in plug-ins come first, and a package cannot take their names"""

    def __init__(self) -> None:
        self.sources: dict[str, Source] = dict(builtin())
        for entry in sorted(importlib.metadata.entry_points(group=ENTRY_POINTS), key=lambda entry: entry.name):
            self.sources.setdefault(entry.name, entry)
        self._installed = frozenset(self.sources)
        self.pm = pluggy.PluginManager("stylegan_plugins")
        self.pm.add_hookspecs(hookspecs)
        self.traced = os.environ.get(TRACE, "0") not in ("", "0")
        if self.traced:
            tracing.trace(self.pm)

    def add(self, name: str, plugin: Any) -> None:
        """Add an imported module or an object as a plug-in, for tests. Raises PluginError if it is faulty."""
        self._register(name, plugin)
        self.sources[name] = Path(name)

    def forget(self, name: str) -> None:
        """Forget a plug-in that was added in this process, so that another one may have its name."""
        if name not in self._installed:
            self.sources.pop(name, None)
            if self.pm.has_plugin(name):
                self.pm.unregister(name=name)

    def add_file(self, file: str | Path) -> str:
        """Add the plug-in in a Python file, and return its name. Raises PluginError."""
        path = Path(file).resolve()
        name = path.stem.replace("_", "-")
        if not path.is_file():
            raise PluginError(f"--plugin={file}: there is no such file.")
        if self.sources.setdefault(name, path) != path:
            raise PluginError(f"--plugin={file}: a plug-in named {name!r} is installed already. Rename the file.")
        return name

    def load(self, name: str) -> Any:
        """Return the plug-in of that name, imported and checked. Raises PluginError."""
        if self.pm.has_plugin(name):
            return self.pm.get_plugin(name)
        if name not in self.sources:
            near = difflib.get_close_matches(name, self.sources, n=1, cutoff=0.4)
            file = Path(f"{name.replace('-', '_')}.py")
            hint = f" Did you mean ./{file}?" if file.is_file() else f" Did you mean {near[0]}?" if near else ""
            raise PluginError(f"--plugin: there is no plug-in {name!r}.{hint} Installed: {', '.join(self.sources)}.")
        source = self.sources[name]
        try:
            plugin = self._imported(source)
        except FAULTS as error:
            what = f"the file {source}" if isinstance(source, Path) else f"{name!r} is installed but"
            raise PluginError(
                f"--plugin: {what} cannot be imported: {type(error).__name__}: {_one_line(error)}."
            ) from error
        self._register(name, plugin)
        return plugin

    def _imported(self, source: Source) -> Any:
        if not isinstance(source, Path):
            return source.load()
        if source.parent == Path(__file__).with_name("plugins"):
            return importlib.import_module(f"stylegan_plugins.plugins.{source.stem}")
        module_name = f"stylegan_plugins_file_{source.stem}"
        spec = importlib.util.spec_from_file_location(module_name, source)
        assert spec is not None and spec.loader is not None  # a .py file has a loader
        module = sys.modules[module_name] = importlib.util.module_from_spec(spec)
        # Not from a cache of bytecode, which does not notice a change within a second.
        exec(compile(source.read_bytes(), str(source), "exec", dont_inherit=True), vars(module))
        return module

    def _register(self, name: str, plugin: Any) -> None:
        for hook, spec in vars(hookspecs).items():
            function = getattr(plugin, hook, None) if hasattr(spec, "stylegan_plugins_spec") else None
            if inspect.isfunction(function) and not hasattr(function, "stylegan_plugins_impl"):
                raise PluginError(f"--plugin: {hook}() of {name!r} has the name of a hook and no mark: @hookimpl.")
        try:
            if not name.replace("-", "_").isidentifier():
                raise PluginError(f"--plugin: {name!r} is not a name of a plug-in: use letters, digits and hyphens.")
            self.pm.register(plugin, name)
            self.pm.check_pending()  # a misspelt hook fails here, not silently 400 kimg later
            if self.options_class(name) is not None:
                plugin_options.check(name, self.options_class(name))
            if getattr(plugin, "ada", "keep") not in ADA:
                raise PluginError(f"--plugin: ada of {name!r} is {plugin.ada!r}; it is one of {', '.join(ADA)}.")
            for attribute in ("requires", "conflicts", "brings"):
                kinds = list | tuple | dict if attribute == "brings" else list | tuple
                if not isinstance(getattr(plugin, attribute, ()), kinds):
                    raise PluginError(f"--plugin: {attribute} of {name!r} is not a list of names of plug-ins.")
            presets = self.presets(name)
            if not all(isinstance(preset, plugin_options.Preset) for preset in presets.values()):
                raise PluginError(f"--plugin: PRESETS of {name!r} is not a dictionary of Preset by name.")
            plugin_options.check_presets(name, self.options_class(name), presets)
        except (pluggy.PluginValidationError, *FAULTS) as error:
            if self.pm.has_plugin(name):
                self.pm.unregister(name=name)
            if isinstance(error, UserError):
                raise
            if not isinstance(error, pluggy.PluginValidationError):
                what = f"{type(error).__name__}: {_one_line(error)}"
                raise PluginError(f"--plugin: {name!r} is faulty: {what}.") from error
            of_method = [hook for hook in vars(hookspecs.MethodHooks) if f"unknown hook '{hook}'" in str(error)]
            hint = " It is a hook of the object that setup() returns." if of_method else ""
            raise PluginError(f"--plugin: {name!r} has a faulty hook: {_one_line(error)}.{hint}") from error

    def usable(self) -> Iterator[str]:
        """Yield the names of all plug-ins that can be loaded. A faulty plug-in does not stop a run that does not use
        it; `stylegan-plugins list` reports the fault."""
        for name in list(self.sources):
            with contextlib.suppress(PluginError):
                self.load(name)
                yield name

    def options_class(self, name: str) -> type | None:
        """Return the options dataclass of a plug-in, None if it has no options."""
        return getattr(self.load(name), "OPTIONS", None)

    def presets(self, name: str) -> Mapping[str, plugin_options.Preset]:
        return getattr(self.load(name), "PRESETS", {})

    def click_options(self, name: str) -> list[Any]:
        return plugin_options.click_options(name, self.options_class(name), self.presets(name))

    def parameters(self) -> dict[str, tuple[str, str]]:
        """Return (plug-in, field) of every option of every usable plug-in, by click's parameter name."""
        found: dict[str, tuple[str, str]] = {}
        for name in self.usable():
            cls = self.options_class(name)
            names = [option.name for option in fields(cls)] if cls else []
            names += [PRESET] if self.presets(name) else []
            found |= {plugin_options.parameter(name, field_name): (name, field_name) for field_name in names}
        return found

    def hooks_of(self, name: str) -> list[str]:
        """Return the names of the hooks that a plug-in implements, sorted. Raises PluginError if one is faulty."""
        return sorted(caller.name for caller in self.pm.get_hookcallers(self.load(name)) or ())

    def call(self, name: str, hook: str, **arguments: Any) -> Any:
        """Call one hook of one plug-in, and return its result; None if the plug-in does not have the hook."""
        plugin = self.load(name)
        others = [other for other in self.pm.get_plugins() if other is not plugin]
        return next(iter(self.pm.subset_hook_caller(hook, others)(**arguments)), None)

    def offered(self, hook: str, kind: type) -> dict[str, Any]:
        """Return the values by name that a hook of all usable plug-ins gives, active or not. If two plug-ins use a
        name, the first one counts."""
        found: dict[str, Any] = {}
        for name in self.usable():
            with contextlib.suppress(*FAULTS):  # PluginError is one of them
                found = {**self.offer_of(name, hook, kind), **found}
        return found

    def offer_of(self, name: str, hook: str, kind: type) -> dict[str, Any]:
        """Return the values by name that a hook of one plug-in gives. Raises PluginError if they are not
        {name: `kind`}; a faulty plug-in may raise any of FAULTS."""
        parts = self.call(name, hook) or {}
        if not isinstance(parts, dict) or not all(isinstance(part, kind) for part in parts.values()):
            raise PluginError(
                f"--plugin: {name!r} has a faulty hook: {hook}() returned {parts!r}, not {kind.__name__}s by name."
            )
        return parts

    def summary(self, name: str) -> tuple[str, list[str]]:
        """Return the headline and the hooks of a plug-in. Built-in plug-ins are parsed, not imported."""
        source = self.sources[name]
        if isinstance(source, Path):
            tree = ast.parse(source.read_text(encoding="utf-8"))
            doc = ast.get_docstring(tree)
            hooks = [
                node.name
                for node in tree.body
                if isinstance(node, ast.FunctionDef) and "hookimpl" in map(ast.unparse, node.decorator_list)
            ]
        else:
            doc, hooks = self.load(name).__doc__, self.hooks_of(name)
        return headline(doc), sorted(hooks)

    # Activation.

    def activate(self, names: Iterable[str], given: Mapping[str, Mapping[str, Any]]) -> Plugins:
        """Return the plug-ins of these names and the plug-ins that they bring along, with their options. Given values
        win over presets, these over values from a plug-in that brings another, and these over defaults.

        given: {plug-in: {field: value}}. Raises PluginError for an unknown plug-in, a missing requirement or a
        conflict, and OptionError for options that do not go together, or belong to a plug-in that is not active."""
        plain = {name: self.add_file(name) if is_file(name) else name for name in names}
        paths = {plain[name]: Path(name).resolve() for name in plain if is_file(name)}
        checksum = lambda path: hashlib.sha256(path.read_bytes()).hexdigest()
        files = {
            name: {"path": str(path), "sha256": checksum(path), "hooks": self.hooks_of(name)}
            for name, path in paths.items()
        }
        brought = (other for name in plain.values() for other in (*getattr(self.load(name), "brings", ()), name))
        active = list(dict.fromkeys(brought))
        for name in active:
            for other in getattr(self.load(name), "requires", ()):
                if other not in active:
                    raise PluginError(f"--plugin: {name} needs {other}: give --plugin={other},{name}.")
            for other in getattr(self.load(name), "conflicts", ()):
                if other in active:
                    raise PluginError(f"--plugin: {name} and {other} cannot be active together: leave one of them out.")
        for name, values in given.items():
            if name not in active:
                field_name, value = next(iter(values.items()))
                raise OptionError(
                    f"{plugin_options.flag(name, field_name)}={value}: {name} is not active. Add --plugin={name}, "
                    "or leave the option out."
                )
        presets = {name: values[PRESET] for name, values in given.items() if PRESET in values}
        chosen: dict[str, dict[str, Any]] = {name: {} for name in active}
        for brings in (getattr(self.load(name), "brings", ()) for name in active):
            for other, values in brings.items() if isinstance(brings, Mapping) else ():
                chosen[other].update(values)
        for name, preset in presets.items():
            for other, values in self.presets(name)[preset].values_for(name).items():
                chosen[other].update(values)
        for name, values in given.items():
            chosen[name].update({key: value for key, value in values.items() if key != PRESET})
        options = {name: plugin_options.build(name, self.options_class(name), chosen[name]) for name in active}
        return Plugins(tuple(active), options, presets, files, self)


@functools.cache
def catalogue() -> Catalogue:
    """Return the installed plug-ins of this process."""
    return Catalogue()


# The active plug-ins. -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Plugins:
    """The active plug-ins of a run in the order of --plugin, with their options. A process makes this object once and
    passes it on.

    names    in order
    options  instances of their dataclasses by plug-in; None for one without options
    presets  names of chosen presets by plug-in
    files    path, sha256 and hooks of plug-ins that are given as files"""

    names: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    presets: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    catalogue: Catalogue = field(default_factory=catalogue)

    def __bool__(self) -> bool:
        return bool(self.names)

    def call(self, name: str, hook: str, **arguments: Any) -> Any:
        """Call one hook of one active plug-in with its options; None if the plug-in does not have the hook."""
        return self.catalogue.call(name, hook, options=self.options[name], **arguments)

    def only(self, hook: str, **arguments: Any) -> Any:
        """Return the only result of this hook among the active plug-ins, None without a result. Raises PluginError for
        several results."""
        results = {name: self.call(name, hook, **arguments) for name in self.names}
        found = {name: result for name, result in results.items() if result is not None}
        if len(found) > 1:
            raise PluginError(f"--plugin: {' and '.join(found)} both have a {hook}, and one can: leave the others out.")
        return next(iter(found.values()), None)

    @property
    def without_D(self) -> str | None:
        """Return the plug-in with which the host's D is not trained, None if it is trained."""
        return next((name for name in self.names if not getattr(self.catalogue.load(name), "trains_D", True)), None)

    def with_options(self, name: str, options: Any) -> Plugins:
        """Return the same plug-ins, one of them with other options. Raises PluginError for options of another class."""
        if type(options) is not type(self.options[name]):
            raise PluginError(f"--plugin={name}: configure() returned a {type(options).__name__}, not its options.")
        return replace(self, options={**self.options, name: options})

    def record(self) -> dict[str, Any]:
        """Return the entry `plugins` of training_options.json."""
        values = {name: plugin_options.as_dict(options) for name, options in self.options.items()}
        more = {"presets": dict(self.presets), "files": dict(self.files)}
        return {"active": list(self.names), "options": values, **{key: value for key, value in more.items() if value}}


def recorded(record: Mapping[str, Any]) -> Plugins:
    """Return the active plug-ins of a run from its record; see `Plugins.record`. Raises PluginError."""
    if not record.get("active"):
        return Plugins()
    found = catalogue()
    files = record.get("files", {})
    check_trust(files)
    names = [files[name]["path"] if name in files else name for name in record["active"]]
    plugins = found.activate(names, record.get("options", {}))
    return replace(plugins, presets=record.get("presets", {}))


def without_D(args: Any) -> str | None:
    """Return the installed plug-in with which a run did not train the host's D, None if it trained D.

    args: arguments of the run's training loop, not validated; None: unknown."""
    record = args.get("plugins") if isinstance(args, Mapping) else None
    active = record.get("active") if isinstance(record, Mapping) else None
    for name in active if isinstance(active, list) else ():
        with contextlib.suppress(*FAULTS):
            if name in catalogue().sources and not getattr(catalogue().load(name), "trains_D", True):
                return name
    return None


def headline(doc: str | None) -> str:
    return (doc or "no description").strip().splitlines()[0]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
