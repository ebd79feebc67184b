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

# A key is one integer, (count, time, item): the larger count stays, then the later time; the item comes along for free.
ITEM_BITS = 16
TIME_BITS = 26
COUNT_SHIFT = ITEM_BITS + TIME_BITS
ITEM_MASK = 2**ITEM_BITS - 1
MAX_ITEMS = 2**ITEM_BITS
MAX_REQUESTS = 2**TIME_BITS - 2
MAX_COUNT = 2 ** (63 - COUNT_SHIFT) - 1


@compiled
@no_type_check
def count_hits(requests, num_items, hits_at, distinct, policy, segment_length):  # noqa: PLR0912, PLR0917
    """For `requests` (row batch seq item), most important item of a token first, count the repeated requests that find
    their item at each stack position into `hits_at` (row batch position), and the distinct items into `distinct`
    (row batch). All items of a token are looked up before any of them moves."""
    rows, batch, seq, width = requests.shape
    stack = np.empty(num_items, np.int64)
    position = np.empty(num_items, np.int64)
    count = np.empty(num_items, np.int64)  # SCH: uses left in the segment; LFU: uses so far
    next_use = np.empty(num_items, np.int64)
    times = np.empty((seq, width), np.int64)
    for row in range(rows):
        for b in range(batch):
            tokens = requests[row, b]
            depth = 0
            position[:] = -1
            count[:] = 0
            next_use[:] = seq * width
            for t in range(seq - 1, -1, -1):
                for j in range(width - 1, -1, -1):
                    now = t * width + j
                    item = tokens[t, j]
                    times[t, j] = seq * width - next_use[item] if policy == BELADY else now
                    next_use[item] = now
            if policy == SCH:
                for t in range(min(segment_length - 1, seq)):
                    for j in range(width):
                        count[tokens[t, j]] += 1
            for t in range(seq):
                if policy == SCH and t + segment_length <= seq:
                    for j in range(width):  # the last token of the segment comes into sight
                        item = tokens[t + segment_length - 1, j]
                        count[item] += 1
                        if position[item] >= 0:
                            stack[position[item]] += 1 << COUNT_SHIFT
                for j in range(width):
                    found = position[tokens[t, j]]
                    if found >= 0:
                        hits_at[row, b, found] += 1
                for j in range(width):
                    item = tokens[t, j]
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
                    stack[0] = (count[item] << COUNT_SHIFT) | (times[t, j] << ITEM_BITS) | item
                    position[item] = 0
            distinct[row, b] = depth


@compiled
@no_type_check
def count_lru_hits(requests, num_items, hits_at, distinct):
    """`count_hits` for LRU: the position of an item is the number of items used after it."""
    rows, batch, seq, width = requests.shape
    last = np.empty(num_items, np.int64)
    for row in range(rows):
        for b in range(batch):
            tokens = requests[row, b]
            last[:] = -1
            for t in range(seq):
                for j in range(width):
                    used = last[tokens[t, j]]
                    if used >= 0:
                        later = 0
                        for item in range(num_items):
                            later += last[item] > used
                        hits_at[row, b, later] += 1
                for j in range(width):
                    distinct[row, b] += last[tokens[t, j]] < 0
                    last[tokens[t, j]] = t * width + j
