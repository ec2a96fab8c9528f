"""A step in several micro-batches, whose gradients add up: memory for one of them is enough."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from torch import Tensor

from gaitdiff.training.graph import Inputs
from gaitdiff.utils.nested import replaced


def micro_batches(inputs: Inputs, parts: int) -> list[Inputs]:
    """Split what a module takes of a batch into ``parts`` of equal size, by the first dimension of every tensor."""

    def part(i: int) -> Callable[[Tensor], Tensor]:
        return lambda value: value[i * len(value) // parts : (i + 1) * len(value) // parts]

    return [replaced(inputs, Tensor, part(i)) for i in range(parts)]


def in_micro_batches(
    backward: Callable[[Inputs], Tensor], parts: int, alone: Callable[[], AbstractContextManager[None]]
) -> Callable[[Inputs], Tensor]:
    """Return a function that does for a batch what ``backward`` does for a micro-batch.

    Args:
        backward: gives one of ``parts`` shares of a loss, and adds its gradients to those of the parameters.
        alone: a context in which processes do not share their gradients; they do at the last micro-batch.
    """

    def step(inputs: Inputs) -> Tensor:
        *others, last = micro_batches(inputs, parts)
        shares: list[Tensor] = []
        for one in others:
            with alone():
                shares.append(backward(one).clone())  # a graph writes the next one to the same place
        return sum(shares, backward(last))

    return step if parts > 1 else backward
