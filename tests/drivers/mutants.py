"""Run in a patched host's folder: resume a small run whose files were changed at random, many times.

    mutants.py RUN COUNT SEED

Each mutant is a copy of RUN in which one value of training_options.json, of the newest state's JSON or of the newest
state is another, is missing or is too much, or in which some bytes are others. The checksum of a changed state is made
to fit: it is a crafted one. Each is resumed for one iteration in a fork of this process, with 20 seconds and 1 GB.
Prints a JSON line: [kind, what was changed, how it ended], the end being "trained", "refused" (one line, exit code 2)
or what is wrong."""

import copy
import hashlib
import json
import os
import random
import re
import resource
import runpy
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import psutil
import torch

sys.path.insert(0, ".")
from stylegan_plugins.files import states, trees
from stylegan_plugins.run import checkpoints

JUNK = [None, True, -1, 0, 1, 3, 2**31, 2**70, -1.5, 0.5, 1e308, float("nan"), float("inf"), "", "x", "os.system"]
JUNK += ["training.dataset.os.system", "\ud800", [], [1], [[[[]]]], {}, {"class_name": "os.system"}, "9" * 5000]
SECONDS, BYTES = 20, 1 << 30


def paths_of(value, path=()):
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from paths_of(item, (*path, key))


def changed(value, dice, junk):
    """Return a copy of nested data with one change, and the change in words."""
    value = copy.deepcopy(value)
    path = dice.choice(list(paths_of(value)))
    parent = value
    for key in path[:-1]:
        parent = parent[key]
    how, new = dice.choice(["replaced", "replaced", "missing", "too much"]), dice.choice(junk)
    if how == "missing":
        del parent[path[-1]]
    elif how == "too much" and isinstance(parent, dict):
        parent["unknown"] = new
    else:
        parent[path[-1]] = new
    return value, f"{'.'.join(map(str, path))} {how} {new!r:.40}"


def mutate(run, dice):
    """Change one thing in a run. Returns its kind and the change in words."""
    state = states.states_of(run)[0]
    kind = dice.choice(["options", "info", "state", "bytes"])
    if kind == "options":
        file = run / "training_options.json"
        value, words = changed(json.loads(file.read_text()), dice, JUNK)
        file.write_text(json.dumps(value))
    elif kind == "info":
        value, words = changed(json.loads(states.info_path(state).read_text()), dice, JUNK)
        states.info_path(state).write_text(json.dumps(value))
    elif kind == "state":
        tensors = [torch.zeros([2]), torch.full([3, 3], float("nan")), torch.zeros([0]), torch.tensor(1)]
        value, words = changed(trees.from_bytes(state.read_bytes()), dice, JUNK + tensors)
        data = trees.to_bytes(value)
        state.write_bytes(data)
        info = json.loads(states.info_path(state).read_text())
        info |= {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        states.info_path(state).write_text(json.dumps(info))
    else:
        file = dice.choice([run / "training_options.json", states.info_path(state), state])
        data, words = bytearray(file.read_bytes()), f"bytes of {file.name}"
        for _ in range(dice.randint(1, 4)):
            data[dice.randrange(min(len(data), 4000))] = dice.randrange(256)
        file.write_bytes(data[: dice.choice([len(data), dice.randrange(len(data))])])
    return kind, words


def resume(run, output):
    """Resume a run in a fork as a user does, within limits. Never returns."""
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(SECONDS)
    used = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (used + BYTES, used + BYTES))
    sys.argv = ["train.py", f"--resume-run={run}", "--accept-changes"]
    done = checkpoints.Checkpoints.batch_end

    def one_iteration(self, nimg, batch_idx):
        done(self, nimg, batch_idx)
        os._exit(0)

    checkpoints.Checkpoints.batch_end = one_iteration
    code = 1
    try:
        runpy.run_path("train.py", run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        if sys.exc_info()[0] is not None:
            sys.excepthook(*sys.exc_info())
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def end_of(status, text):
    lines = [line for line in text.splitlines() if line.startswith("Error: ")]
    if status == 0:
        return "trained"
    if status == 2 and len(lines) == 1 and "Traceback" not in text:
        return "refused"
    return f"exit code {status}: {text[-1500:]}"


def main():
    source, count, dice = Path(sys.argv[1]), int(sys.argv[2]), random.Random(int(sys.argv[3]))
    __import__("train")
    found = []
    for _ in range(count):
        with tempfile.TemporaryDirectory() as top:
            run, output = Path(shutil.copytree(source, Path(top, "run"))), Path(top, "output")
            kind, words = mutate(run, dice)
            pid = os.fork()
            if pid == 0:
                resume(run, output)
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            found.append([kind, words, end_of(status, re.sub(r"\x00", "", output.read_text(errors="replace")))])
    print(json.dumps(found))


if __name__ == "__main__":
    main()
