"""Build and load a host's custom CUDA ops with current PyTorch, with or without a GPU present."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import types
from collections.abc import Iterator
from pathlib import Path

import torch

from stylegan_plugins.host import devices

ARCHITECTURES = "TORCH_CUDA_ARCH_LIST"

_loaded: dict[str, types.ModuleType] = {}
_failures: dict[str, str] = {}


class BuildError(RuntimeError):
    """A custom op cannot be built or loaded. The message is the reason, `advice` a remedy, if one is known."""

    def __init__(self, message: str, advice: str = "") -> None:
        super().__init__(message)
        self.advice = advice


def reason(name: str) -> str | None:
    """Return why this op could not be built in this process; None if it was built, or not tried."""
    return _failures.get(name)


def get_plugin(
    module_name: str,
    sources: list[str],
    headers: list[str] | None = None,
    source_dir: str | None = None,
    *,
    verbosity: str = "brief",
    **build_kwargs: object,
) -> types.ModuleType:
    """Compile and load a custom op, and return the extension module. It is compiled once, and cached on disk by
    content, torch version and GPU architecture. The arguments are the same as of the hosts' loaders.

    sources, headers    file names, relative to source_dir if given
    verbosity           'none' | 'brief' | 'full'
    Raises BuildError; the reason is printed once per process and op."""
    if module_name in _loaded:
        return _loaded[module_name]
    if module_name in _failures:
        raise BuildError(_failures[module_name])
    paths = [Path(source_dir or "", file) for file in sources]
    extra = [Path(source_dir or "", file) for file in headers or []]
    if not extra:  # ada names no headers: they are beside the sources
        extra = sorted({file for path in paths for file in path.parent.glob("*.h")})
    if verbosity != "none":
        end = "\n" if verbosity == "full" else ""
        print(f"Custom op {module_name}: building, or loading what was built... ", end=end, flush=True)
    try:
        _loaded[module_name] = _build(module_name, paths, extra, verbose=verbosity == "full", **build_kwargs)
    except (OSError, RuntimeError, ValueError, ImportError, subprocess.SubprocessError) as error:
        if verbosity == "brief":
            print("failed.", flush=True)
        _failures[module_name] = _explain(module_name, error)
        if verbosity != "none":  # only one process of several prints
            line = "=" * 100
            advice = "Training continues with the slow reference implementation."
            print(f"\n{line}\nWARNING: {_failures[module_name]}\n{advice}\n{line}", file=sys.stderr, flush=True)
        raise BuildError(_failures[module_name]) from error
    if verbosity != "none":
        print("ready.", flush=True)
    return _loaded[module_name]


def _build(
    name: str, sources: list[Path], headers: list[Path], verbose: bool, **build_kwargs: object
) -> types.ModuleType:
    from torch.utils import cpp_extension  # looks for CUDA on import, and prints the result

    missing = [str(path) for path in sources if not path.is_file()]
    if missing:
        raise BuildError(
            f"the host has no {', '.join(missing)}", "Fetch a complete host from GitHub: stylegan-plugins host fetch."
        )
    key = _key(sources + headers)
    program = ninja()
    if program is None:
        raise BuildError("ninja is missing", "Install it with: pip install ninja.")
    os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", os.defpath), str(Path(program).parent)])
    directory = Path(cpp_extension._get_build_directory(name, verbose)) / key
    directory.mkdir(parents=True, exist_ok=True)
    # Compile copies: a changed file gets another folder, so that ninja never builds stale code.
    copies = [_copy(path, directory) for path in sources + headers]
    with _architecture_in_environment():
        return cpp_extension.load(
            name=name,
            sources=copies[: len(sources)],
            build_directory=str(directory),
            with_cuda=True,
            verbose=verbose,
            **_with_toolkit_of_wheels(cpp_extension.CUDA_HOME, directory, build_kwargs),
        )


@contextlib.contextmanager
def _architecture_in_environment() -> Iterator[None]:
    """Let torch build for `architecture()`, and restore the user's setting for other extensions of this process."""
    named = os.environ.get(ARCHITECTURES)
    os.environ[ARCHITECTURES] = architecture()
    try:
        yield
    finally:
        if named is None:
            del os.environ[ARCHITECTURES]
        else:
            os.environ[ARCHITECTURES] = named


