"""What patched host files call. `from stylegan_plugins import bridge` is the one import in them; it also repairs the
host's modules, which must happen before the host uses them.

The edits that put the calls there, each with its reason, are in `stylegan_plugins.patches`."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn

import click
import torch.multiprocessing

from stylegan_plugins import (
    datacheck,
    devices,
    downloads,
    finetune,
    metrics,
    named_metrics,
    resume,
    signals,
    states,
    training,
)
from stylegan_plugins.checkpoints import Checkpoints
from stylegan_plugins.devices import (
    backend,
    device,
    event,
    peak_memory,
    peak_memory_reserved,
    pin_memory,
    reset_peak_memory,
    stream,
)
from stylegan_plugins.errors import UserError
from stylegan_plugins.progress import Progress
from stylegan_plugins.session import Session
from training_ext import compat
from training_ext.distributed import broadcast, sum_gradients

__all__ = [
    "backend",
    "broadcast",
    "checkpoints",
    "configure",
    "copy_network",
    "device",
    "device_option",
    "event",
    "load_pickle",
    "options",
    "peak_memory",
    "peak_memory_reserved",
    "pin_memory",
    "reset_peak_memory",
    "run",
    "session",
    "stream",
    "sum_gradients",
]

compat.install()

_META = "stylegan_plugins.request"
_session: Session | None = None
_checkpoints = Checkpoints()
_trust_pickle = False


def session() -> Session:
    """The session of the run in this process; one without plug-ins if nobody made one."""
    global _session
    if _session is None:
        _session = Session([], {})
    return _session


def checkpoints() -> Checkpoints:
    """What writes and restores the state of the run in this process; it does nothing if train.py did not start one."""
    return _checkpoints


def load_pickle(file: Any, *args: Any, **kwargs: Any) -> dict[str, tuple[str, Any]]:
    """What --resume starts from, for `copy_network`: networks by name, None for one that the pickle lacks."""
    snapshot = finetune.open_pickle(Path(file.name), _trust_pickle)
    return {name: (name, finetune.network_for(snapshot, name)) for name in ("G", "D", "G_ema")}


def copy_network(source: tuple[str, Any], module: torch.nn.Module, **kwargs: Any) -> None:
    """Copy what fits, and say what was left at random."""
    name, network = source
    print(finetune.table(name, module, finetune.copy_tensors(network, module)))


def options(command: click.Command) -> click.Command:
    """Give a host's training command our options: --plugin, --device, --gan-loss, those of every installed plug-in, and
    those of the other host family that this one lacks. What the host itself was given is handed on unchanged."""
    named_metrics.register()
    try:
        ours = training.options_for(command)
    except UserError as error:
        fail(error)
    command.params.extend(ours)
    names = [option.name for option in ours]
    callback = _callback(command)

    @wraps(callback)
    def checked(*args: Any, **kwargs: Any) -> Any:
        context = click.get_current_context()
        given = frozenset(name for name in kwargs if _was_given(context, name))
        values = {name: kwargs.pop(name) for name in names}
        devices.choose(values.pop("device") or "auto")
        run_dir = values.pop("resume_run")
        if run_dir is not None:
            if "device" not in given:
                devices.choose(training.recorded_device(run_dir))
            recorded, lengths = resume.arguments(Path(run_dir), given, {**kwargs, **values}, click.echo)
            signals.forward()
            if not kwargs.get("dry_run"):
                resume.launch(command, recorded, lengths)
            return _ended()
        request = training.Request.parse(values, given)
        if kwargs.get("workers") == 0:
            kwargs["workers"], request.no_workers = None, True
        if kwargs.get("outdir"):
            datacheck.check_output(kwargs["outdir"])
        if kwargs.get("data"):
            kwargs["data"] = downloads.local_data(kwargs["data"])
            datacheck.check_dataset(kwargs["data"])
        request.dry_run = bool(kwargs.get("dry_run"))
        context.meta[_META] = request
        signals.forward()
        callback(*args, **kwargs)
        return _ended()

    command.callback = _one_line_errors(checked)
    return command


def device_option(command: click.Command) -> click.Command:
    """Give a host's script --device, and one that has --metrics ours, too."""
    command.params.append(training.device_click_option())
    if any(parameter.name == "metrics" for parameter in command.params):
        named_metrics.register()
        command.params.append(training.metric_samples_click_option())
    callback = _callback(command)
    takes_device = "device" in inspect.signature(callback).parameters

    @wraps(callback)
    def checked(*args: Any, **kwargs: Any) -> Any:
        devices.choose(kwargs.pop("device") or "auto")
        samples = kwargs.pop("metric_samples", None)
        named_metrics.begin(None, samples)
        metrics.check_metrics(kwargs.get("metrics") or [], kwargs.get("data"), samples)
        if takes_device:
            kwargs["device"] = device()
        return callback(*args, **kwargs)

    command.callback = _one_line_errors(checked)
    return command


