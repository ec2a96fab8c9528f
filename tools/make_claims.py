"""Keep what `gaitdiff claims run` saw in the ledger, and write docs/claims.md from it.

    python tools/make_claims.py [FOLDER]

FOLDER is the --out of the runs; what came out of each is kept in benchmarks/results/claims. An entry is stale where
code that its numbers come from has changed since its commit.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import yaml

from gaitdiff.paper.claims import LEDGER, SEEDS, Claim, growth, list_claims, runs_for
from gaitdiff.paper.results import Result, read_result

ROOT = Path(__file__).parent.parent
_RUNS = ROOT / "benchmarks" / "results" / "claims"
_LEDGER = ROOT / "src" / "gaitdiff" / "paper" / LEDGER
#: What numbers at scale walkers come from.
_CODE = [
    f"src/gaitdiff/{name}"
    for name in (
        *(
            "config",
            "data",
            "diffusion",
            "evaluation",
            "models",
            "recognition",
            "recipes/walkers",
            "training",
            "walkers",
        ),
        *("losses.py", "paper/cells.py", "paper/claims.py", "paper/grid.py", "paper/results.py"),
    )
]
_HEAD = """# The paper's claims

Written by `tools/make_claims.py`. Anybody can run each on synthetic people by `gaitdiff claims run ID`: narrow
networks, the paper's iterations divided by 250, the recipe `walkers/pretrain` ([learning.md](learning.md)) with the
lever of the claim. A verdict speaks of the method at that size, three seeds: "reproduced" where every 95% interval lies
above zero, "contradicted" where one lies below, else "not seen". Differences are points of rank-1, or by how many
percent AN over AP grew. At the paper's own scale every claim needs Gait3D or GREW, which their authors license:
`gaitdiff reproduce table1 --store …` is there for those who have them. A claim takes two to six hours of one core.

At the paper's scale a CPU can look at single steps: the 88 runs of its tables and figures were begun there, trained for
two iterations of 4 sequences and scored, on synthetic people
([paper_cells.json](../benchmarks/results/paper_cells.json)). A whole run of stage 1 with the student in
TAESD's place would take [643 hours](performance.md#a-run-at-the-papers-size) of two cores, and about two of an H200.

`gait3d` and `grew` in names of runs are synthetic people in the place of these data sets. Pretraining takes 480
iterations and begins with a denoiser that knows walks already (`diffusion.start walkers`), but for the three runs of
`larger-denoiser`, which begin with nothing. Then come labels of all 350 people, for 240 iterations in Gait3D's place
and 300 in GREW's; from scratch for 720 and 1,000, as the paper has it, but for GaitBase's 240. Raw features are
compared by cosine. The frozen block of the paper's Table I repeats numbers of its neighbours in print;
`frozen-above-raw` is a sentence of its text. What came out of each run lies in
[benchmarks/results/claims](../benchmarks/results/claims), with its commit and machine. Most changes of code change no
number; where what numbers come from was edited after the runs, this page says so.
"""


def main() -> None:
    """Run the command line."""
    if len(sys.argv) > 1:
        _keep(Path(sys.argv[1]) / "claims")
        _keep_runs(Path(sys.argv[1]) / "results")
    (ROOT / "docs" / "claims.md").write_text(page(), encoding="utf-8")


def _keep(folder: Path) -> None:
    text = _LEDGER.read_text(encoding="utf-8")
    comment = "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))
    ledger = yaml.safe_load(text)
    for file in sorted(folder.glob("*.json")):
        seen, before = json.loads(file.read_text(encoding="utf-8")), ledger.get(file.stem, {}).get("seen", {})
        if file.stem not in ledger or seen["seeds"] < max(SEEDS, before.get("seeds", 0)):
            print(f"{file} is not taken: no such claim, or fewer seeds than {SEEDS} or than before")
        elif not _at_a_commit(seen["commit"]):
            print(f"{file} is not taken: its runs were not made at a commit ({seen['commit']})")
        else:
            ledger[file.stem]["seen"] = seen
    dumped = yaml.safe_dump(ledger, sort_keys=False, allow_unicode=True, width=120, default_flow_style=None)
    _LEDGER.write_text(comment + dumped, encoding="utf-8")


def _at_a_commit(commit: object) -> bool:
    """Whether what was made there, or at several, was made of committed code."""
    return "+" not in str(commit) and "None" not in str(commit)


def _keep_runs(folder: Path) -> None:
    """Keep what came out of each run that was made at a commit, for good."""
    _RUNS.mkdir(exist_ok=True)
    for file in sorted(folder.glob("*.json")):
        if _at_a_commit(json.loads(file.read_text(encoding="utf-8"))["made"]["commit"]):
            shutil.copyfile(file, _RUNS / file.name)


def page() -> str:
    """The page of all claims."""
    claims = list_claims()
    counts = Counter("not finished" if claim.status == "not run" else claim.status for claim in claims)
    said = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    told = f"Of {len(claims)} claims: {said}."
    changed = [_changed(claim) for claim in claims]
    of_all = changed[0] if len(set(changed)) == 1 else ""
    told += f"\nCode that numbers come from was edited after all these runs, first in {of_all}." if of_all else ""
    rows = [_row(claim, "" if of_all else commit) for claim, commit in zip(claims, changed, strict=True)]
    return "\n".join([_HEAD, told, "", "| claim | in the paper | on walkers |", "|---|---|---|", *rows, ""])


def _changed(claim: Claim) -> str:
    """The first commit that changed code after a claim's runs; "" where none did, or it was not run."""
    commits = str(claim.seen["commit"]).split(", ") if claim.seen else []
    return next(filter(None, map(stale_since, commits)), "")


