"""Building and loading custom ops. Most tests build an extension of ten lines, C++ alone, through the same loader. A
test that compiles NVIDIA's CUDA sources takes a minute and runs if STYLEGAN_PLUGINS_BUILD_OPS=1 and nvcc is found."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support.hosts import ADA, CHECKOUTS, STYLEGAN3
from torch.utils import cpp_extension

from stylegan_plugins.host import custom_ops, doctor
from stylegan_plugins.host.families import HOSTS

SOURCE = """
#include <Python.h>
#include "tiny.h"
static PyObject* answer(PyObject*, PyObject*) { return PyLong_FromLong(ANSWER); }
static PyMethodDef methods[] = {{"answer", answer, METH_NOARGS, nullptr}, {nullptr, nullptr, 0, nullptr}};
static PyModuleDef definition = {PyModuleDef_HEAD_INIT, "tiny", nullptr, -1, methods};
#define JOIN(a, b) a##b
#define INIT(name) JOIN(PyInit_, name)
PyMODINIT_FUNC INIT(TORCH_EXTENSION_NAME)(void) { return PyModule_Create(&definition); }
"""

# Another process, which builds the same op; and hosts, whose own loader is called as their ops do.
BUILD = """
import os, sys
from torch.utils import cpp_extension
load = cpp_extension.load
cpp_extension.load = lambda **kwargs: load(**{**kwargs, "with_cuda": False})
folder, host, family = sys.argv[1:4]
if host:
    sys.path.insert(0, host)
    from stylegan_plugins.host import compat
    compat.install()
    from torch_utils import custom_ops
    if family == "stylegan3":
        headers = dict(headers=["tiny.h"], source_dir=folder)
        module = custom_ops.get_plugin(module_name="tiny", sources=["tiny.cpp"], extra_cuda_cflags=[], **headers)
    else:
        module = custom_ops.get_plugin("tiny", sources=[os.path.join(folder, "tiny.cpp")], extra_cuda_cflags=[])
else:
    from stylegan_plugins.host import custom_ops
    module = custom_ops.get_plugin("tiny", ["tiny.cpp"], source_dir=folder)
print(module.answer(), os.environ["TORCH_CUDA_ARCH_LIST"], module.__file__)
"""

LOAD = cpp_extension.load


@pytest.fixture
def sources(tmp_path, monkeypatch):
    """A folder with tiny.cpp and tiny.h and a separate build folder; no op is built or failed so far."""
    folder = tmp_path / "sources"
    folder.mkdir()
    (folder / "tiny.cpp").write_text(SOURCE)
    (folder / "tiny.h").write_text("#define ANSWER 42\n")
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "built"))
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "9.0")
    monkeypatch.setattr(custom_ops, "_loaded", {})
    monkeypatch.setattr(custom_ops, "_failures", {})
    return folder


@pytest.fixture
def without_cuda(monkeypatch):
    """Extensions are built as C++ alone, which needs no nvcc."""
    monkeypatch.setattr(cpp_extension, "load", lambda **kwargs: LOAD(**{**kwargs, "with_cuda": False}))


def build(folder: Path, *sources: str, **kwargs: object):
    return custom_ops.get_plugin("tiny", list(sources or ["tiny.cpp"]), source_dir=str(folder), **kwargs)


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget built and failed ops, as in a new process."""
    monkeypatch.setattr(custom_ops, "_loaded", {})


def start_build(folder: Path, host: Path | str = "", family: str = "") -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", BUILD, str(folder), str(host), family],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen) -> list[str]:
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors[-3000:]
    return output.splitlines()[-1].removeprefix("Custom op tiny: building, or loading what was built... ").split()


# --- what works ------------------------------------------------------------------------------------------------------


@pytest.mark.unit
def test_an_op_is_built_loaded_and_kept(sources, without_cuda, capsys):
    module = build(sources)
    assert module.answer() == 42
    assert capsys.readouterr().out == "Custom op tiny: building, or loading what was built... ready.\n"
    assert build(sources) is module
    assert capsys.readouterr().out == ""
    assert custom_ops.reason("tiny") is None


@pytest.mark.unit
def test_verbosity_none_says_nothing_when_all_is_well(sources, without_cuda, capsys):
    build(sources, verbosity="none")
    captured = capsys.readouterr()
    assert captured.out == ""


@pytest.mark.host
def test_two_processes_build_at_once_and_a_third_uses_what_they_built(sources):
    first, second = start_build(sources), start_build(sources)
    results = [finish(first), finish(second)]
    assert results[0] == results[1] and results[0][0] == "42"
    library = Path(results[0][2])
    built = library.stat().st_mtime_ns
    assert finish(start_build(sources)) == results[0]
    assert library.stat().st_mtime_ns == built


