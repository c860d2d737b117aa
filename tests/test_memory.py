"""Memory that a CPU's C library keeps for the next tensors."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys, torch
from stylegan_plugins.run.memory import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
def work():
    blocks = [torch.ones(1 << 20) for _ in range(8)]  # 4 MB each
work(), work(), work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.unit
@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not glibc")
def test_a_cpu_gets_the_memory_of_freed_tensors_again_without_page_faults():
    faults = {}
    for how in ("keep", "default"):
        done = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True)
        faults[how] = int(done.stdout)
    assert faults["keep"] < 100 and faults["keep"] < faults["default"]
