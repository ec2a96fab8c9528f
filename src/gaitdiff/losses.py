"""The losses of stage 2 under their public name, see ``gaitdiff.recognition.losses``."""

from gaitdiff.recognition.losses import (
    Distance,
    TripletTerms,
    cross_entropy,
    pairwise_distance,
    triplet_loss,
    triplet_terms,
)

__all__ = ["Distance", "TripletTerms", "cross_entropy", "pairwise_distance", "triplet_loss", "triplet_terms"]
