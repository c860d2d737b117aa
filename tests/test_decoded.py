"""Images from memory (--cache): the same, when they are used, and what is damaged or changes."""

from __future__ import annotations

import copy
import json
import os
import pickle
import subprocess
import sys
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.images import color_crops, write_zip
from support.scripts import DRIVERS, run_script

from stylegan_plugins.files import datasets, decoded

FREE = 10**9


class Folder:
    """A data set as a host has it, as far as `decoded` is concerned."""

    def __init__(self, path, indices):
        self._path, self._raw_idx, self.read = str(path), np.array(indices), 0
        self.image_shape = [3, 32, 32]

    def _load_raw_image(self, raw_idx):
        self.read += 1
        names, _ = datasets.read_images(self._path)
        return next(datasets.read_named(self._path, [names[raw_idx]]))


class Noisy(Folder):
    """A fork's data set that reads an image in another way each time."""

    def _load_raw_image(self, raw_idx):
        return super()._load_raw_image(raw_idx) ^ np.random.randint(256, size=[3, 32, 32], dtype=np.uint8)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("STYLEGAN_PLUGINS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(decoded.psutil, "virtual_memory", lambda: SimpleNamespace(available=FREE))
    return tmp_path / "cache" / "decoded"


@pytest.fixture
def data(tmp_path):
    return write_zip(tmp_path / "data.zip", color_crops(6))


def used(dataset, mode="ram", shown=0):
    decoded.use(dataset, mode, shown)
    return "_load_raw_image" in vars(dataset)


def assert_same(dataset, path):
    expected = list(datasets.read_images(path)[1])
    before = dataset.read
    for raw_idx in dataset._raw_idx:
        image = dataset._load_raw_image(raw_idx)
        assert np.array_equal(image.copy(), expected[raw_idx])
        assert np.array_equal(image[:, :, ::-1].copy(), expected[raw_idx][:, :, ::-1])
    assert dataset.read == before  # not one was decoded


@pytest.mark.host
def test_workers_of_a_host_load_the_same_flips_labels_and_subset_in_order(patched, family, labelled_zip, cache):
    done = run_script(patched[family], str(DRIVERS / "loader_stream.py"), str(labelled_zip), "30")
    assert "--cache=ram: decoding 30 images once, 0.1 MB" in done.stdout
    equal, flips = json.loads(done.stdout.splitlines()[-1])
    assert equal == 48 and 10 < flips < 38


@pytest.mark.unit
def test_images_are_decoded_once_and_read_from_the_file_then(cache, data, capsys):
    first, second = Folder(data, range(6)), Folder(data, range(6))
    assert used(first) and used(second) and second.read == 2  # the two that are compared
    assert_same(first, data)
    assert_same(pickle.loads(pickle.dumps(second)), data)
    assert_same(copy.deepcopy(second), data)
    (file,) = cache.glob("*.npy")
    said = f"decoding 6 images once, 0.0 MB, into {file}", f"6 decoded images, 0.0 MB, are read from {file}"
    assert capsys.readouterr().out == "".join(f"--cache=ram: {line}\n" for line in said)


@pytest.mark.unit
def test_a_subset_is_a_file_of_its_own_and_other_images_are_decoded(cache, data):
    subset, whole = Folder(data, [1, 4, 1, 4]), Folder(data, range(6))
    assert used(subset) and used(whole) and len([*cache.glob("*.npy")]) == 2
    assert_same(subset, data)
    before = subset.read
    for raw_idx in (0, 2, 5):
        assert np.array_equal(subset._load_raw_image(raw_idx), whole._load_raw_image(raw_idx))
    assert subset.read == before + 3


@pytest.mark.unit
@pytest.mark.parametrize(
    ("mode", "available", "shown", "expected", "line"),
    [
        ("off", FREE, 600, False, ""),
        (None, FREE, 60, True, ""),
        (None, FREE, 59, False, ""),
        ("auto", FREE, 59, False, "each image is used 9.83 times."),
        ("ram", FREE, 0, True, "decoding 6 images once"),
        ("ram", 18500, 0, True, "decoding 6 images once"),
        ("ram", 18400, 0, False, "6 images need 0.0 MB of memory"),
        ("auto", 4 * 18500, 600, True, "decoding 6 images once"),
        (None, 4 * 18400, 600, False, "--cache=auto: 6 images need 0.0 MB of memory"),
    ],
)
def test_images_are_kept_if_they_fit_and_it_pays(
    mode, available, shown, expected, line, cache, data, monkeypatch, capsys
):
    monkeypatch.setattr(decoded.psutil, "virtual_memory", lambda: SimpleNamespace(available=available))
    assert used(Folder(data, range(6)), mode, shown) == expected == bool([*cache.glob("*.npy")])
    out = capsys.readouterr().out
    assert line in out and out.count("\n") == bool(line)


@pytest.mark.unit
def test_a_disk_without_room_and_a_folder_that_cannot_be_written_are_one_line(cache, data, monkeypatch, capsys):
    dataset = Folder(data, range(6))
    monkeypatch.setattr(decoded.shutil, "disk_usage", lambda path: SimpleNamespace(free=decoded.LEFT + 100))
    assert not used(dataset)
    said = f"--cache=ram: {cache} needs 0.0 MB, and 0.0 MB are free for it. {decoded.AS_HOST}\n"
    assert capsys.readouterr().out == said and [*cache.glob("*.npy")] == []
    cache.rmdir()
    cache.write_text("a file")
    assert not used(dataset) and capsys.readouterr().out.count("\n") == 1


@pytest.mark.unit
@settings(max_examples=15, deadline=None)
@given(place=st.floats(0, 0.999), cut=st.booleans())
def test_a_damaged_file_is_found_and_made_again(place, cut, tmp_path_factory):
    top = tmp_path_factory.mktemp("damaged")
    data = write_zip(top / "data.zip", color_crops(3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STYLEGAN_PLUGINS_CACHE", str(top))
        assert used(Folder(data, range(3)))
        (file,) = (top / "decoded").glob("*.npy")
        whole = file.read_bytes()
        at = int(place * len(whole))
        file.write_bytes(whole[:at] if cut else whole[:at] + bytes([whole[at] ^ 16]) + whole[at + 1 :])
        dataset = Folder(data, range(3))
        assert used(dataset)
        assert_same(dataset, data)


@pytest.mark.unit
def test_images_that_change_are_decoded_again(cache, data):
    before = Folder(data, range(6))
    assert used(before)
    kept = before._load_raw_image(3).copy()
    write_zip(data, color_crops(6, seed=1))
    after = Folder(data, range(6))
    assert used(after)
    assert_same(after, data)
    assert np.array_equal(before._load_raw_image(3), kept)  # a run keeps the images that it began with


@pytest.mark.unit
def test_images_that_change_while_they_are_decoded_are_not_kept(cache, data, monkeypatch, capsys):
    write = decoded._write

    def changing(images):
        write(images)
        with zipfile.ZipFile(data, "a") as archive:
            archive.writestr("more.png", b"")

    monkeypatch.setattr(decoded, "_write", changing)
    assert not used(Folder(data, range(6))) and [*cache.glob("*.npy")] == []
    assert f"{data} changes while it is read." in capsys.readouterr().out


@pytest.mark.unit
def test_a_data_set_of_a_fork_that_cannot_be_kept_is_left_alone(cache, data, capsys):
    assert not used(Noisy(data, range(6)))
    assert "in another way each time" in capsys.readouterr().out
    wrong = Folder(data, range(6))
    wrong.image_shape = [1, 32, 32]
    assert not used(wrong) and [*cache.glob("*.npy")] == []
    assert "reads uint8 [3, 32, 32], not uint8 [1, 32, 32]" in capsys.readouterr().out
    assert not used(SimpleNamespace()) and "SimpleNamespace does not read" in capsys.readouterr().out


@pytest.mark.unit
def test_an_image_that_cannot_be_decoded_is_left_to_the_host(cache, tmp_path, capsys):
    path = write_zip(tmp_path / "data.zip", color_crops(2))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("00001.png", b"no image")
    dataset = Folder(path, range(3))
    assert not used(dataset) and capsys.readouterr().out.count("\n") == 2 and [*cache.glob("*.npy")] == []


@pytest.mark.unit
def test_files_that_no_run_has_used_for_long_are_removed(cache, data):
    cache.mkdir(parents=True)
    for name, days in (("old.npy", 31), ("killed.npy.1.tmp", 31), ("new.npy", 29)):
        (cache / name).write_bytes(b"")
        seconds = decoded.time.time() - days * 86400
        os.utime(cache / name, (seconds, seconds))
    assert used(Folder(data, range(6)))
    left = {file.name for file in cache.iterdir()}
    assert "new.npy" in left and not left & {"old.npy", "killed.npy.1.tmp"}


@pytest.mark.unit
@settings(max_examples=50, deadline=None)
@given(st.data())
def test_parts_of_pixels_are_those_of_numpy(data):
    shape = data.draw(st.tuples(st.sampled_from([1, 3]), st.integers(1, 20), st.sampled_from([7, 8, 16, 24])))
    plain = np.random.RandomState(0).randint(0, 256, shape).astype(np.uint8)
    pixels = plain.view(decoded._Pixels)
    part = st.one_of(st.builds(slice, *[st.none()] * 2, st.sampled_from([None, -1, 1, 2])), st.just(0), st.just([0]))
    key = data.draw(st.one_of(st.tuples(part, part, part), st.just(decoded.FLIP), st.just(...), st.just(0)))
    for found in (pixels[key].copy(), pixels.copy()[key], pixels[key].copy("F")):
        assert type(found) is type(plain[key]) and np.array_equal(found, plain[key])
    assert np.array_equal(pixels[key], plain[key])
    turned = data.draw(st.permutations(range(3)))
    assert np.array_equal(pixels[decoded.FLIP].transpose(turned).copy(), plain[decoded.FLIP].transpose(turned))


FLIPS = """
import numpy as np, torch
from stylegan_plugins.files import decoded
plain = np.random.RandomState(0).randint(0, 256, (3, 8, 8)).astype(np.uint8)
plain.flags.writeable = False
flips, flip = [], torch.Tensor.flip
torch.Tensor.flip = lambda x, side: flips.append(side) or flip(x, side)
copies = [plain.view(decoded._Pixels)[:, :, ::-1].copy() for _ in range(2)]
assert flips == [2, 2]
assert all(copied.flags.writeable and np.array_equal(copied, plain[:, :, ::-1]) for copied in copies)
assert (plain.view(decoded._Pixels).astype(">i4")[:, :, ::-1].copy() == plain[:, :, ::-1]).all()
"""


@pytest.mark.host
def test_torch_flips_memory_that_is_read_only_without_a_warning():
    subprocess.run([sys.executable, "-W", "error", "-c", FLIPS], check=True)
