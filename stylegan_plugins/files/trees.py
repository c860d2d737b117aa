"""Nested data with tensors as bytes, in the format of safetensors: no pickle, so that nothing in it is executed.

A tree holds None, booleans, numbers, strings, bytes, tensors, and lists, tuples and dictionaries of these; keys are
strings or integers. Its shape is JSON in the metadata of the format; {"tensor": "3"} there is the tensor named 3."""

from __future__ import annotations

import base64
import json
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from stylegan_plugins.errors import DataError

KEY = "tree"
# What bytes that `to_bytes` has not made raise.
_MALFORMED = (SafetensorError, ValueError, TypeError, AttributeError, LookupError, RecursionError)


def to_bytes(tree: Any) -> bytes:
    """Return a tree as bytes."""
    tensors: dict[str, torch.Tensor] = {}
    storages: set[int] = set()

    def shape_of(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            kept = value.detach().cpu().contiguous()
            storage = kept.untyped_storage()
            if storage.nbytes() != kept.nbytes or storage.data_ptr() in storages:
                kept = kept.clone()  # of a tensor in a larger one, or in one that is here already
            storages.add(kept.untyped_storage().data_ptr())
            tensors[name := str(len(tensors))] = kept
            return {"tensor": name}
        if isinstance(value, dict):
            return {"dict": [[key, shape_of(item)] for key, item in value.items()]}
        if isinstance(value, list):
            return [shape_of(item) for item in value]
        if isinstance(value, tuple):
            return {"tuple": [shape_of(item) for item in value]}
        return {"bytes": base64.b64encode(value).decode()} if isinstance(value, bytes) else value

    shape = json.dumps(shape_of(tree))
    return save(tensors, {KEY: shape})


def from_bytes(data: bytes) -> Any:
    """Return the tree in bytes, its tensors on the CPU. Raises DataError for what `to_bytes` has not made."""
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
    raise ValueError(f"{kind!r} is no kind of value")
