"""Signals in a process that trains, by themselves."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.unit

PROGRAM = """
import sys, time
from stylegan_plugins.run import signals

signals.SECONDS = 1.0
signals.install()
{held}
print("ready", flush=True)
{work}
print("worked", flush=True)
{then}
print("went on", flush=True)
"""


def end_of(number: int, held: str = "signals.hold()", work: str = "time.sleep(0.3)", then: str = ""):
    """Exit status, output and seconds of a process that gets a signal when it is ready."""
    code = PROGRAM.format(held=held, work=work, then=then)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    began = time.monotonic()
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    return process.returncode, output, time.monotonic() - began


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_outside_of_an_iteration_a_signal_ends_the_process_at_once(number):
    code, output, _ = end_of(number, held="", work="time.sleep(30)")
    assert (code, output) == (128 + number, "")


def test_in_an_iteration_it_waits_for_the_end():
    code, output, _ = end_of(signal.SIGTERM, then="signals.release()")
    assert (code, output) == (128 + signal.SIGTERM, "worked\n")
    code, output, _ = end_of(signal.SIGTERM, then="sys.exit(signals.asked())")
    assert (code, output) == (signal.SIGTERM, "worked\n")


def test_an_iteration_that_takes_too_long_is_not_waited_for():
    code, output, seconds = end_of(signal.SIGTERM, work="time.sleep(30)")
    assert (code, output) == (128 + signal.SIGTERM, "") and seconds < 15


def test_a_second_ctrl_c_ends_the_process_as_usual():
    first = "import os\nwhile signals.asked() is None: time.sleep(0.01)\n"  # two at once would be one
    code, output, _ = end_of(signal.SIGINT, work=f"{first}os.kill(os.getpid(), 2); time.sleep(9)")
    assert code not in (0, 128 + signal.SIGINT) and output == ""
