"""Damages files in the ways that break parsers, and asks a reader to read them."""

import random
import re
import resource
import signal
import struct
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

from moe_toy.checks.mistakes import causes
from moe_toy.errors import UserError

EXTRA_MEMORY = 3 * 2**30  # a page of parquet can claim 2 GB, for which pyarrow makes room before it unpacks
SECONDS = 10
HUGE = [2**31 - 1, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1, 0]


def mutate(seed: bytes, draw: random.Random) -> bytes:
    data = bytearray(seed)
    for _ in range(draw.choice([1, 1, 1, 2, 8])):
        at = draw.randrange(len(data)) if data else 0
        kind = draw.randrange(6)
        if kind == 0 and data:
            data[at] ^= 1 << draw.randrange(8)
        elif kind == 1:
            del data[at:]
        elif kind == 2:
            del data[at : at + draw.randrange(1, 40)]
        elif kind == 3:
            data[at:at] = draw.randbytes(draw.randrange(1, 40))
        elif kind == 4:  # a count or an offset
            number = struct.pack("<Q", draw.choice(HUGE))[: draw.choice([4, 8])]
            data[at : at + len(number)] = number
        else:
            start = draw.randrange(len(data)) if data else 0
            data[at:at] = data[start : start + draw.randrange(1, 200)]
    return bytes(data)


class TooSlowError(BaseException):
    """Not an `Exception`, so that no reader takes it for a fault of the file."""


@contextmanager
def bounds():
    """Little more memory than now, and a few seconds."""

    def give_up(*_):
        raise TooSlowError

    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    handler = signal.signal(signal.SIGALRM, give_up)
    resource.setrlimit(resource.RLIMIT_AS, (used + EXTRA_MEMORY, before[1]))
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)
        resource.setrlimit(resource.RLIMIT_AS, before)


def finding(read: Callable[[Path], object], path: Path) -> BaseException | None:
    """What a reader raises that is not a `UserError` in one line, or why it took too much memory: a bug."""
    try:
        with bounds():
            read(path)
    except UserError as error:
        return error if "\n" in str(error) else next(filter(is_out_of_memory, causes(error)), None)
    except (Exception, TooSlowError) as error:
        return error
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Also as torch and the system put it. A reader must refuse a size before it asks for so much."""
    return isinstance(error, MemoryError) or bool(re.search(r"allocate memory|bad_alloc|malloc", str(error)))
