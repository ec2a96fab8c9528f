"""What training costs, before it is begun: seconds of a step, measured, and bytes of a checkpoint."""

from __future__ import annotations

import time
from typing import Any

from torch import nn

from gaitdiff.config.schema import PretrainConfig
from gaitdiff.training.device import make_accelerator
from gaitdiff.training.finetune import FinetuneStage
from gaitdiff.training.pretrain import PretrainStage
from gaitdiff.training.step import Step
from gaitdiff.utils.devices import memory_told

_STATES = 3  # a parameter's value and the optimiser's two moments
_BYTES = 4


def make_stage(config: Any) -> Any:
    """The stage of a configuration in one process; its ``out`` is not written.

    Raises:
        UserError: the settings cannot be.
    """
    stage = PretrainStage if isinstance(config, PretrainConfig) else FinetuneStage
    return stage(config, make_accelerator(config.machine).device, 1)


def measure_step(stage: Any, config: Any, steps: int = 2) -> float:
    """Seconds of a step, from some that nothing is kept of, the first of them not measured; without evaluations.

    Raises:
        UserError: it does not fit into memory.
    """
    accelerator = make_accelerator(config.machine)
    take_step, seconds = Step(stage, accelerator), []
    with memory_told(f"a step with {stage.size}", "lower them"):
        for step in range(steps + 1):
            started = time.perf_counter()
            take_step(stage.inputs(stage.make_batch(step, 0), step, 0))
            take_step.look()
            seconds.append(time.perf_counter() - started)
    return min(seconds[1:])


def kept_checkpoints(config: Any) -> int:
    """How many checkpoints of a finished run there are."""
    made = -(-config.optim.iterations // config.run.save_every)
    return int(min(config.run.keep or made, made))


def checkpoint_bytes(module: nn.Module) -> int:
    """Bytes of a checkpoint of a module that is trained as a whole, at most."""
    return _BYTES * _STATES * sum(parameter.numel() for parameter in module.parameters())
