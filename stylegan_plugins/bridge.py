"""Functions that patched host files call. `from stylegan_plugins import bridge` is the only import in those files. The
import also repairs the host's modules before the host uses them, and lets scripts print any text.

The edits that add the calls, each with its reason, are in `stylegan_plugins.patches`."""

from __future__ import annotations

from stylegan_plugins.host import imports

# isort: split

import inspect
import os
import re
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import wraps
from pathlib import Path
from typing import Any, BinaryIO

import click
import torch
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

from stylegan_plugins.cache import remember_host
from stylegan_plugins.errors import OptionError, UserError, escape_unencodable, fail, tell
from stylegan_plugins.files import datasets, demo, prepare, run_folders, states
from stylegan_plugins.files.atomic import whole
from stylegan_plugins.host import compat, devices, drawing, generators, patch
from stylegan_plugins.host.devices import (  # noqa: F401  # patched files call them
    backend,
    device,
    event,
    peak_memory,
    peak_memory_reserved,
    pin_memory,
    reset_peak_memory,
    stream,
)
from stylegan_plugins.host.drawing import load_networks, picture, target  # noqa: F401  likewise
from stylegan_plugins.host.modules import host_directory, host_module
from stylegan_plugins.manager import FAULTS, Plugins, recorded
from stylegan_plugins.run import (
    arguments,
    defaults,
    finetune,
    host_metrics,
    memory,
    optimizers,
    processes,
    resume,
    signals,
    torchrun,
)
from stylegan_plugins.run.checkpoints import Checkpoints
from stylegan_plugins.run.identity import identity_of
from stylegan_plugins.run.previews import Previews
from stylegan_plugins.run.progress import Progress
from stylegan_plugins.run.session import Session
from training_ext.distributed import TIMEOUT, average_gradients, broadcast  # noqa: F401  # likewise

escape_unencodable()
compat.install()
imports.end()

_META = "stylegan_plugins.request"
_GIVEN = (click.core.ParameterSource.COMMANDLINE, click.core.ParameterSource.ENVIRONMENT)


@dataclass
class _Run:
    """The run in this process. The host builds networks by class name and calls the functions of this module without
    naming a run, so this module has to remember it."""

    session: Session = field(default_factory=lambda: Session(Plugins()))
    checkpoints: Checkpoints = field(default_factory=Checkpoints)  # does nothing if train.py did not start a run
    trust_pickle: bool = False


_run = _Run()


def session() -> Session:
    """Return the session of the run in this process. Before a run starts, it is a session without plug-ins."""
    return _run.session


def checkpoints() -> Checkpoints:
    """Return the object that writes and restores the state of the run in this process."""
    return _run.checkpoints


def previews() -> Previews:
    """Return the object that updates the previews of the run in this process during training."""
    return _run.checkpoints.previews


def generator(host_class: str, **kwargs: Any) -> torch.nn.Module:
    """Build the host's G with the module of a plug-in before its mapping network. The host calls this as a class."""
    G = host_module("dnnlib").util.construct_class_by_name(class_name=host_class, **kwargs)
    return generators.with_module(G, _run.session.plugins, _run.session.random_seed)


def load_pickle(file: Any, *args: Any, **kwargs: Any) -> dict[str, tuple[str, Any]]:
    """Read the networks that --resume starts from, by name, for `copy_network`; None for a network that the pickle
    lacks."""
    snapshot = finetune.open_pickle(Path(file.name), _run.trust_pickle)
    return {name: (name, finetune.network_for(snapshot, name)) for name in ("G", "D", "G_ema")}


def whole_file(path: str) -> AbstractContextManager[BinaryIO]:
    """Open a file of a run for writing. The file gets its final name when it is complete."""
    return whole(Path(path))


def copy_network(source: tuple[str, Any], module: torch.nn.Module, **kwargs: Any) -> None:
    """Copy the tensors that fit, and print which tensors stay at random."""
    name, network = source
    print(finetune.table(name, module, finetune.copy_tensors(network, module)))


