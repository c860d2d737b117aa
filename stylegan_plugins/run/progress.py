"""A line of progress: images per second and the time left."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TextIO


@dataclass(eq=False)
class Progress:
    """A line twice a minute, which the host's logger also writes to log.txt. On a terminal it is also rewritten in
    place between.

    total_kimg   length of the run in thousands of real images
    log          where lines go; None: standard output, which the host's logger copies
    terminal     where the line is rewritten in place; None: the real standard output
    clock        seconds, for tests"""

    total_kimg: float
    log: TextIO | None = None
    terminal: TextIO | None = None
    clock: Callable[[], float] = time.monotonic

    LOG_SECONDS = 30.0
    TERMINAL_SECONDS = 0.5
    WINDOW = 50  # iterations that give the speed

    def __post_init__(self) -> None:
        self.total = int(self.total_kimg * 1000)
        terminal = self.terminal or sys.__stdout__
        self.terminal = terminal if terminal is not None and terminal.isatty() else None
        self._seen: deque[tuple[float, int]] = deque(maxlen=self.WINDOW)
        self._logged = self._shown = self.clock()

    def update(self, cur_nimg: int) -> None:
        """Count a completed iteration. cur_nimg: real images shown so far."""
        now = self.clock()
        self._seen.append((now, cur_nimg))
        if now - self._logged >= self.LOG_SECONDS or cur_nimg >= self.total:
            self._logged = self._shown = now
            print(("\r" if self.terminal else "") + self.line(cur_nimg), file=self.log or sys.stdout, flush=True)
        elif self.terminal is not None and now - self._shown >= self.TERMINAL_SECONDS:
            self._shown = now
            self.terminal.write(f"\r{self.line(cur_nimg)}\033[K\r")
            self.terminal.flush()

    def line(self, cur_nimg: int) -> str:
        """Return the line, for example `progress: 1.2 of 25.0 kimg (4%)  57.3 images/s  6m 55s left`."""
        (start, first), (now, last) = self._seen[0], self._seen[-1]
        share = min(100 * cur_nimg // max(self.total, 1), 100)  # the last batch may exceed it
        text = f"progress: {cur_nimg / 1000:.1f} of {self.total / 1000:.1f} kimg ({share}%)"
        if now <= start or last <= first:
            return text
        speed = (last - first) / (now - start)
        return f"{text}  {speed:.1f} images/s  {duration((self.total - cur_nimg) / speed)} left"


def duration(seconds: float) -> str:
    seconds = max(int(seconds), 0)
    if seconds >= 86400:
        return f"{seconds // 86400}d {seconds % 86400 // 3600}h"
    if seconds >= 3600:
        return f"{seconds // 3600}h {seconds % 3600 // 60}m"
    return f"{seconds // 60}m {seconds % 60}s"
