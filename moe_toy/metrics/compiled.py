"""Compile a loop with numba, keeping the machine code on disk where a directory can be written.

Only the kernel files import this one, and they are themselves imported on first use: numba takes half a second.
"""

from collections.abc import Callable
from typing import Any

import numba


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """numba's `njit` of `function`. Every process writes its own temporary file and renames it, so that processes
    may start at once; without a writable cache directory each process compiles for itself."""
    try:
        return numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # numba found no directory to write to
        return numba.njit(nogil=True)(function)
