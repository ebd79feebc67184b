"""Keep freed memory instead of returning it to the system after every step."""

import ctypes

# From glibc's malloc.h.
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4
NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let the C library serve large tensors from memory that the process already has.

    By default glibc maps each large block anew and unmaps it when it is freed, so that every training step on a CPU
    faults in its activations again. Returns whether there is such a switch: only glibc has it.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, NEVER))
