"""ComfyUI and this pack's core in one process, for tests, benchmarks and the doctor."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

ALONE = ("--disable-all-custom-nodes", "--disable-api-nodes", "--verbose", "ERROR")


def load_comfyui(comfyui: Path, cpu: bool = True) -> None:
    """Make `comfy` of this ComfyUI importable beside `framepack_core`, and register the model."""
    sys.path.insert(0, str(comfyui))  # first, because ComfyUI has a module `nodes` and this repository a folder
    from comfy.cli_args import args

    args.cpu = cpu
    from framepack_core.comfyui.model.framepack import register

    register()


def start_comfyui(comfyui: Path, flags: Sequence[str] = ()) -> None:
    """All that ComfyUI's main.py does before its server starts: folders, allocator, attention, dynamic VRAM.

    `flags` are those of its command line. Other custom nodes are left out. Call it before anything imports torch, whose
    allocator ComfyUI chooses. Raises whatever ComfyUI raises, SystemExit included.
    """
    sys.path.insert(0, str(comfyui))
    own, sys.argv = sys.argv, ["main.py", *flags, *ALONE]
    try:
        import comfy.options

        comfy.options.enable_args_parsing()
        import cuda_malloc  # noqa: F401 - sets torch's allocator; main.py leaves that out when it is imported
        import main  # noqa: F401 - ComfyUI's
    finally:
        sys.argv = own
    from framepack_core.comfyui.model.framepack import register

    register()
