"""A call in a child process with limits of time and memory, for code that may use up both."""

from __future__ import annotations

import os
import resource
import signal
import tempfile
import time
import traceback
from collections.abc import Callable

from stylegan_plugins.errors import UserError

MEMORY = 1 << 30  # bytes beyond what the process has
SECONDS = 20


def outcome(call: Callable[[], object]) -> tuple[str, str]:
    """Call a function in a fork of this process. Returns how it ended and what it wrote.

    How: `success`, `one line` (an error of ours), or a failure: `traceback`, `too long`, `memory`, `signal N`."""
    with tempfile.TemporaryFile() as written:
        child = os.fork()
        if child == 0:
            _in_child(call, written.fileno())
        until = time.monotonic() + SECONDS
        done, status = 0, 0
        while not done and time.monotonic() < until:
            done, status = os.waitpid(child, os.WNOHANG)
            time.sleep(0 if done else 0.002)
        if not done:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        written.seek(0)
        text = written.read(20000).decode(errors="replace")
    if not done:
        return "too long", text
    if os.WIFSIGNALED(status):
        return f"signal {os.WTERMSIG(status)}", text
    code = os.WEXITSTATUS(status)
    if "more memory than there is" in text or "MemoryError" in text or "not enough memory" in text:
        return "memory", text
    return {0: "success", 2: "one line"}.get(code, "traceback"), text


def _in_child(call: Callable[[], object], output: int) -> None:
    for descriptor in (1, 2):
        os.dup2(output, descriptor)
    with open("/proc/self/statm") as file:
        limit = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE") + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    code = 70
    try:
        call()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 70
    except UserError as error:
        os.write(2, f"{error}".encode(errors="replace"))
        code = 70 if "\n" in str(error) else 2
    except BaseException:  # noqa: BLE001  # a finding, whatever it is
        os.write(2, traceback.format_exc().encode(errors="replace"))
    finally:
        os._exit(code)
