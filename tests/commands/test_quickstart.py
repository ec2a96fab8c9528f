"""The quick start, small: every stage really runs, and the table is what the checkpoints score."""

from __future__ import annotations

import json
from pathlib import Path

from worlds import gaitdiff, make_store, one_sentence

ROWS = ("gait energy image", "raw features, untrained", "raw features, these minutes", "raw features, shipped")
ARMS = ("scratch", "minutes", "shipped")


def test_small_quickstart_ends_with_table_and_report(tmp_path: Path) -> None:
    out = tmp_path / "quick"
    done = gaitdiff("quickstart", "--small", "--device", "cpu", "--out", out, timeout=900)
    assert done.returncode == 0, done.stderr
    for row in ROWS:
        assert row in done.stdout
    assert "64 sequences of 16 people" in done.stdout
    page = (out / "report" / "index.html").read_text(encoding="utf-8")
    for row in ROWS:
        assert row in page
    for arm in ("from scratch", "from minutes", "from shipped"):
        assert page.count(f'<th scope="row">{arm}</th>') == 2  # a row for each number of labelled people
    # An independent call scores the same checkpoint alike.
    scored = tmp_path / "scores.json"
    device, where = ("--device", "cpu"), ("--protocol", "leave-one-out", "--json", scored)
    again = gaitdiff("evaluate", out / "labels/runs/shipped-24-0", "--data", out / "walkers", *device, *where)
    assert again.returncode == 0, again.stderr
    scores = json.loads(scored.read_text())["embeddings"]
    table = json.loads((out / "labels/label_curve.json").read_text())["table"]
    for score in ("rank1", "mAP"):
        assert abs(table[1][score]["shipped"]["scores"][0] - scores[score]) < 0.01
    # The arms start from different weights: other losses.
    losses = {
        json.loads((out / f"labels/runs/{arm}-24-0/metrics.jsonl").read_text().splitlines()[0])["loss"] for arm in ARMS
    }
    assert len(losses) == 3
    # The same command finds everything done.
    repeat = gaitdiff("quickstart", "--small", "--device", "cpu", "--out", out, timeout=900)
    assert repeat.returncode == 0, repeat.stderr
    assert repeat.stderr.count("is complete") == 1
    # Another scale or seed does not mix with what is there.
    other = gaitdiff("quickstart", "--small", "--device", "cpu", "--seed", "1", "--out", out)
    assert other.returncode == 2
    assert "--out" in other.stderr


def test_a_store_is_no_place_for_it(tmp_path: Path) -> None:
    make_store(tmp_path / "walks")
    before = sorted(tmp_path.rglob("*"))
    assert "is a store or a run" in one_sentence(gaitdiff("quickstart", "--small", "--out", tmp_path / "walks"))
    assert sorted(tmp_path.rglob("*")) == before
