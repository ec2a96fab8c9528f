"""A device that computes nothing: what a training step asks of an accelerator, seen without one.

Tensors are fake ones (shapes and devices without numbers) on a backend of torch's for such purposes. Whatever needs a
number on the host raises DataDependentOutputException or DynamicOutputShapeException there, whatever mixes devices
FakeTensorDeviceMismatchError. The backend stays registered, so this runs in a process of its own:

    python phantom.py STORE OUT CASE...

prints a JSON object by case: how many transfers from the host making the inputs took, and the step; and how many
operators the step ran that are no mere views. A case is a stage and flags, as words between commas.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

from gaitdiff.config.recipe import parse_config
from gaitdiff.config.schema import FinetuneConfig, PretrainConfig
from gaitdiff.training.finetune import FinetuneStage
from gaitdiff.training.pretrain import PretrainStage
from gaitdiff.training.step import Step

DEVICE = "phantom:0"


class Backend(_DummyBackendModule):
    """What torch asks of a backend's module."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


class Watch(TorchDispatchMode):
    """Counts operators, and copies from the host to the device."""

    def __init__(self) -> None:
        super().__init__()
        self.operators: Counter[str] = Counter()
        self.transfers = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        if not function.is_view and function.namespace == "aten":
            self.operators[str(function)] += 1
        sources = [value.device.type for value in args if isinstance(value, Tensor) and value.ndim > 0]
        copies = "_to_copy" in str(function) or "copy_" in str(function)
        if copies and isinstance(out, Tensor) and out.device.type == "phantom" and "cpu" in sources:
            self.transfers += 1
        return out


class Process:
    """In place of accelerate's Accelerator, which knows no phantoms."""

    def __init__(self) -> None:
        self.device = torch.device(DEVICE)

    def prepare(self, *parts: Any) -> tuple[Any, ...]:
        return parts

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def no_sync(self, _: nn.Module) -> AbstractContextManager[None]:
        return nullcontext()

    def clip_grad_norm_(self, parameters: Iterator[nn.Parameter], most: float) -> Tensor:
        return nn.utils.clip_grad_norm_(list(parameters), most)


def main(store: str, out: str, *cases: str) -> None:
    _setup_privateuseone_for_python_backend("phantom", Backend())
    library = torch.library.Library("aten", "IMPL", "Meta")  # the one fused optimiser that torch knows no shapes of
    library.impl("_fused_sgd_", lambda *_, **__: None)
    for case in cases:
        stage, *words = case.split(",")
        print(json.dumps({case: observe(stage, [*words, "--data.store", store, "--out", out])}), flush=True)


def observe(verb: str, words: list[str]) -> dict[str, Any]:
    """What two steps of a stage ask of the device; the second is told."""
    stage: Any
    if verb == "pretrain":
        config = parse_config(PretrainConfig, "phantom", words)
        stage = PretrainStage(config, torch.device("cpu"), 1)
    else:
        tuned = parse_config(FinetuneConfig, "phantom", words)
        stage = FinetuneStage(tuned, torch.device("cpu"), 1)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, moved(stage, mode):
        step = Step(stage, Process())  # type: ignore[arg-type]
        found: dict[str, Any] = {}
        for number in range(2):
            batch = stage.make_batch(number, 0)
            with Watch() as making:
                inputs = stage.inputs(batch, number, 0)
            with Watch() as taking:
                step(inputs)
            found = {"transfers": [making.transfers, taking.transfers], "operators": taking.operators.total()}
    return found


@contextmanager
def moved(stage: Any, mode: FakeTensorMode) -> Iterator[None]:
    """Within the block a stage made on the CPU is one on the device, and arrays become fake tensors."""
    device, parameters = torch.device(DEVICE), {}

    def phantom(value: Tensor) -> Tensor:
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=device)

    parts = [stage.module, stage.average.network]
    stage.device = device
    if hasattr(stage, "pretext"):
        for owner in (stage.pretext, getattr(stage.pretext, "diffusion", stage.pretext)):
            owner.clips.device = device
            parts += [owner.autoencoder] if hasattr(owner, "autoencoder") else []
    for module in (module for part in parts for module in part.modules()):
        for name, value in module._parameters.items():
            if value is not None and value.device.type == "cpu":
                if value not in parameters:
                    parameters[value] = nn.Parameter(phantom(value), requires_grad=value.requires_grad)
                module._parameters[name] = parameters[value]
        for name, buffer in module._buffers.items():
            if buffer is not None and buffer.device.type == "cpu":
                module._buffers[name] = phantom(buffer)
    stage.module.to = lambda _: stage.module  # it is there, and a fake tensor cannot be moved
    for group in stage.optimizer.param_groups:
        group["params"] = [parameters[value] for value in group["params"]]
    from_numpy, generator = torch.from_numpy, torch.Generator
    torch.from_numpy = lambda array: mode.from_tensor(from_numpy(array))  # type: ignore[assignment]
    torch.Generator = lambda _: generator()  # type: ignore[assignment,misc]
    try:
        yield
    finally:
        torch.from_numpy, torch.Generator = from_numpy, generator  # type: ignore[misc]


if __name__ == "__main__":
    main(*sys.argv[1:])
