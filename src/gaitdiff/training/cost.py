"""What training costs, before it is begun: seconds of a step, measured, and bytes of a checkpoint."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from gaitdiff.config.schema import PretrainConfig
from gaitdiff.training.device import make_accelerator, memory_told
from gaitdiff.training.finetune import FinetuneStage
from gaitdiff.training.pretrain import PretrainStage

_STATES = 3  # a parameter's value and the optimiser's two moments
_BYTES = 4


@dataclass(frozen=True)
class StepCost:
    """What a step costs, and what is kept of the run.

    Attributes:
        seconds: of a step, without evaluations.
        checkpoint: bytes of one, at most.
        parameters: that are trained or frozen, the autoencoder's not counted.
    """

    seconds: float
    checkpoint: int
    parameters: int


def measure_step(config: Any, steps: int = 2, frozen: bool = False) -> StepCost:
    """Take some steps of a run that nothing is kept of, the first of them not measured.

    Args:
        config: of a stage; its ``out`` is not written.
        frozen: as if ``mode`` were "frozen".

    Raises:
        UserError: the settings cannot be, or do not fit into memory.
    """
    accelerator = make_accelerator(config.machine)
    pretrains = isinstance(config, PretrainConfig)
    stage: Any = (PretrainStage if pretrains else FinetuneStage)(config, accelerator.device, 1)
    if frozen:
        stage.module.frozen = True
    stage.module.to(accelerator.device).train()
    module, optimizer = accelerator.prepare(stage.module, stage.optimizer)
    seconds = []
    with memory_told(stage.size):
        for step in range(steps + 1):
            started = time.perf_counter()
            loss = module(*stage.inputs(stage.make_batch(step, 0), step, 0))
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            float(loss.detach())  # waits for the device
            seconds.append(time.perf_counter() - started)
    parameters = sum(parameter.numel() for parameter in stage.module.parameters())
    return StepCost(min(seconds[1:]), _BYTES * _STATES * parameters, parameters)