def options(command: click.Command) -> click.Command:
    """Give a host's training command our options: --plugin, --device, --gan-loss, the options of every installed
    plug-in, and options of the other host family that this one lacks. The host's own options are passed on unchanged.
    """
    host_metrics.register()
    try:
        ours = arguments.options_for(command)
    except UserError as error:
        fail(error)
    theirs = {parameter.name for parameter in command.params}
    command.params.extend(ours)
    arguments.take_files(command)
    incomplete = defaults.relax(command)
    world = torchrun.world()
    if world is not None:
        torchrun.take_gpus(command, world.size)
    callback: Any = command.callback

    @wraps(callback)
    def checked(*args: Any, **kwargs: Any) -> Any:
        host_metrics.register()  # now with the metrics of plug-ins that are given as files
        patch.check_edits(host_directory())
        remember_host(host_directory())
        context = click.get_current_context()
        given = {name: kwargs[name] for name in kwargs if context.get_parameter_source(name) in _GIVEN}
        for name in sorted(given):
            if given[name] == "":
                raise OptionError(f"--{name.replace('_', '-')} is empty. Give a value, or leave it out.")
        arguments.take_r1(kwargs, given)
        if world is not None and world.rank:
            torchrun.follow(world, inspect.unwrap(callback).__globals__["subprocess_fn"])
            return _ended()
        devices.choose(kwargs.pop("device") or "auto")
        run_dir = kwargs.pop("resume_run")
        if world is not None and world.restarts and run_dir is None:
            run_dir = arguments.AUTO  # torchrun may have restarted the run
        if run_dir not in (None, arguments.AUTO):
            return _resume(command, Path(run_dir), given)
        if resumes := arguments.AUTO in (run_dir, kwargs.get("resume")):
            given.pop("resume_run", None)
        if kwargs.get("resume") == arguments.AUTO:
            kwargs["resume"] = None
            given.pop("resume", None)
        small = devices.device().type == "cpu" and "cfg" not in given
        known = given if world is None else {**given, "gpus": world.size}
        for_cpu = defaults.for_cpu(known) if small else {}
        kwargs.update(for_cpu)
        values = {name: kwargs.pop(name) for name in list(kwargs) if name not in theirs}
        how = prepare.How.take(values, cond=bool(kwargs.get("cond")))
        if kwargs.get("resume"):
            kwargs["resume"] = demo.network_of(kwargs["resume"])
            how = finetune.like_pickle(how, kwargs["resume"], bool(values.get("trust_pickle")))
        elif small:
            how = replace(how, limit=defaults.CPU_SIDE)
        request = arguments.Request.parse(values, frozenset(given))
        request.timed = small and "kimg" not in given
        if kwargs.get("outdir") is not None:
            run_folders.check_name(kwargs["outdir"], "--outdir")
            datasets.check_output(kwargs["outdir"])
            kwargs["outdir"] = os.path.abspath(kwargs["outdir"])  # a run can be resumed from any folder
            request.resumes = Path(kwargs["outdir"]) if resumes else None
        if kwargs.get("data"):
            request.data = prepare.prepared(kwargs["data"], how)
            without = sorted(given.keys() & {"crop", "stretch"})
            if without and not request.data.pictures:
                raise OptionError(f"--{without[0]}: {kwargs['data']} is a data set, and used as it is. Leave it out.")
            kwargs["data"] = request.data.path
            if incomplete:
                side = datasets.check_dataset(Path(kwargs["data"]))[1]
                kwargs = defaults.complete(command, {**for_cpu, **known}, side, kwargs)
        if kwargs.get("workers") == 0:
            kwargs["workers"], request.no_workers = None, True
        request.dry_run = bool(kwargs.get("dry_run"))
        context.meta[_META] = request
        signals.forward()
        try:
            callback(*args, **kwargs)
        except resume.Begun as same:
            try:
                _resume(command, same.run_dir, {name: given[name] for name in resume.SAME_RUN if name in given})
            except resume.CompleteError as error:
                tell(str(error))
        return _ended()

    command.callback = _one_line_errors(checked if world is None or world.rank else torchrun.leading(world, checked))
    return command


