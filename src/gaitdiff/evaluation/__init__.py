"""Protocols, metrics and features: how well do they tell walkers apart?"""

from gaitdiff.evaluation.metrics import distance_matrix, rank_metrics
from gaitdiff.evaluation.protocols.grew import grew_submission
from gaitdiff.evaluation.protocols.hid import hid_submission
from gaitdiff.evaluation.rerank import rerank
from gaitdiff.evaluation.scoring import evaluate

__all__ = ["distance_matrix", "evaluate", "grew_submission", "hid_submission", "rank_metrics", "rerank"]
