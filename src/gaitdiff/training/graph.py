"""A training step on a GPU: inputs made ahead in a stream of their own, forward and backward as one CUDA graph.

A narrow backbone and denoiser take thousands of kernels a step, each shorter than the time in which Python starts it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from gaitdiff.utils.nested import leaves, replaced
from gaitdiff.utils.progress import say

Batch = TypeVar("Batch")
#: What a stage's module takes: tensors, and named tuples of tensors.
Inputs = tuple[Any, ...]
#: Held while a graph is recorded: nothing else may be asked of the device meanwhile.
_recording = threading.Lock()
_WARM_UP = 3


def inputs_ahead(
    make: Callable[[int], Batch], inputs: Callable[[Batch, int], Inputs], device: torch.device
) -> Callable[[int], tuple[Batch, Callable[[], Inputs]]]:
    """Return a function from a step to its batch and a function that gives the batch's inputs.

    Called from another thread. On CUDA the inputs are made there and then, in a stream of their own, while the device
    computes an earlier step; elsewhere when they are asked for.
    """
    if device.type != "cuda":

        def later(step: int) -> tuple[Batch, Callable[[], Inputs]]:
            batch = make(step)
            return batch, lambda: inputs(batch, step)

        return later
    stream = torch.cuda.Stream(device)

    def ahead(step: int) -> tuple[Batch, Callable[[], Inputs]]:
        torch.cuda.set_device(stream.device)  # a new thread's is the first one, where leaving the stream would go
        batch = make(step)
        with _recording, torch.cuda.stream(stream):
            made = inputs(batch, step)
            ready = stream.record_event()

        def take() -> Inputs:
            current = torch.cuda.current_stream(device)
            current.wait_event(ready)
            for value in leaves(made, Tensor):
                value.record_stream(current)
            return made

        return batch, take

    return ahead


class GraphedBackward:
    """Loss and gradients of a module by a CUDA graph, which is recorded at the first call and replayed at each.

    The module must take inputs of the same shapes at every call and not look at a value on the way; where it cannot be
    recorded it is computed as usual, which is said.

    Args:
        module: its forward gives the loss.
        usual: what does the same for inputs where there is no graph.
        parts: of how many calls the gradients are to add up; loss and gradients are divided by it.
    """

    def __init__(self, module: nn.Module, usual: Callable[[Inputs], Tensor], parts: int = 1) -> None:
        self._module, self._usual, self._parts = module, usual, parts
        self._graph: torch.cuda.CUDAGraph | None = None
        self._refused = False

    def __call__(self, inputs: Inputs) -> Tensor:
        """The loss, a scalar without gradient; the gradients are the parameters', added to those that are there."""
        if self._graph is None and not self._refused:
            with _recording:
                self._try_recording(inputs)
        if self._graph is None:
            return self._usual(inputs)
        for mine, given in zip(leaves(self._inputs, Tensor), leaves(inputs, Tensor), strict=True):
            mine.copy_(given)
        self._graph.replay()
        for parameter, gradient in self._gradients:
            if parameter.grad is not None:
                parameter.grad.add_(gradient)
            else:
                parameter.grad = gradient.clone() if self._parts > 1 else gradient
        return self._loss

    def _try_recording(self, inputs: Inputs) -> None:
        kept = [(buffer, buffer.clone()) for buffer in self._module.buffers()]
        try:
            self._record(inputs)
        except RuntimeError as error:
            self._refused = True
            say(f"no CUDA graph of this step, which is slower without one: {str(error).splitlines()[0]}")
        finally:
            for parameter in self._module.parameters():
                parameter.grad = None
            for buffer, value in kept:  # as if the rehearsals had not been
                buffer.copy_(value)

    def _record(self, inputs: Inputs) -> None:
        self._inputs = replaced(inputs, Tensor, Tensor.clone)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP):
                self._module(*self._inputs).backward()
        torch.cuda.current_stream().wait_stream(side)
        for parameter in self._module.parameters():
            parameter.grad = None
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            loss = self._module(*self._inputs) / self._parts
            loss.backward()
        self._loss = loss.detach()
        self._gradients = [(p, p.grad) for p in self._module.parameters() if p.grad is not None]
        self._graph = graph