@pytest.mark.unit
@pytest.mark.parametrize("file, old, new", [("tiny.h", "42", "43"), ("tiny.cpp", "ANSWER)", "ANSWER + 1)")])
def test_a_changed_source_or_header_is_built_anew(sources, without_cuda, monkeypatch, file, old, new):
    before = build(sources)
    forget(monkeypatch)
    (sources / file).write_text((sources / file).read_text().replace(old, new))
    after = build(sources)
    assert (before.answer(), after.answer()) == (42, 43)
    assert Path(before.__file__).parent != Path(after.__file__).parent


@pytest.mark.unit
def test_each_architecture_is_built_in_a_folder_of_its_own(sources, monkeypatch):
    folders = []
    monkeypatch.setattr(cpp_extension, "load", lambda **kwargs: folders.append(kwargs["build_directory"]))
    for architectures in ("8.0", "9.0", "8.0"):
        monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", architectures)
        forget(monkeypatch)
        build(sources)
    assert folders[0] == folders[2] != folders[1]


@pytest.mark.unit
@pytest.mark.parametrize("named", [None, "7.0 8.0;8.6 9.0a+PTX", "8.0", "banana"])
@pytest.mark.parametrize(("rank", "built"), [(None, "8.6"), (0, "8.0"), (1, "12.0")])
def test_an_op_is_built_for_the_gpu_of_the_process_and_no_other(named, rank, built, sources, monkeypatch):
    """A container names many architectures; each would be compiled, for minutes."""
    seen = []
    monkeypatch.setattr(cpp_extension, "load", lambda **kwargs: seen.append(os.environ["TORCH_CUDA_ARCH_LIST"]))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", {None: (8, 6), 0: (8, 0), 1: (12, 0)}.__getitem__)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: rank is not None)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: rank)
    if named is None:
        monkeypatch.delenv("TORCH_CUDA_ARCH_LIST")
    else:
        monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", named)
    build(sources)
    assert seen == [built] and os.environ.get("TORCH_CUDA_ARCH_LIST") == named


