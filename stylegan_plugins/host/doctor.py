"""`stylegan-plugins doctor`: report which parts work on this machine, and why others do not."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from stylegan_plugins.host import custom_ops
from stylegan_plugins.host.families import HOSTS
from stylegan_plugins.host.recognise import recognise

TRY = """
import sys
from stylegan_plugins.host import custom_ops, modules

host, op = sys.argv[1:]
modules.use_host(host)
modules.host_module("torch_utils.custom_ops").verbosity = "none"
module = modules.host_module(f"torch_utils.ops.{op}")
if not module._init():
    sys.exit(custom_ops.reason(f"{op}_plugin") or "the host gave no reason")
print(module._plugin.__file__)
"""


def examine(directory: Path | None) -> Iterator[str]:
    """Yield the lines of a report as they become known. Builds the host's custom ops, which takes minutes the first
    time."""
    yield f"python: {platform.python_version()} ({sys.executable})"
    yield f"torch: {torch.__version__}, {f'CUDA {torch.version.cuda}' if torch.version.cuda else 'built without CUDA'}"
    if torch.cuda.is_available():
        count = torch.cuda.device_count()
        yield f"device: {count} x {torch.cuda.get_device_name()}, architecture {custom_ops.architecture()}"
    else:
        yield f"device: no GPU; CPU with {os.cpu_count()} cores"
    yield f"compiler: nvcc {_nvcc() or 'not found'}; ninja {custom_ops.ninja() or 'not found (pip install ninja)'}"
    if directory is None:
        yield "host: none named; stylegan-plugins doctor DIR looks at one"
        return
    host = recognise(directory)
    yield f"host: {host}"
    for op in HOSTS[host.family].ops:
        yield f"custom op {op}: {_try(Path(directory), op)}"


def _try(host: Path, op: str) -> str:
    """Build and load one op in a separate process, so that a crash is also reported."""
    fallback = "falls back to the reference implementation in PyTorch: slower on a GPU"
    if not (host / f"torch_utils/ops/{op}.cu").is_file():
        return f"not built: the host has no CUDA source of it; {fallback}"
    if not torch.cuda.is_available() and not os.environ.get("TORCH_CUDA_ARCH_LIST"):
        return (
            "not built: there is no GPU (set TORCH_CUDA_ARCH_LIST, for example 9.0, to build for one ahead of time); "
            "on a CPU the reference implementation in PyTorch is used"
        )
    done = subprocess.run(
        [sys.executable, "-c", TRY, str(host.resolve()), op], capture_output=True, text=True, errors="replace"
    )
    if done.returncode == 0:
        return f"built and loaded for architecture {custom_ops.architecture()} ({done.stdout.strip().splitlines()[-1]})"
    said = (done.stderr.strip() or f"the process ended with {done.returncode}").splitlines()[-1]
    return f"{said}; {fallback}"


def _nvcc() -> str | None:
    from torch.utils.cpp_extension import CUDA_HOME  # prints a warning without a GPU

    # PyTorch uses the nvcc of CUDA_HOME, which need not be the first on PATH.
    path = os.path.join(CUDA_HOME, "bin", "nvcc") if CUDA_HOME else shutil.which("nvcc")
    if path is None or not os.path.exists(path):
        return None
    lines = subprocess.run([path, "--version"], capture_output=True, text=True, errors="replace").stdout.splitlines()
    release = next((line.split("release ")[1] for line in lines if "release " in line), "of unknown version")
    return f"{release} at {path}"
