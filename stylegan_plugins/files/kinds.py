"""Kinds of files that users give by mistake instead of networks or pictures, recognised by their first bytes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NoReturn

from stylegan_plugins.errors import DataError

HEAD = 512  # number of first bytes
_AGAIN = "Download the network itself: on GitHub and Hugging Face its address has `raw` or `resolve` in it."
_PICTURE = "Pictures are a data set: give their folder or zip with --data."
_UNPACK = "Unpack it, and give the network in it"
_OTHER = "Use a network of PyTorch: a pickle of a host, a .pt file of torch.save, or safetensors."

# Pattern of the first bytes, kind of the file, remedy.
_KINDS = tuple(
    (re.compile(pattern, re.DOTALL | re.IGNORECASE), what, cure)
    for pattern, what, cure in (
        (rb"\Z", "an empty file", "The copy or download was truncated: get it again."),
        (rb"(\xef\xbb\xbf)?\s*<(!doctype|html|head|\?xml|!--)", "a web page (HTML or XML)", _AGAIN),
        (rb"version https://git-lfs", "a pointer of Git LFS", "Run `git lfs pull` in its repository."),
        (rb"\x1f\x8b", "compressed by gzip", f"{_UNPACK}: gzip -dc FILE > NETWORK.pkl, for a tar: tar xf FILE."),
        (rb"BZh|\xfd7zXZ\0|\x28\xb5\x2f\xfd", "compressed", f"{_UNPACK}."),
        (rb"Rar!\x1a", "a RAR archive", f"{_UNPACK}."),
        (rb"7z\xbc\xaf", "a 7z archive", f"{_UNPACK}."),
        (rb".{257}ustar", "a tar archive", f"{_UNPACK}."),
        (rb"\x89PNG|\xff\xd8\xff|GIF8|RIFF....WEBP|BM.{4}\0\0\0\0", "a picture", _PICTURE),
        (
            rb'.{8}\{"__metadata__": \{"tree"',
            "a training state",
            "Continue its run with --resume-run=FOLDER, or give a network-snapshot-*.pkl of it.",
        ),
        (rb"\x89HDF", "an HDF5 file, as of Keras", _OTHER),
        (rb"\x08[\x01-\x1f][\x12\x1a\x22\x3a\x42]", "an ONNX or TensorFlow file", _OTHER),
        (rb"\x93NUMPY", "an array of NumPy", _OTHER),
        (rb"GGUF|%PDF|\x7fELF|MZ\x90", "a file of another program", _OTHER),
        (rb"\s*[{\[]\s*[\"{\[\]}]", "text (JSON)", _OTHER),
    )
)


def kind_of(head: bytes) -> tuple[str, str] | None:
    """Return the kind of a file with these first bytes, and the remedy where a network is expected; None if unknown."""
    return next(((what, cure) for pattern, what, cure in _KINDS if pattern.match(head)), None)


def refuse_other_kinds(name: str, head: bytes) -> None:
    """Raise DataError if these first bytes belong to a kind of file without networks."""
    if found := kind_of(head):
        raise other_kind(name, *found)


def refuse_text(name: str, head: bytes) -> None:
    """Raise DataError if these first bytes are text, which a damaged pickle may be, too."""
    if head and all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head):
        raise other_kind(name, "text", _AGAIN)


def refuse_zip(name: str, members: list[str]) -> NoReturn:
    """Raise DataError for a zip with these members that `torch.save` has not written."""
    ends = {Path(member).suffix.lower() for member in members}
    inner = [member for member in members if member.endswith((".pkl", ".pt", ".pth", ".ckpt", ".safetensors"))]
    if inner:
        cure = f"{_UNPACK}, {inner[0][:100]}: python -m zipfile -e FILE FOLDER."
    else:
        cure = _PICTURE if ends & {".png", ".jpg", ".jpeg"} else _OTHER
    raise other_kind(name, "a zip that torch.save has not written", cure)


def other_kind(name: str, what: str, cure: str) -> DataError:
    """Return the error for a file without networks."""
    return DataError(f"{name} is {what}, not a network. {cure}")
