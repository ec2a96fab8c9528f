"""Protocols, metrics and features: how well do they tell walkers apart?"""

from gaitdiff.evaluation.metrics import distance_matrix, rank_metrics
from gaitdiff.evaluation.protocols import PROTOCOLS, evaluate

__all__ = ["PROTOCOLS", "distance_matrix", "evaluate", "rank_metrics"]
