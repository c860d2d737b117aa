"""The host can read every data set that the check accepts: over generated folders and archives, whole, cut short and
damaged."""

from __future__ import annotations

import io
import json
import os
import socket
import threading
import time
import types
import zipfile
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.images import color_crops, write_zip

from stylegan_plugins.errors import DataError, OptionError
from stylegan_plugins.files import datasets
from stylegan_plugins.files.datasets import check_dataset, check_output
from stylegan_plugins.run import host_metrics, loop_options

pytestmark = pytest.mark.unit

sides = st.sampled_from([8, 16, 32, 64])
relaxed = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


def encoded(size: tuple[int, int], mode: str, format: str = "png", seed: int = 0) -> bytes:
    pixels = np.random.RandomState(seed).randint(0, 256, [size[1], size[0], 3], np.uint8)
    data = io.BytesIO()
    PIL.Image.fromarray(pixels).convert(mode).save(data, format)
    return data.getvalue()


def write(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    """Write a zip, or a folder if the path has no suffix."""
    if path.suffix:
        with zipfile.ZipFile(path, "w", method) as archive:
            for name, data in files.items():
                archive.writestr(name, data)
        return path
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def read_by_host(path: Path) -> None:
    """Read every image as ImageFolderDataset does. Raises the error that would end the host."""
    PIL.Image.init()
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if Path(name).suffix.lower() in PIL.Image.EXTENSION:
                with archive.open(name) as file:
                    np.array(PIL.Image.open(file))


@relaxed
@given(sides, st.sampled_from(["L", "RGB"]), st.integers(1, 4), st.sampled_from(["set.zip", "set"]), st.randoms())
def test_good_data_is_described(tmp_path_factory, side, mode, count, kind, random):
    folders = ["", "00000/", "deep/er/"]
    files = {f"{random.choice(folders)}{index}.png": encoded((side, side), mode, seed=index) for index in range(count)}
    path = write(tmp_path_factory.mktemp("good") / kind, files | {"readme.txt": b"not an image"})
    assert check_dataset(path) == (count, side, {"L": 1, "RGB": 3}[mode])


@relaxed
@given(st.integers(1, 70), st.integers(1, 70), st.sampled_from(["L", "RGB", "RGBA", "P", "LA", "1", "I;16"]))
def test_sizes_and_modes_that_hosts_cannot_train_on_are_refused(tmp_path_factory, width, height, mode):
    path = write(tmp_path_factory.mktemp("odd") / "set.zip", {"odd.png": encoded((width, height), mode)})
    if width == height and width in (8, 16, 32, 64) and mode in ("L", "RGB"):
        assert check_dataset(path)[1] == width
        return
    with pytest.raises(DataError, match="odd.png in .*(color mode|square)"):
        check_dataset(path)


@relaxed
@given(st.lists(st.tuples(sides, st.sampled_from(["L", "RGB"])), min_size=2, max_size=4))
def test_images_that_differ_are_refused_and_named(tmp_path_factory, shapes):
    files = {f"{index}.png": encoded((side, side), mode) for index, (side, mode) in enumerate(shapes)}
    path = write(tmp_path_factory.mktemp("mixed") / "set.zip", files)
    if len(set(shapes)) == 1:
        check_dataset(path)
        return
    other = next(index for index, shape in enumerate(shapes) if shape != shapes[0])
    with pytest.raises(DataError, match=f"{other}.png in .* is {shapes[other][0]}x.*of one size"):
        check_dataset(path)


def test_an_archive_cut_short_anywhere_is_refused(tmp_path):
    whole = write(tmp_path / "whole.zip", {f"{i}.png": encoded((8, 8), "RGB", seed=i) for i in range(3)}).read_bytes()
    cut = tmp_path / "cut.zip"
    for length in range(len(whole)):
        cut.write_bytes(whole[:length])
        with pytest.raises(DataError, match="cut.zip"):
            check_dataset(cut)


@pytest.mark.parametrize("format", ["png", "jpeg", "bmp", "gif", "webp"])
def test_an_image_cut_short_anywhere_is_refused_or_can_be_read_by_the_host(format, tmp_path):
    mode = "L" if format == "gif" else "RGB"
    whole = encoded((16, 16), mode, format)
    for length in [*range(0, len(whole), 7), len(whole) - 1]:
        path = write(tmp_path / "set.zip", {f"cut.{format}": whole[:length]})
        try:
            check_dataset(path)
        except DataError as error:
            assert f"cut.{format} in" in str(error) and "\n" not in str(error)
        else:
            read_by_host(path)


@relaxed
@given(st.data(), st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]))
def test_a_damaged_archive_is_refused_in_one_line_or_can_be_read_by_the_host(tmp_path_factory, data, method):
    path = tmp_path_factory.mktemp("damaged") / "set.zip"
    whole = bytearray(write(path, {f"{i}.png": encoded((8, 8), "RGB", seed=i) for i in range(2)}, method).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(whole)
    try:
        check_dataset(path)
    except DataError as error:
        assert str(error).startswith("--data: ") and "\n" not in str(error)
    else:
        read_by_host(path)


@relaxed
@given(st.binary(max_size=300), st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"GIF89a", b"BM"]))
def test_a_file_of_random_bytes_is_no_image_in_one_line(tmp_path_factory, data, magic):
    path = write(tmp_path_factory.mktemp("random") / "set", {"noise.png": magic + data})
    with pytest.raises(DataError, match="noise.png in .* cannot be read as an image") as error:
        check_dataset(path)
    assert "\n" not in str(error.value)


