"""SIGTERM and SIGINT (Ctrl-C) end a run after the current iteration, with a state written."""

from __future__ import annotations

import multiprocessing
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

_asked: int | None = None
_interrupted = False


def asked() -> int | None:
    """Return the number of the signal that asked this process to end its run; None so far."""
    return _asked


def install() -> None:
    """Remember signals, in a process that trains. A second Ctrl-C ends the process at once, as usual."""
    _handle(_remember)


def forward() -> None:
    """Hand signals on to the processes that train, in one that waits for them. (A terminal sends Ctrl-C to all, a
    job scheduler or `kill` often to the first one alone.)"""
    _handle(_hand_on)


def outlast(_worker: int = 0) -> None:
    """Ignore Ctrl-C and the first SIGTERM in a data-loader worker, as worker_init_fn: it is needed until its trainer
    has ended. The second SIGTERM ends it (`end_workers`, and Python at its exit, send one each)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: signal.signal(signal.SIGTERM, signal.SIG_DFL))


def end_workers() -> None:
    """End the workers when the training loop is over, perhaps by an error: none may keep the process from ending."""
    children = multiprocessing.active_children()
    if children and threading.current_thread() is threading.main_thread() and hasattr(signal, "SIGCHLD"):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler would call each a crash, after the error
    for child in children:
        child.terminate()


def _handle(handler: Callable[[int, Any], None]) -> None:
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)
        signal.signal(signal.SIGINT, handler)


def _remember(number: int, frame: Any) -> None:
    global _asked, _interrupted
    if number == signal.SIGINT and _interrupted:
        raise KeyboardInterrupt
    _asked = number
    if number == signal.SIGINT:
        _interrupted = True
        print("\nEnding the run after this iteration; Ctrl-C again ends it at once.", file=sys.__stderr__, flush=True)


def _hand_on(number: int, frame: Any) -> None:
    global _asked
    children = multiprocessing.active_children()
    if not children:  # training has not begun
        signal.default_int_handler(number, frame) if number == signal.SIGINT else sys.exit(128 + number)
    _asked = number
    for child in children:
        child.terminate()  # SIGTERM
