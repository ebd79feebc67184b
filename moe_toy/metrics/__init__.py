"""Pure functions from routing decisions to additive counts, and from counts to scores."""

from moe_toy.metrics.base import RoutingMetric
from moe_toy.metrics.correlation import correlation_matrix, pearson
from moe_toy.metrics.load_balance import LoadBalance, LoadBalanceScores, LoadScores, activation_rate_std
from moe_toy.metrics.specialization import DomainScores, DomainSpecialization, domain_scores
from moe_toy.metrics.srp import SRP, SegmentScores, SRPScores, segment_scores, srp_scores
from moe_toy.metrics.vocabulary import VocabularyScores, VocabularySpecialization, vocabulary_scores

__all__ = [
    "SRP",
    "DomainScores",
    "DomainSpecialization",
    "LoadBalance",
    "LoadBalanceScores",
    "LoadScores",
    "RoutingMetric",
    "SRPScores",
    "SegmentScores",
    "VocabularyScores",
    "VocabularySpecialization",
    "activation_rate_std",
    "correlation_matrix",
    "domain_scores",
    "pearson",
    "segment_scores",
    "srp_scores",
    "vocabulary_scores",
]
