"""``gaitdiff claims``: the ledger, and what is seen of one claim by running what it needs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.text import Text

from gaitdiff.commands.reproduce import make_walkers, walkers_folder
from gaitdiff.errors import UserError, require_seeds
from gaitdiff.paper.cells import SHRINK
from gaitdiff.paper.claims import SEEDS, Claim, get_claim, judge, list_claims, runs_for
from gaitdiff.paper.grid import Grid, Job, failures
from gaitdiff.paper.plan import costs
from gaitdiff.paper.plan import in_words as plan_in_words
from gaitdiff.paper.results import Result
from gaitdiff.utils.files import write_whole
from gaitdiff.utils.progress import answers, say
from gaitdiff.utils.text import counted

_UNITS = {"apart": "% by which AN over AP grew"}


def run(words: Sequence[str], out: Path, *, seeds: int = SEEDS, dry_run: bool = False, device: str = "auto") -> None:
    """Print the ledger, or run a claim at scale walkers and say what is seen of it.

    Runs are those of ``gaitdiff reproduce --scale walkers`` with the same ``out``, and are not done again.

    Args:
        words: none for the ledger, or "run" and the claim's id.

    Raises:
        UserError: there is no such claim, or some of its runs failed.
    """
    if not words:
        return _print(list_claims())
    if len(words) != 2 or words[0] != "run":
        raise UserError("gaitdiff claims prints the ledger, and gaitdiff claims run ID runs one of it")
    require_seeds(seeds)
    claim = get_claim(words[1])
    runs = runs_for(claim)
    needed = list(dict.fromkeys(one.data for one in runs))
    grid = Grid(out, {name: walkers_folder(out, name) for name in needed}, None, device)
    jobs = [Job(one, seed) for seed in range(seeds) for one in runs]
    left = grid.left(jobs)
    say(f"{claim.id}: {plan_in_words(len(left), len(jobs), costs(grid, left))}")
    if dry_run:
        return print("\n".join(map(grid.command, left)))
    make_walkers(out, needed)
    if failed := grid.work(jobs):
        raise UserError(failures(failed, jobs))
    seen = judge(claim, grid, seeds)
    results = [result for job in jobs if (result := grid.result(job)) is not None]
    print(f"{claim.sentence} ({claim.where})\n{in_words(claim.expect, asdict(seen))}")
    if seeds < SEEDS:
        return say(f"a verdict takes {SEEDS} seeds at least: this one, of {seeds}, is not kept")
    file = out / "claims" / f"{claim.id}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, json.dumps(_kept(claim, asdict(seen), results, seeds), indent=1, allow_nan=False).encode())
    print(file)


def _kept(claim: Claim, seen: dict[str, Any], results: Sequence[Result], seeds: int) -> dict[str, Any]:
    """What the ledger keeps of a claim that was run: commit and machine are those of the runs."""

    def told(key: str) -> str:
        return ", ".join(dict.fromkeys(str(result.made[key]) for result in results))

    def machine(made: Mapping[str, Any]) -> str:
        return ", ".join([made["processor"], counted(made["threads"], "thread"), *dict.fromkeys(made["gpus"])])

    return {
        **seen,
        "command": f"gaitdiff claims run {claim.id} --seeds {seeds}",
        "data": "walkers, see gaitdiff reproduce --scale walkers",
        "commit": told("commit"),
        "gaitdiff": told("gaitdiff"),
        "machine": "; ".join(dict.fromkeys(machine(result.made) for result in results)),
        "minutes": round(sum(result.seconds for result in results) / 60, 1),
    }


def in_words(expect: str, seen: Mapping[str, Any]) -> str:
    """A verdict with its numbers."""
    unit = _UNITS.get(expect, "points of rank-1")
    parts = [f"{name} {mean:+.1f} ({low:+.1f} to {high:+.1f})" for name, (mean, low, high) in seen["parts"].items()]
    return f"{seen['status']}: {'; '.join(parts)} {unit}, {counted(seen['seeds'], 'seed')}"


def _print(claims: Sequence[Claim]) -> None:
    console = answers()
    for claim in claims:
        seen = in_words(claim.expect, claim.seen) if claim.seen else "not run"
        console.print(Text(claim.id, "bold"), Text(f"  {claim.where}"))
        for line in (claim.sentence, f"walkers: {seen}", "paper's scale: needs licensed data"):
            console.print(f"  {line}", soft_wrap=True)
    console.print(
        f"\ngaitdiff claims run ID runs one on synthetic people, with narrow networks and 1/{SHRINK} of the paper's "
        "iterations: what is seen\nis about the method at that size. The paper's own scale needs Gait3D or GREW, see "
        "gaitdiff reproduce.",
        soft_wrap=True,
    )
