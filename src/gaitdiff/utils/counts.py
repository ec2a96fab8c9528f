"""Counting what an import passed over or changed, with the first few names of each kind."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

_EXAMPLES = 3


@dataclass
class Counts:
    """How often each thing happened, and where first."""

    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, what: str, name: str) -> None:
        """Count one more."""
        self.counts[what] = self.counts.get(what, 0) + 1
        names = self.examples.setdefault(what, [])
        if len(names) < _EXAMPLES:
            names.append(name)

    def merge(self, other: Counts) -> None:
        """Count what another tally counted, after what is here."""
        for what, count in other.counts.items():
            self.counts[what] = self.counts.get(what, 0) + count
            names = self.examples.setdefault(what, [])
            names += other.examples[what][: _EXAMPLES - len(names)]

    def to_json(self) -> dict[str, Any]:
        """Return what ``Counts(**…)`` takes."""
        return {"counts": self.counts, "examples": self.examples}

    def lines(self, begin: str = "") -> list[str]:
        """Return a line for each thing, each with the same beginning."""
        result = []
        for what, count in self.counts.items():
            names = self.examples[what]
            more = ", …" if count > len(names) else ""
            result.append(f"{begin}{count:,} {what}: {', '.join(names)}{more}")
        return result
