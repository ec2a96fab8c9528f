"""The claims ledger: what the paper claims, what each claim expects of runs, and what was seen.

At scale walkers anybody can run a claim. At the paper's scale all of them need Gait3D or GREW, whose licences their
authors give.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Literal

import numpy as np

from gaitdiff.config.safe_yaml import read_mapping
from gaitdiff.errors import UserError, nearest
from gaitdiff.evaluation.outcomes import Outcome, difference
from gaitdiff.paper.cells import EXPERIMENTS, Run, runs_of
from gaitdiff.paper.grid import Grid
from gaitdiff.paper.results import Result

#: What can be said of a claim that was run.
Verdict = Literal["reproduced", "not seen", "contradicted"]
LEDGER = "claims.yaml"
#: Seeds that a verdict takes at least.
SEEDS = 3
_T95 = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36, 9: 2.31, 10: 2.26}  # Student's t by sample size


@dataclass(frozen=True)
class Claim:
    """One claim.

    Attributes:
        id: by which ``gaitdiff claims run`` knows it.
        sentence: the claim.
        where: in the paper.
        expect: "order", "rise" or "apart", see the ledger.
        pairs: of runs, for "order": the first is to be ahead.
        runs: for "rise" and "apart".
        seen: what was seen of it at scale walkers, see ``Seen``; empty where it was not run.
    """

    id: str
    sentence: str
    where: str
    expect: str
    pairs: Sequence[Sequence[str]] = ()
    runs: Sequence[str] = ()
    seen: Mapping[str, Any] | None = None

    @property
    def names(self) -> list[str]:
        """All runs that it is about."""
        return list(dict.fromkeys([*self.runs, *(name for pair in self.pairs for name in pair)]))

    @property
    def status(self) -> str:
        """At scale walkers: "reproduced", "not seen", "contradicted" or "not run"."""
        return str(self.seen["status"]) if self.seen else "not run"


@dataclass(frozen=True)
class Seen:
    """What finished runs say of a claim.

    Attributes:
        status: "reproduced" where the interval of every part lies above zero, "contradicted" where one lies below, else
            "not seen".
        parts: of each pair or run its mean and its 95% interval; points of rank-1, or percent by which AN over AP grew.
        seeds: of the runs.
    """

    status: Verdict
    parts: dict[str, tuple[float, float, float]]
    seeds: int


def list_claims() -> list[Claim]:
    """The ledger."""
    entries = read_mapping(resources.files("gaitdiff.paper") / LEDGER)
    return [Claim(name, **entry) for name, entry in entries.items()]


def get_claim(name: str) -> Claim:
    """The claim of this id.

    Raises:
        UserError: there is none.
    """
    claims = {claim.id: claim for claim in list_claims()}
    if name not in claims:
        raise UserError(f"there is no claim {name!r}{nearest(name, claims)}: gaitdiff claims lists them")
    return claims[name]


def runs_for(claim: Claim) -> list[Run]:
    """The runs of scale walkers that a claim needs, a start before what starts from it."""
    cells = [cell for make in EXPERIMENTS.values() for cell in make("walkers")]
    known = {run.name: run for run in runs_of(cells)}
    needed = [run for name in claim.names for run in known[name].chain()]
    return list({run.name: run for run in needed}.values())


def judge(claim: Claim, grid: Grid, seeds: int) -> Seen:
    """What finished runs say of a claim.

    Raises:
        UserError: some of its runs are not finished.
    """
    runs = {run.name: run for run in runs_for(claim)}

    def results(name: str) -> list[Result]:
        found = grid.finished(runs[name], range(seeds))
        if len(found) < seeds:
            seed = next(seed for seed in range(seeds) if seed not in found)
            raise UserError(f"{name}-{seed} is not finished, so nothing can be said of {claim.id}")
        return list(found.values())

    return _EXPECTED[claim.expect](claim, results, seeds)


def _order(claim: Claim, results: Callable[[str], list[Result]], seeds: int) -> Seen:
    pairs = {
        f"{ahead} over {behind}": list(zip(_outcomes(results(behind)), _outcomes(results(ahead)), strict=True))
        for ahead, behind in claim.pairs
    }
    return _bootstrapped(pairs, seeds)


def _rise(claim: Claim, results: Callable[[str], list[Result]], seeds: int) -> Seen:
    pairs = {}
    for name in claim.runs:
        fresh = [result.before for result in results(name) if result.before is not None]
        pairs[name] = list(zip(fresh, _outcomes(results(name)), strict=True))
    return _bootstrapped(pairs, seeds)


def _outcomes(results: Sequence[Result]) -> list[Outcome]:
    return [result.outcome for result in results if result.outcome is not None]


def _bootstrapped(pairs: Mapping[str, Sequence[tuple[Outcome, Outcome]]], seeds: int) -> Seen:
    """Each pair's bootstrap over people and seeds, as wide as Student's interval over seeds at least."""
    parts = {}
    for name, both in pairs.items():
        mean, low, high = difference(both, "rank1")
        half = _student([other.percent("rank1") - one.percent("rank1") for one, other in both])
        parts[name] = (mean, min(low, mean - half), max(high, mean + half))
    return _seen(parts, seeds)


def _apart(claim: Claim, results: Callable[[str], list[Result]], seeds: int) -> Seen:
    """By how much the ratio of AN to AP grew from the first tenth of a run to its last third; Student's intervals."""
    parts = {}
    for name in claim.runs:
        grown = [growth(result.pairs) for result in results(name)]
        mean, half = float(np.mean(grown)), _student(grown)
        parts[name] = (mean, mean - half, mean + half)
    return _seen(parts, seeds)


def _student(values: Sequence[float]) -> float:
    """Half of Student's 95% interval of a mean, infinite for a single value."""
    if len(values) < 2:
        return math.inf
    return _T95[min(len(values), max(_T95))] * float(np.std(values, ddof=1)) / math.sqrt(len(values))


def growth(pairs: Sequence[Mapping[str, float]]) -> float:
    """By how many percent AN over AP grew from the first tenth of a pretraining run to its last third."""
    ratio = np.array([pair["an"] / pair["ap"] for pair in pairs])
    first, last = ratio[: max(len(ratio) // 10, 1)], ratio[-max(len(ratio) // 3, 1) :]
    return 100.0 * (float(last.mean()) / float(first.mean()) - 1.0)


def _seen(parts: Mapping[str, tuple[float, float, float]], seeds: int) -> Seen:
    lows, highs = [part[1] for part in parts.values()], [part[2] for part in parts.values()]
    status: Verdict = "contradicted" if min(highs) < 0 else "reproduced" if min(lows) > 0 else "not seen"
    return Seen(status, {name: _rounded(part) for name, part in parts.items()}, seeds)


def _rounded(part: tuple[float, float, float]) -> tuple[float, float, float]:
    mean, low, high = (round(value, 2) for value in part)
    return mean, low, high


_EXPECTED = {"order": _order, "rise": _rise, "apart": _apart}
