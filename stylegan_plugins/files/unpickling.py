"""An interpreter for pickles that executes no code, with memory use limited by the size of the file.

Python's own unpickler allocates as much memory, and nests as deeply, as a pickle asks for. Here `pickletools` decodes
every opcode as data, which makes a plain container or a record of a name. Each object costs an opcode. The number of
opcodes, the bytes that functions make, and the depth of nested objects are limited. A key is text or a small number,
because the hash of a nested key would follow its whole depth."""

from __future__ import annotations

import io
import pickle
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

MOST_STEPS = 300_000  # opcodes and objects; a pickle of three networks has 20,000 at 32x32, 50,000 at 1024x1024
MOST_DEPTH = 64
MOST_ARGUMENTS = 16
MOST_BITS = 2048  # of a whole number; Python refuses to print one of more than 4300 digits

_VALUES = {  # opcodes that push their argument
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING"),
    *("SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES"),
    *("BINBYTES8", "BYTEARRAY8"),
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, Callable] = {"EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_DICT": dict, "EMPTY_SET": set}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class Excess(pickle.UnpicklingError):
    """A pickle asks for more than a network pickle does."""


@dataclass
class Allowance:
    """The remaining limits of one pickle: steps, and bytes beyond the size of the file."""

    memory: int
    steps: int = MOST_STEPS

    def step(self, count: int = 1) -> None:
        """Raises Excess."""
        self.steps -= count
        if self.steps < 0:
            raise Excess(f"more than {MOST_STEPS} objects")

    def take(self, count: int) -> None:
        """Raises Excess."""
        self.memory -= count
        if self.memory < 0:
            raise Excess("much more memory than the file is large")

    def enter(self, depth: int) -> int:
        """Count an object that contains others, at this depth, and return the depth of these. Raises Excess."""
        self.step()
        if depth > MOST_DEPTH:
            raise Excess(f"objects nested deeper than {MOST_DEPTH}")
        return depth + 1


class Record:
    """An object of a pickle as data. Subclasses take the state of BUILD, which does not become attributes."""

    def build(self, state: Any) -> None:
        raise pickle.UnpicklingError(f"a state for a {type(self).__name__}")


class Global(Record):
    """A name in a pickle, with a function for a call of the name, and a function for a new object of the class."""

    def __init__(self, name: str, function: Callable, new: Callable | None = None) -> None:
        self.name, self.function, self.new = name, function, new or function


class Clipped(io.BufferedReader):
    """A file that limits each read to the bytes that it has, since a read allocates memory for all requested bytes."""

    def __init__(self, raw: Any, length: int) -> None:
        super().__init__(raw)
        self.length = length
        self.most: int | None = None  # bytes of one reading, if they are limited

    def read(self, size: int | None = -1, /) -> bytes:
        rest = max(0, self.length - self.tell())
        size = rest if size is None or size < 0 else min(size, rest)
        if self.most is not None and size > self.most:
            raise Excess(f"a directory of {size} bytes")
        return super().read(size)


def run(file: Any, find: Callable[[str, str], Any], refer: Callable[[Any], Any], allowance: Allowance) -> Any:
    """Run one pickle of a file, and leave the file's position after it.

    find    (module, name) -> the object for a name in the pickle: a Global, or a constant
    refer   (persistent id) -> the object for a persistent id

    Raises Excess, the errors of these functions, and `pickle`'s errors for damaged bytes."""
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def after_mark() -> list[Any]:
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    before: int | None = None
    for opcode, argument, position in pickletools.genops(file):
        allowance.step()
        if before is not None:
            allowance.take(cast(int, position) - before)  # a storage may be read many times
        before = position
        name, arg = opcode.name, cast(Any, argument)
        if name in _VALUES:
            if isinstance(arg, int) and arg.bit_length() > MOST_BITS:
                raise Excess(f"a number of {arg.bit_length()} bits")
            stack.append(arg)
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            memo[arg] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(memo[arg])
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name == "MARK":
            marks.append(len(stack))
        elif name in _TUPLES:
            count = _TUPLES[name]
            if len(stack) < count:
                raise IndexError("too few objects for a tuple")
            stack[-count:] = [tuple(stack[-count:])]
        elif name == "TUPLE":
            stack.append(tuple(after_mark()))
        elif name == "LIST":
            stack.append(after_mark())
        elif name == "DICT":
            stack.append(_set_items({}, after_mark()))
        elif name == "FROZENSET":
            stack.append(frozenset(map(checked_key, after_mark())))
        elif name == "APPEND":
            item = stack.pop()
            _of_kind(stack[-1], list).append(item)
        elif name == "APPENDS":
            items = after_mark()
            _of_kind(stack[-1], list).extend(items)
        elif name == "ADDITEMS":
            items = after_mark()
            _of_kind(stack[-1], set).update(map(checked_key, items))
        elif name == "SETITEM":
            value, key = stack.pop(), stack.pop()
            _set_items(stack[-1], [key, value])
        elif name == "SETITEMS":
            items = after_mark()
            _set_items(stack[-1], items)
        elif name == "GLOBAL":
            stack.append(find(*arg.split(" ", 1)))
        elif name == "STACK_GLOBAL":
            which, module = stack.pop(), stack.pop()
            stack.append(find(_of_kind(module, str), _of_kind(which, str)))
        elif name in ("REDUCE", "NEWOBJ"):
            args, function = stack.pop(), stack.pop()
            if not isinstance(function, Global):
                raise pickle.UnpicklingError(f"a call of a {type(function).__name__}")
            if len(_of_kind(args, tuple)) > MOST_ARGUMENTS:
                raise Excess(f"a call with {len(args)} arguments")
            stack.append((function.new if name == "NEWOBJ" else function.function)(*args))
        elif name == "BUILD":
            state = stack.pop()
            if not isinstance(stack[-1], dict):  # attributes of a dictionary, such as torch's state_dict(), are dropped
                _of_kind(stack[-1], Record).build(state)
        elif name in ("BINPERSID", "PERSID"):
            stack.append(refer(stack.pop() if name == "BINPERSID" else arg))
        elif name == "POP":
            stack.pop()
        elif name == "POP_MARK":
            after_mark()
        elif name == "DUP":
            stack.append(stack[-1])
        elif name == "STOP":
            return stack.pop()
        elif name not in ("PROTO", "FRAME"):
            raise pickle.UnpicklingError(f"an opcode {name}, which networks do not need")
    raise EOFError("it has no end")


def checked_key(key: Any) -> Any:
    """Return a key whose look-up takes time in proportion to its length. Raises UnpicklingError for another key."""
    if key is None or isinstance(key, str | bytes) or (isinstance(key, int) and key.bit_length() <= 32):
        return key
    raise pickle.UnpicklingError(f"a key that is a {type(key).__name__}")


def _set_items(target: Any, items: list[Any]) -> dict:
    keys = map(checked_key, items[::2])
    _of_kind(target, dict).update(zip(keys, items[1::2], strict=True))
    return target


def _of_kind(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise pickle.UnpicklingError(f"a {type(value).__name__} in the place of a {kind.__name__}")
    return value
