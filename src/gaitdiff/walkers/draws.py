"""Seeded random streams, and dataclasses whose fields say how they are drawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field, fields
from enum import IntEnum
from math import inf
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")


class Stream(IntEnum):
    """What a random stream is for. Streams are independent: a further draw in one changes nothing in the others."""

    CAMERAS = 1  # of the whole set
    SHAPE = 11  # of a person
    GAIT = 12
    WARDROBE = 13
    ROUTE = 14
    MANNER = 21  # of a sequence
    VIEW = 22
    LOAD = 23
    FLAWS = 24
    JITTER = 25
    NOISE = 26
    LENGTH = 27
    CORNER = 28


def stream(kind: Stream, seed: int, *names: int) -> np.random.Generator:
    """Return the generator of one stream; ``names`` are the person and sequence numbers where they apply."""
    return np.random.default_rng([seed, int(kind), *names])


def normal(mean: float, sd: float, low: float = -inf, high: float = inf) -> Any:
    """A field drawn from a normal distribution, clipped to [low, high]."""
    return _drawn(lambda rng: min(max(rng.normal(mean, sd), low), high))


def half_normal(sd: float) -> Any:
    """A field drawn as the magnitude of a normal variable with mean 0."""
    return _drawn(lambda rng: abs(rng.normal(0.0, sd)))


def uniform(low: float, high: float) -> Any:
    """A field drawn uniformly from [low, high)."""
    return _drawn(lambda rng: float(rng.uniform(low, high)))


def draw(cls: type[T], rng: np.random.Generator, **given: Any) -> T:
    """Make a ``cls``: the fields in ``given`` as they are, every other one drawn in order of definition."""
    specs = {f.name: f.metadata["draw"] for f in fields(cls) if f.name not in given}  # type: ignore[arg-type]
    return cls(**given, **{name: spec(rng) for name, spec in specs.items()})


def _drawn(spec: Callable[[np.random.Generator], float]) -> Any:
    return field(metadata={"draw": spec})
