"""Runs scripts, each in a fork of this process, which has imported what takes seconds to import.

Standard input: a JSON line {"argv", "cwd", "env", "stdout", "stderr", "timeout"} for each script, which runs as
`python ARGV...` does; stdout and stderr are files, timeout is in seconds. Standard output: a line with its exit status
for each, negative for the signal that ended it."""

import gc
import json
import os
import runpy
import signal
import sys
import types

# Nothing of a host and nothing of ours.
import click  # noqa: F401
import libcst.matchers  # noqa: F401
import numpy  # noqa: F401
import PIL.Image  # noqa: F401
import requests  # noqa: F401
import scipy.linalg  # noqa: F401
import timm  # noqa: F401
import torch.utils.tensorboard  # noqa: F401


def become(argv, cwd, env, stdout, stderr, timeout):
    signal.alarm(timeout)
    for descriptor, (path, flags) in enumerate(
        [(os.devnull, os.O_RDONLY), (stdout, os.O_WRONLY), (stderr, os.O_WRONLY)]
    ):
        os.dup2(os.open(path, flags | os.O_CREAT), descriptor)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.path[1:1] = filter(None, env.get("PYTHONPATH", "").split(os.pathsep))
    if argv[0] == "-c":
        sys.path[0] = ""
        sys.argv = ["-c", *argv[2:]]
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(argv[1], "<string>", "exec"), main.__dict__)
    else:
        sys.path[0] = os.path.dirname(os.path.abspath(argv[0]))
        sys.argv = argv
        runpy.run_path(argv[0], run_name="__main__")


gc.freeze()  # a fork would copy and tidy up all that was imported, at its end
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        become(**json.loads(line))
        break
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
