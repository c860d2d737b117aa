"""Run scripts, each in a fork of this process, which has already imported the slow packages.

    python fork_server.py BYTECODE

BYTECODE is a folder for compiled modules of hosts and of ours, which the scripts share. Standard input has one JSON
object a line, standard output one answer for each:

{"argv", "cwd", "env", "stdout", "stderr", "timeout"}   run `python ARGV...`, with files as its output, for at most
                                                        `timeout` seconds. Answer: its exit status, or minus a signal
{..., "start": true}                                    start it in its own process group. Answer: its process id
{"poll": PID}                                           answer: the exit status of a started script, null while it runs
"""

import atexit
import gc
import json
import os
import runpy
import signal
import sys
import threading
import types

# Nothing of a host and nothing of ours.
import click  # noqa: F401
import filelock  # noqa: F401
import imagehash  # noqa: F401
import jinja2  # noqa: F401
import libcst.matchers  # noqa: F401
import matplotlib.figure  # noqa: F401
import msgspec  # noqa: F401
import numpy  # noqa: F401
import PIL.Image  # noqa: F401
import pluggy  # noqa: F401
import psutil  # noqa: F401
import requests  # noqa: F401
import safetensors.torch  # noqa: F401
import scipy.linalg
import scipy.signal
import scipy.stats  # noqa: F401
import sklearn.linear_model
import sklearn.model_selection  # noqa: F401
import timm  # noqa: F401
import torch.utils.tensorboard  # noqa: F401


def become(argv, cwd, env, stdout, stderr, timeout, start=False):
    if start:
        os.setsid()
    signal.alarm(timeout)
    for descriptor, (path, flags) in enumerate(
        [(os.devnull, os.O_RDONLY), (stdout, os.O_WRONLY), (stderr, os.O_WRONLY)]
    ):
        os.dup2(os.open(path, flags | os.O_CREAT | os.O_APPEND), descriptor)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.path[1:1] = filter(None, env.get("PYTHONPATH", "").split(os.pathsep))
    sys.pycache_prefix, sys.dont_write_bytecode = sys.argv[1], False
    if argv[0] == "-c":
        sys.path[0] = ""
        sys.argv = ["-c", *argv[2:]]
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(argv[1], "<string>", "exec"), main.__dict__)
    else:
        sys.path[0] = os.path.dirname(os.path.abspath(argv[0]))
        sys.argv = argv
        runpy.run_path(argv[0], run_name="__main__")


def leave(code, interrupted):
    """End this process as Python does, without taking its modules apart, which takes longer than most scripts."""
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    if interrupted:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(code)


def status(pid, options):
    """Return the exit status of a child, None while it runs."""
    ended, code = os.waitpid(pid, options)
    return os.waitstatus_to_exitcode(code) if ended else None


gc.freeze()  # a fork would copy and free all imported modules at its end
for line in sys.stdin:
    request = json.loads(line)
    if "poll" in request:
        answer = status(request["poll"], os.WNOHANG)
    else:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                become(**request)
                code = 0
            except SystemExit as end:
                if not isinstance(end.code, int | None):
                    print(end.code, file=sys.stderr)
                code = end.code if isinstance(end.code, int) else int(end.code is not None)
            finally:
                if sys.exc_info()[0] is not None:
                    sys.excepthook(*sys.exc_info())
                leave(code & 0xFF, interrupted=sys.exc_info()[0] is KeyboardInterrupt)
        answer = child if request.get("start") else status(child, 0)
    print(json.dumps(answer), flush=True)
