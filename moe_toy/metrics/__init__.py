"""Pure functions from routing decisions to additive counts, and from counts to scores."""

from moe_toy.metrics.analyze import analyze
from moe_toy.metrics.base import RoutingMetric
from moe_toy.metrics.bootstrap import IndexResampler, Interval, PoissonResampler, Resampler, basic_interval
from moe_toy.metrics.cache import CacheHitRate, CacheScores, cache_hits
from moe_toy.metrics.coactivation import CoActivation, CoActivationScores
from moe_toy.metrics.correlation import correlation_matrix, pearson
from moe_toy.metrics.load_balance import LoadBalance, LoadBalanceScores, LoadScores, activation_rate_std
from moe_toy.metrics.null_models import NullScores, null_scores, shuffle
from moe_toy.metrics.positions import PositionScores, PositionSRP
from moe_toy.metrics.saturation import Saturation, SaturationScores
from moe_toy.metrics.shuffled import ShuffledScores, ShuffledSRP
from moe_toy.metrics.specialization import DomainScores, DomainSpecialization, domain_scores
from moe_toy.metrics.srp import SRP, SegmentScores, SRPScores, segment_scores, srp_scores
from moe_toy.metrics.srp_intervals import SRPBootstrap, SRPIntervals
from moe_toy.metrics.vocabulary import VocabularyScores, VocabularySpecialization, vocabulary_scores

__all__ = [
    "SRP",
    "CacheHitRate",
    "CacheScores",
    "CoActivation",
    "CoActivationScores",
    "DomainScores",
    "DomainSpecialization",
    "IndexResampler",
    "Interval",
    "LoadBalance",
    "LoadBalanceScores",
    "LoadScores",
    "NullScores",
    "PoissonResampler",
    "PositionSRP",
    "PositionScores",
    "Resampler",
    "RoutingMetric",
    "SRPBootstrap",
    "SRPIntervals",
    "SRPScores",
    "Saturation",
    "SaturationScores",
    "SegmentScores",
    "ShuffledSRP",
    "ShuffledScores",
    "VocabularyScores",
    "VocabularySpecialization",
    "activation_rate_std",
    "analyze",
    "basic_interval",
    "cache_hits",
    "correlation_matrix",
    "domain_scores",
    "null_scores",
    "pearson",
    "segment_scores",
    "shuffle",
    "srp_scores",
    "vocabulary_scores",
]