def configure(desc: str, args: Any) -> tuple[str, Any]:
    """The host's arguments are complete: let the plug-ins change them, and record what is active."""
    context = click.get_current_context(silent=True)
    request = context.meta.get(_META) if context is not None else None
    return training.configure(desc, args, request or training.Request())


def run(training_loop: Callable[..., None], rank: int, **args: Any) -> None:
    """Run the host's training loop in this process, with the session of its plug-ins."""
    global _session, _checkpoints, _trust_pickle
    signals.install()
    named_metrics.register()
    named_metrics.begin(Path(args.get("run_dir", ".")), args.pop("metric_samples", None))
    plugins = args.pop("plugins", {})
    args.pop("device", None)
    resumed = args.pop("resumed", None)
    _trust_pickle = args.pop("trust_pickle", False)
    settings = {"minutes": args.pop("state_minutes", 10.0), "keep": args.pop("keep_states", 2)}
    labels = training.use_labels(args, training.recorded_options(plugins))
    training.adapt(args, device(rank), labels)
    progress = Progress(args.get("total_kimg", 0)) if rank == 0 else None
    _session = Session(
        plugins.get("active", []),
        plugins.get("options", {}),
        random_seed=args.get("random_seed", 0),
        rank=rank,
        num_gpus=args.get("num_gpus", 1),
        run_dir=args.get("run_dir", "."),
        progress=progress,
    )
    state = None if resumed is None else states.read_state(Path(resumed))
    if rank == 0:
        states.lock(Path(_session.run_dir))
    _checkpoints = Checkpoints(_session, resumed=state, batch=args["batch_size"], **settings)
    try:
        training_loop(rank=rank, **{"progress_fn": _session.tick, **args})
        _checkpoints.finish()
    finally:
        signals.end_workers()


def _ended() -> None:
    """A run that a signal ended is not complete: what comes after it in a script should not go on."""
    number = signals.asked()
    if number is not None:
        sys.exit(128 + number)


def _callback(command: click.Command) -> Callable[..., Any]:
    assert command.callback is not None  # only groups have none
    return command.callback


def _was_given(context: click.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source in (click.core.ParameterSource.COMMANDLINE, click.core.ParameterSource.ENVIRONMENT)


def _one_line_errors(callback: Callable) -> Callable:
    @wraps(callback)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        stderr = sys.stderr
        try:
            return callback(*args, **kwargs)
        except (UserError, click.ClickException) as error:
            sys.stderr = stderr  # the host's logger writes standard error to standard output
            if isinstance(error, UserError):
                fail(error)
            error.exit_code = 2  # type: ignore[misc]  # stylegan3's own errors would end with 1
            raise
        except torch.multiprocessing.ProcessRaisedException as error:  # of a process of several: it is text by now
            sys.stderr = stderr
            message = re.search(r"^stylegan_plugins\.errors\.\w+: (.*)", str(error), re.MULTILINE)
            if message is None:
                raise
            fail(UserError(message.group(1)))

    return wrapped


def fail(error: UserError) -> NoReturn:
    """One line, exit code 2."""
    click.echo(f"Error: {error}", err=True)
    sys.exit(2)
