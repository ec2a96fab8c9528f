"""Names and numbers as people read them: in natural order, without what cannot be shown, with what they count."""

from __future__ import annotations

import re

_DIGITS = re.compile(r"([0-9]+)")
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def natural(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Sort key under which ``frame9`` comes before ``frame10``, the same on every machine."""
    key = []
    for i, word in enumerate(_DIGITS.split(name)):
        digits = word.lstrip("0") if i % 2 else ""
        key.append((0, len(digits), digits) if i % 2 else (1, 0, word))
    return key, name


def printable(name: str) -> str:
    """Replace what no manifest can hold, such as the bytes of a file name that is not UTF-8."""
    return _UNSAFE.sub("\N{REPLACEMENT CHARACTER}", name)


def lasting(seconds: float) -> str:
    """Write an estimate of how long something takes."""
    if seconds < 90:
        return counted(max(round(seconds), 1), "second")
    return f"{round(seconds / 60)} minutes" if seconds < 5400 else f"{seconds / 3600:,.1f} hours"


def counted(count: int, one: str, many: str = "") -> str:
    """Write a number with what it counts."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"
