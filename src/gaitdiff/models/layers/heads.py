"""Heads that several models share: part FCs alone, and part FCs before a BN neck."""

from __future__ import annotations

from torch import Tensor, nn

from gaitdiff.models.base import Head
from gaitdiff.models.layers.parts import PartBNNeck, PartLinear, initialize
from gaitdiff.models.registry import Rules

#: OpenGait's names of part FCs and the BN neck behind them.
NECK_NAMES: Rules = [
    (r"head\.fc\.weight", "FCs.fc_bin"),
    (r"head\.neck\.norm\.(\w+)", r"BNNecks.bn1d.\1"),
    (r"head\.neck\.classifier\.weight", "BNNecks.fc_bin"),
]


class PartHead(Head):
    """Part FCs give the embedding; there is no classifier."""

    num_classes = 0

    def __init__(self, parts: int, channels: int, embedding: int, normalize: bool = False) -> None:
        super().__init__()
        self.norm = input_norm(parts, channels, normalize)
        self.fc = PartLinear(parts, channels, embedding)

    def forward(self, feature: Tensor) -> tuple[Tensor, None]:
        """Feature (B, C, P) → embedding (B, C', P), and no logits."""
        return self.fc(over_columns(self.norm, feature)), None


class BNNeckHead(Head):
    """Part FCs give the embedding; a BN neck behind them gives the logits.

    The embedding is the vector before the neck, in training and at test time.
    """

    cross_entropy = 0.1

    def __init__(self, parts: int, channels: int, embedding: int, num_classes: int, normalize: bool = False) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.norm = input_norm(parts, channels, normalize)
        self.fc = PartLinear(parts, channels, embedding)
        self.neck = PartBNNeck(parts, embedding, num_classes)
        initialize(self)
        if not num_classes:
            self.neck.requires_grad_(False)  # nothing learns from it

    def forward(self, feature: Tensor) -> tuple[Tensor, Tensor | None]:
        """Feature (B, C, P) → embedding (B, C', P), logits (B, K, P) or None."""
        embedding = self.fc(over_columns(self.norm, feature))
        return embedding, self.neck(embedding)[1] if self.num_classes else None

    def neck_feature(self, embedding: Tensor) -> Tensor:
        """Embedding (B, C', P) → the same shape, normalised by the neck."""
        feature: Tensor = self.neck(embedding)[0]
        return feature


def input_norm(parts: int, channels: int, wanted: bool) -> nn.Module:
    """BatchNorm without learned scale over all C·P columns of a feature, or nothing; see ``over_columns``.

    Not in the published models; it keeps the triplet loss of the narrow presets from resting at its margin.
    """
    return nn.BatchNorm1d(parts * channels, affine=False) if wanted else nn.Identity()


def over_columns(norm: nn.Module, feature: Tensor) -> Tensor:
    """Apply a norm to a feature's columns: (B, C, P) → (B, C, P)."""
    normed: Tensor = norm(feature.flatten(1))
    return normed.view_as(feature)
