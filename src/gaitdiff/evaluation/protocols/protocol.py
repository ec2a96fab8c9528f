"""What a protocol is, and the table of all of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gaitdiff.datasets.conditions import CONDITIONS
from gaitdiff.errors import UserError, nearest
from gaitdiff.evaluation.protocols.selection import Names, Selected
from gaitdiff.evaluation.protocols.submission import check_csv


@dataclass(frozen=True)
class Submission:
    """The file that a benchmark's site scores.

    Attributes:
        asked: names to the probes' videos and the gallery's people as the file writes them; refuses names that give
            no file.
        write: (path, features, labels, types, views, metric, device) to the CSV.
        what: what to call the file.
        header: the words of its first line.
    """

    asked: Callable[[Names], tuple[list[str], set[str]]]
    write: Callable[..., Path]
    what: str
    header: Sequence[str]

    def check(self, text: str, probes: Sequence[str], people: Collection[str]) -> None:
        """Refuse a CSV that the site would refuse; see ``check_csv``."""
        check_csv(text, self.what, self.header, probes, people)


@dataclass(frozen=True)
class Protocol:
    """How the field compares the sequences of a data set.

    Attributes:
        name: that of the data set it belongs to, where it belongs to one.
        select: names, and what the protocol takes besides, to probes and gallery of each condition; "" is the name
            of the only one of a protocol without conditions.
        score: the same of a ``FeatureSet``, to what ``gaitdiff.evaluation.evaluate`` returns.
        takes: names of what it takes beside the names of sequences.
        by_role: probes and gallery are told by the roles of stored sequences, not by their names.
        secret: the probes' people are not told, so that only a site can score them.
        remark: what it compares, where its name does not say it.
        submission: the file for the data set's site, where there is one.
    """

    name: str
    select: Callable[..., Selected]
    score: Callable[..., dict[str, Any]]
    takes: tuple[str, ...] = ()
    by_role: bool = False
    secret: bool = False
    remark: str = ""
    submission: Submission | None = None

    @property
    def settings(self) -> tuple[str, ...]:
        """Its settings, the default first; none for most."""
        return tuple(CONDITIONS[self.name]) if "setting" in self.takes else ()

    def require_names(self, remedy: str = "only its site can score them") -> None:
        """Refuse to score probes whose people are not told; the sentence ends with the remedy."""
        if self.secret:
            raise UserError(f"protocol {self.name!r} gives no scores, its probes have no names: {remedy}")

    def check(self, data: Mapping[str, object]) -> None:
        """Raise a UserError for data that the protocol does not take."""
        for key in data:
            if key not in self.takes:
                takes = f"takes {', '.join(self.takes)}" if self.takes else "takes no other data"
                raise UserError(f"protocol {self.name!r} has no {key!r}{nearest(key, self.takes)}: it {takes}")


#: Every protocol by its name; the files beside this one register theirs.
PROTOCOLS: dict[str, Protocol] = {}


def protocols_with_submission() -> list[str]:
    """Names of the protocols whose site takes a file."""
    return [name for name, protocol in PROTOCOLS.items() if protocol.submission is not None]


def register_protocol(protocol: Protocol) -> Protocol:
    """Make a protocol known by its name, to ``evaluate`` and to every command."""
    PROTOCOLS[protocol.name] = protocol
    return protocol


def get_protocol(name: str) -> Protocol:
    """Return a protocol by its name, in any case, with or without "-" and "_".

    Raises:
        UserError: there is none; the nearest name is suggested.
    """
    names = {_bare(known): protocol for known, protocol in PROTOCOLS.items()}
    if _bare(name) not in names:
        known = ", ".join(sorted(PROTOCOLS))
        raise UserError(f"there is no protocol {name!r}{nearest(str(name).lower(), PROTOCOLS)}; known: {known}")
    return names[_bare(name)]


def _bare(name: str) -> str:
    return str(name).lower().replace("-", "").replace("_", "")
