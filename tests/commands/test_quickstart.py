"""The quick start, small: every stage really runs, and the table is what the checkpoints score."""

from __future__ import annotations

import json
from pathlib import Path

from worlds import gaitdiff

ROWS = (
    "gait energy image",
    "untrained features",
    "pretrained features",
    "trained from scratch",
    "pretrained, then fine-tuned",
)


def test_small_quickstart_ends_with_table_and_report(tmp_path: Path) -> None:
    out = tmp_path / "quick"
    done = gaitdiff("quickstart", "--small", "--device", "cpu", "--out", out, timeout=900)
    assert done.returncode == 0, done.stderr
    for row in ROWS:
        assert row in done.stdout
    assert "64 probes" in done.stdout
    page = (out / "report" / "index.html").read_text(encoding="utf-8")
    for row in ROWS:
        assert row in page
    # An independent call scores the same checkpoint alike.
    scored = tmp_path / "scores.json"
    device, where = ("--device", "cpu"), ("--protocol", "leave-one-out", "--json", scored)
    again = gaitdiff("evaluate", out / "finetuned", "--data", out / "walkers", *device, *where)
    assert again.returncode == 0, again.stderr
    rank1 = json.loads(scored.read_text())["embeddings"]["rank1"]
    row = next(line for line in done.stdout.splitlines() if ROWS[-1] in line)
    assert f"{rank1:.1f}" in row
    # The pretrained backbone is what fine-tuning started from: other weights than from scratch, other numbers.
    losses = [
        json.loads((out / run / "metrics.jsonl").read_text().splitlines()[1])["loss"]
        for run in ("finetuned", "scratch")
    ]
    assert losses[0] != losses[1]
    # The same command finds everything done.
    repeat = gaitdiff("quickstart", "--small", "--device", "cpu", "--out", out, timeout=900)
    assert repeat.returncode == 0, repeat.stderr
    assert repeat.stderr.count("is complete") == 3
    # Another scale or seed does not mix with what is there.
    other = gaitdiff("quickstart", "--small", "--device", "cpu", "--seed", "1", "--out", out)
    assert other.returncode == 2
    assert "--out" in other.stderr
