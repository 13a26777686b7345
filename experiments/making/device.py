"""Where the demo's models are trained, and with how many processes that render beside it."""

from __future__ import annotations

import os

import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
WORKERS = max((os.cpu_count() or 1) - 2, 0) if DEVICE == "cuda" else 0
