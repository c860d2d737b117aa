"""SIGTERM and SIGINT (Ctrl-C) end a run within `SECONDS`, whatever it does.

Between two iterations the run ends with a state written. In set-up, and at the end of a tick (pictures, snapshots,
metrics), it ends at once: a state was written before. In an iteration the signal waits for the iteration's end.

Python runs its handlers between two steps of the main thread, which a long operator or a collective may block. So a
second thread, which the interpreter informs of each signal, ends the process when the time is over."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

SECONDS = 12.0

_asked: int | None = None
_interrupted = False
_held = False


class Ended(SystemExit):
    """The exit of a run by a signal outside of an iteration."""


def asked() -> int | None:
    """Return the number of the signal that asked this process to end its run; None before."""
    return _asked


def install() -> None:
    """Handle signals in a process that trains. A second Ctrl-C ends the process at once, as usual."""
    if _handle(_remember):
        reader, writer = socket.socketpair()
        writer.setblocking(False)
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=_end_in_time, args=(reader, writer), daemon=True).start()


def held() -> bool:
    """Return whether signals wait: in an iteration, or while a state is written."""
    return _held


def hold() -> None:
    """Let signals wait from here on."""
    global _held
    _held = True


def release() -> None:
    """Let signals end the run at once from here on. Raises Ended if one came meanwhile."""
    global _held
    _held = False
    if _asked is not None:
        raise Ended(128 + _asked)


def forward() -> None:
    """Send signals on to the processes that train, in a process that waits for them. (A terminal sends Ctrl-C to all, a
    job scheduler or `kill` often only to the first one.)"""
    _handle(_hand_on)


def outlast(_worker: int = 0) -> None:
    """Ignore Ctrl-C and the first SIGTERM in a data-loader worker, as worker_init_fn: its trainer needs it to the end.
    The second SIGTERM ends it."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: signal.signal(signal.SIGTERM, signal.SIG_DFL))


def end_workers() -> None:
    """End the workers when the training loop is over, perhaps by an error: they must not keep the process running."""
    children = multiprocessing.active_children()
    if children and threading.current_thread() is threading.main_thread() and hasattr(signal, "SIGCHLD"):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler would report each as a crash, after the error
    for child in children:
        child.kill()  # a worker has nothing to save, and ignores the first SIGTERM


def _handle(handler: Callable[[int, Any], None]) -> bool:
    if threading.current_thread() is not threading.main_thread():
        return False
    signal.signal(signal.SIGTERM, handler)
    signal.signal(signal.SIGINT, handler)
    return True


def _remember(number: int, frame: Any) -> None:
    global _asked, _interrupted
    if number == signal.SIGINT and _interrupted:
        raise KeyboardInterrupt
    _asked = number
    if number == signal.SIGINT:
        _interrupted = True
        print("\nEnding the run; Ctrl-C again ends it at once.", file=sys.__stderr__, flush=True)
    if not _held:
        raise Ended(128 + number)


def _end_in_time(reader: socket.socket, writer: socket.socket) -> None:
    """End this process if it still runs `SECONDS` after a signal. (As an argument here, the writer stays open.)"""
    number = 0
    while number not in (signal.SIGTERM, signal.SIGINT):
        number = reader.recv(1)[0]
    time.sleep(SECONDS)
    print(
        f"\nThe run was ended {SECONDS:g} seconds after the signal. --resume-run continues from its newest state.",
        file=sys.__stderr__,
        flush=True,
    )
    end_workers()
    os._exit(128 + number)


def _hand_on(number: int, frame: Any) -> None:
    global _asked
    children = multiprocessing.active_children()
    if not children:  # training has not started
        signal.default_int_handler(number, frame) if number == signal.SIGINT else sys.exit(128 + number)
    _asked = number
    for child in children:
        child.terminate()  # SIGTERM
