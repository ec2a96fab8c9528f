"""An exponential moving average of what a run trains: scored, kept and transferred in place of the last weights.

Source: Polyak & Juditsky 1992, "Acceleration of Stochastic Approximation by Averaging", with weights that fade.
"""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import torch
from torch import Tensor, nn

from gaitdiff.training.checkpoint import load_into
from gaitdiff.training.checkpoint_files import read_tensors, tensor_file

#: The file of a checkpoint that holds the weights as trained, where the others hold averaged ones.
RAW = "raw"


class Average:
    """The average of a module's weights over the steps of a run: decay · average + (1 - decay) · weights.

    It begins with the first weights. Buffers, which are BatchNorm's statistics, are the module's as they are.

    Args:
        module: what is trained.
        decay: 0 for none.
        device: where the module will be trained.

    Attributes:
        network: what is to be scored and kept: an averaged copy, or without decay the module itself.
    """

    def __init__(self, module: nn.Module, decay: float, device: torch.device) -> None:
        self._module, self._decay = module, decay
        self.network = module
        if decay > 0:
            self.network = deepcopy(module).requires_grad_(False).to(device)

    @torch.no_grad()
    def step(self, held: Tensor | float = 0.0) -> None:
        """Take the module's weights into the average; after each step of the optimiser.

        Args:
            held: 1 where the optimiser was held back, and the average is too; otherwise 0.
        """
        if self._decay == 0:
            return
        averages: list[Tensor] = list(self.network.parameters())
        moves = torch._foreach_sub(list(self._module.parameters()), averages)
        torch._foreach_mul_(moves, (1 - self._decay) * (1 - held))
        torch._foreach_add_(averages, moves)
        for mine, current in zip(self.network.buffers(), self._module.buffers(), strict=True):
            mine.copy_(current)

    def raw(self) -> dict[str, dict[str, Tensor]]:
        """The weights as trained, for a checkpoint that holds averaged ones; nothing where they are the same."""
        return {} if self._decay == 0 else {RAW: self._module.state_dict()}

    def load_raw(self, checkpoint: Path) -> None:
        """Give the module its weights as trained, after ``network`` has those of the checkpoint's other files."""
        if tensor_file(checkpoint, RAW).is_file():
            load_into(self._module, read_tensors(checkpoint, RAW), str(checkpoint))
        elif self._decay > 0:  # averaged from here on
            self._module.load_state_dict(self.network.state_dict())
