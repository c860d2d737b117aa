"""Run a script of the host in the current folder many times, at the price of one start.

    python run_many.py train.py RUNS.json RESULTS.json

RUNS: [{"args": [...], "env": {...}}, ...]. Each run is a fork of this process, in which torch and the host are imported
already, that executes the script as `python SCRIPT ARGS` does. RESULTS: a list of {"code", "stdout", "stderr",
"seconds"}, in the same order.
"""

import json
import os
import runpy
import sys
import tempfile
import time
import traceback
from pathlib import Path

AT_ONCE = 3


def run(script, args, env, stdout, stderr):
    """Become `python script args`, in the child. Never returns."""
    code = 1
    try:
        os.environ.update(env)
        os.dup2(stdout.fileno(), 1)
        os.dup2(stderr.fileno(), 2)
        sys.argv = [script, *args]
        runpy.run_path(script, run_name="__main__")
        code = 0
    except SystemExit as exit:
        code = exit.code if isinstance(exit.code, int) else int(exit.code is not None)
    finally:
        if sys.exc_info()[0] is not None:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # tidying up a copy of torch would take longer than all the rest


def main():
    script = sys.argv[1]
    sys.path.insert(0, os.getcwd())
    __import__(script.removesuffix(".py"))  # with its imports; each run executes the script again
    results, running = {}, {}

    def finish_one():
        pid, status = os.wait()
        index, started, stdout, stderr = running.pop(pid)
        texts = []
        for file in (stdout, stderr):
            file.seek(0)
            texts.append(file.read())
        results[index] = {
            "code": os.waitstatus_to_exitcode(status),
            "stdout": texts[0],
            "stderr": texts[1],
            "seconds": time.monotonic() - started,
        }

    for index, case in enumerate(json.loads(Path(sys.argv[2]).read_text())):
        stdout, stderr = (tempfile.TemporaryFile("w+", encoding="utf-8") for _ in range(2))  # noqa: SIM115
        pid = os.fork()
        if pid == 0:
            run(script, case["args"], case.get("env", {}), stdout, stderr)
        running[pid] = index, time.monotonic(), stdout, stderr
        if len(running) == AT_ONCE:
            finish_one()
    while running:
        finish_one()
    Path(sys.argv[3]).write_text(json.dumps([results[index] for index in sorted(results)]))


if __name__ == "__main__":
    main()
