"""A program that is run to its end, and ends in good order when this process is told to end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT, *((signal.SIGHUP,) if hasattr(signal, "SIGHUP") else ()))
WATCH_SECONDS = 1.0


def error_in(lines: Iterable[str]) -> str | None:
    """Return the last error in the output of train.py, without `Error: `; None without one."""
    return next((line.removeprefix("Error: ") for line in reversed(list(lines)) if line.startswith("Error: ")), None)


def run(
    arguments: Sequence[str],
    watch: Callable[[], bool | None] = lambda: None,
    show: Callable[[str], None] | None = None,
    **how: Any,
) -> int:
    """Run a program that ends, in good order, at SIGTERM, in a session of its own. A signal to this process, a closed
    terminal's among them, is handed on as that, a second one ends all of its processes; when it has ended, this process
    ends, too.

    watch: called every WATCH_SECONDS, and at the end; if it returns True, the program is ended; show: called with each
    line that it prints; how: as of Popen. Returns the exit code."""
    if show is not None:
        how |= dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8", errors="replace")
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

    before = {number: signal.signal(number, hand_on) for number in SIGNALS}
    try:
        program = subprocess.Popen(arguments, start_new_session=True, **how)
        if asked:  # before there was a program
            program.terminate()
        for line in program.stdout or ():
            if show is not None:
                show(line.rstrip("\n"))
        code = None
        while code is None:
            with suppress(subprocess.TimeoutExpired):
                code = program.wait(WATCH_SECONDS)
            if watch() and code is None:
                program.terminate()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if asked:
        sys.exit(128 + asked[0])
    return code
