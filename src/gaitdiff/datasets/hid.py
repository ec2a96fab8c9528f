"""HID: the competitions on human identification at a distance, in the layouts of their years.

Its probes have no names: they are of the person ``probe``, and the view of a sequence is the name of its video, which
the competition's file lists.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from gaitdiff.datasets.card import DatasetCard, FolderPattern, Partition, by_rule
from gaitdiff.datasets.sequences import GIVEN, NAMELESS, SourceSequence
from gaitdiff.utils.counts import Counts

_FIELDS = {
    "gallery": "(?:[^/]*[_-])?gallery(?:[_-][^/]*)?",
    "probe": "(?:[^/]*[_-])?probe(?:[_-][^/]*)?",
    "id": "[0-9]+",
    "type": "(?!default/)[^/]+",
    "view": "(?!default$)[^/]+",
}


def _form(path: str, subject: str, split: str = "test") -> FolderPattern:
    return FolderPattern(path, _FIELDS, subject=subject, condition="", split=split, case=str)


#: As downloaded, and as pickles: <video>/default, or with a number before the video.
_PROBES = tuple(_form(path, NAMELESS) for path in ("<probe>/<view>/default", "<probe>/<type>/<view>", "<probe>/<view>"))
_PEOPLE = (
    _form("train/<id>/<view>/default", "<id>", "train"),
    _form("train/<id>/<view>", "<id>", "train"),
    _form("<id>/<view>/default", "<id>"),
    _form("<id>/<type>/<view>", "<id>"),
    _form("<id>/<view>", "<id>"),
)


def _settle(walks: list[SourceSequence], skipped: Counts) -> list[SourceSequence]:
    """Tell those who train from those who are tested, as a rule by names needs it, and give roles."""
    return [
        replace(walk, subject=f"{walk.subject}train")
        if walk.split == "train"
        else replace(walk, role="probe" if walk.subject == NAMELESS else "gallery")
        for walk in walks
    ]


def _recognise(folders: Sequence[str]) -> str:
    """Recognise a folder of probes beside numbered people, of whom none has a probe's name; GREW's lie in ``test``."""
    probes: set[str] = set()
    people: set[str] = set()
    example = ""
    for folder in folders:
        if re.search(r"(?:^|/)test/", folder, re.IGNORECASE):
            return ""
        probe = next((match for form in _PROBES if (match := form.match(folder))), None)
        if probe is not None:
            if probe.groupdict().get("type") not in (None, probe["view"]):  # such as GREW's probe/03/<video>
                return ""
            probes.add(probe["view"])
            example = example or probe[0].lstrip("/")
            continue
        person = next((match for form in _PEOPLE if (match := form.match(folder))), None)
        if person is None:
            return ""
        people.add(person["id"])
    if not probes or not people or probes & people:
        return ""
    return f"folders <probe>/<video> beside people, such as {example}"


def _rule(identities: Sequence[str]) -> Partition:
    words = "train/ is learned from, all others are tested"
    return by_rule(words, identities, lambda person: person.endswith("train"))


HID = DatasetCard(
    name="hid",
    title="HID",
    example="probe/00000",
    patterns=(*_PROBES, *_PEOPLE),
    prepare=GIVEN,
    settle=_settle,
    recognise=_recognise,
    rule=_rule,
)