def test_an_image_that_claims_to_be_huge_is_refused(tmp_path):
    whole = encoded((8, 8), "RGB", "bmp")
    huge = whole[:18] + (60_000).to_bytes(4, "little") * 2 + whole[26:]
    with pytest.raises(DataError, match="bomb.bmp in"):
        check_dataset(write(tmp_path / "set", {"bomb.bmp": huge}))


def test_an_encrypted_archive_is_refused(tmp_path):
    path = write(tmp_path / "set.zip", {"0.png": encoded((8, 8), "RGB")})
    data = bytearray(path.read_bytes())
    data[6] |= 1  # the flag of an encrypted file: in its own header, and in the directory
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="encrypted"):
        check_dataset(path)


@pytest.mark.parametrize(
    ("dataset", "accepted"),
    [
        ({"labels": None}, True),
        ({"labels": [["0.png", 0], ["a/1.png", 2]]}, True),
        ({"labels": [["0.png", [0.5, 1]], ["a/1.png", [0, 0]], ["other.png", [1, 1]]]}, True),
        ({"labels": {"0.png": 0, "a/1.png": 2}}, False),
        ({"labels": []}, False),
        ({"labels": [["0.png", 0]]}, False),
        ({"labels": [["0.png", 0], ["a/1.png", -1]]}, False),
        ({"labels": [["0.png", 0.5], ["a/1.png", 1]]}, False),
        ({"labels": [["0.png", [1, 0]], ["a/1.png", [1]]]}, False),
        ({"labels": [["0.png", [1, 0]], ["a/1.png", 1]]}, False),
        ({"labels": [["0.png", "cat"], ["a/1.png", "dog"]]}, False),
        ({"labels": [["0.png", None], ["a/1.png", None]]}, False),
        ({"labels": [["0.png", [[1]]], ["a/1.png", [[1]]]]}, False),
        ({"labels": [[["0.png"], 1]]}, False),
        ({"labels": 3}, False),
        ({}, False),
        ([], False),
    ],
)
def test_labels_are_accepted_if_the_host_can_read_them(dataset, accepted, tmp_path):
    images = {"0.png": encoded((8, 8), "RGB"), "a/1.png": encoded((8, 8), "RGB", seed=1)}
    path = write(tmp_path / "set.zip", images | {"dataset.json": json.dumps(dataset).encode()})
    if accepted:
        assert check_dataset(path) == (2, 8, 3)
        return
    with pytest.raises(DataError, match="dataset.json in") as error:
        check_dataset(path)
    assert "\n" not in str(error.value)


def test_hundreds_of_images_are_checked_in_seconds(tmp_path):
    path = write_zip(tmp_path / "many.zip", color_crops(20, side=64) * 10)
    start = time.process_time()
    assert check_dataset(path) == (200, 64, 3)
    assert time.process_time() - start < 2


# --- What is read. -------------------------------------------------------------------------------------------------


