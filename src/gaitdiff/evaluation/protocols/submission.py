"""The CSV files that GREW's and HID's servers score."""

from __future__ import annotations

import io
import re
import zipfile
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from gaitdiff.datasets.conditions import Condition, split
from gaitdiff.errors import UserError
from gaitdiff.evaluation.metrics import check_metric
from gaitdiff.evaluation.protocols.registry import evaluate, gather_walks
from gaitdiff.evaluation.protocols.selection import NAMELESS
from gaitdiff.evaluation.ranking import Features
from gaitdiff.utils.files import write_whole

_GREW = Condition("the submission", ("03",), ("01", "02"))
_GREW_RANKS = 20
_GREW_HEADER = ("videoId", *(f"rank{k}" for k in range(1, _GREW_RANKS + 1)))

_HID_HEADER = ("videoID", "label")

#: The file's name within the archive that the sites take.
CSV_NAME = "submission.csv"


def grew_submission(
    path: str | Path,
    features: Features,
    labels: Sequence[str],
    types: Sequence[str],
    views: Sequence[str],
    metric: str = "cosine",
    device: str | torch.device | None = None,
) -> Path:
    """Write GREW's file: for each probe (type 03) its video and the people of the 20 nearest gallery rows (01, 02).

    One person may stand in a row more than once: the file ranks sequences, not people.

    Args:
        path: the CSV, with the header ``videoId,rank1,…,rank20``; rows in the order of the features.
        features: (N, C, P); see ``evaluate`` for the rest.
        labels: whole numbers for the gallery, such as "00013", which is written as 13.
        views: the video's name for probes.

    Returns:
        The path.

    Raises:
        UserError: no probes, fewer than 20 gallery rows, a label that is no whole number, or what ``evaluate`` raises.
    """
    walks = gather_walks(features, labels, types, views, check_metric(metric), device)
    probe, gallery, people = grew_rows(walks.labels, walks.types)
    walks.require_finite()
    nearest = walks.nearest(probe, gallery, _GREW_RANKS)
    lines = [[str(walks.views[i]), *(people[int(j)] for j in near)] for i, near in zip(probe, nearest, strict=True)]
    return write_csv(path, [_GREW_HEADER, *lines])


def grew_rows(labels: np.ndarray, types: np.ndarray) -> tuple[np.ndarray, np.ndarray, dict[int, str]]:
    """Row numbers of GREW's probes and gallery, and each gallery row's label as the file writes it.

    Raises:
        UserError: no probes, fewer than 20 gallery rows, or a label that is no whole number.
    """
    probe, gallery = split(_GREW, types, "grew")
    if len(gallery) < _GREW_RANKS:
        raise UserError(
            f"GREW's file needs the {_GREW_RANKS} nearest gallery rows, but the types 01 and 02 have {len(gallery)}"
        )
    people = {}
    for row in gallery:
        label = str(labels[row])
        if not (label.isascii() and label.isdigit()):
            raise UserError(f"GREW's file needs whole numbers as labels, but gallery row {row} has {label!r}")
        people[int(row)] = str(int(label))
    return probe, gallery, people


def check_grew_submission(text: str, probes: Sequence[str], people: Collection[str]) -> None:
    """Check a CSV as GREW's server takes it: its header, and a line of 21 values for every probe.

    Args:
        text: the file's content.
        probes: the videos asked for.
        people: the gallery's people as the file writes them, such as "13".

    Raises:
        UserError: says which line is wrong, or which video is missing, there twice or not asked for.
    """
    lines = text.split("\n")
    if lines[0] != ",".join(_GREW_HEADER):
        raise UserError(
            f"GREW's file begins with {','.join(_GREW_HEADER[:2])},…,rank{_GREW_RANKS}, not {lines[0][:60]!r}"
        )
    if lines.pop() != "":
        raise UserError("GREW's file ends with a line break, this one does not: it may be cut short")
    videos = []
    for number, line in enumerate(lines[1:], start=2):
        video, *ranked = line.split(",")
        if len(ranked) != _GREW_RANKS or not video:
            raise UserError(f"line {number} of GREW's file has a video and {_GREW_RANKS} people, not {line[:60]!r}")
        if unknown := [person for person in ranked if person not in people]:
            raise UserError(f"line {number} of GREW's file names {unknown[0]!r}, who is not in the gallery")
        videos.append(video)
    compare_probes(videos, probes, "GREW's file", "the probes")


def compare_probes(found: Sequence[str], wanted: Collection[str], where: str, wanted_from: str) -> None:
    """Compare the videos of a store or a file with those that are asked for.

    Args:
        found: the videos.
        wanted: those that should be there, each once.
        where, wanted_from: what the two are, for the sentence.

    Raises:
        UserError: a video is there twice, is missing or was not asked for; each kind is counted, and a few are named.
    """
    twice = [video for video, count in Counter(found).items() if count > 1]
    missing = sorted(set(wanted) - set(found))
    surplus = sorted(set(found) - set(wanted))
    kinds = (("there more than once", twice), ("missing", missing), (f"not in {wanted_from}", surplus))
    wrong = [f"{len(videos)} {what} ({_some(videos)})" for what, videos in kinds if videos]
    if wrong:
        raise UserError(
            f"{where} does not have each probe video once: {', '.join(wrong)}; import the data set's whole folder of "
            "probes, and nothing else, as probes"
        )


