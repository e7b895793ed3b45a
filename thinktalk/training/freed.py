"""Freed memory is kept: while a CPU learns, each step asks for what the step before gave back.

glibc hands large blocks back to the system when they are freed, and the next step pays for every page of them anew: up to half
the time of a chain of activations, a tenth of a step of nano's Talker. The process stays as large as it once was.
"""

from __future__ import annotations

import ctypes

__all__ = ["keep_freed_memory"]

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # malloc.h
MOST = (1 << 31) - 1


def keep_freed_memory() -> bool:
    """For this process, from now on; False where the C library has no such setting (macOS, Windows, musl)."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):
        return False
    # blocks come from the heap, not from maps of their own, and its top is never given back
    return all([mallopt(MMAP_THRESHOLD, 1 << 30), mallopt(TRIM_THRESHOLD, MOST)])
