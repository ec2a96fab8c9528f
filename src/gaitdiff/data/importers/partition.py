"""Who trains and who is tested: partition files of published data sets, and the rules of those that need none."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gaitdiff.datasets.card import Partition
from gaitdiff.datasets.sequences import SourceSequence
from gaitdiff.errors import UserError, nearest
from gaitdiff.utils.files import parse_json, read_regular
from gaitdiff.utils.text import natural, printable

TRAIN_KEY, TEST_KEY, PROBE_KEY, GALLERY_KEY = _KEYS = ("TRAIN_SET", "TEST_SET", "PROBE_SET", "GALLERY_SET")

_MOST_BYTES = 1 << 26  # of a file: a million names
_LONGEST = 80  # letters of a value in a message


@dataclass(frozen=True)
class Division:
    """Where each sequence goes, and how the partition and the disk differ.

    Attributes:
        places: (split, role) of each sequence, in their order; None for people whom the partition does not name.
        absent: people of the partition without a sequence, in its order.
        unnamed: people with sequences whom the partition does not name, in natural order.
        absent_probes, absent_gallery: those named in the partition without a sequence, in natural order.
    """

    places: tuple[tuple[str, str] | None, ...]
    absent: tuple[str, ...]
    unnamed: tuple[str, ...]
    absent_probes: tuple[str, ...]
    absent_gallery: tuple[str, ...] = ()


def read_partition(path: str | Path) -> Partition:
    """Read a partition file: JSON with the lists TRAIN_SET and TEST_SET of identities.

    It may have PROBE_SET (as for Gait3D and FreeGait), GALLERY_SET (CCGR-Mini), or both.

    Raises:
        UserError: it cannot be read, is no JSON object, lacks a list or has an unknown one, names somebody twice or
            with characters that no name has, or a probe or gallery sequence is malformed, nobody's who is tested, or
            both.
    """
    document = _load(Path(path))
    for key in (TRAIN_KEY, TEST_KEY):
        if key not in document:
            raise UserError(f"the partition file {path} has no list {key}{_near(key, document)}")
    for key in document:
        if key not in _KEYS:
            raise UserError(
                f"the partition file {path} has the unknown key {_quoted(key)}{_near(key, _KEYS)}: remove it"
            )
    lists = {key: _names(path, key, value) for key, value in document.items()}
    train, test = lists[TRAIN_KEY], lists[TEST_KEY]
    if not train and not test:
        raise UserError(f"the partition file {path} names nobody in {TRAIN_KEY} or {TEST_KEY}")
    if both := set(train).intersection(test):
        raise UserError(
            f"the partition file {path} has {_quoted(min(both))} in both {TRAIN_KEY} and {TEST_KEY}: take it out of one"
        )
    named: dict[str, frozenset[str]] = {}
    for key in (PROBE_KEY, GALLERY_KEY):
        if key in lists:
            _check_sequences(path, key, lists[key], set(test))
            named[key] = frozenset(lists[key])
    probes, gallery = named.get(PROBE_KEY), named.get(GALLERY_KEY)
    if gallery is not None and not gallery:
        raise UserError(f"{GALLERY_KEY} of the partition file {path} names nobody: leave it out, or name the gallery")
    if probes and gallery and (shared := probes & gallery):
        raise UserError(
            f"the partition file {path} has {_quoted(min(shared))} in both {PROBE_KEY} and {GALLERY_KEY}: take it out "
            "of one"
        )
    return Partition(str(path), train, test, probes, gallery)


def partition_needed(title: str) -> UserError:
    """Return the error for a data set that has no rule and was given no file."""
    return UserError(
        f"who trains and who is tested in {title} stands in a file of its own: give it with --partition, or divide the "
        "people by --split auto, or take all for training by --split train"
    )


def divide(walks: Sequence[SourceSequence], partition: Partition, role: Callable[[SourceSequence], str]) -> Division:
    """Give each sequence its split and role.

    Args:
        walks: the sequences.
        partition: who trains and who is tested. Where it names probes or a gallery, as ``subject-condition-view``, a
            test sequence has its role by them, see ``Partition.role``.
        role: the role of a test sequence where the partition names neither.

    Returns:
        a place for each sequence, and what is on one side only; the role is "" in training.
    """
    train, test = set(partition.train), set(partition.test)
    silent = partition.probes is None and partition.gallery is None
    places: list[tuple[str, str] | None] = []
    for walk in walks:
        if walk.subject in train:
            places.append(("train", ""))
        elif walk.subject not in test:
            places.append(None)
        else:
            places.append(("test", role(walk) if silent else partition.role(_sequence_name(walk))))
    people, there = {walk.subject for walk in walks}, set(map(_sequence_name, walks))
    tested = people & test
    for key, named in ((PROBE_KEY, partition.probes), (GALLERY_KEY, partition.gallery)):
        theirs = sorted(name for name in named or () if _walkers(name) & tested)
        if theirs and not there.intersection(theirs):
            example = min(_sequence_name(walk) for walk in walks if walk.subject in test)
            raise UserError(
                f"none of the {len(theirs)} sequences that {key} of {partition.source} names of these people is there, "
                f"such as {_quoted(theirs[0])}: they are called {_quoted(example)} here, write them so"
            )
    return Division(
        places=tuple(places),
        absent=tuple(person for person in (*partition.train, *partition.test) if person not in people),
        unnamed=tuple(sorted(people - train - test, key=natural)),
        absent_probes=tuple(sorted((partition.probes or frozenset()) - there, key=natural)),
        absent_gallery=tuple(sorted((partition.gallery or frozenset()) - there, key=natural)),
    )


def index(walks: Sequence[SourceSequence], partition: Partition) -> tuple[int, ...]:
    """Return the numbers of the sequences in the order in which the field reads them.

    People in the order of the partition, first those who train; then conditions, views and sequences, sorted as
    strings. People whom the partition does not name are left out.
    """
    place = {person: number for number, person in enumerate((*partition.train, *partition.test))}
    named = [number for number, walk in enumerate(walks) if walk.subject in place]

    def order(number: int) -> tuple[int, str, str, str]:
        walk = walks[number]
        return place[walk.subject], walk.condition, walk.view, walk.sequence

    return tuple(sorted(named, key=order))


def _walkers(name: str) -> set[str]:
    """Who may walk in ``id-type-view``, since all three may hold hyphens."""
    parts = name.split("-")
    return {"-".join(parts[:count]) for count in range(1, len(parts) - 1)}


def _sequence_name(walk: SourceSequence) -> str:
    return f"{walk.subject}-{walk.condition}-{walk.view}"


def _load(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file; a key may stand in it once."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        if len(set(keys)) < len(keys):
            repeated, _ = Counter(keys).most_common(1)[0]
            raise UserError(f"the partition file {path} has the key {_quoted(repeated)} twice: join the two")
        return dict(pairs)

    try:
        data = read_regular(path, _MOST_BYTES)
    except OSError as error:
        raise UserError(f"cannot read the partition file {path} ({error.strerror}): give a JSON file") from error
    except ValueError as error:
        raise UserError(f"the partition file {path} {error}: give a JSON file") from error
    try:
        document = parse_json(data.decode("utf-8-sig"), once)
    except UnicodeDecodeError as error:
        raise UserError(f"the partition file {path} is not UTF-8 text: save it as JSON in UTF-8") from error
    except ValueError as error:
        raise UserError(f"the partition file {path} is not JSON ({error}): fix it or download it anew") from error
    if not isinstance(document, dict):
        raise UserError(
            f"the partition file {path} holds {_kind(document)} where an object with the lists {TRAIN_KEY} and "
            f"{TEST_KEY} should be"
        )
    return document


def _near(key: str, known: Iterable[str]) -> str:
    """Name the known key that is nearest, whatever its case."""
    for other in known:
        if other.casefold() == key.casefold():
            return f" (did you mean {other!r}?)"
    return nearest(key, known, 0.7)  # VAL_SET is no misspelt GALLERY_SET


def _kind(value: Any) -> str:
    """Say in words what a JSON value is."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    words = _short(printable(json.dumps(value, ensure_ascii=False)))
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"the number {words}"
    return words


