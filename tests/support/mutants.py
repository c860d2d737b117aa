"""Mutants of pickles: bytes, opcodes and numbers of a valid one changed at random."""

from __future__ import annotations

import itertools
import pickletools
import random

EVIL = [  # pieces of pickles that ask for much, or for the impossible
    *(b"r\x00\x00\x00\x08", b"\x8e" + (1 << 40).to_bytes(8, "little"), b"\x8b\xff\xff\xff\x7f", b"\x85" * 5000),
    *(b"\x91", b"\x8f", b"(", b"0", b"1", b"2" * 50, b"N", b"}", b"]", b")", b"R", b"b", b"\x81", b"s", b"a", b"Q"),
    *(b"J\xff\xff\xff\x7f", b"J\x00\x00\x00\x80", b"\x8a\x09" + b"\xff" * 8 + b"\x00", b"\x8a\xff" + b"\x7f" * 255),
    *(b"G\x7f\xf8" + bytes(6), b"G\x7f\xf0" + bytes(6), b"X\x05\x00\x00\x00\x1b[31m", b"M\x00\x10", b"K\x00"),
    *(b"h\x00", b"h\x01", b"cbuiltins\nbytearray\n", b"cos\nsystem\n", b"cnumpy\nndarray\n", b"c\n\n", b"."),
]
NUMBERS = [0, 1, 2, 3, 255, 4096, 65535, 2**20, 2**31 - 1]
FLOATS = [bytes.fromhex(digits) for digits in ("7ff8000000000000", "7ff0000000000000", "7fe0000000000000", "0" * 16)]
KINDS = {b"X": "text", b"\x8c": "text", b"h": "memo", b"j": "memo", b"G": "float"}  # pieces that may take turns
KINDS |= dict.fromkeys((b"K", b"M", b"J"), "number") | dict.fromkeys((b"N", b"\x88", b"\x89"), "constant")


class Mutator:
    """Makes mutants of one pickle. The same `random` gives the same ones."""

    def __init__(self, content: bytes) -> None:
        starts = [position for _, _, position in pickletools.genops(content)] + [len(content)]
        self.pieces = [content[start:end] for start, end in itertools.pairwise(starts)]
        self.named = [place for place, piece in enumerate(self.pieces) if KINDS.get(piece[:1], "memo") != "memo"]

    def mutant(self, chance: random.Random) -> bytes:
        """Return a mutant with one to three changes, most of them of numbers, names and constants."""
        pieces = list(self.pieces)
        for _ in range(chance.choice([1, 1, 2, 3])):
            place = chance.choice(self.named) if chance.random() < 0.7 else chance.randrange(len(pieces))
            self.change(pieces, place, chance)
        return b"".join(pieces)

    def change(self, pieces: list[bytes], place: int, chance: random.Random) -> None:
        """Put something else in the place of a piece; two times in three of its kind, so that the rest is read."""
        piece, alike = pieces[place], KINDS.get(pieces[place][:1])
        kind = chance.choice(["alike", "alike", "bit", "drop", "twice", "many", "other", "evil", "cut", "evil after"])
        if chance.random() < 0.6 or kind == "alike":
            if alike == "number":
                piece = b"J" + chance.choice(NUMBERS).to_bytes(4, "little")
            elif alike == "float":
                piece = b"G" + chance.choice(FLOATS)
            elif alike:
                piece = chance.choice([other for other in self.pieces if KINDS.get(other[:1]) == alike])
            elif len(piece) >= 300:
                piece = _flipped(piece, chance)
        elif kind == "bit" and piece:
            piece = _flipped(piece, chance)
        elif kind == "drop":
            piece = b""
        elif kind in ("twice", "many"):
            piece *= 2 if kind == "twice" else 2000 if len(piece) < 300 else 3
        elif kind == "other":
            piece = chance.choice(self.pieces)
        elif kind == "evil":
            piece = chance.choice(EVIL)
        elif kind == "evil after":
            piece += chance.choice(EVIL)
        elif kind == "cut":
            piece = piece[: chance.randrange(len(piece) + 1)]
        pieces[place] = piece


def _flipped(piece: bytes, chance: random.Random) -> bytes:
    changed = bytearray(piece)
    changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)
