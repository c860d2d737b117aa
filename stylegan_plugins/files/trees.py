"""Nested data with tensors as bytes, in the format of safetensors, which unlike a pickle cannot execute code.

A tree contains None, booleans, numbers, strings, bytes, tensors, and lists, tuples and dictionaries of these; keys are
strings or integers. Its structure is JSON in the metadata of the format, where {"tensor": "3"} is the tensor named 3.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load

from stylegan_plugins.errors import DataError

KEY = "tree"
# The format's names of types.
DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
# Errors for bytes that `to_bytes` has not made.
_MALFORMED = (SafetensorError, ValueError, TypeError, AttributeError, LookupError, RecursionError)


def to_bytes(tree: Any) -> bytes:
    """Return a tree as bytes."""
    return b"".join(pieces(tree))


def pieces(tree: Any) -> Iterator[bytes | memoryview]:
    """Yield the bytes of a tree: a header, then the memory of each tensor, without a copy.

    Raises KeyError for a tensor of a type that the format lacks, such as a complex one."""
    tensors: list[torch.Tensor] = []

    def shape_of(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            tensors.append(value.detach().cpu().contiguous())
            return {"tensor": str(len(tensors) - 1)}
        if isinstance(value, dict):
            return {"dict": [[key, shape_of(item)] for key, item in value.items()]}
        if isinstance(value, list):
            return [shape_of(item) for item in value]
        if isinstance(value, tuple):
            return {"tuple": [shape_of(item) for item in value]}
        return {"bytes": base64.b64encode(value).decode()} if isinstance(value, bytes) else value

    header: dict[str, Any] = {"__metadata__": {KEY: json.dumps(shape_of(tree))}}
    end = 0
    for name, tensor in enumerate(tensors):
        begin, end = end, end + tensor.nbytes
        header[str(name)] = {"dtype": DTYPES[tensor.dtype], "shape": [*tensor.shape], "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of eight bytes
    yield len(text).to_bytes(8, "little")
    yield text
    for tensor in tensors:
        yield tensor.reshape(-1).view(torch.uint8).numpy().data


def from_bytes(data: bytes) -> Any:
    """Return the tree in bytes, with tensors on the CPU. Raises DataError for bytes that `to_bytes` has not made."""
    try:
        tensors = load(data)  # it checks the header against the length of the data
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        return _tree_of(json.loads(header["__metadata__"][KEY]), tensors)
    except _MALFORMED as error:
        raise DataError(f"it cannot be read as safetensors: {' '.join(str(error).split()):.200}") from error


def _tree_of(shape: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(shape, list):
        return [_tree_of(item, tensors) for item in shape]
    if not isinstance(shape, dict):
        return shape
    ((kind, value),) = shape.items()
    if kind == "tensor":
        return tensors[value]
    if kind == "dict":
        return {key: _tree_of(item, tensors) for key, item in value}
    if kind == "tuple":
        return tuple(_tree_of(item, tensors) for item in value)
    if kind == "bytes":
        return base64.b64decode(value, validate=True)
    raise ValueError(f"{kind!r} is not a kind of value")
