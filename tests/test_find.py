"""A run knows its host and its data: no folder to change to, no --host, no --data."""

from __future__ import annotations

import json

import pytest

from stylegan_plugins.cache import known_hosts, remember_host
from stylegan_plugins.errors import DataError, HostError
from stylegan_plugins.host import find

pytestmark = pytest.mark.unit


@pytest.fixture
def used(tmp_path, monkeypatch):
    """Hosts that are put into use, by their folders; a folder without a host is the current one."""
    monkeypatch.setenv("STYLEGAN_PLUGINS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("STYLEGAN_HOST", raising=False)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    found = []
    monkeypatch.setattr(find, "use_host", found.append)
    return found


def host_in(folder):
    for name in ("torch_utils", "dnnlib"):
        (folder / name).mkdir(parents=True)
    return folder


def run_in(folder, **options):
    folder.mkdir()
    (folder / "training_options.json").write_text(json.dumps(options))
    return folder


def test_a_run_is_opened_with_the_host_that_trained_it(used, tmp_path, monkeypatch):
    own, other = host_in(tmp_path / "own"), host_in(tmp_path / "other")
    run = run_in(tmp_path / "00000-run", host=str(own))
    remember_host(own)
    remember_host(other)
    monkeypatch.setenv("STYLEGAN_HOST", str(other))
    assert find.choose_host(None, run) == own
    assert find.choose_host(None, run / "network-snapshot-000001.pkl") == own
    assert find.choose_host(other, run) == other
    assert used == [own, own, other]


def test_a_host_that_a_folder_from_elsewhere_names_is_not_executed(used, tmp_path):
    run = run_in(tmp_path / "00000-run", host=str(host_in(tmp_path / "00000-run-code")))
    with pytest.raises(HostError, match="No host in the current folder"):
        find.choose_host(None, run)
    mine = host_in(tmp_path / "mine")
    remember_host(mine)
    assert find.choose_host(None, run) == mine


def test_without_a_run_it_is_the_variable_the_current_folder_and_the_host_used_last(used, tmp_path, monkeypatch):
    last, here, named = (host_in(tmp_path / name) for name in ("last", "here", "named"))
    assert find.choose_host(last) == last and known_hosts() == [last]
    assert find.choose_host(None) == last
    monkeypatch.chdir(here)
    assert find.choose_host(None) == here
    monkeypatch.setenv("STYLEGAN_HOST", str(named))
    assert find.choose_host(None) == named
    monkeypatch.setenv("STYLEGAN_HOST", str(tmp_path))  # it has no host
    assert find.choose_host(None) == here


def test_the_latest_hosts_are_remembered_and_a_cache_that_cannot_be_written_is_no_error(used, tmp_path, monkeypatch):
    for number in range(25):
        remember_host(tmp_path / str(number % 22))
    assert [host.name for host in known_hosts()[:4]] == ["2", "1", "0", "21"] and len(known_hosts()) == 20
    (tmp_path / "file").touch()
    monkeypatch.setenv("STYLEGAN_PLUGINS_CACHE", str(tmp_path / "file"))
    remember_host(tmp_path)
    assert known_hosts() == []


def test_a_command_about_a_run_takes_the_data_of_the_run(tmp_path):
    zipped, photos = tmp_path / "prepared.zip", tmp_path / "photos"
    run = run_in(tmp_path / "run", training_set_kwargs={"path": str(zipped)}, pictures={"source": str(photos)})
    with pytest.raises(DataError, match="--data: the data set of .*run is not known, or not there any more"):
        find.data_of(run, None)
    photos.mkdir()
    assert find.data_of(run, None) == str(photos)
    zipped.touch()
    assert find.data_of(run / "network-snapshot-000001.pkl", None) == str(zipped)
    assert find.data_of(run, "given.zip") == "given.zip"
