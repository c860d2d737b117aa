"""What metrics download: looked for before training starts."""

from __future__ import annotations

import contextlib
import functools
import types
from collections.abc import Iterator, Sequence
from typing import Any

import requests

from stylegan_plugins.errors import OptionError
from stylegan_plugins.host.modules import host_module

SECONDS = 10.0


def check_metrics(names: Sequence[str], data: str | None, samples: int | None = None) -> None:
    """Fetch what metrics of these names need: the host's detectors into the host's own cache, backbones into ours.

    data, samples: of our metrics. Raises OptionError or DataError if it cannot be had."""
    if not names:
        return
    metric_main = host_module("metrics.metric_main")
    util = host_module("dnnlib").util
    for name in names:
        function = metric_main._metric_dict.get(name)
        if function is None:
            continue  # the host says so
        if hasattr(function, "check"):  # one of ours
            function.check(data, samples)
            continue
        for url in detector_urls(function):
            try:
                with _not_waiting_forever(util), util.open_url(url, num_attempts=1, verbose=False):
                    pass
            except (OSError, requests.RequestException) as error:
                raise OptionError(
                    f"--metrics={name} needs {url}, which cannot be had ({type(error).__name__}). "
                    "Use --metrics=none, or connect to the network once: it is kept in a cache."
                ) from error


@contextlib.contextmanager
def _not_waiting_forever(util: Any) -> Iterator[None]:
    """Let the host's downloads time out: in a network that drops packets it would wait for ever."""

    class Session(requests.Session):
        request = functools.partialmethod(requests.Session.request, timeout=SECONDS)  # type: ignore[assignment]

    module, util.requests = util.requests, types.SimpleNamespace(Session=Session, compat=requests.compat)
    try:
        yield
    finally:
        util.requests = module


def detector_urls(metric: types.FunctionType) -> list[str]:
    """Return the addresses in the code that a metric calls: in modules that it names, functions that hold one."""
    modules = [metric.__globals__.get(name) for name in metric.__code__.co_names]
    found = {
        constant
        for module in modules
        if isinstance(module, types.ModuleType) and module.__name__.startswith("metrics.")
        for function in vars(module).values()
        if isinstance(function, types.FunctionType) and function.__module__ == module.__name__
        for constant in _strings(function.__code__)
        if constant.startswith(("http://", "https://"))
    }
    return sorted(found)


def _strings(code: types.CodeType) -> Iterator[str]:
    for constant in code.co_consts:
        if isinstance(constant, str):
            yield constant
        elif isinstance(constant, types.CodeType):
            yield from _strings(constant)
