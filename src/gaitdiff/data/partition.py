"""Who trains and who is tested: partition files of published data sets, and the rules of those that need none."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Partition:
    """A division of people.

    Attributes:
        source: the file, or the rule in words.
        train, test: identities, in the order of the file.
        probes: test sequences that are looked for, as ``id-type-view``; None where the file names none.
    """

    source: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    probes: frozenset[str] | None = None
