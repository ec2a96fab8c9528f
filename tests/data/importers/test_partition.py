"""Partition files: what they say, what is refused in them, and the order in which the field reads sequences."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from gaitdiff.data.formats.sources import open_source
from gaitdiff.data.importers import partition as partitions
from gaitdiff.data.importers.opengait import OPENGAIT
from gaitdiff.data.importers.partition import divide, index, partition_needed, read_partition
from gaitdiff.datasets.card import Partition
from gaitdiff.datasets.gait3d import GAIT3D
from gaitdiff.datasets.sequences import SourceSequence
from gaitdiff.errors import UserError
from gaitdiff.utils.counts import Counts
from reference import golden_document

TRAIN, TEST, PROBE = "TRAIN_SET", "TEST_SET", "PROBE_SET"


def write(folder: Path, document: Any) -> Path:
    """A partition file of a document, or of text or bytes as they are."""
    path = folder / "partition.json"
    if not isinstance(document, str | bytes):
        document = json.dumps(document)
    path.write_bytes(document.encode("utf-8") if isinstance(document, str) else document)
    return path


def walk(subject: str, condition: str = "c", view: str = "v", sequence: str = "s") -> SourceSequence:
    return SourceSequence(
        subject, condition, view, sequence, folder=f"{subject}/{condition}/{view}/{sequence}", files=("0.png",)
    )


def test_a_file_is_read_in_its_own_order(tmp_path: Path) -> None:
    path = write(tmp_path, {TRAIN: ["7", "010", "é"], TEST: ["王", "002"], PROBE: ["王-nm-01-090", "002-a-b"]})
    partition = read_partition(path)
    assert partition.train == ("7", "010", "é")
    assert partition.test == ("王", "002")
    assert partition.probes == {"王-nm-01-090", "002-a-b"}
    assert partition.source == str(path)


def test_a_file_without_probes_and_with_a_byte_order_mark(tmp_path: Path) -> None:
    partition = read_partition(write(tmp_path, b"\xef\xbb\xbf" + json.dumps({TEST: ["1"], TRAIN: []}).encode()))
    assert (partition.train, partition.test, partition.probes) == ((), ("1",), None)


def test_identities_with_hyphens_have_probes(tmp_path: Path) -> None:
    partition = read_partition(write(tmp_path, {TRAIN: [], TEST: ["a-b"], PROBE: ["a-b-nm-01-090"]}))
    assert partition.probes == {"a-b-nm-01-090"}


def test_pipes_and_what_is_too_long_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match=r"the partition file .*pipe is no regular file: give a JSON file"):
        read_partition(tmp_path / "pipe")
    path = write(tmp_path, {TRAIN: ["1"], TEST: []})
    monkeypatch.setattr(partitions, "_MOST_BYTES", 10)
    with pytest.raises(UserError, match="has more than 10 bytes: give a JSON file"):
        read_partition(path)


def test_a_key_twice_among_very_many(tmp_path: Path) -> None:
    keys = [f"a{number}" for number in range(200_000)] + ["twice", "twice"]
    with pytest.raises(UserError, match="has the key 'twice' twice"):
        read_partition(write(tmp_path, "{" + ",".join(f'"{key}":0' for key in keys) + "}"))


def test_twenty_thousand_people(tmp_path: Path) -> None:
    train = [f"{number:05}train" for number in range(1, 20_001)]
    test = [*(f"{number:05}" for number in range(1, 6_001)), "probe"]
    partition = read_partition(write(tmp_path, {TRAIN: train, TEST: test}))
    assert partition.train == tuple(train)
    assert partition.test == tuple(test)
    walks = [walk(person) for person in reversed(train + test)]
    division = divide(walks, partition, lambda walk: "gallery")
    assert division.places == (("test", "gallery"),) * 6_001 + (("train", ""),) * 20_000
    assert index(walks, partition) == (*range(26_000, 6_000, -1), *range(6_000, -1, -1))


GOOD: dict[str, Any] = {TRAIN: ["1"], TEST: ["2"]}
MISTAKES: dict[str, tuple[Any, list[str]]] = {
    "empty": ("", ["is not JSON", "download it anew"]),
    "cut short": ('{"TRAIN_SET": ["1"', ["is not JSON"]),
    "nested without end": ("[" * 100_000, ["is not JSON"]),
    "another encoding": (b'{"TRAIN_SET": ["\xe9"]}', ["not UTF-8"]),
    "a list": (["1"], ["holds a list", TRAIN]),
    "a word": ('"1"', ['holds "1"', TRAIN]),
    "null": ("null", ["holds null"]),
    "no training": ({TEST: ["1"]}, ["no list TRAIN_SET"]),
    "no test": ({TRAIN: ["1"]}, ["no list TEST_SET"]),
    "lower case": ({"train_set": ["1"], TEST: ["2"]}, ["no list TRAIN_SET", "'train_set'"]),
    "misspelt": ({TRAIN: ["1"], "TEST_SETS": ["2"]}, ["no list TEST_SET", "'TEST_SETS'"]),
    "misspelt probes": (GOOD | {"PROBESET": []}, ["unknown key 'PROBESET'", "'PROBE_SET'"]),
    "one key twice": ('{"TRAIN_SET": ["1"], "TRAIN_SET": ["3"], "TEST_SET": []}', ["'TRAIN_SET' twice"]),
    "an object as list": (GOOD | {TRAIN: {"1": 1}}, [TRAIN, "is an object", "list of strings"]),
    "a string as list": (GOOD | {TEST: "2"}, [TEST, 'is "2"', "list of strings"]),
    "numbers": (GOOD | {TEST: [7]}, [TEST, "the number 7", "quotes"]),
    "broken numbers": (GOOD | {TEST: ["1", 7.5]}, [TEST, "the number 7.5", "quotes"]),
    "true": (GOOD | {TEST: [True]}, [TEST, "holds true", "list of strings"]),
    "null as name": (GOOD | {TEST: [None]}, [TEST, "holds null"]),
    "lists of lists": (GOOD | {TEST: [["2"]]}, [TEST, "holds a list"]),
    "an empty name": (GOOD | {TEST: [""]}, [TEST, "''"]),
    "a space in front": (GOOD | {TEST: [" 2"]}, [TEST, "' 2'"]),
    "a control character": (GOOD | {TEST: ["2\n3"]}, [TEST, r"'2\n3'", "no name has"]),
    "an escape sequence": (GOOD | {TRAIN: ["\x1b[2J"]}, [TRAIN, r"'\x1b[2J'", "no name has"]),
    "half a character": (GOOD | {TRAIN: ["\udcff"]}, [TRAIN, r"'\udcff'", "no name has"]),
    "half a character in a probe": (GOOD | {PROBE: ["2-a-\ud800"]}, [PROBE, r"'2-a-\ud800'", "no name has"]),
    "a long name with space": (GOOD | {TEST: ["2" * 999 + " "]}, [TEST, f"'{'2' * 78}…:"]),
    "a long name twice": (GOOD | {TEST: ["2" * 999] * 2}, [TEST, f"'{'2' * 78}… twice"]),
    "a long number": (f'{{"TRAIN_SET": [{"2" * 999}], "TEST_SET": []}}', [TRAIN, f"number {'2' * 79}… without"]),
    "a long key": (GOOD | {"X" * 999: []}, [f"key '{'X' * 78}…: remove"]),
    "a long probe": (GOOD | {PROBE: ["9" * 999 + "-a-b"]}, [PROBE, f"holds '{'9' * 78}…, but", f"no '{'9' * 78}…"]),
    "nobody": ({TRAIN: [], TEST: []}, ["names nobody"]),
    "somebody twice": (GOOD | {TRAIN: ["1", "5", "5"]}, [TRAIN, "'5' twice"]),
    "somebody on both sides": ({TRAIN: ["1", "5"], TEST: ["5", "2"]}, ["'5' in both", TRAIN, TEST]),
    "probes as numbers": (GOOD | {PROBE: [2]}, [PROBE, "the number 2"]),
    "a probe twice": (GOOD | {PROBE: ["2-a-b", "2-a-b"]}, [PROBE, "'2-a-b' twice"]),
    "a probe without view": (GOOD | {PROBE: ["2-a"]}, [PROBE, "'2-a'", "<id>-<type>-<view>"]),
    "a probe with an empty part": (GOOD | {PROBE: ["2--b"]}, [PROBE, "'2--b'", "<id>-<type>-<view>"]),
    "a probe who trains": (GOOD | {PROBE: ["1-a-b"]}, [PROBE, "'1-a-b'", "TEST_SET names no '1'"]),
    "a probe of a stranger": (GOOD | {PROBE: ["9-a-b"]}, [PROBE, "'9-a-b'", "TEST_SET names no '9'"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_one_sentence(mistake: str, tmp_path: Path) -> None:
    content, words = MISTAKES[mistake]
    path = write(tmp_path, content)
    with pytest.raises(UserError) as error:
        read_partition(path)
    message = str(error.value)
    assert all(word in message for word in [str(path), *words]), message
    assert message.isprintable()
    assert len(message) < len(str(path)) + 350
    assert "\n" not in message
    assert not message.endswith(".")


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(UserError, match="cannot read the partition file") as error:
            read_partition(path)
        assert str(path) in str(error.value)


def test_division_says_what_is_on_one_side_only() -> None:
    partition = Partition("file", ("a", "gone"), ("b", "lost"), frozenset({"b-c-v", "b-c-w", "lost-c-v"}))
    walks = [walk("b"), walk("x10"), walk("a"), walk("b", "d"), walk("x9"), walk("x9", "d")]
    division = divide(walks, partition, GAIT3D.role)
    assert division.places == (("test", "probe"), None, ("train", ""), ("test", "gallery"), None, None)
    assert division.absent == ("gone", "lost")
    assert division.unnamed == ("x9", "x10")
    assert division.absent_probes == ("b-c-w", "lost-c-v")


def test_without_probes_the_role_is_the_data_sets() -> None:
    partition = Partition("rule", ("a",), ("b",))
    division = divide(
        [walk("a"), walk("b", "x"), walk("b", "y")], partition, lambda walk: {"x": "probe"}.get(walk.condition, "")
    )
    assert division.places == (("train", ""), ("test", "probe"), ("test", ""))
    assert division.absent_probes == ()


def test_a_data_set_without_rule_names_the_ways_out() -> None:
    message = str(partition_needed("Gait3D"))
    assert all(word in message for word in ("Gait3D", "--partition", "--split auto", "--split train"))


def test_sequences_stand_in_the_reference_order(tmp_path: Path) -> None:
    """Labels in the order of the partition; types, views and files as strings; folders without files left out."""
    golden = golden_document("dataset_index")
    for label, kind, view, files in golden["tree"]:
        folder = tmp_path / label / kind / view
        folder.mkdir(parents=True)
        for file in files:
            (folder / file).touch()
    partition = read_partition(write(tmp_path, golden["partition"]))
    with open_source(tmp_path) as source:
        walks = OPENGAIT.find(source, Counts()).walks
    ordered = [walks[number] for number in index(walks, partition)]
    division = divide(ordered, partition, OPENGAIT.card.role)
    assert division.unnamed == ()
    assert division.absent == ("missing",)
    for variant, expected in golden["expected"].items():
        side, _, in_use = variant.partition("_")
        prefix = "Set-" if side == "train" else ""  # the reference puts the data set's name before training labels
        chosen = [walk for walk, place in zip(ordered, division.places, strict=True) if place and place[0] == side]
        names = [[prefix + walk.subject, walk.condition, walk.view] for walk in chosen]
        assert names == [sequence[:3] for sequence in expected["sequences"]]
        assert sorted({name[0] for name in names}) == expected["label_set"]
        for walk, (*_, files) in zip(chosen, expected["sequences"], strict=True):
            single = walk.files[0].endswith("/sil.pkl")  # the only file; one that is asked for by position 1 is none
            if in_use == "1" and not single:
                assert list(walk.files) == files
            elif in_use in ("all", "1_0"):
                assert walk.files[0] in files
    unnamed = divide(walks, partition, OPENGAIT.card.role).unnamed
    assert unnamed == ("unlisted",)
