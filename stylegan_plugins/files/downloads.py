"""Downloads of data sets and pickles into a cache. They can be resumed, and only complete files are used."""

from __future__ import annotations

import hashlib
import lzma
import os
import re
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

import click
import filelock
import requests

from stylegan_plugins.cache import cache_directory
from stylegan_plugins.errors import DataError

# The low-shot data sets of Zhao et al. 2020 (arXiv:2006.10738), zips of 256x256 images; STYLEGAN_PLUGINS_DATASETS names
# a mirror.
ADDRESS = "https://data-efficient-gans.mit.edu/datasets"
NAMED = (
    *("100-shot-obama", "100-shot-grumpy_cat", "100-shot-panda", "100-shot-bridge_of_sighs"),
    *("100-shot-medici_fountain", "100-shot-temple_of_heaven", "100-shot-wuzhen", "AnimalFace-cat", "AnimalFace-dog"),
)
ANSWER_SECONDS = 8.0  # time to connect, and between two pieces of a file
ATTEMPTS = 4  # for a broken connection, each from where the last one broke
CHUNK = 1 << 14  # bytes that a broken connection can lose


def address_of(data: str) -> str | None:
    """Return the address that --data means: an http(s) address, or the address of a named data set. None for a path.

    An existing file or folder wins over a named data set."""
    if re.match(r"https?://", data, re.IGNORECASE):
        return data
    if data in NAMED and not os.path.exists(data):
        base = os.environ.get("STYLEGAN_PLUGINS_DATASETS") or ADDRESS
        return f"{base.rstrip('/')}/{data}.zip"
    return None


def local_data(data: str) -> str:
    """Return the path of a data set given as a path, a name of NAMED or an address, downloaded if it is not cached.

    Raises DataError if it cannot be downloaded, or is not a zip."""
    if not data.strip():
        raise DataError("--data is empty. Give a folder or zip of pictures.")
    address = address_of(data)
    return data if address is None else str(download(address, cache_directory() / "data", check_zip))


def download(
    address: str, folder: Path, check: Callable[[Path], None], option: str = "--data", suffix: str = ".zip"
) -> Path:
    """Return the file behind an address, kept in `folder` under its own name, in a sub-folder for its address.

    An existing file is used without a download. An interrupted download, even of a killed process, is resumed, unless
    the file has changed on the server. `check` raises DataError for a wrong file, which is then removed, so that no
    file has the final name."""
    final = place_of(address, folder, suffix)
    if final.exists():
        return final
    name = final.name
    partial = final.with_name(name + ".part")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(final.with_name(name + ".part.lock"), timeout=0):  # released when its process ends
            if not final.exists():  # not finished by another process meanwhile
                _fetch(address, partial)
                try:
                    check(partial)
                except DataError:
                    partial.unlink()
                    raise
                os.replace(partial, final)
                _tag_file(partial).unlink(missing_ok=True)
    except filelock.Timeout as error:
        raise DataError(f"{option}: another process is downloading {address}; start again when it is done.") from error
    except requests.RequestException as error:
        why = type(error).__name__ if error.response is None else f"status {error.response.status_code}"
        raise DataError(
            f"{option}: {address} is not available ({why}). Connect to the network once, it is kept "
            f"in {folder}; or get the {suffix[1:]} by other means and give its path."
        ) from error
    except OSError as error:  # last, since the errors above are OSErrors, too
        raise DataError(
            f"{option}: {final} cannot be written ({error}). Make room, or set STYLEGAN_PLUGINS_CACHE to another "
            "folder."
        ) from error
    return final


def place_of(address: str, folder: Path, suffix: str) -> Path:
    """Return where `download` puts a file."""
    name = PurePosixPath(unquote(urlsplit(address).path)).name or "data"
    if not name.lower().endswith(suffix):
        name += suffix
    return folder / hashlib.sha256(address.encode(errors="surrogateescape")).hexdigest()[:12] / name


def check_zip(path: Path) -> None:
    """Raise DataError unless every member of a zip has its checksum."""
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError) as error:
        with open(path, "rb") as file:
            start = file.read(16)
        raise DataError(
            f"--data: the downloaded file is not a zip ({error}); it begins with {start!r}. Give the zip's own address."
        ) from error
    if broken is not None:
        raise DataError(f"--data: {broken} in the downloaded zip is damaged. Try again.")


def _fetch(address: str, partial: Path) -> None:
    """Download to `partial`. After a broken connection the download continues, as long as each attempt gets data."""
    for attempt in range(1, ATTEMPTS + 1):
        before = partial.stat().st_size if partial.exists() else 0
        try:
            return _attempt(address, partial, before)
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError):
            got = partial.stat().st_size if partial.exists() else 0
            if attempt == ATTEMPTS or got <= before:
                raise


def _attempt(address: str, partial: Path, have: int) -> None:
    tag = _tag_file(partial)
    headers = {"Accept-Encoding": "identity"}  # so that sizes and ranges count the file's bytes
    known = tag.read_text().strip() if have and tag.exists() else ""
    if known:
        headers |= {"Range": f"bytes={have}-", "If-Range": known}
    with requests.get(address, headers=headers, stream=True, timeout=ANSWER_SECONDS) as answer:
        if answer.status_code == requests.codes.requested_range_not_satisfiable:  # partial is not a part of it
            partial.unlink()
            return _attempt(address, partial, 0)
        answer.raise_for_status()
        going_on = answer.status_code == requests.codes.partial_content
        if going_on and not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            raise requests.exceptions.InvalidHeader(f"not the range that was asked for: {answer.headers}")
        have = have if going_on else 0
        # Only a strong tag, or a date, guarantees the same bytes in two answers.
        mark = answer.headers.get("ETag", "")
        mark = mark if mark.startswith('"') else answer.headers.get("Last-Modified", "")
        tag.write_text(mark)
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length else None
        with open(partial, "r+b" if going_on else "wb") as file:
            file.seek(have)
            file.truncate()
            with click.progressbar(length=total or 0, label=f"Downloading {address}", file=sys.stderr) as bar:
                bar.update(have)
                for piece in answer.iter_content(CHUNK):
                    file.write(piece)
                    bar.update(len(piece))
            file.flush()
            os.fsync(file.fileno())
    if total is not None and partial.stat().st_size < total:
        raise requests.exceptions.ChunkedEncodingError(f"{partial.stat().st_size} of {total} bytes came")


def _tag_file(partial: Path) -> Path:
    return partial.with_name(partial.name + ".tag")
