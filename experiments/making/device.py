"""Where the demo's models are trained, in which precision, and with how many processes that render beside it."""

from __future__ import annotations

import os

import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
WORKERS = max((os.cpu_count() or 1) - 2, 0) if DEVICE == "cuda" else 0
# A CPU without AVX-512 computes in bfloat16 many times slower than in float32.
BF16 = DEVICE == "cuda" or torch.backends.cpu.get_cpu_capability().startswith("AVX512")


def autocast() -> torch.autocast:
    """Computes in bfloat16 where that is faster."""
    return torch.autocast(DEVICE, torch.bfloat16, enabled=BF16)
