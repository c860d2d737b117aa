"""Memory that a CPU's C library keeps for the next tensors, and Python's garbage collector."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from types import SimpleNamespace

import pytest

from stylegan_plugins.run import memory

pytestmark = pytest.mark.host

FAULTS = """
import resource, torch
from stylegan_plugins.run.memory import keep_freed_memory
keep_freed_memory()
def work():
    blocks = [torch.ones(1 << 20) for _ in range(8)]  # 4 MB each
work(), work(), work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
GLIBC = pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not glibc")


@GLIBC
def test_glibc_takes_both_limits(monkeypatch):
    mallopt, answers = ctypes.CDLL(None).mallopt, []
    library = SimpleNamespace(mallopt=lambda name, value: answers.append((name, mallopt(name, value))))
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: library)
    memory.keep_freed_memory()
    assert answers == [(memory.MMAP_THRESHOLD, 1), (memory.TRIM_THRESHOLD, 1)]


@GLIBC
def test_tensors_get_the_memory_of_freed_ones_without_page_faults():
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: SimpleNamespace())
    memory.keep_freed_memory()


@pytest.mark.parametrize("enabled", [True, False])
def test_the_garbage_collector_works_after_the_imports_as_before_and_skips_modules(enabled):
    before = "" if enabled else "gc.disable(); "
    code = f"import gc; {before}from stylegan_plugins import bridge; print(gc.isenabled(), gc.get_freeze_count())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    now, frozen = done.stdout.split()
    assert now == str(enabled) and (int(frozen) > 100_000) == enabled


def test_the_garbage_collector_keeps_its_objects_in_a_process_that_had_torch():
    code = "import gc, torch; from stylegan_plugins import bridge; print(gc.isenabled(), gc.get_freeze_count())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "0"]
