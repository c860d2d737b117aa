"""The package from Python: `load`, `train`, `evaluate`, `compare` and `advise`. The names and defaults of the commands
apply."""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from stylegan_plugins import commands
from stylegan_plugins.analysis import evaluate as evaluating
from stylegan_plugins.analysis import programs
from stylegan_plugins.analysis.loading import LoadedGenerator, load
from stylegan_plugins.errors import OptionError, RunError, tell
from stylegan_plugins.files import json_lines, run_folders
from stylegan_plugins.host import devices, find
from stylegan_plugins.run import arguments as training
from stylegan_plugins.run.advise import Advice

__all__ = ["Advice", "Evaluation", "LoadedGenerator", "advise", "compare", "evaluate", "load", "train"]
Function = TypeVar("Function", bound=Callable[..., Any])


def train(
    data: str | Path | None = None,
    outdir: str | Path | None = None,
    plugins: str | Iterable[str] = (),
    host: str | Path | None = None,
    **options: Any,
) -> Path:
    """Train with the host's train.py, show what it prints, and return the run directory.

    data     pictures or a data set, as for --data
    outdir   parent folder of the run directory
    plugins  names, or files of plug-ins
    host     patched folder of NVIDIA's code; None: the last one used
    options  options of train.py, with _ instead of -: kimg=10, diffaugment_policy="color", resume_run=RUN. A list is
             joined with commas; None leaves an option out

    A flag takes True. Raises RunError with train.py's own error, HostError without a host. An interruption ends the run
    with a training state, and raises KeyboardInterrupt."""
    names = [plugins] if isinstance(plugins, str) else list(plugins)
    given = {"data": data, "outdir": outdir, "plugin": names or None, **options}
    script = find.host_folder(None if host is None else Path(host)) / "train.py"
    lines: list[str] = []

    def show(line: str) -> None:
        print(line)
        lines.append(line)

    # The device that `load` chose for this process does not apply to the run.
    environment = {name: value for name, value in os.environ.items() if name != devices.VARIABLE}
    flags = [option for option in training.options_for(click.Command("train")) if option.is_flag]
    command = [sys.executable, "-u", str(script), *_possible("train", as_arguments(given, [*flags, DRY_RUN]))]
    try:
        code = programs.run(command, show=show, env=environment)
    except SystemExit as ended:
        raise KeyboardInterrupt from ended
    if code:
        raise RunError(f"train.py: {programs.error_in(lines) or f'it ended with {code}; its last lines say why'}")
    found = [match[1] for line in lines if (match := re.match(r"Output directory:\s*(\S.*)", line))]
    return Path(found[-1]) if found else run_folders.newest_run(Path(options.get("resume_run") or outdir or "."))


DRY_RUN = click.Option(["--dry-run"], is_flag=True)


def as_arguments(options: Mapping[str, Any], flags: Iterable[click.Option] = ()) -> list[str]:
    """Return options by name as arguments of a command line. flags: options without a value."""
    known = {flag.name: flag for flag in flags}
    found = []
    for name, value in options.items():
        if value is None:
            continue
        if (flag := known.get(name)) is not None:
            found += (flag.opts if value else flag.secondary_opts)[:1]
            continue
        value = ",".join(map(str, value)) if isinstance(value, list | tuple) else value
        written = int(value) if isinstance(value, bool) else value
        found.append(f"--{name.replace('_', '-')}={written}")
    return found


def _possible(function: str, arguments: list[str]) -> list[str]:
    """Return arguments of a command line. Raises OptionError for one with a character that no command line can have."""
    for argument in arguments:
        try:
            possible = b"\0" not in os.fsencode(argument)
        except UnicodeEncodeError:  # half of a character
            possible = False
        if not possible:
            raise OptionError(f"{function}(): {argument!r} has a character that neither a path nor an option can have.")
    return arguments


def _name_of(option: click.Option) -> str:
    """Return the Python name of a command's option: the name of its flag, with _ instead of -."""
    return max(option.opts, key=len).lstrip("-").replace("-", "_")


def _options_of(command: click.Command) -> dict[str, click.Option]:
    return {_name_of(option): option for option in command.params if isinstance(option, click.Option)}


