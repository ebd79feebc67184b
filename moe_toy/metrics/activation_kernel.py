"""The fast twin, for the CPU, of the sliding count in `activation.py`: it touches only what changes."""

from typing import no_type_check

import numpy as np

from moe_toy.metrics.compiled import compiled


@compiled
@no_type_check
def add_segment_histogram(expert_ids, num_experts, groups, segment_length, histogram):
    """Add the segments of `expert_ids` (layer batch seq k) to `histogram` (group layer expert bins), sequence b to
    group `groups[b]`. Per step only the experts of the token that leaves and of the one that enters change; the
    segments since an expert's last change are counted when it changes again. An expert of -1 is none. A histogram with
    one row on the expert axis pools the experts."""
    num_layers, batch, seq, k = expert_ids.shape
    apart = 1 if histogram.shape[2] == num_experts else 0
    num_segments = seq - segment_length + 1
    if num_segments < 1:
        return
    uses = np.empty(num_experts, np.int64)
    since = np.empty(num_experts, np.int64)
    for layer in range(num_layers):
        for b in range(batch):
            ids = expert_ids[layer, b]
            into = histogram[groups[b], layer]
            uses[:] = 0
            since[:] = 0
            for t in range(segment_length):
                for j in range(k):
                    if ids[t, j] >= 0:
                        uses[ids[t, j]] += 1
            for start in range(1, num_segments):
                for j in range(k):
                    expert = ids[start - 1, j]
                    if expert < 0:
                        continue
                    into[expert * apart, uses[expert]] += start - since[expert]
                    since[expert] = start
                    uses[expert] -= 1
                for j in range(k):
                    expert = ids[start + segment_length - 1, j]
                    if expert < 0:
                        continue
                    into[expert * apart, uses[expert]] += start - since[expert]
                    since[expert] = start
                    uses[expert] += 1
            for expert in range(num_experts):
                into[expert * apart, uses[expert]] += num_segments - since[expert]