def _resume(command: click.Command, run_dir: Path, given: dict[str, Any]) -> None:
    """Resume a run on its recorded device, unless --device is given."""
    run_folders.check_name(run_dir, "--resume-run")
    folder = run_folders.newest_run(run_dir)
    if "device" not in given:
        recorded_device = (run_folders.read_options(folder) or {}).get("device")
        devices.choose(recorded_device if recorded_device in devices.CHOICES else "auto")
    resume.resume(command, folder, {name: value for name, value in given.items() if name != "resume_run"})
    _ended()


def device_option(command: click.Command) -> click.Command:
    """Give a host's script --device, a script that draws images --class if it lacks it, and a script with --metrics our
    metrics."""
    command.params.append(arguments.DEVICE_OPTION)
    if adds_class := drawing.takes_class(command):
        command.params.append(drawing.CLASS_OPTION)
    if any(parameter.name == "metrics" for parameter in command.params):
        host_metrics.register()
        command.params.append(arguments.METRIC_SAMPLES_OPTION)
    callback: Any = command.callback
    takes_device = "device" in inspect.signature(callback).parameters

    @wraps(callback)
    def on_device(*args: Any, **kwargs: Any) -> Any:
        devices.choose(kwargs.pop("device") or "auto")
        pickle = Path(str(kwargs.get("network_pkl", "")))
        if kwargs.get("data"):
            kwargs["data"] = prepare.usable(kwargs["data"], prepare.How.of_run(pickle.parent))
        samples = kwargs.pop("metric_samples", None)
        host_metrics.check_samples(samples, kwargs.get("metrics"))
        host_metrics.begin(pickle.parent if drawing.has_labels_of_a_plugin(pickle) else None, samples)
        host_metrics.check_metrics(kwargs.get("metrics") or [], kwargs.get("data"), samples)
        drawing.check_options(command, kwargs)
        if adds_class:
            kwargs.pop(drawing.LABEL)  # load_networks has it from click's context
        if takes_device:
            kwargs["device"] = device()
        return callback(*args, **kwargs)

    command.callback = _one_line_errors(_telling_of_files(on_device))
    return command


def checked(command: click.Command) -> click.Command:
    """Let a host's script report wrong values, and files that cannot be read or written, in one line."""
    callback: Any = command.callback

    @wraps(callback)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        drawing.check_options(command, kwargs)
        return callback(*args, **kwargs)

    command.callback = _one_line_errors(_telling_of_files(wrapped))
    return command


def _telling_of_files(callback: Callable) -> Callable:
    @wraps(callback)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return callback(*args, **kwargs)
        except OSError as error:
            raise drawing.one_line(error) from error

    return wrapped


def configure(desc: str, args: Any) -> tuple[str, Any]:
    """Let the plug-ins change the host's complete arguments, and record the active plug-ins."""
    context = click.get_current_context(silent=True)
    request = context.meta.get(_META) if context is not None else None
    request = request or arguments.Request()
    desc, args = arguments.configure(desc, args, request)
    args["host"] = str(host_directory())
    if request.resumes is not None and (run_dir := resume.begun(request.resumes, args)):
        raise resume.Begun(run_dir)
    if request.length:
        tell(request.length)
    return re.sub("[\ud800-\udfff]", "_", desc), args  # the name of the data set may have bytes that are not text


