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
from pathlib import Path

import yaml

from gaitdiff.commands.claims import in_words
from gaitdiff.paper.claims import LEDGER, SEEDS, Claim, list_claims

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
lever of the claim. A verdict speaks of the method at that size: "reproduced" where every 95% interval lies above zero,
"contradicted" where one lies below, else "not seen". At the paper's own scale every claim needs Gait3D or GREW, which
their authors license: `gaitdiff reproduce table1 --store …` is ready for who has them. What came out of each run lies
in [benchmarks/results/claims](../benchmarks/results/claims).
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
    rows = [_row(claim) for claim in list_claims()]
    return "\n".join([_HEAD, "| claim | where | walkers | paper's scale |", "|---|---|---|---|", *rows, ""])


def _row(claim: Claim) -> str:
    words, seen = "not run", claim.seen
    if seen:
        stale = next(filter(None, map(stale_since, str(seen["commit"]).split(", "))), "")
        words = f"**{seen['status']}** {in_words(claim.expect, seen).partition(': ')[2]}"
        words += f" ({seen['minutes']:.0f} minutes, {seen['machine']}, at {seen['commit']})"
        words += f"; stale since {stale}" if stale else ""
    return f"| {claim.sentence} `{claim.id}` | {claim.where} | {words} | needs licensed data |"


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
