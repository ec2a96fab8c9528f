"""What an import says: before the work what there is, and at the end what became of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gaitdiff.data.store.manifest import Row
from gaitdiff.utils.counts import Counts
from gaitdiff.utils.text import counted


@dataclass
class Report:
    """What an import did; ``str()`` gives it in words."""

    source: Path
    out: Path
    dataset: str  # how the source was read, and why, in words
    layout: str  # what the folders were taken to mean, in words
    split: str = ""  # who trains and who is tested, in words
    people: int = 0
    sequences: int = 0
    frames: int = 0
    height: int = 0
    width: int = 0
    crop: str = ""
    unchanged: int = 0  # frames that were aligned (or cut) already, and so are stored as they were found
    roles: dict[str, int] = field(default_factory=dict)  # sequences by "split role"
    changed: Counts = field(default_factory=Counts)  # frames of an unusual format
    skipped: Counts = field(default_factory=Counts)  # what is not in the store
    missing: Counts = field(default_factory=Counts)  # what only the partition, or only the source, has
    single: bool = False  # whether nobody has several sequences, so that nobody can be looked for
    suspicious: Counts = field(default_factory=Counts)  # sequences that a person should look at

    def count(self, rows: Sequence[Row], height: int, width: int, crop: str) -> None:
        """Fill in what the finished store holds."""
        self.people = len({row.subject for row in rows})
        self.sequences = len(rows)
        self.single = self.people == len(rows)
        self.frames = sum(row.frames for row in rows)
        self.height, self.width, self.crop = height, width, crop
        self.roles = dict(Counter(f"{row.split} {row.role}".strip() for row in rows))

    def __str__(self) -> str:
        roles = ", ".join(f"{count:,} {name}" for name, count in sorted(self.roles.items()))
        lines = [
            f"Imported {self.source} to {self.out}",
            f"  {counted(self.people, 'person', 'people')}, {counted(self.sequences, 'sequence')} ({roles}), "
            f"{counted(self.frames, 'frame')} "
            f"of {self.height} x {self.width}, crop {self.crop!r}",
            f"  folders read as {self.layout}",
            f"  split: {self.split}",
            f"  {self.unchanged:,} of the frames were aligned already, the others are now",
        ]
        if self.height != 64:
            lines.append(
                f"  frames are {self.height} px high: models trained on 64 refuse them, --size 64 makes them 64"
            )
        if not self.single and not any(name.startswith("test") for name in self.roles):
            lines.append("  everybody is in training; --test-fraction holds some people out for testing")
        return "\n".join([*lines, *self.remarks()])

    def remarks(self) -> list[str]:
        """What was changed, passed over, missed, and should be looked at: a line for each kind."""
        tallies = {
            "changed": self.changed,
            "skipped": self.skipped,
            "missing": self.missing,
            "look at": self.suspicious,
        }
        return [line for title, tally in tallies.items() for line in tally.lines(f"  {title}: ")]