def _default_of(option: click.Option) -> Any:
    """Return the default of an option as a function's argument has it; None for an option that may be left out."""
    default = option.get_default(click.Context(click.Command("")))
    if option.required:
        return inspect.Parameter.empty
    return default if isinstance(default, str | int | float) else None


def _as(command: click.Command) -> Callable[[Function], Function]:
    """Give a function the options of a command, with their defaults, as its signature, so that both share one table."""

    def decorated(function: Function) -> Function:
        own = inspect.signature(function).parameters.values()
        first = [parameter for parameter in own if parameter.kind is not parameter.VAR_KEYWORD]
        more = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=_default_of(option))
            for name, option in _options_of(command).items()
        ]
        function.__signature__ = inspect.Signature([*first, *more])  # type: ignore[attr-defined]
        return function

    return decorated


def _read(command: click.Command, words: Sequence[str], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of a command as its own parser reads them. words: positional arguments.

    Raises OptionError for an unknown option or a value that it does not take."""
    known = _options_of(command)
    for name in options:
        if name not in known:
            raise OptionError(f"{command.name}(): there is no option {name}. It has: {', '.join(known)}.")
    flags = [
        click.Option([f"--{name.replace('_', '-')}", name], is_flag=True) for name, o in known.items() if o.is_flag
    ]
    arguments = _possible(f"{command.name}", [*as_arguments(options, flags), "--", *words])
    try:
        context = command.make_context(command.name, arguments)
    except click.UsageError as error:
        raise OptionError(f"{command.name}(): {error.format_message()} It has the options of the command.") from error
    return context.params


@dataclass(frozen=True)
class Evaluation:
    """Metrics of snapshots.

    results  figures by name (fid_clean, ...), by snapshot
    best     the best snapshot of the run so far, by metric
    floor    FID between two halves of the real images; None without a metric of features
    file     best.json, which names the best snapshot by each metric"""

    results: dict[str, dict[str, float]]
    best: dict[str, str]
    floor: float | None
    file: Path


@_as(commands.evaluate)
def evaluate(run: str | Path, **options: Any) -> Evaluation:
    """Compare images of a run or pickle with real ones. Options are the same as in `stylegan-plugins evaluate`.

    Raises DataError, HostError or OptionError."""
    settings = _read(commands.evaluate, [str(run)], options)
    devices.choose(settings.pop("device"))
    path = settings.pop("run_or_pkl")
    find.choose_host(settings.pop("host"), path)
    data = settings.pop("data")
    rows, best, floor, file = evaluating.results(
        path, data, device=devices.device(), report=lambda line: tell(line, err=True), **settings
    )
    results = {
        pickle: {name: value for line in found.values() for name, value in line["results"].items()}
        for pickle, found in rows.items()
    }
    return Evaluation(results, {name: str(line.get("snapshot_pkl")) for name, line in best.items()}, floor, file)


@_as(commands.compare)
def compare(arguments: Sequence[str] | Mapping[str, Any] = (), **options: Any) -> dict[str, Any]:
    """Train combinations of plug-ins in turn, and return compare.json: settings, and the cells with their values.

    arguments  for every train.py, as `train` takes them: dict(batch=8), or ["--batch=8"]

    A recipe with several data sets returns one compare.json for each, by name. dry_run returns nothing. Options are the
    same as in `stylegan-plugins compare`. Raises DataError, HostError or OptionError."""
    more = as_arguments(arguments) if isinstance(arguments, Mapping) else list(arguments)
    settings = _read(commands.compare, more, options)
    text = commands.compared(**settings)
    if settings["dry_run"]:
        tell(text)
        return {}
    parsed = lambda file: json_lines.parse(file.read_text(encoding="utf-8"))
    outdir = settings["outdir"]
    if (outdir / "compare.json").exists():
        return parsed(outdir / "compare.json")
    return {file.parent.name: parsed(file) for file in sorted(outdir.glob("*/compare.json"))}


@_as(commands.advise)
def advise(**options: Any) -> Advice:
    """Return the train.py command to start with, with reasons and figures. Options and defaults are the same as in
    `stylegan-plugins advise`.

    Raises DataError, HostError, OptionError, or RunError if train.py refuses the command."""
    return commands.advised(**_read(commands.advise, [], options))