def _quoted(name: str) -> str:
    return _short(repr(name))


def _short(words: str) -> str:
    """Cut what is too long for a sentence."""
    return words if len(words) <= _LONGEST else f"{words[: _LONGEST - 1]}…"


def _names(path: str | Path, key: str, value: Any) -> tuple[str, ...]:
    """Return a list of names that are all different."""
    if not isinstance(value, list):
        raise UserError(f"{key} of the partition file {path} is {_kind(value)}, but must be a list of strings")
    for name in value:
        if isinstance(name, int | float) and not isinstance(name, bool):
            raise UserError(
                f"{key} of the partition file {path} holds {_kind(name)} without quotes: names are strings, "
                'as the folders are written, such as "0007"'
            )
        if not isinstance(name, str):
            raise UserError(f"{key} of the partition file {path} holds {_kind(name)}, but must be a list of strings")
        if not name or name != name.strip():
            raise UserError(
                f"{key} of the partition file {path} holds {_quoted(name)}: remove what is empty or only space"
            )
        if name != printable(name):
            raise UserError(
                f"{key} of the partition file {path} holds {_quoted(name)}, with a character that no name has: "
                "write it as the folders are"
            )
    if len(set(value)) < len(value):
        seen: set[str] = set()
        twice = next(name for name in value if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise UserError(f"{key} of the partition file {path} has {_quoted(twice)} twice: remove one")
    return tuple(value)


def _check_sequences(path: str | Path, key: str, names: Iterable[str], test: set[str]) -> None:
    """Refuse sequences that are not ``id-type-view`` of somebody in the test set; the three may hold hyphens."""
    for name in names:
        parts = name.split("-")
        if len(parts) < 3 or not all(parts):
            raise UserError(
                f"{key} of the partition file {path} holds {_quoted(name)}, which is not <id>-<type>-<view>, "
                "such as '0002-camid33_videoid2-seq0'"
            )
        if not _walkers(name) & test:
            raise UserError(
                f"{key} of the partition file {path} holds {_quoted(name)}, but {TEST_KEY} names no {_quoted(parts[0])}"
            )