def read_probe_list(path: str | Path) -> tuple[str, ...]:
    """Read the official list of a site's probe videos: the first word of each line, as in the site's sample submission.

    Args:
        path: text or CSV file, with or without a header that begins with ``videoId``; blank lines do not count.

    Returns:
        The videos, all different.

    Raises:
        UserError: not a text file, no videos in it, one of them twice, or a line that does not begin with a video's
            letters and digits.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not a text file"
        raise UserError(f"{path} cannot be read ({reason}): give --probes the list of the probe videos") from error
    words = [re.split(r"[\s,;]", line.strip(), maxsplit=1)[0].strip("\"'") for line in text.splitlines()]
    videos = [word for word in words if word and word.lower() != "videoid"]
    if odd := [word for word in videos if not re.fullmatch(r"[\w.-]+", word)]:
        raise UserError(f"{path} is no list of probe videos: a line begins with {odd[0][:40]!r}")
    if not videos:
        raise UserError(f"{path} names no video: give --probes the list of the probe videos, one a line")
    if twice := [video for video, count in Counter(videos).items() if count > 1]:
        raise UserError(f"{path} names videos more than once ({_some(twice)}): list each once")
    return tuple(videos)


def zip_submission(path: str | Path, text: str) -> Path:
    """Write a CSV into an archive as the site takes it, ``submission.csv`` at its root; all or nothing.

    The same text gives the same bytes.

    Raises:
        UserError: the file cannot be written.
    """
    target, packed = Path(path), io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(zipfile.ZipInfo(CSV_NAME), text, zipfile.ZIP_DEFLATED)
    write_whole(target, packed.getvalue(), "choose another path")
    return target


def _some(videos: Sequence[str], most: int = 3) -> str:
    return ", ".join(map(repr, videos[:most])) + (", …" if len(videos) > most else "")


def hid_submission(
    path: str | Path,
    features: Features,
    labels: Sequence[str],
    types: Sequence[str],
    views: Sequence[str],
    metric: str = "cosine",
    rerank: bool = True,
    device: str | torch.device | None = None,
) -> Path:
    """Write HID's file: for each probe (label "probe") its video and the label of its nearest gallery row.

    Args:
        path: the CSV, with the header ``videoID,label``; rows in the order of the features.
        features: (N, C, P); see ``evaluate`` for the rest.
        rerank: rank by k-reciprocal distances (k₁ = 6, k₂ = 6, λ = 0.3).

    Returns:
        The path.

    Raises:
        UserError: a probe without a video's name, two of one name, what ``evaluate`` raises, or the file cannot be
            written.
    """
    hid_rows(labels, views)
    found = evaluate("hid", features, labels, types, views, metric, device=device, rerank=rerank)
    return write_csv(path, [list(_HID_HEADER), *zip(found["videos"], found["labels"], strict=True)])


def hid_rows(labels: Sequence[str], views: Sequence[str]) -> tuple[list[str], set[str]]:
    """The videos of HID's probes, and the people of its gallery.

    Raises:
        UserError: no probes, no gallery, a probe whose view does not name a video, or two of one name.
    """
    videos = [view for label, view in zip(labels, views, strict=True) if label == NAMELESS]
    people = {label for label in labels if label != NAMELESS}
    if not videos or not people:
        raise UserError(
            f"HID's file needs probes, of the person {NAMELESS!r}, and a gallery: there are {len(videos)} probes and "
            f"{len(people)} people in the gallery"
        )
    if nameless := sum(not video or video == "default" for video in videos):
        raise UserError(
            f"{nameless} of {len(videos)} probes have no video's name as view: import HID's test set with --as hid"
        )
    if odd := [word for word in (*videos, *sorted(people)) if re.search(r'[,"\r\n]', word)]:
        raise UserError(f"HID's file cannot name {odd[0]!r}: it holds a comma, a quote or a line break")
    if twice := [video for video, count in Counter(videos).items() if count > 1]:
        raise UserError(f"HID's file has each video once, but {len(twice)} are there more than once ({_some(twice)})")
    return videos, people


def check_hid_submission(text: str, probes: Sequence[str], people: Collection[str]) -> None:
    """Check a CSV as HID's server takes it: its header, and a line with a person of the gallery for every probe.

    Args:
        text: the file's content.
        probes: the videos asked for.
        people: the gallery's.

    Raises:
        UserError: says which line is wrong, or which video is missing, there twice or not asked for.
    """
    lines = text.split("\n")
    if lines[0] != ",".join(_HID_HEADER):
        raise UserError(f"HID's file begins with {','.join(_HID_HEADER)}, not {lines[0][:60]!r}")
    if lines.pop() != "":
        raise UserError("HID's file ends with a line break, this one does not: it may be cut short")
    videos = []
    for number, line in enumerate(lines[1:], start=2):
        video, *labels = line.split(",")
        if len(labels) != 1 or not video:
            raise UserError(f"line {number} of HID's file has a video and a person, not {line[:60]!r}")
        if labels[0] not in people:
            raise UserError(f"line {number} of HID's file names {labels[0]!r}, who is not in the gallery")
        videos.append(video)
    compare_probes(videos, probes, "HID's file", "the probes")


def write_csv(path: str | Path, rows: Iterable[Sequence[str]]) -> Path:
    """Write rows of words, all or nothing.

    Raises:
        UserError: the file cannot be written, or a word would need quotes, which the servers do not take.
    """
    target = Path(path)
    lines = []
    for row in rows:
        for word in row:
            if any(mark in word for mark in ',"\r\n'):
                raise UserError(f"{target} cannot be written: {word!r} holds a comma, a quote or a line break")
        lines.append(",".join(row) + "\n")
    write_whole(target, "".join(lines).encode("utf-8"), "choose another path")
    return target
