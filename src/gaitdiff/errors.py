"""The exception for what a user can fix, and what its sentences need: the nearest word, a value cut short."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

#: Of runs of each kind; a larger number is a slip.
_MOST_SEEDS = 1000


class UserError(Exception):
    """Error that the user can fix.

    The message is one sentence: what is wrong, which file or key, what to do. The command line prints it without a
    stack trace and ends with exit code 2.
    """


class NotFiniteError(UserError):
    """What a model has made is no number, or too large for one."""


class BusyError(UserError):
    """Another process is at it, and will end."""


def require_seed(seed: int) -> None:
    """Refuse a seed that no generator takes.

    Raises:
        UserError: it is negative.
    """
    if seed < 0:
        raise UserError(f"the seed is {seed}, but must not be negative")


def require_seeds(seeds: int) -> None:
    """Refuse no runs of each kind, and more than a plan can be made of.

    Raises:
        UserError: it is one of these.
    """
    if not 1 <= seeds <= _MOST_SEEDS:
        raise UserError(f"--seeds is {seeds}, but must be from 1 to {_MOST_SEEDS}")


def nearest(word: str, known: Iterable[str], likeness: float = 0.5) -> str:
    """Return " (did you mean 'x'?)" for the known word nearest to ``word``, or "" when none has this likeness."""
    match = difflib.get_close_matches(word, list(known), n=1, cutoff=likeness)
    return f" (did you mean {match[0]!r}?)" if match else ""


def shown(value: object, letters: int = 60) -> str:
    """A value as Python writes it, cut to so many letters, so that a sentence stays one that can be read."""
    text = repr(value)
    return text if len(text) <= letters else f"{text[:letters]}…"
