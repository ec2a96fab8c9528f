"""What a data set is: how its folders are named, who trains and who is tested, who is looked for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from gaitdiff.datasets.conditions import conditions_of
from gaitdiff.datasets.sequences import ALIGN, SourceSequence
from gaitdiff.utils.counts import Counts
from gaitdiff.utils.text import printable

_FIELD = re.compile(r"<(\w+)>")


@dataclass(frozen=True)
class FolderPattern:
    """One way of naming the folders of sequences; upper and lower case count alike.

    Attributes:
        path: the innermost folders, such as ``<id>/<type>/<view>``.
        fields: what each word in ``<>`` may be, as a regular expression.
        subject, condition, view, sequence: the names of a sequence, with the words put in.
        split: "train" or "test" where the folders say so.
        case: how names other than identities are written.
        telling: regular expression of the folders that alone tell the data set; others of this form only fit it.
    """

    path: str
    fields: Mapping[str, str]
    subject: str = "<id>"
    condition: str = "<type>"
    view: str = "<view>"
    sequence: str = "<view>"
    split: str = ""
    case: Callable[[str], str] = str.lower
    telling: str = ""

    def match(self, folder: str) -> re.Match[str] | None:
        """Match the end of a folder's path."""
        return self._pattern.search(folder)

    def name(self, match: re.Match[str]) -> tuple[str, str, str, str]:
        """Return subject, condition, view and sequence."""
        words = {
            word: printable(value) if word == "id" else self.case(value) for word, value in match.groupdict().items()
        }
        templates = (self.subject, self.condition, self.view, self.sequence)
        subject, condition, view, sequence = (_FIELD.sub(lambda m: words[m[1]], text) for text in templates)
        return subject, condition, view, sequence

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        inner = _FIELD.sub(lambda m: f"(?P<{m[1]}>{self.fields[m[1]]})", self.path)
        return re.compile(f"(?:^|/){inner}$", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True)
class Partition:
    """A division of people.

    Attributes:
        source: the file, or the rule in words.
        train, test: identities, in the order of the file.
        probes: test sequences that are looked for, as ``id-type-view``; None where the file names none.
        gallery: test sequences that they are looked for among, likewise.
    """

    source: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    probes: frozenset[str] | None = None
    gallery: frozenset[str] | None = None

    def role(self, name: str) -> str:
        """Return the role of a test sequence where the file names probes, a gallery or both.

        With one of them named, the others are the other; with both, the others have no role.
        """
        if name in (self.probes or ()):
            return "probe"
        if self.gallery is None or name in self.gallery:
            return "gallery"
        return "probe" if self.probes is None else ""


def by_rule(words: str, identities: Iterable[str], trains: Callable[[str], bool]) -> Partition:
    """Divide identities by a rule; each side in the order of the identities as strings."""
    people = sorted(set(identities))
    train = tuple(person for person in people if trains(person))
    return Partition(words, train, tuple(person for person in people if not trains(person)))


def role_in(protocol: str) -> Callable[[SourceSequence], str]:
    """The role of a test sequence by its type: in the gallery of the protocol's first condition, or else a probe."""
    gallery = conditions_of(protocol)[0].gallery
    return lambda sequence: "gallery" if sequence.condition in gallery else "probe"


@dataclass(frozen=True)
class DatasetCard:
    """A data set as users have it on disk.

    Attributes:
        name: what ``--as`` calls it; a protocol of the same name is its own.
        title: as papers write it.
        example: a folder of it.
        patterns: its ways of naming folders; the first that fits counts.
        ignored: regular expression of folders that hold other data.
        prepare: how frames are made of its images, see ``gaitdiff.datasets.sequences.PREPARE``.
        settle: last changes to the sequences found.
        recognise: (folders of some files) to why they look like this data set, in words, or ""; None goes by the
            patterns.
        rule: identities on disk to the division that the field uses, which names everybody; None where it takes a
            partition file.
        published: whether papers divide it in a way of its own, so that a division by chance must be asked for.
        probes: whether the partition file names the sequences that are looked for.
        role: the role of a test sequence under the data set's protocol, "probe", "gallery" or "".
    """

    name: str
    title: str
    example: str = ""
    patterns: tuple[FolderPattern, ...] = ()
    ignored: str = r"(?!)"
    prepare: str = ALIGN
    settle: Callable[[list[SourceSequence], Counts], list[SourceSequence]] = lambda sequences, skipped: sequences
    recognise: Callable[[Sequence[str]], str] | None = None
    rule: Callable[[Sequence[str]], Partition] | None = None
    published: bool = True
    probes: bool = False
    role: Callable[[SourceSequence], str] = lambda sequence: sequence.role
