"""``gaitdiff claims``: the ledger, and what is seen of one claim by running what it needs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from gaitdiff.commands.reproduce import make_walkers, walkers_folder
from gaitdiff.errors import UserError
from gaitdiff.paper.cells import SHRINK
from gaitdiff.paper.claims import SEEDS, Claim, get_claim, judge, list_claims, runs_for
from gaitdiff.paper.grid import Grid, Job
from gaitdiff.paper.plan import costs
from gaitdiff.training.environment import environment
from gaitdiff.utils.files import write_whole
from gaitdiff.utils.progress import say

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
    if seeds < 1:
        raise UserError(f"--seeds is {seeds}, but a claim takes at least 1")
    claim = get_claim(words[1])
    runs = runs_for(claim)
    needed = list(dict.fromkeys(one.data for one in runs))
    grid = Grid(out, {name: walkers_folder(out, name) for name in needed}, (), device)
    jobs = [Job(one, seed) for seed in range(seeds) for one in runs]
    left = [job for job in jobs if not grid.stores[job.run.data].exists() or grid.result(job) is None]
    hours = sum(cost.seconds for cost in costs(grid, left).values()) / 3600
    say(f"{claim.id}: {len(left)} of {len(jobs)} runs to do, about {hours:,.1f} hours at the pace measured here")
    if dry_run:
        return print("\n".join(grid.command(job) for job in left))
    make_walkers(out, needed)
    if failed := grid.work(jobs):
        told = "; ".join(f"{name}: {why}" for name, why in failed.items())
        raise UserError(f"{len(failed)} of {len(jobs)} runs failed, the same command tries them again: {told}")
    seen = judge(claim, grid, seeds)
    minutes = sum(result.seconds for job in jobs if (result := grid.result(job))) / 60
    file = out / "claims" / f"{claim.id}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, json.dumps(_kept(claim, asdict(seen), minutes, seeds), indent=1).encode())
    print(f"{claim.sentence} ({claim.where})\n{in_words(claim.expect, asdict(seen))}\n{file}")
    if seeds < SEEDS:
        say(f"a verdict takes {SEEDS} seeds at least: this one is of {seeds}")


def _kept(claim: Claim, seen: dict[str, Any], minutes: float, seeds: int) -> dict[str, Any]:
    """What the ledger keeps of a claim that was run."""
    machine = environment()
    return {
        **seen,
        "command": f"gaitdiff claims run {claim.id} --seeds {seeds}",
        "data": "walkers, see gaitdiff reproduce --scale walkers",
        "commit": machine["commit"],
        "gaitdiff": machine["gaitdiff"],
        "machine": f"{machine['processor']}, {machine['threads']} threads",
        "minutes": round(minutes, 1),
    }


def in_words(expect: str, seen: dict[str, Any]) -> str:
    """A verdict with its numbers."""
    low, high = seen["interval"]
    unit = _UNITS.get(expect, "points of rank-1")
    parts = "; ".join(f"{name} {value:+.1f}" for name, value in seen["parts"].items())
    return f"{seen['status']}: {seen['effect']:+.1f} {unit} ({low:+.1f} to {high:+.1f}), {seen['seeds']} seeds: {parts}"


def _print(claims: Sequence[Claim]) -> None:
    console = Console(highlight=False)
    for claim in claims:
        seen = in_words(claim.expect, dict(claim.seen)) if claim.seen else "not run"
        console.print(Text(claim.id, "bold"), Text(f"  {claim.where}"))
        for line in (claim.sentence, f"walkers: {seen}", "paper's scale: needs licensed data"):
            console.print(f"  {line}", soft_wrap=True, markup=False)
    console.print(
        f"\ngaitdiff claims run ID runs one on synthetic people, with narrow networks and 1/{SHRINK} of the paper's "
        "iterations: what is seen\nis about the method at that size. The paper's own scale needs Gait3D or GREW, see "
        "gaitdiff reproduce.",
        soft_wrap=True,
    )
