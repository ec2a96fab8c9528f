"""The numbers that settings may have."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

#: What a machine word does not hold any more.
WORD = 2**63


@dataclass(frozen=True)
class Range:
    """The numbers that a setting may have: at least ``low``, or above it, and at most ``high``."""

    low: float
    high: float = math.inf
    above: bool = False

    def holds(self, value: float) -> bool:
        """Whether a finite number is in the range, and one that a machine word holds."""
        fits = value > self.low if self.above else value >= self.low
        return fits and value <= self.high and (math.isfinite(value) if isinstance(value, float) else value < WORD)

    def __str__(self) -> str:
        low = f"above {self.low:g}" if self.above else f"at least {self.low:g}"
        return low if math.isinf(self.high) else f"{low} and at most {self.high:g}"


Count = Annotated[int, Range(1)]
CountOrNone = Annotated[int, Range(0)]  # 0 switches something off
Positive = Annotated[float, Range(0, 1e18, above=True)]  # products of two are numbers in float32
NotNegative = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1)]
Decay = Annotated[float, Range(0, 0.999999)]  # of an average; at 1 it would never move
Threads = Annotated[int, Range(0, 1024)]  # of one process; operating systems refuse many more
