"""Several processes of one run: an error in one of them ends all, and the user sees this error.

The hosts start processes by torch.multiprocessing.spawn, which reports the process that ends first. It sends SIGTERM to
the others, and SIGKILL after 30 seconds."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from functools import wraps

import torch
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

from stylegan_plugins.errors import RunError, StateError, UserError
from stylegan_plugins.run import signals

SECONDS = 20.0  # less than the 30 seconds after which spawn kills
# Backends also raise plain RuntimeErrors.
LOST = re.compile(r"gloo|nccl|connection (closed|reset|refused)|broken pipe|socket", re.IGNORECASE)


def cause_first(run: Callable[..., None]) -> Callable[..., None]:
    """Let a process that lost another one wait, so that the process with the cause ends first. If a signal asks the run
    to end, this process ends without an error."""

    @wraps(run)
    def waiting(*args: object, **kwargs: object) -> None:
        try:
            run(*args, **kwargs)
        except (RuntimeError, RunError) as error:
            if not lost_another(error):
                raise
            deadline = time.monotonic() + SECONDS
            while time.monotonic() < deadline and signals.asked() is None:
                time.sleep(0.1)
            if signals.asked() is None:
                raise

    return waiting


def lost_another(error: BaseException) -> bool:
    """Return whether an error comes from a collective in which another process has ended."""
    return torch.distributed.is_initialized() and LOST.search(str(error)) is not None


def error_of(error: ProcessRaisedException | ProcessExitedException) -> UserError | None:
    """Return the error of the process that ended all others; None if a user cannot mend it."""
    if isinstance(error, ProcessRaisedException):  # only its text is left
        message = re.search(r"^stylegan_plugins\.errors\.\w+: (.*)", str(error), re.MULTILINE)
        return None if message is None else UserError(message.group(1))
    how = f"exit code {error.exit_code}" if error.signal_name is None else error.signal_name
    why = ", which the system sends when memory runs out" if how == "SIGKILL" else ""
    return StateError(
        f"Process {error.error_index} of the run ended with {how}{why}; the others were stopped. If there is a "
        "training state, continue with --resume-run."
    )