@pytest.fixture
def bytes_read(monkeypatch):
    """The number of bytes that were read since it was last asked, of files whose path has `set` in it."""
    count = 0

    class Counting(io.FileIO):
        def readinto(self, buffer):
            nonlocal count
            size = super().readinto(buffer)
            count += size
            return size

        def readall(self):
            nonlocal count
            data = super().readall()
            count += len(data)
            return data

    def counting(file, mode="r", *args, **how):
        if mode == "rb" and "set" in Path(file).parts[-1] + Path(file).parent.name:
            return io.BufferedReader(Counting(file))
        return open_file(file, mode, *args, **how)

    def since():
        nonlocal count
        count, before = 0, count
        return before

    open_file = open
    monkeypatch.setattr(io, "open", counting)
    monkeypatch.setattr(datasets, "open", counting, raising=False)
    return since


def settled(path: Path) -> Path:
    """Wait until a data set is older than the resolution of times; a test cannot set st_ctime."""
    time.sleep(0.01)
    return path


@pytest.fixture
def cached(monkeypatch, tmp_path):
    monkeypatch.setenv("STYLEGAN_PLUGINS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets, "SETTLED", 0.005)
    return tmp_path / "cache"


@pytest.mark.parametrize("kind", ["set.zip", "set"])
def test_beyond_the_first_images_the_header_alone_is_read(kind, cached, bytes_read, monkeypatch, tmp_path):
    files = {f"{index}.png": encoded((128, 128), "RGB", seed=index) for index in range(20)}
    path = write(tmp_path / kind, files)
    total = sum(map(len, files.values()))
    check_dataset(path)
    assert bytes_read() >= total  # of few images all
    for limit, value in (("WHOLE", 1), ("WHOLE_BYTES", 1)):
        with monkeypatch.context() as patch:
            patch.setattr(datasets, limit, value)
            assert datasets._scan(path) == (20, 128, 3)
        assert bytes_read() < len(files["0.png"]) + 20 * 20_000 < total / 2


@pytest.mark.parametrize("kind", ["set.zip", "set"])
def test_a_data_set_is_read_once_until_it_changes(kind, cached, bytes_read, tmp_path):
    files = {f"{index}.png": encoded((32, 32), "RGB", seed=index) for index in range(4)}
    path = settled(write(tmp_path / kind, files))
    answer, fingerprint = check_dataset(path), datasets.fingerprint(path)
    assert bytes_read() > 0
    assert (check_dataset(path), datasets.fingerprint(path)) == (answer, fingerprint) and bytes_read() == 0
    assert check_dataset(os.path.relpath(path)) == answer and bytes_read() == 0

    times = os.stat(path)
    write(path, files | {"0.png": encoded((32, 32), "RGB", seed=9)})
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # as `cp --preserve` leaves it
    assert check_dataset(path) == answer and datasets.fingerprint(path) != fingerprint and bytes_read() > 0
    write(path, {"0.png": encoded((16, 16), "RGB")})
    if kind == "set":
        with pytest.raises(DataError, match="of one size"):
            check_dataset(path)
    else:
        assert check_dataset(path) == (1, 16, 3)


@settings(deadline=None, max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["set.zip", "set"]),
    st.lists(st.tuples(st.integers(0, 2), st.sampled_from([8, 16, None]), st.integers(0, 2)), min_size=1, max_size=5),
)
def test_what_is_kept_is_what_a_scan_finds(cached, tmp_path_factory, kind, changes):
    """changes: an image, its new side or None to take it out, and a seed."""
    path = tmp_path_factory.mktemp("changing") / kind
    files = {"first.png": encoded((8, 8), "RGB")}
    for number, side, seed in changes:
        name = f"{number}.png"
        files = {key: data for key, data in files.items() if key != name}
        if side is not None:
            files[name] = encoded((side, side), "RGB", seed=seed)
        elif kind == "set":
            (path / name).unlink(missing_ok=True)
        settled(write(path, files))
        for ask, find in ((check_dataset, datasets._scan), (datasets.fingerprint, datasets._fingerprint)):
            try:
                expected = find(path)
            except DataError:
                with pytest.raises(DataError):
                    ask(path)
            else:
                assert ask(path) == ask(path) == expected


