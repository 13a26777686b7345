"""Large blocks of memory go back to the system as soon as they are freed.

glibc keeps freed blocks of up to 32 MB in its heap. Chunks of frames leave holes there that later ones do not fit into, so the
memory in use would hang on chance and grow with the number of chunks.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

M_MMAP_THRESHOLD = -3  # larger blocks are mapped one by one, outside the heap
LARGE, USUAL = 2**20, 2**25  # bytes; the threshold that glibc settles at by itself when large blocks come and go

try:
    mallopt = ctypes.CDLL(None).mallopt
except (AttributeError, OSError, TypeError):  # not glibc

    def mallopt(parameter: int, value: int) -> None:
        pass


@contextmanager
def large_blocks_returned() -> Iterator[None]:
    mallopt(M_MMAP_THRESHOLD, LARGE)
    try:
        yield
    finally:
        mallopt(M_MMAP_THRESHOLD, USUAL)
