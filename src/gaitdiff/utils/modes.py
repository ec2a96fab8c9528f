"""Modules in evaluation mode for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode for a while, then back into the mode it was in, whatever happens."""
    was_training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(was_training)