def test_a_data_set_of_this_moment_is_not_kept(cached, bytes_read, monkeypatch, tmp_path):
    """It may be written again within the resolution of its time."""
    monkeypatch.setattr(datasets, "SETTLED", 60)
    path = write(tmp_path / "set.zip", {"0.png": encoded((8, 8), "RGB")})
    check_dataset(path)
    bytes_read()
    check_dataset(path)
    assert bytes_read() > 0 and not cached.exists()


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"3", b'{"identity": 1}', b"\xff"])
def test_a_damaged_or_unwritable_cache_costs_another_read(damage, cached, tmp_path):
    path = settled(write(tmp_path / "set.zip", {"0.png": encoded((8, 8), "RGB")}))
    answer = check_dataset(path)
    (file,) = (cached / "datasets").iterdir()
    file.write_bytes(damage)
    assert check_dataset(path) == answer
    file.unlink()
    (cached / "datasets").rmdir()
    (cached / "datasets").write_text("a file where a folder should be")
    assert check_dataset(path) == answer


def test_a_run_with_metrics_and_a_subset_reads_its_data_set_once(cached, bytes_read, monkeypatch, tmp_path):
    path = settled(write(tmp_path / "set.zip", {f"{index}.png": encoded((8, 8), "RGB") for index in range(60)}))
    scans = []
    monkeypatch.setattr(
        datasets, "_inspect", lambda *args, inspect=datasets._inspect, **how: scans.append(1) or inspect(*args, **how)
    )
    monkeypatch.setattr(host_metrics.Named, "network", lambda self, device: None)
    check_dataset(path)
    loop_options.apply({"training_set_kwargs": {"path": str(path)}}, {"subset": 50})
    for name in ("fid_clean", "kid_clean", "pr_clean"):
        host_metrics.named()[name].check(str(path), 5000)
    assert len(scans) == 60


def test_a_broken_link_in_a_folder_is_refused(tmp_path):
    path = write(tmp_path / "set", {"0.png": encoded((8, 8), "RGB")})
    (path / "1.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(DataError, match="1.png in .* cannot be read"):
        check_dataset(path)


# --- The output folder. --------------------------------------------------------------------------------------------


def test_an_output_folder_that_can_be_made_is_accepted_and_not_made(tmp_path):
    check_output(tmp_path / "a/b/c")
    check_output(tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_output_folder_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file/a/b"):
        with pytest.raises(DataError, match=f"--outdir: {tmp_path / 'file'} is a file"):
            check_output(path)


def test_an_output_folder_below_one_that_may_not_be_entered_is_refused(monkeypatch, tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir()
    monkeypatch.setattr(os.path, "exists", lambda path: closed not in Path(path).parents and Path(path).parent.is_dir())
    monkeypatch.setattr(datasets.os, "access", lambda path, mode: Path(path) != closed)
    with pytest.raises(DataError, match=f"{closed} is not writable"):
        check_output(closed / "runs")


# --- Detectors of metrics. -----------------------------------------------------------------------------------------


@pytest.fixture
def silent_server():
    """A server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        connections = []

        def accept():
            while True:
                try:
                    connections.append(server.accept()[0])
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/detector.pkl"
        for connection in connections:
            connection.close()


def test_a_network_that_never_answers_is_given_up_in_time(silent_server, monkeypatch):
    import requests

    def open_url(url, num_attempts, verbose):  # as the hosts do it: no timeout
        with util.requests.Session() as session:
            return session.get(url)

    util = types.SimpleNamespace(requests=requests, open_url=open_url)
    metric_main = types.SimpleNamespace(_metric_dict={"fid": object()})
    modules = {"dnnlib": types.SimpleNamespace(util=util), "metrics.metric_main": metric_main}
    monkeypatch.setattr(host_metrics, "host_module", modules.get)
    monkeypatch.setattr(host_metrics, "detector_urls", lambda metric: [silent_server])
    monkeypatch.setattr(host_metrics, "SECONDS", 0.2)
    start = time.monotonic()
    with pytest.raises(OptionError, match="--metrics=fid needs .*detector.pkl, which is not available .*Timeout"):
        host_metrics.check_metrics(["fid"], None)
    assert time.monotonic() - start < 10
    assert util.requests is requests


def test_no_metric_looks_for_nothing(monkeypatch):
    monkeypatch.setattr(host_metrics, "host_module", None)
    host_metrics.check_metrics([], None)
