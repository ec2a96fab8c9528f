"""Protocols, metrics and features: how well do they tell walkers apart?"""

from gaitdiff.evaluation.metrics import distance_matrix, rank_metrics
from gaitdiff.evaluation.protocols.registry import evaluate
from gaitdiff.evaluation.protocols.submission import grew_submission, hid_submission
from gaitdiff.evaluation.rerank import rerank

__all__ = ["distance_matrix", "evaluate", "grew_submission", "hid_submission", "rank_metrics", "rerank"]
