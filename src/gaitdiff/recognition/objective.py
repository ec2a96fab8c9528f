"""What stage 2 minimises: triplet loss, and cross-entropy where the model classifies."""

from __future__ import annotations

from torch import Tensor, nn

from gaitdiff.config.schema import LossConfig
from gaitdiff.models import GaitModel
from gaitdiff.recognition.losses import cross_entropy, triplet_terms
from gaitdiff.utils.shares import gathered


class RecognitionObjective(nn.Module):
    """A gait model and its losses as one module whose forward is the loss."""

    def __init__(self, model: GaitModel, config: LossConfig, cross_entropy_weight: float, frozen: bool) -> None:
        super().__init__()
        self.model, self.config, self.cross_entropy_weight, self.frozen = model, config, cross_entropy_weight, frozen
        if frozen:
            model.backbone.requires_grad_(False)

    def train(self, mode: bool = True) -> RecognitionObjective:
        """As any module; a frozen backbone stays in evaluation mode, its BatchNorm statistics too are frozen."""
        super().train(mode)
        if self.frozen:
            self.model.backbone.eval()
        return self

    def forward(self, clips: Tensor, labels: Tensor) -> Tensor:
        """The loss of clips (n, T, 64, 44) with labels (n,), a scalar; of several processes the mean counts.

        Triplets are of the whole batch, whose clips may be shared among processes.
        """
        output = self.model(clips)
        embedding, whose = gathered(output.embedding), gathered(labels)
        loss = triplet_terms(embedding, whose, self.config.margin, self.config.distance).loss.mean()
        if output.logits is not None:
            entropy = cross_entropy(output.logits, labels, self.config.scale, self.config.smoothing)
            loss = loss + self.cross_entropy_weight * entropy
        return loss
