"""CSV files for the sites of benchmarks: written, checked as the site reads them, and packed."""

from __future__ import annotations

import io
import re
import zipfile
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from gaitdiff.errors import UserError
from gaitdiff.utils.files import require_regular, write_whole

#: The file's name within the archive that the sites take.
CSV_NAME = "submission.csv"


def check_csv(text: str, what: str, header: Sequence[str], probes: Sequence[str], people: Collection[str]) -> None:
    """Check a CSV as a site takes it: its header, and one line with a video and people for every probe.

    Args:
        text: the file's content.
        what: what to call the file.
        header: the first line's words.
        probes: the videos asked for.
        people: those of the gallery, as the file writes them.

    Raises:
        UserError: says which line is wrong, or which video is missing, there twice or not asked for.
    """
    lines = text.split("\n")
    if lines[0] != ",".join(header):
        begin = ",".join(header) if len(header) < 4 else f"{header[0]},{header[1]},…,{header[-1]}"
        raise UserError(f"{what} begins with {begin}, not {lines[0][:60]!r}")
    if lines.pop() != "":
        raise UserError(f"{what} ends with a line break, this one does not: it may be cut short")
    videos, most = [], len(header) - 1
    for number, line in enumerate(lines[1:], start=2):
        video, *ranked = line.split(",")
        if len(ranked) != most or not video:
            who = "a person" if most == 1 else f"{most} people"
            raise UserError(f"line {number} of {what} has a video and {who}, not {line[:60]!r}")
        if unknown := [person for person in ranked if person not in people]:
            raise UserError(f"line {number} of {what} names {unknown[0]!r}, who is not in the gallery")
        videos.append(video)
    compare_probes(videos, probes, what, "the probes")


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
    wrong = [f"{len(videos)} {what} ({some(videos)})" for what, videos in kinds if videos]
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
        text = require_regular(Path(path)).read_text(encoding="utf-8-sig")
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
        raise UserError(f"{path} names videos more than once ({some(twice)}): list each once")
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


def some(videos: Sequence[str], most: int = 3) -> str:
    """The first few of some names, for a sentence."""
    return ", ".join(map(repr, videos[:most])) + (", …" if len(videos) > most else "")


def needs_quotes(word: str) -> bool:
    """Whether a word holds a comma, a quote or a line break, which the servers do not take."""
    return any(mark in word for mark in ',"\r\n')


def write_csv(path: str | Path, rows: Iterable[Sequence[str]]) -> Path:
    """Write rows of words, all or nothing.

    Raises:
        UserError: the file cannot be written, or a word would need quotes, which the servers do not take.
    """
    target = Path(path)
    lines = []
    for row in rows:
        for word in row:
            if needs_quotes(word):
                raise UserError(f"{target} cannot be written: {word!r} holds a comma, a quote or a line break")
        lines.append(",".join(row) + "\n")
    write_whole(target, "".join(lines).encode("utf-8"), "choose another path")
    return target