def _row(claim: Claim, changed: str) -> str:
    if claim.seen:
        parts = [
            f"{_named(name)} {mean:+.1f} ({low:+.1f} to {high:+.1f})"
            for name, (mean, low, high) in claim.seen["parts"].items()
        ]
        words = "<br>".join([f"**{claim.seen['status']}**", *parts])
        words += f"<br>code changed since, in {changed}" if changed else ""
    else:
        words = _so_far(claim)
    return f"| {claim.sentence}<br>`{claim.id}` | {claim.where} | {words} |"


def _so_far(claim: Claim) -> str:
    """What the runs that are kept say of a claim that has no verdict yet."""
    names = [run.name for run in runs_for(claim)]
    there = {
        (name, seed): found
        for name in names
        for seed in range(SEEDS)
        if (found := read_result(_RUNS / f"{name}-{seed}.json"))
    }
    if not there:
        return "not run"
    parts = []
    for part in claim.pairs or [(name,) for name in claim.runs]:
        seeds = [seed for seed in range(SEEDS) if all((name, seed) in there for name in part)]
        values = [_value(claim.expect, *(there[name, seed] for name in part)) for seed in seeds]
        if values:
            each = " ".join(f"{value:+.1f}" for value in values)
            parts.append(f"{_named(' over '.join(part))} {each}")
    so_far = f"; so far, a seed each: {'; '.join(parts)}" if parts else ""
    return f"not finished, {len(there)} of {len(names) * SEEDS} runs{so_far}"


def _value(expect: str, first: Result, second: Result | None = None) -> float:
    if expect == "apart":
        return growth(first.pairs)
    behind = first.before if second is None else second.outcome
    assert first.outcome is not None
    assert behind is not None
    return first.outcome.percent("rank1") - behind.percent("rank1")


def _named(part: str) -> str:
    return " over ".join(f"`{name}`" for name in part.split(" over "))


def stale_since(commit: str) -> str:
    """The first commit after which code that numbers come from is not as it was; "" while it is."""
    range_ = f"{commit}..HEAD"
    say = ["git", "-C", str(ROOT), "log", "--format=%h", "--reverse", range_, "--", *_CODE]
    done = subprocess.run(say, capture_output=True, text=True, check=False)
    if done.returncode:
        return "a commit that is not in this history"
    return done.stdout.split("\n", 1)[0]


if __name__ == "__main__":
    main()
