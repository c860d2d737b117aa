"""Several processes of one run: how long they wait for one another, and how they end when one of them dies."""

from __future__ import annotations

import ast
import contextlib
import signal
import time

import pytest
import torch
from support.hosts import STYLEGAN3
from support.runs import QUICK_TRAIN, TINY
from support.scripts import run_script
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

from stylegan_plugins.run import processes

DYING = """
import os, signal, time
from stylegan_plugins import hookimpl

class Method:
    def __init__(self, session):
        self.rank = session.rank
    @hookimpl
    def batch_end(self, nimg, batch_idx):
        {first} if self.rank == 0 else self.die()
    def die(self):
        open({mark!r}, "w").close()
        {second}

@hookimpl
def setup(session, options):
    return Method(session)
"""
FAILS = "raise KeyError('the cause')"
KILLED = "os.kill(os.getpid(), signal.SIGKILL)"
LINE = "Error: Process 1 of the run ended with SIGKILL, which the system sends when memory runs out; the others were "


@pytest.mark.run
@pytest.mark.parametrize(
    ("first", "second", "code", "told"),
    [
        ("None", KILLED, 2, LINE),  # the first process waits in a collective
        ("time.sleep(500)", KILLED, 2, LINE),  # it works alone
        ("None", FAILS, 1, "KeyError: 'the cause'"),
    ],
)
def test_a_process_that_dies_ends_all_with_its_own_error(
    first, second, code, told, stylegan3_host, small_zip, tmp_path
):
    (tmp_path / "dying.py").write_text(DYING.format(first=first, second=second, mark=str(tmp_path / "dies")))
    args = [arg for arg in TINY[STYLEGAN3] if not arg.startswith("--gpus")]
    more = ["--gpus=2", "--batch=16", "--device=cpu", f"--plugin={tmp_path / 'dying.py'}"]
    done = run_script(
        stylegan3_host, QUICK_TRAIN, f"--data={small_zip}", f"--outdir={tmp_path}", *args, *more, check=False
    )
    assert time.time() - (tmp_path / "dies").stat().st_mtime < 60
    assert done.returncode == code, done.stderr[-3000:]
    assert told in done.stderr and "gloo" not in done.stderr
    assert done.stderr.count("Traceback") == (code == 1)


@pytest.mark.host
@pytest.mark.parametrize("script", ["train.py", "calc_metrics.py"])
def test_all_calls_that_make_a_process_group_set_its_timeout(script, family, patched):
    tree = ast.parse((patched[family] / script).read_text())
    calls = [
        node for node in ast.walk(tree) if isinstance(node, ast.Call) and "init_process_group" in ast.unparse(node.func)
    ]
    given = [{keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords} for call in calls]
    assert len(given) >= 1 and all(keywords["timeout"] == "bridge.TIMEOUT" for keywords in given)


@pytest.mark.unit
@pytest.mark.parametrize(
    ("text", "waits"),
    [("[gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:1", True), ("mat1 and mat2", False)],
)
def test_only_an_error_that_comes_of_another_process_waits_for_it(text, waits, monkeypatch):
    slept = []
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(processes.time, "sleep", slept.append)
    monkeypatch.setattr(processes.signals, "asked", lambda: 15 if slept else None)

    @processes.cause_first
    def run():
        raise RuntimeError(text)

    with contextlib.nullcontext() if waits else pytest.raises(RuntimeError):
        run()  # it waits until it is ended, too
    assert bool(slept) == waits


@pytest.mark.unit
def test_after_a_signal_another_process_that_has_ended_is_no_error(monkeypatch):
    """A process may wait for one that the same signal has ended in its first pictures."""
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(processes.signals, "asked", lambda: signal.SIGTERM)

    @processes.cause_first
    def run(text):
        raise RuntimeError(text)

    assert run("gloo: Connection closed by peer") is None
    with pytest.raises(RuntimeError, match="shape"):
        run("another shape")


@pytest.mark.unit
def test_errors_of_processes_are_those_of_users_where_they_can_mend_them():
    raised = "\n\n-- Process 1 terminated with the following error:\nTraceback ...\n"
    found = processes.error_of(
        ProcessRaisedException(raised + "stylegan_plugins.errors.DataError: --data: odd.\n", 1, 7)
    )
    assert str(found) == "--data: odd."
    assert processes.error_of(ProcessRaisedException(raised + "KeyError: 1\n", 1, 7)) is None
    assert "exit code 3;" in str(processes.error_of(ProcessExitedException("", 0, 7, 3)))
