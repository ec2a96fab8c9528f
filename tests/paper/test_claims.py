"""The ledger has the paper's twelve claims, and a verdict follows from what runs score."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gaitdiff.cli import main
from gaitdiff.commands.claims import in_words
from gaitdiff.errors import UserError
from gaitdiff.evaluation.outcomes import Outcome
from gaitdiff.paper import claims
from gaitdiff.paper.cells import Run
from gaitdiff.paper.claims import get_claim, judge, list_claims, runs_for
from gaitdiff.paper.grid import Job
from gaitdiff.paper.results import Result

_PEOPLE = 50


class Finished:
    """In place of a grid: runs whose scores are given, in hits of four probes each person."""

    def __init__(self, hits: dict[str, int], before: dict[str, int] | None = None, noise: int = 1) -> None:
        self.hits, self.before, self.noise = hits, before or {}, noise

    def outcome(self, hits: int, seed: int) -> Outcome:
        rng = np.random.default_rng([seed, abs(hits)])
        found = hits + rng.integers(-self.noise, self.noise + 1, _PEOPLE)
        return Outcome([4] * _PEOPLE, found.tolist(), found.astype(float).tolist())

    def finished(self, run: Run, seeds: Iterable[int]) -> dict[int, Result]:
        return {seed: result for seed in seeds if (result := self.result(Job(run, seed))) is not None}

    def result(self, job: Job) -> Result | None:
        name = job.run.name
        if name not in self.hits:
            return None
        steps = np.arange(1, 31)
        pairs = [{"step": int(s), "ap": 0.1, "an": 0.1 * (1 + self.hits[name] * s / 300)} for s in steps]
        before = self.outcome(self.before[name], job.seed) if name in self.before else None
        outcome = self.outcome(self.hits[name], job.seed)
        made = {
            "commit": f"c{job.seed}",
            "gaitdiff": "1",
            "processor": "p",
            "threads": 2,
            "gpus": ["g"] * (job.seed % 2),
        }
        return Result(job.name, {}, "", 30, 60.0, [], pairs, outcome, before, made)


def test_the_ledger_has_all_twelve() -> None:
    """As READING's list has them, each with runs that are made by tables and figures."""
    ledger = list_claims()
    assert len(ledger) == 12
    assert [claim.where for claim in ledger].count("Table III") == 6
    for claim in ledger:
        assert claim.expect in ("order", "rise", "apart")
        assert {run.name for run in runs_for(claim)} >= set(claim.names)
        assert claim.names
        assert claim.status in ("reproduced", "not seen", "contradicted", "not run")
        if claim.seen:
            assert claim.seen["seeds"] >= claims.SEEDS
            parts = claim.seen["parts"].values()
            behind, ahead = any(high < 0 for _, _, high in parts), all(low > 0 for _, low, _ in parts)
            assert claim.status == ("contradicted" if behind else "reproduced" if ahead else "not seen")
            assert len(parts) == len(claim.pairs or claim.runs)


@pytest.mark.parametrize(("ahead", "status"), [((3, 2), "reproduced"), ((2, 3), "contradicted"), ((2, 2), "not seen")])
def test_which_of_two_is_ahead(ahead: tuple[int, int], status: str) -> None:
    claim = get_claim("augmentation-needed")
    grid = Finished(dict(zip(claim.names, ahead, strict=True)))
    seen = judge(claim, grid, 3)  # type: ignore[arg-type]
    assert seen.status == status
    ((mean, low, high),) = seen.parts.values()
    assert low <= mean <= high
    assert mean == pytest.approx(25.0 * (ahead[0] - ahead[1]), abs=8)
    assert in_words(claim.expect, {**vars(seen)}).startswith(status)


@pytest.mark.parametrize(
    ("hits", "status"), [((3, 1, 2), "reproduced"), ((2, 1, 2), "not seen"), ((2, 0, 3), "contradicted")]
)
def test_several_pairs_are_one_verdict(hits: tuple[int, int, int], status: str) -> None:
    """One that is far ahead does not hide that another is behind."""
    claim = get_claim("mean-pooling")
    first, second, third = claim.names
    grid = Finished(dict(zip(claim.names, hits, strict=True)), noise=0)
    seen = judge(claim, grid, 3)  # type: ignore[arg-type]
    gains = [25.0 * (hits[0] - other) for other in hits[1:]]
    expected = dict(zip((f"{first} over {second}", f"{first} over {third}"), gains, strict=True))
    assert seen.parts == {name: (gain, gain, gain) for name, gain in expected.items()}
    assert seen.status == status


