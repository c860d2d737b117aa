"""Mutants of the files of a run directory that `report` reads: of their JSON, and of their bytes."""

from __future__ import annotations

import json
import random
import re
from typing import Any

FILES = ("stats.jsonl", "diagnostics.jsonl", "metric-fid50k_full.jsonl", "metric-kid_x.jsonl", "training_options.json")
NUMBERS = ["0", "-1", "-256", "1e309", "-1e308", "5e-324", "1e-310", "NaN", "-Infinity", "1" * 400, "9" * 5000, "0.5"]
TEXTS = [
    "",
    "\ud800",
    "\udcff/real",
    "\x00",
    "\x1b[2J",
    "<script>",
    "a/b" * 999,
    "\u202e",
    "{{ 7 * 7 }}",
    "network-snapshot-1.pkl",
]
TEXTS += [f"network-snapshot-{'9' * 400}.pkl", "network-snapshot-\u0663.pkl", "Progress/kimg", "kimg"]
VALUES: list[Any] = [None, True, [], {}, [[]], {"": {}}, {"mean": None}, {"mean": 1}, *TEXTS]
DEEP = ["[" * 90 + "]" * 90, '{"a":' * 990 + "1" + "}" * 990, "[" * 100_000, '{"a":' * 5000 + "0" + "}" * 5000]


def mutate(draw: random.Random, content: bytes) -> bytes:
    """Return a file with one to three mutations; lines of JSON, or one object over several lines."""
    for _ in range(draw.randint(1, 3)):
        content = draw.choice([_line, _line, _number, _bytes, _lines])(draw, content)
    return content


def _line(draw: random.Random, content: bytes) -> bytes:
    """Change a value or a key somewhere in the JSON of a line."""
    lines = content.split(b"\n")
    index = draw.randrange(len(lines))
    try:
        value = json.loads(lines[index])
    except (ValueError, RecursionError):
        return content
    holders = [value] if isinstance(value, dict | list) and value else []
    for holder in holders:
        inner = holder.values() if isinstance(holder, dict) else holder
        holders += [part for part in inner if isinstance(part, dict | list) and part][:50]
    if not holders or len(holders) > 5000:
        return content
    holder = draw.choice(holders)
    key = draw.choice(list(holder)) if isinstance(holder, dict) else draw.randrange(len(holder))
    if isinstance(holder, dict) and draw.random() < 0.3:
        holder[draw.choice(TEXTS)] = holder.pop(key)
    else:
        holder[key] = draw.choice(VALUES)
    lines[index] = json.dumps(value).encode()
    return b"\n".join(lines)


def _number(draw: random.Random, content: bytes) -> bytes:
    """Replace a number by another, or by values nested in each other."""
    found = list(re.finditer(rb"(?<=[:, ])-?\d[\d.e+-]*", content))
    if not found:
        return content
    match = draw.choice(found)
    new = draw.choice([*NUMBERS, *NUMBERS, *DEEP])
    return content[: match.start()] + new.encode() + content[match.end() :]


def _bytes(draw: random.Random, content: bytes) -> bytes:
    """Flip, cut, repeat or insert bytes."""
    where = draw.randrange(len(content) + 1)
    return draw.choice(
        [
            content[:where],
            content[:where] + bytes([draw.randrange(256)]) + content[where + 1 :],
            content[:where] + draw.randbytes(8) + content[where:],
            content[:where] + content[where : where + 100] * 50 + content[where:],
            b"",
        ]
    )


def _lines(draw: random.Random, content: bytes) -> bytes:
    """Change the order of lines, leave one out, or repeat one with many other names."""
    lines = content.split(b"\n")
    index = draw.randrange(len(lines))
    kind = draw.randrange(4)
    if kind == 0:
        draw.shuffle(lines)
    elif kind == 1:
        del lines[index]
    elif kind == 2:
        lines[index:index] = [lines[index]] * 300
    else:
        lines.append(json.dumps({"kimg": 1, **{f"name{number}": 1.0 for number in range(2_000)}}).encode())
    return b"\n".join(lines)
