"""What happens to files: bits flip, blocks are lost or swapped, values are of other kinds, files are no files."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: Values that a document may have in place of the right one.
_ODD: tuple[Any, ...] = (
    *(None, True, -1, 0, 3, 0.5, 10**30, -(10**400), 1e308, float("nan"), float("inf")),
    *("", "x", "x" * 100_000, "\x00", "../../etc/passwd", "/dev/zero", "é\u202e", [], {}, [[]], {"a": {}}, [1] * 1000),
)


def damage(file: Path, others: list[Path], rng: random.Random) -> str:
    """Damage a file in some way; return how, in a few words."""
    kinds: list[Callable[[Path, list[Path], random.Random], str]] = [_bytes] * 6 + [_place]
    if file.suffix in (".json", ".jsonl", ".yaml", ".csv", ".txt"):
        kinds += [_text] * 4
    if file.suffix == ".json":
        kinds += [_value] * 8
    return f"{file.name}: {rng.choice(kinds)(file, others, rng)}"


def _bytes(file: Path, others: list[Path], rng: random.Random) -> str:
    data = bytearray(file.read_bytes())
    size = len(data)
    # the head of a file, where its sizes are, as often as all the rest
    at = min(rng.randrange(size + 1), rng.choice([size, 64]))
    length = min(rng.choice([1, 2, 4, 8, 64, 512, size]), size - at)
    kind = rng.choice(["flip", "other", "zeros", "ones", "cut", "gone", "twice", "new", "swap"])
    if kind == "flip" and at < size:
        data[at] ^= 1 << rng.randrange(8)
    elif kind == "other":
        data[at : at + length] = rng.randbytes(length)
    elif kind in ("zeros", "ones"):
        data[at : at + length] = (b"\0" if kind == "zeros" else b"\xff") * length
    elif kind == "cut":
        del data[at:]
    elif kind == "gone":
        del data[at : at + length]
    elif kind == "twice":
        data[at:at] = data[at : at + length]
    elif kind == "new":
        data[at:at] = rng.randbytes(rng.choice([1, 16, 4096]))
    elif kind == "swap":
        data = data[at:] + data[:at]
    file.write_bytes(data)
    return f"{kind} at {at} of {size}, {length} long"


def _place(file: Path, others: list[Path], rng: random.Random) -> str:
    kind = rng.choice(["missing", "folder", "link", "loop", "pipe", "another", "empty"])
    another = rng.choice(others).read_bytes()
    file.unlink()
    if kind == "folder":
        file.mkdir()
    elif kind == "link":
        file.symlink_to("nowhere")
    elif kind == "loop":
        file.symlink_to(file.name)
    elif kind == "pipe":
        os.mkfifo(file)
    elif kind != "missing":
        file.write_bytes(another if kind == "another" else b"")
    return kind


def _text(file: Path, others: list[Path], rng: random.Random) -> str:
    text = file.read_text(encoding="utf-8", errors="surrogateescape")
    tokens = list(re.finditer(r"[\w.+-]+|\S", text))
    if not tokens:
        return "nothing"
    token = rng.choice(tokens)
    new = rng.choice(
        (
            *("", "-1", "0", "9" * 30, "9" * 5000, "1e999", ".nan", "null", "[" * 5000, "{" * 5000, "x" * 99_999),
            *("&a [*a]", "!!python/object:os.system", "\t", "\x00", '"', ":", ",", "\n", rng.choice(tokens).group()),
        )
    )
    changed = text[: token.start()] + new + text[token.end() :]
    file.write_text(changed, encoding="utf-8", errors="surrogateescape", newline="")
    return f"{token.group()[:40]!r} became {new[:20]!r}"


def _value(file: Path, others: list[Path], rng: random.Random) -> str:
    document = json.loads(file.read_text(encoding="utf-8"))
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
            places.append((node, key))
            walk(value)

    walk(document)
    if not places:
        return "nothing"
    node, key = rng.choice(places)
    new = rng.choice(_ODD)
    if rng.random() < 0.2:
        del node[key]
    else:
        node[key] = new
    file.write_text(json.dumps(document), encoding="utf-8")
    return f"{key!r} became {str(new)[:20] if isinstance(new, int | str) else new!r}"[:80]


def copied(source: Path, target: Path) -> Path:
    """A fresh copy of a file or folder."""
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    elif os.path.lexists(target):
        target.unlink()
    (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
    return target
