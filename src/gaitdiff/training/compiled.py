"""Modules through torch.compile, which go on without it where it fails."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch._dynamo.exc import TorchDynamoException

from gaitdiff.utils.progress import say


def compile_each(modules: Iterable[nn.Module]) -> None:
    """Have modules compiled as they are first called, in place: weights keep their names.

    Those that train are compiled for training alone: test sequences come in all lengths, and each would be compiled
    anew. One that cannot be compiled, for want of a C++ compiler or of an operator's translation, computes as usual,
    which is said once.
    """
    for module in modules:
        compiled: Any = _Guarded(module)
        module._compiled_call_impl = compiled  # where nn.Module.compile puts it, too


class _Guarded:
    """A module's call, compiled for as long as that works."""

    def __init__(self, module: nn.Module) -> None:
        self._module, self._compiled = module, torch.compile(module._call_impl, dynamic=False)
        self._frozen = not any(parameter.requires_grad for parameter in module.parameters())

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        if not (self._frozen or self._module.training):
            return self._module._call_impl(*inputs, **named)
        try:
            return self._compiled(*inputs, **named)
        except TorchDynamoException as error:
            self._module._compiled_call_impl = None
            why = " ".join(line.strip() for line in str(error).splitlines()[:2])
            say(f"{type(self._module).__name__} is not compiled, which is slower: {why}")
            return self._module._call_impl(*inputs, **named)
