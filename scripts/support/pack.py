"""ComfyUI and this pack's core in one process, for tests and benchmarks."""

from __future__ import annotations

import sys
from pathlib import Path


def load_comfyui(comfyui: Path, cpu: bool = True) -> None:
    """Make the `comfy` of this ComfyUI tree importable beside `framepack_core`, and register the model."""
    sys.path.insert(0, str(comfyui))  # first: ComfyUI has a module `nodes`, this repository a folder
    from comfy.cli_args import args

    args.cpu = cpu
    from framepack_core.comfyui.model.framepack import register

    register()