@pytest.mark.unit
def test_a_gpu_that_pytorch_does_not_know_is_not_blamed_on_the_environment(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    message = custom_ops._explain("tiny", ValueError("Unknown CUDA arch (99.0) or GPU not supported"))
    assert "99.0" in message and "install a newer one" in message


@pytest.mark.unit
def test_the_same_sources_in_another_checkout_are_not_built_again(sources, monkeypatch, tmp_path):
    folders = []
    monkeypatch.setattr(cpp_extension, "load", lambda **kwargs: folders.append(kwargs["build_directory"]))
    for place in (sources, shutil.copytree(sources, tmp_path / "another checkout")):
        forget(monkeypatch)
        build(place)
    assert folders[0] == folders[1]


@pytest.mark.host
@pytest.mark.parametrize("family", [ADA, STYLEGAN3])
def test_a_hosts_own_loader_builds_ahead_of_time_and_keeps_torch_cuda_arch_list(family, fetched, sources):
    answer, architectures, _ = finish(start_build(sources, fetched[family], family))
    assert (answer, architectures) == ("42", "9.0")


@pytest.mark.unit
def test_headers_and_runtime_of_the_wheels_are_used_where_the_toolkit_lacks_them(tmp_path, monkeypatch):
    site, home, directory = tmp_path / "site-packages", tmp_path / "cuda", tmp_path / "build"
    for folder in (site / "torch", site / "nvidia/cu13/include", site / "nvidia/cu13/lib", home / "include", directory):
        folder.mkdir(parents=True)
    (site / "nvidia/cu13/lib/libcudart.so.13").write_text("runtime")
    monkeypatch.setattr(torch, "__file__", str(site / "torch/__init__.py"))
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    given = {"extra_cuda_cflags": ["--use_fast_math"]}

    result = custom_ops._with_toolkit_of_wheels(str(home), directory, given)
    assert result["extra_cuda_cflags"] == ["--use_fast_math"]
    assert result["extra_include_paths"] == [str(site / "nvidia/cu13/include")]
    assert result["extra_ldflags"] == [f"-L{directory}"]
    assert (directory / "libcudart.so").read_text() == "runtime"
    assert custom_ops._with_toolkit_of_wheels(str(home), directory, given) == result  # the link is there already

    (home / "lib64").mkdir()
    for file in ("include/cuda_runtime.h", "include/cusparse.h", "lib64/libcudart.so"):
        (home / file).touch()
    assert custom_ops._with_toolkit_of_wheels(str(home), directory, given) == given  # a complete toolkit comes first
    assert custom_ops._with_toolkit_of_wheels(None, directory, given) == given
    assert given == {"extra_cuda_cflags": ["--use_fast_math"]}


# --- what fails: said once, loudly, with what to do ------------------------------------------------------------------


def _no_source(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "tiny.cpp").unlink()


def _no_ninja(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(sys, "executable", str(folder / "python"))


def _broken_source(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpp_extension, "load", lambda **kwargs: LOAD(**{**kwargs, "with_cuda": False}))
    (folder / "tiny.h").write_text("#define ANSWER forty_two\n")


def _no_toolkit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpp_extension, "CUDA_HOME", None)


def _no_nvcc(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpp_extension, "CUDA_HOME", str(folder / "cuda"))
    (folder / "tiny.cpp").rename(folder / "tiny.cu")


def _unknown_architecture(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "banana")
    monkeypatch.setattr(cpp_extension, "CUDA_HOME", str(folder / "cuda"))
    (folder / "tiny.cpp").rename(folder / "tiny.cu")


def _no_architecture(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCH_CUDA_ARCH_LIST")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.unit
@pytest.mark.parametrize(
    "cause, reason, advice",
    [
        (_no_source, "the host has no ", "Fetch a complete host from GitHub"),
        (_no_ninja, "ninja is missing", "pip install ninja"),
        (_broken_source, "forty_two", "Check that nvcc is of CUDA 13.0"),
        (_no_toolkit, "nvcc is not found", "set CUDA_HOME"),
        (_no_nvcc, "bin/nvcc: not found", "CUDA_HOME names a toolkit"),
        (_unknown_architecture, "banana", "Set TORCH_CUDA_ARCH_LIST to what your GPU is"),
        (_no_architecture, "there is no GPU", "Set it, for example to 9.0"),
    ],
)
def test_a_build_that_fails_says_once_why_and_what_to_do(sources, monkeypatch, capsys, cause, reason, advice):
    monkeypatch.setattr(torch.version, "cuda", "13.0")  # a PyTorch without CUDA would give that as the reason
    cause(sources, monkeypatch)
    file = "tiny.cu" if (sources / "tiny.cu").is_file() else "tiny.cpp"
    with pytest.raises(custom_ops.BuildError) as error:
        build(sources, file)
    message = str(error.value)
    assert "\n" not in message and len(message) < 500
    assert message.startswith("custom CUDA op tiny cannot be built: ")
    assert reason in message and advice in message
    captured = capsys.readouterr()
    assert captured.err.count(f"WARNING: {message}") == 1
    assert "slow reference implementation" in captured.err
    assert captured.out.endswith("failed.\n")

    with pytest.raises(custom_ops.BuildError):
        build(sources, file)
    captured = capsys.readouterr()
    assert captured.err == captured.out == ""
    assert custom_ops.reason("tiny") == message


@pytest.mark.unit
def test_a_pytorch_without_cuda_is_named_as_the_reason(sources, monkeypatch, capsys):
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(cpp_extension, "CUDA_HOME", None)
    with pytest.raises(custom_ops.BuildError, match="This PyTorch was built without CUDA"):
        build(sources)


# --- doctor ----------------------------------------------------------------------------------------------------------


@pytest.mark.host
def test_doctor_says_which_ops_have_no_source_and_which_need_an_architecture(fetched, monkeypatch):
    monkeypatch.delenv("TORCH_CUDA_ARCH_LIST", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    ada, stylegan3 = ("\n".join(doctor.examine(fetched[family])) for family in (ADA, STYLEGAN3))
    assert "custom op bias_act: not built: there is no GPU (set TORCH_CUDA_ARCH_LIST" in ada
    assert "custom op filtered_lrelu: not built: the host has no CUDA source of it" in stylegan3
    assert "filtered_lrelu" not in ada


@pytest.mark.host
def test_doctor_gives_the_reason_of_a_build_that_fails(fetched, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "banana")  # fails before anything is compiled
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "built"))
    monkeypatch.setattr(doctor, "HOSTS", {ADA: dataclasses.replace(HOSTS[ADA], ops=("bias_act",))})
    *_, line = doctor.examine(fetched[ADA])
    why = "Unknown CUDA arch (banana)" if torch.version.cuda else "This PyTorch was built without CUDA"
    assert line.startswith("custom op bias_act: custom CUDA op bias_act_plugin cannot be built: ")
    assert why in line and "falls back to the reference implementation" in line


# --- NVIDIA's own sources --------------------------------------------------------------------------------------------


@pytest.mark.host
@pytest.mark.parametrize("family", [ADA, f"{STYLEGAN3} pristine"])
def test_nvidias_bias_act_is_built_and_loaded(family, fetched, monkeypatch, tmp_path):
    if os.environ.get("STYLEGAN_PLUGINS_BUILD_OPS") != "1":
        pytest.skip("takes a minute; STYLEGAN_PLUGINS_BUILD_OPS=1 runs it")
    if torch.version.cuda is None or cpp_extension.CUDA_HOME is None:
        pytest.skip("no nvcc, or a PyTorch without CUDA")
    family, _, pristine = family.partition(" ")
    host = Path(os.environ.get(CHECKOUTS[family], "none")) if pristine else fetched[family]
    if not host.is_dir():  # the assembled host of this family has no CUDA sources
        pytest.skip(f"{CHECKOUTS[family]} names no checkout of {family}")
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    if not torch.cuda.is_available():
        monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "9.0")
    assert doctor._try(host, "bias_act").startswith("built and loaded for architecture ")
