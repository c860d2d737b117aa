"""Build and load a host's custom CUDA ops with current PyTorch, with or without a GPU present."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path

import torch

_loaded: dict[str, types.ModuleType] = {}
_failures: dict[str, str] = {}


class BuildError(RuntimeError):
    """A custom op cannot be built or loaded; the message says why and what to do."""


def failed(name: str) -> bool:
    """Whether building this op was tried in this process and did not work."""
    return name in _failures


def reason(name: str) -> str | None:
    """Why building this op did not work; None if it did, or was not tried."""
    return _failures.get(name)


def get_plugin(
    name: str,
    sources: list[str],
    headers: list[str] | None = None,
    source_dir: str | None = None,
    verbosity: str = "brief",
    **build_kwargs: object,
) -> types.ModuleType:
    """Compile (once, cached on disk by content, torch version and GPU architecture) and load a custom op.

    name                      of the extension module, as its sources expect it
    sources, headers          file names; relative to source_dir if that is given
    verbosity                 'none' | 'brief' | 'full', as the host's loader has it
    Returns the extension module. Raises BuildError; the reason is printed once per process and op."""
    if name in _loaded:
        return _loaded[name]
    if name in _failures:
        raise BuildError(_failures[name])
    paths = [Path(source_dir or "", file) for file in sources]
    extra = [Path(source_dir or "", file) for file in headers or []]
    if not extra:  # ada names no headers: they lie beside the sources
        extra = sorted({file for path in paths for file in path.parent.glob("*.h")})
    if verbosity != "none":
        print(f'Setting up PyTorch plugin "{name}"... ', end="\n" if verbosity == "full" else "", flush=True)
    try:
        _loaded[name] = _build(name, paths, extra, verbose=verbosity == "full", **build_kwargs)
    except (OSError, RuntimeError, ImportError, subprocess.SubprocessError) as error:
        _failures[name] = _explain(name, error)
        _report(name)
        raise BuildError(_failures[name]) from error
    if verbosity != "none":
        print("Done.", flush=True)
    return _loaded[name]


def _build(name: str, sources: list[Path], headers: list[Path], verbose: bool, **build_kwargs: object):
    from torch.utils import cpp_extension  # looks for CUDA when it is imported, and prints what it finds

    missing = [str(path) for path in sources if not path.is_file()]
    if missing:
        raise FileNotFoundError(f"the host has no {', '.join(missing)}")
    _find_ninja()
    directory = Path(cpp_extension._get_build_directory(name, verbose)) / _key(sources + headers)
    directory.mkdir(parents=True, exist_ok=True)
    copies = []
    for path in sources + headers:  # a copy: a changed file gets another folder, so that ninja never builds stale code
        copy = directory / path.name
        if not copy.is_file() or copy.read_bytes() != path.read_bytes():
            shutil.copyfile(path, copy)
        copies.append(str(copy))
    return cpp_extension.load(
        name=name,
        sources=copies[: len(sources)],
        build_directory=str(directory),
        with_cuda=True,
        verbose=verbose,
        **build_kwargs,
    )


def architecture() -> str:
    """What the ops are compiled for: TORCH_CUDA_ARCH_LIST if it is set, else the GPU that is present.

    Raises BuildError if there is neither."""
    named = os.environ.get("TORCH_CUDA_ARCH_LIST", "").strip()
    if named:
        return named
    if not torch.cuda.is_available():
        raise BuildError("there is no GPU, and TORCH_CUDA_ARCH_LIST names no architecture to build for")
    return "{}.{}".format(*torch.cuda.get_device_capability())


def _key(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for part in (torch.__version__, architecture(), *sorted(map(str, files))):
        digest.update(part.encode())
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:20]


def _find_ninja() -> None:
    """ninja from the package index sits beside the interpreter, which need not be on PATH in a venv that was not
    activated."""
    if shutil.which("ninja") is None:
        beside = str(Path(sys.executable).parent)
        if shutil.which("ninja", path=beside) is None:
            raise FileNotFoundError("ninja is missing; install it with: pip install ninja")
        os.environ["PATH"] = beside + os.pathsep + os.environ.get("PATH", "")


def _explain(name: str, error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if "error" in line.lower() and not line.startswith("ninja")]
    reason = (telling or lines or [type(error).__name__])[0]
    if "CUDA_HOME" in str(error):
        advice = f"Install the CUDA toolkit {torch.version.cuda or ''} and set CUDA_HOME to it."
    elif torch.version.cuda is None:
        advice = "This PyTorch was built without CUDA: install one that was."
    elif isinstance(error, FileNotFoundError):
        advice = "Fetch a complete host from GitHub, or install what is missing."
    else:
        advice = (
            f"Check that nvcc is of CUDA {torch.version.cuda} and that its headers are found "
            "(stylegan-plugins doctor shows both)."
        )
    return f"custom CUDA op {name} cannot be built: {reason}. {advice}"


def _report(name: str) -> None:
    line = "=" * 100
    print(
        f"\n{line}\nWARNING: {_failures[name]}\nTraining goes on with the slow reference implementation.\n{line}",
        file=sys.stderr,
        flush=True,
    )
