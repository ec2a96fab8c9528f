"""One step of training: forward, backward, clipping, the optimiser. It looks at no value on the device.

Reading a loss makes the host wait until the device has computed it, and the device then waits for the host. So losses
stay on the device until ``look``. A step whose loss or gradient is not finite changes no weight, nor does any after it:
the optimiser is told on the device, as a gradient scaler tells it, and ``look`` finds the step and the weights before.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor, nn

from gaitdiff.training.accumulate import in_micro_batches
from gaitdiff.training.average import Average
from gaitdiff.training.compiled import compile_each
from gaitdiff.training.graph import GraphedBackward, Inputs
from gaitdiff.utils.shares import processes

_AHEAD = 2


class Trained(Protocol):
    """What a step needs of a stage.

    Attributes:
        optimizer: over the module's parameters; the groups' ``lr`` are the base learning rates.
        clip_grad: see the optimiser's configuration.
        graphed: whether each step's inputs have the same shapes and its loss looks at no value on the device.
        compiled: what of its modules torch.compile is to make kernels for.
        accumulate: in how many micro-batches a step is computed.
        average: of the weights, which is what is scored and kept.
    """

    optimizer: torch.optim.Optimizer
    clip_grad: float
    graphed: bool
    compiled: Sequence[nn.Module]
    accumulate: int
    average: Average

    @property
    def module(self) -> nn.Module:
        """All that is trained, as one module.

        Its forward makes the loss, so that it can be wrapped for several processes.
        """


class Look(NamedTuple):
    """What steps came to since the last look.

    Attributes:
        losses: of those that went well, in their order.
        failed: loss and norm of the gradient of the step after them, where one of these is not finite.
    """

    losses: list[float]
    failed: tuple[float, float] | None


class Step:
    """Takes steps of a stage, whose module it puts on the device, has compiled where that is asked for, and wraps."""

    def __init__(self, stage: Trained, accelerator: Accelerator) -> None:
        self._stage, self._accelerator = stage, accelerator
        stage.module.to(accelerator.device)
        if stage.compiled:
            compile_each(stage.compiled, stage.module)
        self._module, self._optimizer = accelerator.prepare(stage.module, stage.optimizer)
        self._fused = bool(stage.optimizer.defaults.get("fused"))
        self._backward = _backward(stage, self._module, accelerator)
        self._failed = torch.zeros((), dtype=torch.float32, device=accelerator.device)
        self._taken: list[tuple[Tensor, Tensor]] = []
        self._ahead: deque[Any] = deque()
        if not self._fused:
            _keep_counters_on_cpu(stage.optimizer)

    @property
    def eager(self) -> bool:
        """Whether each step is to be looked at: where that costs nothing, or the optimiser cannot be held back."""
        return self._accelerator.device.type == "cpu" or not self._fused

    def __call__(self, inputs: Inputs) -> None:
        """Take a step."""
        self._module.train()
        loss = self._backward(inputs)
        norm = self._accelerator.clip_grad_norm_(self._module.parameters(), self._stage.clip_grad or math.inf)
        assert norm is not None
        norm = torch.as_tensor(norm, device=loss.device)
        self._taken.append((loss.clone(), norm))  # a graph writes the next loss to the same place
        self._failed = torch.maximum(self._failed, (~torch.isfinite(loss + norm)).float())
        if processes() > 1:
            dist.all_reduce(self._failed, dist.ReduceOp.MAX)
        if not self.eager:
            _hold_where(self._failed, self._stage.optimizer)
        elif bool(self._failed):
            return
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._stage.average.step(self._failed)
        self._keep_pace()

    def _keep_pace(self) -> None:
        """Let a GPU fall two steps behind at most: what it has not computed yet takes its memory."""
        if self._accelerator.device.type != "cuda":
            return
        self._ahead.append(torch.cuda.current_stream().record_event())
        if len(self._ahead) > _AHEAD:
            self._ahead.popleft().synchronize()

    def look(self) -> Look:
        """Wait for the device, and see what steps came to since the last look; all processes look together."""
        if not self._taken:
            return Look([], None)
        values = torch.stack([torch.stack((loss.float(), norm.float())) for loss, norm in self._taken])
        if processes() > 1:  # each has the loss of its share
            dist.all_reduce(values)
            values /= processes()
        self._taken = []
        losses: list[float] = []
        for loss, norm in values.tolist():
            if not math.isfinite(loss + norm):
                return Look(losses, (loss, norm))
            losses.append(loss)
        return Look(losses, None)


def fused(device: torch.device) -> bool | None:
    """What an optimiser's argument ``fused`` is on a device: one kernel for all parameters where torch has it."""
    return None if device.type == "mps" else True


def _backward(stage: Trained, module: nn.Module, accelerator: Accelerator) -> Callable[[Inputs], Tensor]:
    """Loss of a stage's module, as it is wrapped, whose gradients it leaves at the parameters."""
    parts = stage.accumulate

    def share(inputs: Inputs) -> Tensor:
        loss: Tensor = module(*inputs) / parts
        accelerator.backward(loss)
        return loss.detach()

    recorded = GraphedBackward(module, share, parts) if stage.graphed else share
    return in_micro_batches(recorded, parts, partial(accelerator.no_sync, module))


def _hold_where(failed: Tensor, optimizer: Any) -> None:
    """Have a fused optimiser's next step change nothing where ``failed`` is 1.

    SGD gets zeros to begin its momentum with, the same as none: a held first step would leave it what memory holds.
    """
    optimizer.found_inf = failed
    for group in optimizer.param_groups:
        if group.get("momentum"):
            for parameter in group["params"]:
                if parameter.grad is not None and "momentum_buffer" not in optimizer.state[parameter]:
                    optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def _keep_counters_on_cpu(optimizer: torch.optim.Optimizer) -> None:
    """Put step counters back where an optimiser that is not fused reads them without waiting for the device."""
    for state in optimizer.state.values():
        if isinstance(state.get("step"), Tensor):
            state["step"] = state["step"].cpu()
