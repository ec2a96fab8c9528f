"""Modules through torch.compile, which go on without it where it fails."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from gaitdiff.utils.progress import say


def compile_each(modules: Iterable[nn.Module], trained: nn.Module) -> None:
    """Have modules compiled as they are first called, in place: weights keep their names.

    Those within ``trained`` are compiled for training alone: test sequences come in all lengths, and each would be
    compiled anew. One that cannot be compiled, for want of a C++ compiler or of an operator's translation, computes as
    usual, which is said once.
    """
    import torch._functorch.config  # the compiler takes a second to import, which runs without it need not wait for
    import torch._inductor.config

    if hasattr(torch._functorch.config, "force_non_lazy_backward_lowering"):  # older versions of torch lack it
        torch._functorch.config.force_non_lazy_backward_lowering = True  # what cannot be compiled is known at once
    if next(trained.parameters()).device.type == "cpu":
        # Or a maximum that was rounded to bfloat16 is compared with numbers that were not, and no gradient is finite.
        torch._inductor.config.emulate_precision_casts = True
    within = set(trained.modules())
    for module in modules:
        compiled: Any = _Guarded(module, in_training=module in within)
        module._compiled_call_impl = compiled  # where nn.Module.compile puts it, too


class _Guarded:
    """A module's call, compiled for as long as that works."""

    def __init__(self, module: nn.Module, in_training: bool) -> None:
        def whole(*inputs: Any, **named: Any) -> Any:  # of torch's own modules the call itself is not looked into
            return module._call_impl(*inputs, **named)

        self._module, self._in_training, self._compiled = module, in_training, torch.compile(whole, dynamic=False)

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        from torch._dynamo.exc import TorchDynamoException

        if self._in_training and not self._module.training:
            return self._module._call_impl(*inputs, **named)
        try:
            return self._compiled(*inputs, **named)
        except TorchDynamoException as error:
            self._module._compiled_call_impl = None
            why = " ".join(line.strip() for line in str(error).splitlines()[:2])
            say(f"{type(self._module).__name__} is not compiled, which is slower: {why}")
            return self._module._call_impl(*inputs, **named)