def test_seeds_that_differ_widen_an_interval() -> None:
    """Student's over seeds, where it is wider than the bootstrap's; one seed alone is no verdict."""

    class Unlike(Finished):
        def outcome(self, hits: int, seed: int) -> Outcome:
            found = np.full(_PEOPLE, hits + (seed if hits == 2 else 0))
            return Outcome([8] * _PEOPLE, found.tolist(), found.astype(float).tolist())

    claim = get_claim("augmentation-needed")
    grid = Unlike(dict(zip(claim.names, (2, 1), strict=True)))
    ((mean, low, high),) = judge(claim, grid, 3).parts.values()  # type: ignore[arg-type]
    gains = [12.5, 25.0, 37.5]
    half = 4.303 * np.std(gains, ddof=1) / np.sqrt(3)
    assert (mean, low, high) == pytest.approx((25.0, 25.0 - half, 25.0 + half), abs=0.1)
    assert judge(claim, grid, 1).status == "not seen"  # type: ignore[arg-type]


def test_raw_features_against_fresh_ones() -> None:
    claim = get_claim("raw-features-rise")
    rising = Finished(dict.fromkeys(claim.runs, 3), dict.fromkeys(claim.runs, 2))
    assert judge(claim, rising, 3).status == "reproduced"  # type: ignore[arg-type]
    falling = Finished(dict.fromkeys(claim.runs, 2), dict.fromkeys(claim.runs, 3))
    assert judge(claim, falling, 3).status == "contradicted"  # type: ignore[arg-type]


def test_pairs_that_move_apart() -> None:
    """The ratio of AN to AP grows in a straight line: by how much is known."""
    claim = get_claim("pairs-move-apart")
    seen = judge(claim, Finished(dict.fromkeys(claim.runs, 3)), 3)  # type: ignore[arg-type]
    first, last = 1 + 3 * 2 / 300, 1 + 3 * 25.5 / 300  # means of steps 1 to 3, and of 21 to 30
    grown = 100 * (last / first - 1)
    assert set(seen.parts) == set(claim.runs)
    assert all(part == pytest.approx((grown, grown, grown), abs=0.01) for part in seen.parts.values())
    assert seen.status == "reproduced"
    falling = Finished({**dict.fromkeys(claim.runs, 3), claim.runs[2]: -3})
    assert judge(claim, falling, 3).status == "contradicted"  # type: ignore[arg-type]


def test_nothing_is_said_of_unfinished_runs() -> None:
    with pytest.raises(UserError, match="is not finished"):
        judge(get_claim("two-clips"), Finished({}), 3)  # type: ignore[arg-type]


def test_the_ledger_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["claims"]) == 0
    printed = capsys.readouterr().out
    assert all(claim.id in printed for claim in list_claims())
    assert printed.count("needs licensed data") == 12


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (("run", "two-clip"), "did you mean 'two-clips'"),
        (("run",), "gaitdiff claims run ID"),
        (("two-clips",), "gaitdiff claims run ID"),
        (("run", "two-clips", "--seeds", "0"), "--seeds is 0"),
    ],
)
def test_mistakes(words: tuple[str, ...], key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["claims", *words, "--out", str(tmp_path / "out")]) == 2
    assert key in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_claim_that_was_run_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From finished runs; what is written names commit, machine and command."""
    grid = Finished({"pretrain-gait3d-smplgait": 3, "pretrain-gait3d-smplgait-same-clip": 2})
    monkeypatch.setattr("gaitdiff.paper.grid.Grid.result", lambda self, job: grid.result(job))
    monkeypatch.setattr("gaitdiff.commands.claims.make_walkers", lambda out, needed: None)
    (tmp_path / "walkers" / "gait3d").mkdir(parents=True)
    assert main(["claims", "run", "two-clips", "--out", str(tmp_path), "--device", "cpu"]) == 0
    kept = json.loads((tmp_path / "claims" / "two-clips.json").read_text())
    assert kept["status"] == "reproduced"
    assert kept["minutes"] == 2 * 3 * 1.0
    assert kept["command"] == "gaitdiff claims run two-clips --seeds 3"
    assert kept["commit"] == "c0, c1, c2"
    assert {"parts", "seeds", "data"} <= kept.keys()
    assert kept["machine"] == "p, 2 threads; p, 2 threads, g"
    assert "reproduced: pretrain-gait3d-smplgait over" in capsys.readouterr().out
    told = replace(get_claim("two-clips"), seen=kept)
    assert told.status == "reproduced"


def test_the_page_is_the_ledger() -> None:
    page = (Path(__file__).parents[2] / "docs" / "claims.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if re.match(r"\| .*`[a-z-]+` \|", line)]
    assert len(rows) == 12
    for claim, row in zip(list_claims(), rows, strict=True):
        assert claim.id in row
        assert claim.status in row or claim.status == "not run"  # of which is told what there is so far
