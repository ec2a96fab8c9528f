"""Contrastive learning from two clips of each sequence: InfoNCE for each part, without labels.

Sources: van den Oord et al. 2018, "Representation Learning with Contrastive Predictive Coding"; the symmetric form with
both clips of every other sample as negatives, and the projector, Chen et al. 2020, "A Simple Framework for Contrastive
Learning of Visual Representations"; for gait, part by part, Fan et al. 2023, "Learning Gait Representation from Massive
Unlabelled Walking Videos" (GaitSSB).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gaitdiff.diffusion.objective import DiffusionObjective, Noised
from gaitdiff.errors import UserError
from gaitdiff.models.layers.parts import PartLinear
from gaitdiff.utils.shares import gathered


def info_nce(first: Tensor, second: Tensor, owner: Tensor, temperature: float = 0.07) -> Tensor:
    """InfoNCE of two clips of each sequence, the mean over parts and over both clips as anchors; a scalar.

    A clip is to be found among candidates by cosine similarity over the temperature, part by part. Candidates are the
    other clip of the same sample, and all clips of other sequences. Where a sequence is in a batch several times, its
    samples are no candidates of each other. With n sequences, each once, there are 2n - 1 candidates, so that features
    that tell nothing give log(2n - 1).

    Args:
        first, second: (B, C, P) features of the two clips of each sample.
        owner: (B,) which sequence each sample comes from.
        temperature: τ, above 0.

    Raises:
        UserError: shapes that do not fit.
    """
    if first.ndim != 3 or first.shape != second.shape or owner.shape != first.shape[:1]:
        raise UserError(
            f"two clips of each sample have features of one shape (B, C, P) and owners (B,), not {tuple(first.shape)}, "
            f"{tuple(second.shape)} and {tuple(owner.shape)}"
        )
    count, whose = len(first), owner.repeat(2)
    with torch.autocast(first.device.type, enabled=False):
        both = torch.cat([first, second])
        both = F.normalize(both.to(torch.promote_types(both.dtype, torch.float32)), dim=1).permute(2, 0, 1)
        logits = torch.bmm(both, both.mT) / temperature  # (P, 2B, 2B)
        positive = torch.arange(2 * count, device=owner.device).roll(count)  # the other clip of the same sample
        left_out = (whose[:, None] == whose[None, :]).scatter(1, positive[:, None], False)
        rows = logits.masked_fill(left_out, -torch.inf).flatten(0, 1)
        return F.cross_entropy(rows, positive.repeat(len(logits)))


class PartProjector(nn.Module):
    """A perceptron with one hidden layer for each part, both its layers batch-normalised: (B, C, P) → (B, C, P).

    Features before it are what is scored and transferred; see ``gaitdiff.diffusion.objective.ConditionPooling``.
    """

    def __init__(self, parts: int, channels: int, hidden: int) -> None:
        super().__init__()
        self.hidden, self.hidden_norm = PartLinear(parts, channels, hidden), nn.BatchNorm1d(parts * hidden)
        self.out, self.out_norm = PartLinear(parts, hidden, channels), nn.BatchNorm1d(parts * channels, affine=False)

    def forward(self, feature: Tensor) -> Tensor:
        """(B, C, P) → (B, C, P)."""
        hidden = self.hidden(feature)
        hidden = self.hidden_norm(hidden.flatten(1)).view_as(hidden).relu()
        out = self.out(hidden)
        return self.out_norm(out.flatten(1)).view_as(out)


class ContrastiveHead(nn.Module):
    """Projector and loss: what contrastive learning puts behind a backbone.

    Args:
        projector: features (B, C, P) to the same shape.
        temperature: of ``info_nce``.
    """

    def __init__(self, projector: nn.Module, temperature: float) -> None:
        super().__init__()
        self.projector, self.temperature = projector, temperature

    def forward(self, features: Tensor, owner: Tensor) -> Tensor:
        """The loss of features (2B, C, P), those of all first clips before those of all second ones; a scalar."""
        first, second = (gathered(some) for some in self.projector(features).chunk(2))
        return info_nce(first, second, gathered(owner), self.temperature)


class ContrastiveObjective(nn.Module):
    """Backbone and contrastive head as one module whose forward is the loss."""

    def __init__(self, backbone: nn.Module, head: ContrastiveHead) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, first: Tensor, second: Tensor, owner: Tensor) -> Tensor:
        """The loss, a scalar; statistics of BatchNorm are over both clips.

        Args:
            first, second: (B, T, 64, 44) in [0, 1], two clips of each sample.
            owner: (B,) which sequence each sample comes from.
        """
        loss: Tensor = self.head(self.backbone(torch.cat([first, second])), owner)
        return loss


class JointObjective(nn.Module):
    """Diffusion and contrast on one backbone, as one module whose forward is the sum of both losses.

    Args:
        weight: of the contrastive loss.
    """

    def __init__(self, diffusion: DiffusionObjective, head: ContrastiveHead, weight: float) -> None:
        super().__init__()
        self.diffusion, self.head, self.weight = diffusion, head, weight

    @property
    def backbone(self) -> nn.Module:
        """What both train."""
        return self.diffusion.backbone

    def forward(self, latents: Tensor, first: Tensor, noised: Noised, second: Tensor, owner: Tensor) -> Tensor:
        """The loss, a scalar; the first clip's feature is the condition too.

        Args:
            latents, noised: see ``DiffusionObjective``.
            first, second, owner: see ``ContrastiveObjective``.
        """
        features = self.backbone(torch.cat([first, second]))
        loss: Tensor = self.diffusion.loss(features[: len(first)], latents, noised)
        return loss + self.weight * self.head(features, owner)
