"""SIGTERM and SIGINT (Ctrl-C) end a run after the current iteration, with a state written."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)
HANGUP = (signal.SIGHUP,) if hasattr(signal, "SIGHUP") else ()
_asked: int | None = None
_interrupted = False


def asked() -> int | None:
    """Return the number of the signal that asked this process to end its run; None so far."""
    return _asked


def install() -> None:
    """Remember signals, in a process that trains. A second Ctrl-C ends the process at once, as usual."""
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            signal.signal(number, _remember)


def forward() -> None:
    """Hand signals on to the processes that train, in one that waits for them. (A terminal sends Ctrl-C to all, a
    job scheduler or `kill` often to the first one alone.)"""
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            signal.signal(number, _hand_on)


def run(arguments: Sequence[str], **how: Any) -> int:
    """Run a program that ends, in good order, at SIGTERM, in a session of its own. A signal to this process, a closed
    terminal's among them, is handed on as that, a second one ends all of its processes; when it has ended, this process
    ends, too.

    how: as of Popen. Returns the exit code."""
    asked: list[int] = []
    program: subprocess.Popen | None = None

    def hand_on(number: int, frame: Any) -> None:
        asked.append(number)
        if program is None:
            return
        if len(asked) == 1:
            program.terminate()
            print("\nEnding the run after its iteration; again ends it at once.", file=sys.stderr, flush=True)
        elif hasattr(os, "killpg"):
            os.killpg(program.pid, signal.SIGKILL)
        else:
            program.kill()

    before = {number: signal.signal(number, hand_on) for number in (*SIGNALS, *HANGUP)}
    try:
        program = subprocess.Popen(arguments, start_new_session=True, **how)
        if asked:  # before there was a program
            program.terminate()
        code = program.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if asked:
        sys.exit(128 + asked[0])
    return code


def outlast(_worker: int = 0) -> None:
    """Ignore Ctrl-C and the first SIGTERM in a data-loader worker, as worker_init_fn: it is needed until its trainer
    has ended. The second SIGTERM ends it (`end_workers`, and Python at its exit, send one each)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: signal.signal(signal.SIGTERM, signal.SIG_DFL))


def end_workers() -> None:
    """End the workers when the training loop is over, perhaps by an error: none may keep the process from ending."""
    children = multiprocessing.active_children()
    if children and threading.current_thread() is threading.main_thread() and hasattr(signal, "SIGCHLD"):
        signal.signal(
            signal.SIGCHLD, signal.SIG_DFL
        )  # torch's handler would call each of them a crash, after the error
    for child in children:
        child.terminate()


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
