"""`stylegan-plugins compare`, whose runs of train.py are forks of this process, which saves each the import of torch.

quick_compare.py ARGUMENTS"""

import atexit
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

import torch.multiprocessing

from stylegan_plugins.analysis import programs
from stylegan_plugins.cli import main


class Forked:
    """A fork with the part of subprocess.Popen's interface that programs.run uses."""

    stdout = None  # its output goes to a file

    def __init__(self, arguments, start_new_session, stdout, stderr, env=None):
        os.environ.update(env or {})
        assert start_new_session and stderr == subprocess.STDOUT
        self.code = None
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                os.setsid()
                os.dup2(stdout.fileno(), 1)
                os.dup2(stdout.fileno(), 2)
                for number in programs.SIGNALS:
                    signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
                sys.argv = arguments[1:]
                runpy.run_path(arguments[1], run_name="__main__")
                code = 0
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else int(end.code is not None)
            finally:
                if code and not isinstance(sys.exc_info()[1], SystemExit | None):
                    sys.excepthook(*sys.exc_info())
                threading._shutdown()
                atexit._run_exitfuncs()
                sys.stdout.flush()
                os._exit(code)

    def wait(self, timeout):
        deadline = time.monotonic() + timeout
        while self.code is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            if ended:
                self.code = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("train.py", timeout)
            else:
                time.sleep(0.02)
        return self.code

    def poll(self):
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.code

    @property
    def returncode(self):
        return self.code

    def terminate(self):
        os.kill(self.pid, signal.SIGTERM)


if __name__ == "__main__":
    subprocess.Popen = Forked
    torch.multiprocessing.set_start_method = lambda method: None  # once in a process
    sys.argv = ["stylegan-plugins", "compare", *sys.argv[1:]]
    main()
