"""What the curves of a run are called: `section/metric@parameter/detail`.

Weights & Biases makes a section of charts of what stands before the first slash. A detail is a layer (`layer_03`,
numbered as in the transformer, dense ones counted), a domain (`domain/books`) or a cache ratio (`ratio_1.5`), so that
no name of a domain can be taken for a layer.
"""

import re

CONSISTENCY, CACHE, LOAD = "consistency", "cache", "load"
SPECIALIZATION, CORRELATION, ROUTER = "specialization", "correlation", "router"
OLD_NAMES = (
    (r"routing/srp_correlation@", f"{CORRELATION}/srp@"),
    (r"routing/srp@", f"{CONSISTENCY}/srp@"),
    (r"routing/(sch@|lru|lfu|belady)", rf"{CACHE}/\1"),
    (r"routing/load_cv", f"{LOAD}/cv"),
    (r"routing/(max_violation|dead_experts)", rf"{LOAD}/\1"),
    (r"routing/domain_specialization/undefined_experts", f"{SPECIALIZATION}/undefined_experts"),
    (r"routing/domain_specialization", f"{SPECIALIZATION}/domain"),
    (r"routing/vocabulary_specialization/", f"{SPECIALIZATION}/"),
    (r"routing/saturation", f"{ROUTER}/saturation"),
)
BY_DOMAIN = re.compile(rf"({CONSISTENCY}/srp@\d+/(?!layer_\d+$)|val/(?:loss|bits_per_byte)/)(?!domain/)(.+)")


def of_layer(key: str, layer: int) -> str:
    return f"{key}/layer_{layer:02d}"


def of_domain(key: str, domain: str) -> str:
    return f"{key}/domain/{domain}"


def present_name(key: str) -> str:
    """The name of a curve that an earlier version called `key`; others stay as they are."""
    for old, new in OLD_NAMES:
        key = re.sub(rf"^{old}", new, key)
    return BY_DOMAIN.sub(r"\1domain/\2", key)
