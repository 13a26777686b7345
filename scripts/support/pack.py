"""ComfyUI and this pack's core in one process, for tests and benchmarks."""

from __future__ import annotations

import sys
from pathlib import Path


def load_comfyui(comfyui: Path, cpu: bool = True) -> None:
    """Make `comfy` of this ComfyUI importable beside `framepack_core`, and register the model."""
    sys.path.insert(0, str(comfyui))  # first, because ComfyUI has a module `nodes` and this repository a folder
    from comfy.cli_args import args

    args.cpu = cpu
    from framepack_core.comfyui.model.framepack import register

    register()
