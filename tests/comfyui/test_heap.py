"""Memory that chunks of frames have freed goes back to the system."""

import ctypes
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from framepack_core.comfyui.decoding import heap
from framepack_core.comfyui.decoding.heap import LARGE, M_MMAP_THRESHOLD, USUAL, large_blocks_returned
from scripts.support.environment import ROOT

FREED = """
import psutil
from framepack_core.comfyui.decoding import heap

heap.mallopt(heap.M_MMAP_THRESHOLD, heap.USUAL)  # where glibc puts it in a process that has used large blocks for a while
with heap.large_blocks_returned():
    blocks = [b"x" * 2**22 for _ in range(50)]
    before = psutil.Process().memory_info().rss
    del blocks[::2]
    print(before - psutil.Process().memory_info().rss)
"""


def has_mallopt() -> bool:
    return isinstance(heap.mallopt, ctypes._CFuncPtr)


@pytest.mark.skipif(not has_mallopt(), reason="only glibc keeps what was freed in a heap that can be told not to")
def test_freed_blocks_between_used_ones_go_back_to_the_system():
    """In a process of its own, because free places that the heap has already are filled first."""
    returned = subprocess.run([sys.executable, "-c", FREED], cwd=ROOT, check=True, capture_output=True, text=True).stdout

    assert int(returned) > 0.8 * 25 * 2**22


@pytest.mark.parametrize("failure", [None, ValueError])
def test_the_rest_of_the_process_keeps_its_heap(monkeypatch, failure):
    calls = []
    monkeypatch.setattr(heap, "mallopt", lambda *call: calls.append(call))

    with expected(failure), large_blocks_returned():
        assert calls == [(M_MMAP_THRESHOLD, LARGE)]
        if failure:
            raise failure

    assert calls[1:] == [(M_MMAP_THRESHOLD, USUAL)]


@contextmanager
def expected(failure: type[Exception] | None) -> Iterator[None]:
    if failure is None:
        yield
    else:
        with pytest.raises(failure):
            yield
