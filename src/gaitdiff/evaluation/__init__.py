"""Protocols, metrics and features: how well do they tell walkers apart?"""

from gaitdiff.evaluation.metrics import distance_matrix, rank_metrics
from gaitdiff.evaluation.protocols import evaluate

__all__ = ["distance_matrix", "evaluate", "rank_metrics"]
