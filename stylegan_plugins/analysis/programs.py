"""Programs that run to their end, or end cleanly when this process is told to end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT, *((signal.SIGHUP,) if hasattr(signal, "SIGHUP") else ()))
WATCH_SECONDS = 1.0


def error_in(lines: Iterable[str]) -> str | None:
    """Return the last error in the output of train.py, without `Error: `; None without one."""
    return next((line.removeprefix("Error: ") for line in reversed(list(lines)) if line.startswith("Error: ")), None)


class Programs:
    """Programs that run beside this process. When it is told to end, they end cleanly, by SIGTERM, and then it ends.

    A first signal to this process, also from a closed terminal, becomes SIGTERM for the programs. A second one kills
    all of their processes. Each has a separate session. Use this as a context: at its end the programs are ended."""

    def __init__(self) -> None:
        self.running: list[subprocess.Popen] = []
        self._asked: list[int] = []
        self._waiting = True  # else this process does work that a signal may break off

    def __enter__(self) -> Programs:
        self._before = {number: signal.signal(number, self._hand_on) for number in SIGNALS}
        return self

    def __exit__(self, *error: Any) -> None:
        self._waiting = True
        try:
            if not self._asked:
                self._each("terminate")
            while self.running:
                self._look(lambda: None)
        finally:
            for number, handler in self._before.items():
                signal.signal(number, handler)

    def start(self, arguments: Sequence[str], **how: Any) -> subprocess.Popen:
        """Start a program. how: as for Popen."""
        program = subprocess.Popen(arguments, start_new_session=True, **how)
        self.running.append(program)
        if self._asked:  # a signal came before there was a program
            program.terminate()
        return program

    def wait(self, watch: Callable[[], bool | None] = lambda: None) -> subprocess.Popen:
        """Wait for a program to end, and return it. watch: called every WATCH_SECONDS and at the end; if it returns
        True, all programs are ended."""
        while (ended := self._look(watch)) is None:
            pass
        while self._asked and self.running:
            self._look(watch)
        if self._asked:
            sys.exit(128 + self._asked[0])
        return ended

    @contextmanager
    def meanwhile(self) -> Iterator[None]:
        """Let a signal end this process at once within this context, after its programs."""
        self._waiting = False
        yield
        self._waiting = True

    def _look(self, watch: Callable[[], bool | None]) -> subprocess.Popen | None:
        with suppress(subprocess.TimeoutExpired):
            self.running[0].wait(WATCH_SECONDS / len(self.running))
        if watch():
            self._each("terminate")
        ended = next((program for program in self.running if program.poll() is not None), None)
        if ended is not None:
            self.running.remove(ended)
        return ended

    def _each(self, what: str) -> None:
        for program in self.running:
            if what == "kill" and hasattr(os, "killpg"):
                os.killpg(program.pid, signal.SIGKILL)
            else:
                getattr(program, what)()

    def _hand_on(self, number: int, frame: Any) -> None:
        self._asked.append(number)
        if self.running:
            self._each("terminate" if len(self._asked) == 1 else "kill")
            if len(self._asked) == 1:
                ends = "the run after its iteration" if len(self.running) == 1 else "the runs after their iterations"
                print(f"\nEnding {ends}; again ends it at once.", file=sys.stderr, flush=True)
        if not self._waiting:
            sys.exit(128 + number)


def run(
    arguments: Sequence[str],
    watch: Callable[[], bool | None] = lambda: None,
    show: Callable[[str], None] | None = None,
    **how: Any,
) -> int:
    """Run one program to its end, as in `Programs`. Return the exit code.

    watch: called every WATCH_SECONDS and at the end; if it returns True, the program is ended; show: called with each
    line that it prints; how: as for Popen"""
    if show is not None:
        how |= dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8", errors="replace")
    with Programs() as programs:
        program = programs.start(arguments, **how)
        for line in program.stdout or ():
            if show is not None:
                show(line.rstrip("\n"))
        return programs.wait(watch).returncode
