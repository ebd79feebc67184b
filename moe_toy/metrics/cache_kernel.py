"""One pass over a priority stack counts the hits of caches of every capacity at once (Mattson et al. 1970).

With unique eviction keys the cache of capacity C + 1 always holds the cache of capacity C and one item more. So one
stack describes them all: its top C items are the cache of capacity C, and a request for the item at position p (from 0)
hits wherever C > p. A requested item moves to the top; the one it displaces sinks, and at every position the item with
the smaller key sinks on, down to where the requested item came from.

With LRU the stack is always sorted by last use, so positions can be counted, without a stack.
"""

from typing import no_type_check

import numpy as np

from moe_toy.metrics.compiled import compiled

SCH, LFU, BELADY = range(3)
POLICIES = {"sch": SCH, "lfu": LFU, "belady": BELADY}

# A key is one integer, (kept, count, time, item): what is in use now stays, then the larger count, then the later time;
# the item comes along for free.
ITEM_BITS = 16
TIME_BITS = 26
COUNT_SHIFT = ITEM_BITS + TIME_BITS
ITEM_MASK = 2**ITEM_BITS - 1
KEPT = 1 << 62
MAX_ITEMS = 2**ITEM_BITS
MAX_REQUESTS = 2**TIME_BITS - 2
MAX_COUNT = 2 ** (62 - COUNT_SHIFT) - 1


@compiled
@no_type_check
def count_hits(  # noqa: PLR0912, PLR0915, PLR0917
    requests, ends, sights, counted, sizes, whole_prompt, hits_at, distinct, policy, keep
):
    """Count the repeated requests that find their item at each stack position into `hits_at` (row batch position), and
    the distinct items into `distinct` (row batch 2): before counting begins, and at the end.

    `requests` (row batch request) holds the lookups of each sequence one after another, the most important item of each
    first; negative ones are none. Lookup i ends before `ends[b, i]`, and `sights[b, i]` is how far SCH sees then. All
    items of a lookup are looked up before any of them moves; with `keep` none of them evicts another. Lookups from
    `counted[b]` on count; with `whole_prompt` the first of them finds all that came before. `sizes` (item) are empty
    where items are of one size; otherwise positions are sums of sizes, in units of their mean."""
    rows, batch, size = requests.shape
    num_items = hits_at.shape[2]
    total = sizes.sum()
    stack = np.empty(num_items, np.int64)
    position = np.empty(num_items, np.int64)
    count = np.empty(num_items, np.int64)  # SCH: uses left in the segment; LFU: uses so far
    next_use = np.empty(num_items, np.int64)
    times = np.empty(size, np.int64)
    for row in range(rows):
        for b in range(batch):
            items = requests[row, b]
            depth = 0
            position[:] = -1
            count[:] = 0
            next_use[:] = size
            for now in range(size - 1, -1, -1):
                item = items[now]
                if item >= 0:
                    times[now] = size - next_use[item] if policy == BELADY else now
                    next_use[item] = now
            begin, seen = 0, 0
            for lookup in range(ends.shape[1]):
                end = ends[b, lookup]
                if lookup == counted[b]:
                    distinct[row, b, 0] = depth
                if policy == SCH:
                    for ahead in range(seen, sights[b, lookup]):  # what comes into sight
                        item = items[ahead]
                        if item >= 0:
                            count[item] += 1
                            if position[item] >= 0:
                                stack[position[item]] += 1 << COUNT_SHIFT
                    seen = max(seen, sights[b, lookup])
                for now in range(begin, end):
                    if items[now] >= 0:
                        found = position[items[now]]
                        if found >= 0:
                            if lookup == counted[b] and whole_prompt:
                                hits_at[row, b, 0] += 1
                            elif lookup >= counted[b] and total:
                                above = 0
                                for p in range(found + 1):
                                    above += sizes[stack[p] & ITEM_MASK]
                                hits_at[row, b, (above * num_items - 1) // total] += 1
                            elif lookup >= counted[b]:
                                hits_at[row, b, found] += 1
                            if keep:
                                stack[found] |= KEPT
                for now in range(begin, end):
                    item = items[now]
                    if item < 0:
                        continue
                    if policy == SCH:
                        count[item] -= 1
                    elif policy == LFU:
                        count[item] += 1
                    came_from = position[item]
                    if came_from < 0:
                        came_from = depth
                        depth += 1
                    if came_from > 0:
                        sinking = stack[0]
                        for p in range(1, came_from):  # without branches: which item sinks is hard to predict
                            met = stack[p]
                            stays = met if met > sinking else sinking
                            sinking = sinking if met > sinking else met
                            stack[p] = stays
                            position[stays & ITEM_MASK] = p
                        stack[came_from] = sinking
                        position[sinking & ITEM_MASK] = came_from
                    stack[0] = (count[item] << COUNT_SHIFT) | (times[now] << ITEM_BITS) | item
                    if keep:
                        stack[0] |= KEPT
                    position[item] = 0
                if keep:
                    for now in range(begin, end):
                        if items[now] >= 0:
                            stack[position[items[now]]] &= ~KEPT
                begin = end
            distinct[row, b, 1] = depth


@compiled
@no_type_check
def count_lru_hits(requests, ends, counted, sizes, whole_prompt, hits_at, distinct):  # noqa: PLR0912, PLR0917
    """`count_hits` for LRU: the position of an item is the number of items used after it."""
    rows, batch, _ = requests.shape
    num_items = hits_at.shape[2]
    total = sizes.sum()
    last = np.empty(num_items, np.int64)
    for row in range(rows):
        for b in range(batch):
            items = requests[row, b]
            last[:] = -1
            begin = 0
            for lookup in range(ends.shape[1]):
                end = ends[b, lookup]
                for now in range(begin, end):
                    used = last[items[now]] if items[now] >= 0 else -1
                    if used >= 0 and lookup >= counted[b]:
                        later = 0
                        if lookup == counted[b] and whole_prompt:
                            pass
                        elif total:
                            for item in range(num_items):
                                later += sizes[item] * (last[item] >= used)
                            later = (later * num_items - 1) // total
                        else:
                            for item in range(num_items):
                                later += last[item] > used
                        hits_at[row, b, later] += 1
                for now in range(begin, end):
                    if items[now] >= 0:
                        if last[items[now]] < 0:
                            distinct[row, b, 1] += 1
                            distinct[row, b, 0] += lookup < counted[b]
                        last[items[now]] = now
                begin = end
