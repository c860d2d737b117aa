"""Data sets by name or address, against a server on loopback that breaks off, changes its mind, or tells nonsense."""

from __future__ import annotations

import hashlib
import socket
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import filelock
import pytest
from support.hosts import ADA, STYLEGAN3
from support.images import color_crops, write_zip
from support.runs import TINY
from support.scripts import run_script

from stylegan_plugins.errors import DataError
from stylegan_plugins.files import downloads


class Server:
    """Serves one body, with ranges. `requests` lists (path, Range) as they came; `break_after`: bytes after which each
    answer breaks off, None: never."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.tag: str | None = '"one"'
        self.ranges = True
        self.status = 200
        self.break_after: int | None = None
        self.requests: list[tuple[str, str | None]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.answer(self)

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        self.address = f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        asked = handler.headers.get("Range")
        self.requests.append((handler.path, asked))
        if self.status != 200:
            handler.send_error(self.status)
            return
        start = 0
        same = handler.headers.get("If-Range") in (None, self.tag)
        if asked and self.ranges and same:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(self.body):
                handler.send_error(416)
                return
            handler.send_response(206)
            handler.send_header("Content-Range", f"bytes {start}-{len(self.body) - 1}/{len(self.body)}")
        else:
            handler.send_response(200)
        part = self.body[start:]
        handler.send_header("Content-Length", str(len(part)))
        if self.tag:
            handler.send_header("ETag", self.tag)
        handler.end_headers()
        handler.wfile.write(part if self.break_after is None else part[: self.break_after])


@contextmanager
def serving(body: bytes):
    server = Server(body)
    try:
        yield server
    finally:
        server.server.shutdown()


@pytest.fixture
def body(tmp_path) -> bytes:
    return write_zip(tmp_path / "source.zip", color_crops(100)).read_bytes()


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("STYLEGAN_PLUGINS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def files(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.rglob("*") if path.is_file() and not path.name.endswith(".lock"))


@pytest.mark.unit
def test_a_data_set_is_downloaded_once(body, cache):
    with serving(body) as server:
        first = downloads.local_data(f"{server.address}/some/crops.zip?dl=1")
        again = downloads.local_data(f"{server.address}/some/crops.zip?dl=1")
    assert first == again and Path(first).name == "crops.zip" and Path(first).read_bytes() == body
    assert server.requests == [("/some/crops.zip?dl=1", None)]
    assert files(cache) == ["crops.zip"]


@pytest.mark.unit
def test_two_addresses_with_the_same_file_name_are_two_data_sets(body, cache):
    with serving(body) as server:
        assert downloads.local_data(f"{server.address}/a/x.zip") != downloads.local_data(f"{server.address}/b/x.zip")


@pytest.mark.unit
@pytest.mark.parametrize("name", downloads.NAMED)
def test_a_named_data_set_comes_from_its_address(name, body, cache, monkeypatch):
    assert downloads.address_of(name) == f"https://data-efficient-gans.mit.edu/datasets/{name}.zip"
    with serving(body) as server:
        monkeypatch.setenv("STYLEGAN_PLUGINS_DATASETS", server.address + "/mirror/")
        assert Path(downloads.local_data(name)).read_bytes() == body
    assert server.requests == [(f"/mirror/{name}.zip", None)]


@pytest.mark.unit
def test_a_folder_of_that_name_wins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "100-shot-panda").mkdir()
    assert downloads.local_data("100-shot-panda") == "100-shot-panda"


@pytest.mark.unit
@pytest.mark.parametrize("data", ["my.zip", "100-shot-obama.zip", "100-shot", "ftp://x/y.zip", "/a/b", "C:\\x"])
def test_everything_else_is_a_path(data):
    assert downloads.local_data(data) == data


@pytest.mark.unit
def test_a_download_that_breaks_off_goes_on_where_it_stopped(body, cache):
    with serving(body) as server:
        server.break_after = len(body) // 3 + 1
        path = Path(downloads.local_data(f"{server.address}/x.zip"))
    assert path.read_bytes() == body
    assert server.requests[0][1] is None
    starts = [int(asked.removeprefix("bytes=").removesuffix("-")) for _, asked in server.requests[1:]]
    for previous, start in zip([0, *starts], starts):
        assert 0 <= previous + server.break_after - start < downloads.CHUNK


@pytest.mark.unit
def test_a_later_run_goes_on_where_an_earlier_one_gave_up(body, cache):
    with serving(body) as server:
        server.break_after = len(body) // 10
        with pytest.raises(DataError, match="is not available"):
            downloads.local_data(f"{server.address}/x.zip")
        assert files(cache) == ["x.zip.part", "x.zip.part.tag"]
        have = next(cache.rglob("*.part")).stat().st_size
        server.break_after = None
        assert Path(downloads.local_data(f"{server.address}/x.zip")).read_bytes() == body
    assert have > len(body) // 4 and server.requests[-1] == ("/x.zip", f"bytes={have}-")
    assert files(cache) == ["x.zip"]


@pytest.mark.unit
@pytest.mark.parametrize("change", ["other file", "no tag", "no ranges"])
def test_a_part_that_does_not_belong_to_the_file_is_not_used(change, body, cache, tmp_path):
    new = write_zip(tmp_path / "new.zip", color_crops(30, seed=1)).read_bytes()
    with serving(body) as server:
        server.break_after = len(body) // 10
        if change == "no tag":
            server.tag = None
        with pytest.raises(DataError, match="is not available"):
            downloads.local_data(f"{server.address}/x.zip")
        server.break_after = None
        server.body, server.ranges = new, change != "no ranges"
        if change == "other file":
            server.tag = '"two"'
        assert Path(downloads.local_data(f"{server.address}/x.zip")).read_bytes() == new


@pytest.mark.unit
def test_a_part_longer_than_the_file_is_thrown_away(body, cache):
    with serving(body) as server:
        address = f"{server.address}/x.zip"
        partial = cache / "data" / hashlib.sha256(address.encode()).hexdigest()[:12] / "x.zip.part"
        partial.parent.mkdir(parents=True)
        partial.write_bytes(body + b"more")
        partial.with_name("x.zip.part.tag").write_text('"one"')
        assert Path(downloads.local_data(address)).read_bytes() == body


@pytest.mark.unit
@pytest.mark.parametrize("wrong", [b"<html>Sorry, moved.</html>", b"", b"PK\x03\x04 and then nothing"])
def test_what_is_no_zip_is_refused_and_not_kept(wrong, cache):
    with serving(wrong) as server:
        with pytest.raises(DataError, match="is not a zip"):
            downloads.local_data(f"{server.address}/x.zip")
    assert not [name for name in files(cache) if not name.endswith(".tag")]


@pytest.mark.unit
def test_a_zip_with_a_damaged_image_is_refused_and_not_kept(body, cache):
    damaged = bytearray(body)
    damaged[len(body) // 2] ^= 0xFF
    with serving(bytes(damaged)) as server:
        with pytest.raises(DataError, match="is damaged|is not a zip"):
            downloads.local_data(f"{server.address}/x.zip")
    assert not [name for name in files(cache) if not name.endswith(".tag")]


@pytest.mark.unit
def test_an_error_of_the_server_is_one_line_with_its_status(body, cache):
    with serving(body) as server:
        server.status = 404
        with pytest.raises(
            DataError, match=r"--data: http://127.0.0.1:\d+/x.zip is not available \(status 404\)"
        ) as told:
            downloads.local_data(f"{server.address}/x.zip")
    assert "\n" not in str(told.value) and files(cache) == []


@pytest.mark.unit
def test_without_a_network_the_error_says_what_to_do(cache, monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # and nobody listens
        monkeypatch.setenv("STYLEGAN_PLUGINS_DATASETS", f"http://127.0.0.1:{unused.getsockname()[1]}")
        with pytest.raises(DataError, match="Connect to the network once, it is kept in .*; or get the zip") as told:
            downloads.local_data("100-shot-obama")
    assert "100-shot-obama.zip is not available (ConnectionError)" in str(told.value)


@pytest.mark.unit
def test_two_processes_do_not_write_the_same_file(body, cache):
    with serving(body) as server:
        address = f"{server.address}/x.zip"
        partial = cache / "data" / hashlib.sha256(address.encode()).hexdigest()[:12] / "x.zip.part"
        partial.parent.mkdir(parents=True)
        with filelock.FileLock(f"{partial}.lock"):
            with pytest.raises(DataError, match="another process is downloading"):
                downloads.local_data(address)
        assert Path(downloads.local_data(address)).read_bytes() == body


@pytest.mark.run
@pytest.mark.parametrize("family", [ADA, STYLEGAN3])
def test_train_takes_an_address(patched, family, body, tmp_path):
    with serving(body) as server:
        done = run_script(
            patched[family],
            "train.py",
            *[f"--data={server.address}/crops.zip", f"--outdir={tmp_path}", "--dry-run", *TINY[family]],
            STYLEGAN_PLUGINS_CACHE=str(tmp_path / "cache"),
        )
    assert str(tmp_path / "cache" / "data") in done.stdout and "crops.zip" in done.stdout


@pytest.mark.host
def test_train_without_a_network_ends_with_one_line(ada_host, tmp_path):
    done = run_script(
        ada_host,
        "train.py",
        *["--data=100-shot-obama", f"--outdir={tmp_path / 'runs'}"],
        check=False,
        STYLEGAN_PLUGINS_CACHE=str(tmp_path / "cache"),
        STYLEGAN_PLUGINS_DATASETS="http://127.0.0.1:9",
    )
    assert done.returncode == 2 and done.stderr.splitlines()[-1].startswith(
        "Error: --data: http://127.0.0.1:9/100-shot-"
    )
    assert "Traceback" not in done.stderr and not (tmp_path / "runs").exists()