@processes.cause_first
def run(training_loop: Callable[..., None], rank: int, **args: Any) -> None:
    """Run the host's training loop in this process, with the session of its plug-ins."""
    global _run
    signals.install()
    if device(rank).type == "cpu" or args.get("data_loader_kwargs", {}).get("num_workers") == 0:
        memory.keep_freed_memory()
    optimizers.leave_compiler_out()
    resumed = args.pop("resumed", None)
    identity = identity_of(args) if rank == 0 and "training_set_kwargs" in args else {}
    plugins = recorded(args.pop("plugins", {}))
    host_metrics.register()
    host_metrics.begin(Path(args.get("run_dir", ".")), args.pop("metric_samples", None))
    for name in ("device", "host", "pictures", "class_names"):
        args.pop(name, None)
    settings = {"minutes": args.pop("state_minutes", 10.0), "keep": args.pop("keep_states", 2)}
    shown = {"minutes": args.pop("image_minutes", None), "pages": not args.pop("no_report", False)}
    settings["cache"] = args.pop("cache", None)
    on_nan = args.pop("on_nan", "stop")
    trust_pickle = args.pop("trust_pickle", False)
    labels = arguments.use_labels({**args, "plugins": plugins.record()}, plugins)
    arguments.adapt(args, device(rank), labels)
    session = Session(
        plugins,
        random_seed=args.get("random_seed", 0),
        rank=rank,
        num_gpus=args.get("num_gpus", 1),
        total_nimg=round(args.get("total_kimg", 0) * 1000),
        rounds=args["batch_size"] // (args["batch_gpu"] * args.get("num_gpus", 1)),
        run_dir=Path(args.get("run_dir", ".")),
        progress=Progress(args.get("total_kimg", 0)) if rank == 0 else None,
        on_nan=on_nan,
    )
    if resumed is None and rank == 0:
        states.lock(session.run_dir)  # the starting process has locked a resumed run
    if isinstance(resumed, str):  # each process reads the state from its file
        resumed = states.read_state(Path(resumed))
    if resumed is not None:
        grid = resumed["grid_z"]  # None: the host's loop has no grid
        shown |= {"begun": resumed["position"]["cur_nimg"], "kept": len(grid) if isinstance(grid, torch.Tensor) else 0}
    previews = Previews(session, **shown)
    checkpoints = Checkpoints(
        session, resumed=resumed, batch=args["batch_size"], identity=identity, previews=previews, **settings
    )
    _run = _Run(session, checkpoints, trust_pickle)
    try:
        training_loop(rank=rank, **{"progress_fn": checkpoints.tick, **args})
        checkpoints.finish()
    except signals.Ended:
        checkpoints.say_how_it_goes_on()
    except torch.OutOfMemoryError as error:
        raise memory.out_of_memory(args) from error
    except (*FAULTS, *datasets.BROKEN, MemoryError) as error:
        if isinstance(error, UserError):
            raise
        if signals.asked() is not None and processes.lost_another(error):
            return checkpoints.say_how_it_goes_on()
        if checkpoints.not_restored:
            raise checkpoints.does_not_fit(error) from error
        if checkpoints.inside:
            raise
        raise checkpoints.ended_by(error, "at the end of a tick") from error
    finally:
        signals.end_workers()


def _ended() -> None:
    """Exit with an error code if a signal ended the run, so that a script does not continue after an incomplete run."""
    number = signals.asked()
    if number is not None:
        sys.exit(128 + number)


def _one_line_errors(callback: Callable) -> Callable:
    @wraps(callback)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        stderr = sys.stderr
        try:
            return callback(*args, **kwargs)
        except (UserError, click.ClickException, ProcessRaisedException, ProcessExitedException) as error:
            sys.stderr = stderr  # the host's logger writes standard error to standard output
            if isinstance(error, UserError):
                fail(error)
            if isinstance(error, click.ClickException):
                error.exit_code = 2  # type: ignore[misc]  # stylegan3's own errors would end with 1
                raise
            cause = processes.error_of(error)
            if cause is None:
                click.echo(str(error).strip(), err=True)  # the traceback of the failed process, not of this one
                sys.exit(1)
            fail(cause)

    return wrapped
