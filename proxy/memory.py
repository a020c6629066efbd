"""What the C library does with memory that is freed."""

from __future__ import annotations

KEPT_BYTES = 4 * 1024 * 1024
"""How much freed memory at the end of the heap is kept."""
LARGEST_BYTES = 1024 * 1024
"""Blocks of more than that still come from the kernel and go back there."""

# glibc's malloc.h
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3


def keep_freed_memory() -> bool:
    """Keep a few freed MiB rather than give them back; return whether the C library can do that.

    A segment of a large body is a quarter of a MiB, and so is what becomes of it under TLS.  By
    itself glibc returns such blocks to the kernel and asks for them again with the next segment,
    where each of their pages is a fault: two thirds of the kernel's time for an upload.  See
    mallopt(3); musl, macOS and Windows have nothing like it.
    """
    try:
        import ctypes  # noqa: PLC0415 (3 ms at the start)

        mallopt = ctypes.CDLL(None).mallopt
    except (ImportError, OSError, AttributeError, TypeError):
        return False
    return bool(
        mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES) and mallopt(_M_MMAP_THRESHOLD, LARGEST_BYTES)
    )
