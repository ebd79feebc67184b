"""One pass over a priority stack counts the hits of caches of every capacity at once (Mattson et al. 1970).

With unique eviction keys the cache of capacity C + 1 always holds the cache of capacity C and one item more. So one
stack describes them all: its top C items are the cache of capacity C, and a request for the item at position p (from 0)
hits wherever C > p. A requested item moves to the top; the one it displaces sinks, and at every position the item with
the smaller key sinks on, down to where the requested item came from.

The first TOP positions are walked one by one. Those below are in blocks of RUNS runs of LENGTH positions, and an item
sinks through all runs of a block at once, in vector registers: where a run begins, what sinks is the smallest of all
that lies above. Number i of every run is beside number i of the others in memory.

With LRU the stack is always sorted by last use, so positions can be counted, without a stack.
"""

from typing import no_type_check

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

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

NONE = -1  # smaller than every key
TOP = 8
RUNS, LENGTH = 4, 8
BLOCK = RUNS * LENGTH


@intrinsic
def sink(_context, stack, begin, sinking, item):
    """Let the key `sinking` sink through the block of the `stack` that begins at `begin`, and return the key that sinks
    out of it. It is NONE if `item`, which is taken out, or an empty place was met."""

    def generate(context, builder, signature, args):
        stack, begin, sinking, item = args
        array = context.make_array(signature.args[0])(context, builder, stack)
        number = ir.IntType(64)
        vector = ir.VectorType(number, RUNS)  # one key of each run
        first_run, last_run = ir.IntType(32)(0), ir.IntType(32)(RUNS - 1)

        def choose(vectors, runs):
            return builder.shuffle_vector(*vectors, ir.Constant(ir.VectorType(ir.IntType(32), RUNS), runs))

        def repeated(value):
            one = builder.insert_element(ir.Constant(vector, ir.Undefined), value, first_run)
            return choose((one, one), [0] * RUNS)

        def smaller(x, y):
            return builder.select(builder.icmp_signed("<", x, y), x, y)

        def larger(x, y):
            return builder.select(builder.icmp_signed("<", x, y), y, x)

        def later(x, runs):
            return choose((x, repeated(number(2**63 - 1))), [RUNS] * runs + list(range(RUNS - runs)))

        places, keys = [], []
        for i in range(LENGTH):
            place = builder.gep(array.data, [builder.add(begin, number(i * RUNS))])
            places.append(builder.bitcast(place, vector.as_pointer()))
            key = builder.load(places[-1], align=8)
            taken = builder.icmp_signed("==", builder.and_(key, repeated(number(ITEM_MASK))), repeated(item))
            keys.append(builder.select(taken, repeated(number(NONE)), key))
        smallest = keys  # of each run
        while len(smallest) > 1:
            smallest = [smaller(*pair) for pair in zip(smallest[::2], smallest[1::2], strict=True)]
        up_to_run, runs = smallest[0], 1
        while runs < RUNS:
            up_to_run = smaller(up_to_run, later(up_to_run, runs))
            runs *= 2
        sinks = smaller(later(up_to_run, 1), repeated(sinking))
        for place, key in zip(places, keys, strict=True):
            builder.store(larger(key, sinks), place, align=8)
            sinks = smaller(key, sinks)
        return smaller(builder.extract_element(up_to_run, last_run), sinking)

    return types.int64(stack, types.int64, types.int64, types.int64), generate


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
    top = min(TOP, num_items)
    stack = np.empty(top - (top - num_items) // BLOCK * BLOCK, np.int64)
    place = np.empty(num_items, np.uint64)  # of a position in the stack; unsigned, so numba asks for no sign
    for p in range(num_items):
        block, within = (p - top) // BLOCK * BLOCK, (p - top) % BLOCK
        place[p] = p if p < top else top + block + within % LENGTH * RUNS + within // LENGTH
    position = np.empty(num_items, np.int64)  # below the top, where the item was when the lookup began
    count = np.empty(num_items, np.int64)  # SCH: uses left in the segment; LFU: uses so far
    next_use = np.empty(num_items, np.int64)
    times = np.empty(size, np.int64)
    for row in range(rows):
        for b in range(batch):
            items = requests[row, b]
            depth = 0
            stack[:] = NONE
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
                                stack[place[position[item]]] += 1 << COUNT_SHIFT
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
                                    above += sizes[stack[place[p]] & ITEM_MASK]
                                hits_at[row, b, (above * num_items - 1) // total] += 1
                            elif lookup >= counted[b]:
                                hits_at[row, b, found] += 1
                            if keep:
                                stack[place[found]] |= KEPT
                lowest = top  # of the positions that are out of date
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
                    came_from = min(came_from, top)
                    if came_from > 0:
                        sinking = stack[0]
                        for p in range(1, came_from):  # without branches: which item sinks is hard to predict
                            met = stack[p]
                            stays = met if met > sinking else sinking
                            sinking = sinking if met > sinking else met
                            stack[p] = stays
                            position[stays & ITEM_MASK] = p
                        position[sinking & ITEM_MASK] = came_from
                        if came_from < top:
                            stack[came_from] = sinking
                        else:
                            block = top
                            while sinking != NONE and block < len(stack):
                                sinking = sink(stack, block, sinking, item)
                                block += BLOCK
                            lowest = max(lowest, block)
                    stack[0] = (count[item] << COUNT_SHIFT) | (times[now] << ITEM_BITS) | item
                    if keep:
                        stack[0] |= KEPT
                    position[item] = 0
                for p in range(top, min(lowest, depth)):
                    position[stack[place[p]] & ITEM_MASK] = p
                if keep:
                    for now in range(begin, end):
                        if items[now] >= 0:
                            stack[place[position[items[now]]]] &= ~KEPT
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