def _copy(path: Path, directory: Path) -> str:
    """Copy a file in one step: another process may be compiling in the same folder."""
    copy = directory / path.name
    if not copy.is_file() or copy.read_bytes() != path.read_bytes():
        with tempfile.NamedTemporaryFile(dir=directory, prefix=path.name, delete=False) as file:
            file.write(path.read_bytes())
        os.replace(file.name, copy)
    return str(copy)


def _with_toolkit_of_wheels(cuda_home: str | None, directory: Path, build_kwargs: dict) -> dict:
    """Add headers and the runtime library from PyTorch's nvidia-* wheels if the toolkit of nvcc lacks them, as a
    toolkit from the package index does."""
    wheels = Path(torch.__file__).parent.parent / "nvidia" / f"cu{(torch.version.cuda or '').split('.')[0]}"
    if cuda_home is None or not wheels.is_dir():
        return build_kwargs
    result = dict(build_kwargs)
    if not all(Path(cuda_home, "include", header).is_file() for header in ("cuda_runtime.h", "cusparse.h")):
        result["extra_include_paths"] = [*result.get("extra_include_paths", []), str(wheels / "include")]
    runtimes = sorted((wheels / "lib").glob("libcudart.so.*"))
    if runtimes and not any(Path(cuda_home, folder, "libcudart.so").exists() for folder in ("lib64", "lib")):
        link = directory / "libcudart.so"  # wheels only have the library with a versioned name
        if not link.exists():
            with contextlib.suppress(FileExistsError):  # another process was faster
                link.symlink_to(runtimes[-1])
        result["extra_ldflags"] = [*result.get("extra_ldflags", []), f"-L{directory}"]
    return result


def architecture() -> str:
    """Return the architecture of this process's GPU, to compile for; TORCH_CUDA_ARCH_LIST without a GPU.

    Raises BuildError if there is neither."""
    if torch.cuda.is_available():
        # A container's TORCH_CUDA_ARCH_LIST names many architectures, which take time, and may lack this GPU's. The
        # hosts use the GPU of their rank without making it the current one.
        several = torch.distributed.is_available() and torch.distributed.is_initialized()
        mine = devices.local_rank(torch.distributed.get_rank()) if several else None
        return "{}.{}".format(*torch.cuda.get_device_capability(mine))
    named = os.environ.get(ARCHITECTURES, "").strip()
    if not named:
        raise BuildError(
            "there is no GPU, and TORCH_CUDA_ARCH_LIST names no architecture to build for",
            "Set it, for example to 9.0, to build ahead of time.",
        )
    return named


def _key(files: list[Path]) -> str:
    digest = hashlib.sha256()
    digest.update(f"{torch.__version__} {architecture()}".encode())
    for file in files:
        content = file.read_bytes()
        digest.update(f"{file.name} {len(content)} ".encode() + content)
    return digest.hexdigest()[:20]


def ninja() -> str | None:
    """Return the path of ninja. pip puts it beside the interpreter, which is not on PATH if a venv is not activated."""
    return shutil.which("ninja") or shutil.which("ninja", path=str(Path(sys.executable).parent))


def _explain(name: str, error: Exception) -> str:
    """Return one line with the fault and a remedy."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # The compiler's "bias_act.cu(12): error: ...", not the command line that ninja repeats.
    told = [line for line in lines if re.search(r"\berror\b ?[:#]|: not found|Error:", line)]
    reason = (told or lines or [type(error).__name__])[0].rstrip(".")
    if torch.version.cuda is None:
        advice = "This PyTorch was built without CUDA: install one that was."
    elif isinstance(error, BuildError) and error.advice:
        advice = error.advice
    elif "CUDA_HOME" in str(error):
        reason = "nvcc is not found"
        advice = f"Install the CUDA toolkit {torch.version.cuda} and set CUDA_HOME to it."
    elif isinstance(error, ValueError) and torch.cuda.is_available():
        advice = "This PyTorch does not know the GPU: install a newer one."
    elif isinstance(error, ValueError):
        advice = "Set TORCH_CUDA_ARCH_LIST to what your GPU is, for example 9.0."
    else:
        advice = (
            f"Check that nvcc is of CUDA {torch.version.cuda}, and that CUDA_HOME names a toolkit with its headers; "
            "see: stylegan-plugins doctor."
        )
    return f"custom CUDA op {name} cannot be built: {reason}. {advice}"
